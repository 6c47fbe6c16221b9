"""A site's own folder: its settings, its records, its log, and every body that ever left it."""

import fcntl
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fedkd.audit import Log, make_keys
from fedkd.audit.locking import expect_opened, read_secret, write_secret
from fedkd.data import Card, Records
from fedkd.federation.durable import (
    read_arrays,
    read_json,
    write_arrays,
    write_bytes,
    write_json,
)
from fedkd.federation.exchange import Exchange
from fedkd.federation.excluded import read_excluded, without
from fedkd.knowledge import (
    Array,
    BadInput,
    Digest,
    OtherFormat,
    Space,
    WrongDigest,
    digest_of_bytes,
)
from fedkd.knowledge.digests import little_endian
from fedkd.privacy import PublicFacts

Spec: TypeAlias = Mapping[str, Any]
"""A part as a local yaml names it: `_target_` and keys."""
Build: TypeAlias = Callable[[Spec], Any]
"""Makes the part that a spec names. Only specs from the site's own disk are ever built."""

FORMAT = 1
SEED = "seed"
TURN = ".turn"
PATIENTS = "patients.json"
"""What the source calls the patients, by code; it stays at home."""


@dataclass(frozen=True, slots=True)
class Accepts:
    """What a site agrees to: the last word is the site's, whatever a question asks for."""

    losses: Mapping[str, Spec]
    codecs: Mapping[str, Spec]
    most_epochs: int = 10_000
    most_queries: int = 1_000_000
    most_rounds: int = 10_000
    most_batch: int = 100_000
    most_loss_weight: float = 1_000.0
    most_temperature: float = 1_000.0
    models: Mapping[str, Spec] = field(default_factory=dict)
    """Kinds of model that may be evaluated here, once somebody has placed one."""
    most_evaluation_epsilon: float = 4.0
    floor: int = 5
    """Counts whose noised number is below it are withheld."""
    groups: Sequence[str] = ()
    """Columns by whose categories the data protection officer lets counts be apart."""


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """What a site is: everything that a participant needs beside its records.

    `seed` belongs to a rehearsal, and to nothing else: `BadInput` otherwise. A site that is none
    is given no `epsilon` and `delta` either: its officer's signed paper says them.
    """

    name: str
    seed: int | None
    population: str
    rehearsal: bool
    model_name: str
    model: Spec
    space: Space
    card: Card
    training: Mapping[str, Any]
    mechanism: Spec
    gate: Spec
    accepts: Accepts
    generators: Mapping[str, Spec] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    epsilon: float | None = None
    delta: float | None = None
    plan_epsilon: float | None = None
    mldsa: bool = False

    def __post_init__(self) -> None:
        if self.rehearsal and self.seed is None:
            raise BadInput(f"no seed for {self.name}", "one: it is a rehearsal")
        if not self.rehearsal and self.seed is not None:
            raise BadInput(
                f"the seed {self.seed} for {self.name}",
                "none, because it is no rehearsal: whoever knows a seed takes its noise off again",
                "leave seed out; noise comes from the operating system",
            )
        if not self.rehearsal and (self.epsilon, self.delta) != (None, None):
            raise BadInput(
                f"epsilon {self.epsilon} and delta {self.delta} for {self.name}",
                "neither, because it is no rehearsal: its officer's signed paper says them",
                "see fedkd privacy budget new --help",
            )

    @property
    def dataset(self) -> str:
        """What the site's records are called in the logs."""
        return f"{self.name}/{self.card.name}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for `site.json`."""
        return {**asdict(self), "space": self.space.to_json(), "format": FORMAT}

    @staticmethod
    def from_json(kept: dict[str, Any]) -> "SiteSettings":
        """What `to_json` wrote; `BadInput` for a folder of another format."""
        found = kept.pop("format", None)
        if found != FORMAT:
            raise OtherFormat("a site folder", found, FORMAT)
        kept["space"] = Space.from_json(kept["space"])
        kept["card"] = Card(**kept["card"])
        kept["accepts"] = Accepts(**kept["accepts"])
        return SiteSettings(**kept)


class SiteFolder:
    """Where a site's state lives; all of it stays at home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.outbox = folder / "outbox"
        self.taught = Exchange(folder / "taught")

    def settings(self) -> SiteSettings:
        """The site's settings; `BadInput` where the folder is none of a site."""
        path = self.folder / "site.json"
        if not path.exists():
            raise BadInput(f"no site.json in {self.folder}", "the folder of a site")
        return SiteSettings.from_json(read_json(path))

    def log(self, party: str) -> Log:
        """The site's log."""
        return Log(self.folder / "log.sqlite", party)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One process at a time takes a turn here: two could spend the same budget twice.

        `BadInput` in a locked folder without its passphrase: nothing is half done.
        """
        expect_opened(self.folder)
        with (self.folder / TURN).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def wait_for_turn(self, waits: Callable[[], None]) -> None:
        """Returns once the turn that is taken here now, if any, has ended; `waits` is told of it.

        Nothing is made in the folder, and no passphrase asked for.
        """
        try:
            file = (self.folder / TURN).open("rb")
        except FileNotFoundError:  # nobody took a turn yet
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(file, fcntl.LOCK_EX)

    def train(self) -> Records:
        """The records that the site's model learns from: without patients who were taken out."""
        return without(self._records("train"), read_excluded(self.folder))

    def validation(self) -> Records:
        """The records by which the site judges its own model; as `train`."""
        return without(self._records("validation"), read_excluded(self.folder))

    def everyone(self) -> Records:
        """What `train` was before anybody was taken out: n is public, and stays."""
        return self._records("train")

    def patient_names(self) -> Mapping[str, str]:
        """What the source calls the patients, by code as text; empty where it names none."""
        path = self.folder / PATIENTS
        named: Mapping[str, str] = read_json(path) if path.exists() else {}
        return named

    def parts(self) -> tuple[Records, Records]:
        """Records for training and for validation, everybody's."""
        return self._records("train"), self._records("validation")

    def patients_to_learn_from(self) -> int:
        """How many patients `train` has: it stays at home, as does how many were taken out."""
        return patients_in(self.train())

    def facts(self, classes: int) -> PublicFacts:
        """What of the site's training records is public; the same whoever is taken out."""
        return facts_of(self.everyone(), classes)

    def seed(self, settings: SiteSettings) -> int:
        """What the site's own streams begin with: a rehearsal's seed, else drawn once and kept.

        It stays at home. No noise that protects anybody is made of it.
        """
        if settings.seed is not None:
            return settings.seed
        path = self.folder / SEED
        if not path.exists():
            write_bytes(path, f"{secrets.randbits(64)}\n".encode())
        return int(path.read_text())

    def _records(self, part: str) -> Records:
        path = self.folder / f"{part}.npz"
        there = path.stat()  # whoever replaces the file gets another number of it
        return _records_of(path, there.st_ino, there.st_mtime_ns, there.st_size)

    def keep_outgoing(self, body: bytes) -> Digest:
        """Keeps a body that is about to leave; returns its digest."""
        digest = digest_of_bytes(body)
        path = self.outgoing_path(digest)
        if not path.exists():
            write_bytes(path, body)
        return digest

    def keep_cover(self, body: bytes, cover: bytes) -> bytes:
        """The letter that leaves: `body`, which is kept, behind an envelope, which is kept too."""
        digest, named = digest_of_bytes(body), digest_of_bytes(cover)
        path = self.outgoing_path(digest).with_suffix(f".{named[-16:]}.envelope")
        if not path.exists():
            write_bytes(path, cover)
        return cover + body

    def outgoing(self, digest: str) -> bytes:
        """The kept body named `digest`, to be sent once more; `WrongDigest` if it was changed."""
        body = self.outgoing_path(digest).read_bytes()
        if digest_of_bytes(body) != digest:
            raise WrongDigest("found another body in the outbox than the one that left")
        return body

    def outgoing_path(self, digest: str) -> Path:
        """Where the outgoing body named `digest` is kept."""
        return self.outbox / f"{digest.removeprefix('sha256:')}.bin"


@lru_cache(maxsize=4)
def _records_of(path: Path, *stamp: int) -> Records:
    """The records in a file, read once for as long as it is the same: for a site that stays up."""
    kept = read_arrays(path)
    return Records(kept["inputs"], kept["labels"], kept.get("patients"))


def facts_of(records: Records, classes: int) -> PublicFacts:
    """What of a site's training records is public: how many patients there are."""
    named = records.patients is not None
    return PublicFacts(patients=max(1, patients_in(records)), classes=classes, named=named)


def patients_in(records: Records) -> int:
    """How many patients there are; where none are known, each record is one."""
    return len(records) if records.patients is None else len(np.unique(records.patients))


def found_site(
    folder: Path,
    settings: SiteSettings,
    train: Records,
    validation: Records,
    opening: Mapping[str, Any] | None = None,
    patients: Sequence[str] = (),
) -> SiteFolder:
    """Makes a site's folder and opens its log: what records it has, and what it may spend.

    `opening` is the opening record of a rehearsal's budget; without one the budget is open. A
    site that is no rehearsal has none until its officer's paper is installed. `patients` are
    what the source calls those whom `Records.patients` has codes for, by code; the site keeps
    its own patients' names, to be able to take one out.
    """
    if opening is None:
        opening = {"population": settings.population, "epsilon": None, "delta": None}
        opening = {**opening, "rehearsal": settings.rehearsal}
    site = SiteFolder(folder)
    for directory in (folder, site.models, site.outbox, site.taught.folder):
        directory.mkdir(parents=True, exist_ok=True)
    _check_unlike(site, settings, train, validation)
    for part, records in (("train", train), ("validation", validation)):
        write_arrays(folder / f"{part}.npz", _arrays_of(records))
    if patients and train.patients is not None and validation.patients is not None:
        codes = {*train.patients.tolist(), *validation.patients.tolist()}
        here = {str(code): patients[code] for code in sorted(codes) if code < len(patients)}
        write_json(folder / PATIENTS, here)
    key_path = folder / "commitment.key"
    if not key_path.exists():
        write_secret(key_path, secrets.token_bytes(32))
    commitment = _commitment(read_secret(key_path), train, validation)
    make_keys(folder, settings.name, rehearsal=settings.rehearsal, mldsa=settings.mldsa)
    with site.log(settings.name) as log:
        opened = {"party": settings.name, "format": FORMAT, "rehearsal": settings.rehearsal}
        log.append("log.opened", "log.opened", opened)
        log.append(
            f"dataset/{commitment}",
            "dataset.registered",
            {
                "id": settings.dataset,
                "role": "training",
                "card": settings.card.to_json(),
                "commitment": commitment,
                "records": {"train": len(train), "validation": len(validation)},
                "rehearsal": settings.rehearsal,
            },
        )
        budget = f"budget/{settings.population}"
        # Opened once, whatever is planned; and where it is no rehearsal, by the officer's paper.
        if settings.rehearsal and log.entry(budget) is None:
            log.append(budget, "budget.opened", opening)
    write_json(folder / "site.json", settings.to_json())  # last: a folder without it is no site
    return site


def _check_unlike(
    site: SiteFolder, settings: SiteSettings, train: Records, validation: Records
) -> None:
    """A lasting folder is a hospital: what it holds is never written over by another run's."""
    if not (site.folder / "site.json").exists():
        return
    found = site.settings()
    limits = (found.population, found.epsilon, found.delta)
    same_budget = limits == (settings.population, settings.epsilon, settings.delta)
    given = (train, validation)
    alike = [_same(old, new) for old, new in zip(site.parts(), given, strict=True)]
    if not all(alike) or not same_budget:
        what = "another budget" if all(alike) else "other records"
        raise BadInput(
            f"{site.folder}, a site that was founded with {what}",
            "an empty folder, or the site of the same records and budget",
            "give the data, seed and budget that it was founded with; other patients have another "
            "sites.dir",
        )
    if found.card != settings.card:  # the same patients, whatever the file is called now
        raise BadInput(
            f"{settings.card.name}, {settings.card.origin}, for {site.folder}, whose same records "
            f"are registered as {found.card.name}, {found.card.origin}",
            "the data as they were first registered",
            "a budget is the patients', not a file's: give the file under its first name",
        )


def _same(old: Records, new: Records) -> bool:
    old_arrays, new_arrays = _arrays_of(old), _arrays_of(new)
    return set(old_arrays) == set(new_arrays) and all(
        np.array_equal(old_arrays[name], new_arrays[name]) for name in old_arrays
    )


def _arrays_of(records: Records) -> dict[str, Array]:
    arrays = {"inputs": records.inputs, "labels": records.labels}
    return arrays if records.patients is None else {**arrays, "patients": records.patients}


def _commitment(key: bytes, *parts: Records) -> str:
    # Keyed: a plain hash of few records could be found by trying records.
    arrays: list[Array] = [array for part in parts for array in (part.inputs, part.labels)]
    state = hmac.new(key, digestmod=hashlib.sha256)
    for array in arrays:
        state.update(repr((array.dtype.str, array.shape)).encode())
        state.update(little_endian(array).tobytes())
    return "hmac-sha256:" + state.hexdigest()
