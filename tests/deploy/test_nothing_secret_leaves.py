"""Secrets are planted all over hospitals, and looked for in every byte that left their services.

Real services behind their sockets, real letterboxes in front, the server's own app; a rehearsal and
a run in which parts fail, log, print and raise, with everything that is asked wrongly afterwards.
"""

import base64
import random
import string
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.common.serde import message_to_proto

from fedkd.cli.deployed import DeployedRun
from fedkd.deploy.approving import rule
from fedkd.deploy.consent import Shelf
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.letterbox import Letterbox
from fedkd.deploy.metrics import text_of
from fedkd.deploy.preparing import Whose, prepare_letterbox
from fedkd.deploy.site_metrics import site_metrics
from fedkd.deploy.socket import Frame, Kind, connected, receive, request
from fedkd.federation.durable import read_arrays, read_json, write_json
from fedkd.federation.flower.pinned import CLOSED_TEXT
from fedkd.wire import Evaluation, Proposal, Reason, RollCall, decode, encode, opened
from tests.deploy.federated import SITES, Federated, FederatedGrid, table, taken_in
from tests.deploy.services import SECONDS, Service, services

pytestmark = pytest.mark.deploy
LETTERS = 24
WINDOW = 12
"""So many letters of a secret in a row are one that left: also a text that was cut."""
PLACES = (
    "exception", "class", "cause", "argument", "exit", "logged", "warned", "printed", "folder",
    "file", "column", "patient", "officer", "person", "declined", "broken_log",
)  # fmt: skip
DRAWN = random.SystemRandom()
SECRETS = {
    place: "".join(DRAWN.choice(string.ascii_lowercase) for _ in range(LETTERS)) for place in PLACES
}
PART = """
import logging, sys, warnings
from fedkd.distill.models.logistic import logistic
from fedkd.privacy.mechanisms.none import none

SECRETS = {secrets!r}
Named = type(SECRETS["class"], (Exception,), {{}})


class Raising:
    architecture = "of the hospital's own"
    def weights(self): return None
    def probs(self, inputs): raise Named(SECRETS["exception"], inputs)
    def fit(self, records, lesson, plan, rng):
        try:
            open("/" + SECRETS["cause"])
        except OSError as error:
            said = f"{{SECRETS['exception']}} in {{records.inputs[:3]}}"
            raise Named(said, SECRETS["argument"]) from error


def raising(space, rng):
    return Raising()


def telling(space, rng):
    logging.getLogger("flwr").error(SECRETS["logged"])
    logging.getLogger("fedkd.service").warning(SECRETS["logged"])
    warnings.warn(SECRETS["warned"])
    print(SECRETS["printed"], flush=True)
    print(SECRETS["printed"], file=sys.stderr, flush=True)
    return logistic(space, rng)


def leaving():
    def release(said, plan, noise):
        sys.exit(SECRETS["exit"])
    return none()._replace(release=release)
"""
TELLING = {"model": {"_target_": "planted.telling"}}
RUNS = {"east": {"model": {"_target_": "planted.raising"}}, "north": TELLING, "west": TELLING}
REHEARSES = {**RUNS, "east": TELLING, "west": {"mechanism": {"_target_": "planted.leaving"}}}
"""What one hospital in the run, and one in the rehearsal, cannot do; two have to answer."""


def forms(secret: str) -> Iterator[bytes]:
    """How a run of a secret's letters may be spelled in bytes."""
    for start in range(len(secret) - WINDOW + 1):
        cut = secret[start : start + WINDOW]
        for raw in (
            cut.encode(),
            cut.encode("utf-16-le"),
            cut.encode("utf-32-le"),
            cut[::-1].encode(),
        ):
            yield raw
            yield raw.hex().encode()
            for shift in range(3):  # base64 spells what stands in the middle in three ways
                coded = base64.b64encode(bytes(shift) + raw)
                yield coded[4:-4]


FORMS = {place: sorted(set(forms(secret))) for place, secret in SECRETS.items()}


def found_in(left: bytes, places: Iterable[str] = PLACES) -> set[str]:
    """Those of `places` whose secrets are in bytes that left."""
    spelled = (left, left.lower(), left.replace(b"\0", b""))
    return {
        place
        for place in places
        if any(form in bytes_ for form in FORMS[place] for bytes_ in spelled)
    }


class Planted(Service):
    """A service whose hospital has code of its own."""

    def command(self) -> list[str]:
        code = (
            "import sys; sys.path.append(sys.argv.pop(1)); "
            "from fedkd.deploy.service import main; sys.exit(main())"
        )
        folder = str(self.log.parent)
        return [sys.executable, "-I", "-c", code, folder, str(self.hospital.folder)]


@dataclass
class Left:
    """Everything that left, by how, and the federation that it left."""

    federated: Federated
    running: dict[str, Service]
    boxes: dict[str, Letterbox]
    bodies: list[tuple[str, bytes]] = field(default_factory=list)

    def post(self, site: str, letter: bytes | None, *, allowed: bool = True) -> bytes:
        """What the letterbox of a site says to a letter."""
        reply = self.boxes[site].post(letter, allowed)
        self.bodies.append((f"the letterbox of {site}", reply))
        return reply

    def frame(self, site: str, sent: bytes) -> None:
        """Takes what the socket of a site says to these bytes."""
        with connected(self.running[site].hospital.socket) as connection:
            connection.settimeout(SECONDS)
            connection.sendall(sent)
            reply = receive(connection)
        assert reply is not None
        self.bodies.append((f"the socket of {site}", reply.to_bytes()))

    def all(self) -> Iterator[tuple[str, bytes]]:
        """What was heard, what the letterboxes kept, and what they and metrics say."""
        yield from self.bodies
        for site, box in self.boxes.items():
            for path in (box.folder / "outbox").iterdir():
                yield f"the outbox of {site}", path.read_bytes() + path.name.encode()
            yield f"the figures of {site}", text_of(site_metrics(box.folder)).encode()
        for path in sorted(self.federated.server.folder.rglob("*")):
            if path.is_file():
                yield f"{path.name} at the coordinator", path.read_bytes()


class BoxedGrid(FederatedGrid):
    """The in-process grid; letters go through letterboxes, and each of Flower's replies is kept."""

    def __init__(self, left: Left) -> None:
        super().__init__(left.federated)
        self.left = left
        self.desks = {site: _Box(left, site) for site in left.running}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = super().pull_messages(message_ids)
        for reply in replies:
            self.left.bodies.append(("Flower", message_to_proto(reply).SerializeToString()))
        return replies


class _Box:
    def __init__(self, left: Left, site: str) -> None:
        self._left, self._site = left, site

    def handle(self, letter: bytes) -> bytes:
        return self._left.post(self._site, letter)


def hospitals(folder: Path) -> Federated:
    """Three hospitals whose names for things, people and folders are secrets."""
    rows = {
        site: [
            {**row, "patient": f"{SECRETS['patient']}{number}"}
            for number, row in enumerate(table())
            if row["clinic"] == site
        ]
        for site in SITES
    }
    made = Federated.made(
        folder, rows, own_name=lambda name: f"{SECRETS['column']}_{name}", patient="patient",
        officer_name=f"Ada {SECRETS['officer']}",
    )  # fmt: skip
    (folder / "planted.py").write_text(PART.format(secrets=SECRETS))
    for site, hospital in made.hospitals.items():
        moved = Hospital(folder / f"{site}-{SECRETS['folder']}")
        hospital.folder.rename(moved.folder)
        (moved.folder / "records.csv").rename(moved.folder / f"{SECRETS['file']}.csv")
        typed = moved.site_yaml.read_text().replace("records.csv", f"{SECRETS['file']}.csv")
        moved.site_yaml.write_text(typed)
        for each, parts in ((moved.site, RUNS[site]), (moved.rehearsal, REHEARSES[site])):
            write_json(each / "site.json", {**read_json(each / "site.json"), **parts})
        prepare_letterbox(moved, Whose())
        made.hospitals[site] = moved
    return made


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    """Everything that left in a rehearsal, in a run, and in what was asked wrongly after them."""
    folder = tmp_path_factory.mktemp("planted") / "all"
    federated = hospitals(folder)
    sys.path.append(str(folder))
    try:
        with services(federated, Planted) as running:
            boxes = {site: Letterbox.at(it.letterbox) for site, it in federated.hospitals.items()}
            made = Left(federated, running, boxes)
            federated.conducted(proposed(made, rehearsal=True), BoxedGrid(made))
            run = proposed(made)
            approve(made, run)
            federated.conducted(run, BoxedGrid(made))
            ask_wrongly(made, run)
            yield made
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("planted", None)


def proposed(made: Left, *, rehearsal: bool = False) -> DeployedRun:
    return made.federated.proposed(rehearsal=rehearsal)


def approve(made: Left, run: DeployedRun) -> None:
    """A person with a secret name says yes everywhere, and at one hospital no and yes again."""
    taken_in(made.federated, run)
    by = f"Bo {SECRETS['person']}"
    for hospital in made.federated.hospitals.values():
        proposal = Shelf(hospital).read(run.proposal().digest)
        for decline in (SECRETS["declined"], None):
            rule(hospital, proposal, made.federated.build, by=by, decline=decline)


def ask_wrongly(made: Left, run: DeployedRun) -> None:
    """What no server asks, at every hospital; then of one whose log was broken."""
    about = "sha256:" + "a" * 64
    body, signature = run.paper()
    forged = Proposal(run.id, np.frombuffer(body + b" ", np.uint8), signature)
    unknown = RollCall("no-such-run")
    letters = [None, b"", b"fedkd/9\n", encode(RollCall(run.id))[:-3], encode(unknown),
               encode(Evaluation(run.id, 1, about, (0.5,), None, 1.0)), encode(forged)]  # fmt: skip
    for site in made.running:
        for letter in letters:
            made.post(site, letter)
        made.post(site, encode(unknown), allowed=False)
        hostile = b"fks1\x07" + bytes(8)
        tell = Frame(Kind.TELL, b"bundle").to_bytes()
        for sent in (Frame(Kind.STATUS).to_bytes(), Frame(Kind.FIGURES).to_bytes(), hostile, tell):
            made.frame(site, sent)
        paused = made.running[site].hospital.paused
        paused.write_text(SECRETS["person"])
        made.post(site, encode(RollCall(run.id)))
        paused.unlink()
    north = made.running["north"]
    (north.hospital.site / "log.sqlite").rename(north.hospital.site / "log.aside")
    (north.hospital.site / "log.sqlite").write_text(SECRETS["broken_log"] * 400)
    reply = decode(opened(made.post("north", encode(RollCall(run.id))))[1], 1 << 16)
    assert reply.reason is Reason.FAILED
    for kind in (Kind.STATUS, Kind.FIGURES, Kind.ANSWER):
        made.bodies.append(
            ("a broken site", request(north.hospital.socket, Frame(kind)).to_bytes())
        )
    (north.hospital.site / "log.aside").replace(north.hospital.site / "log.sqlite")


def test_what_flower_says_of_an_exception_is_one_fixed_text() -> None:
    """Also of one outside of our code, such as a connection that ends in the middle of a task."""
    code = (
        "import sys\nfrom fedkd.federation.flower import pinned\n"
        "try: pinned.take_task(['--no-such-word'], lambda it: True, lambda *it: b'', 1)\n"
        "except SystemExit: print(pinned.runtime.Error(code=1, reason=sys.argv[1]).reason)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, SECRETS["exception"]],
        capture_output=True, text=True, check=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.stdout.strip() == CLOSED_TEXT
    assert not found_in(done.stdout.encode())


@pytest.mark.parametrize("place", PLACES)
def test_the_search_finds_a_secret_in_whatever_form(place: str) -> None:
    secret = f"Error: {SECRETS[place]}!"
    for spelled in (
        secret.encode(), secret.upper().encode(), secret.encode("utf-16"),
        secret.encode().hex().encode(),
        base64.b64encode(secret.encode()), base64.b64encode(b"ab" + secret.encode("utf-16-le")),
        secret[: 7 + WINDOW].encode(), secret.encode("utf-16-be"),
    ):  # fmt: skip
        assert found_in(b"\x00\xff" + spelled + b"{}") == {place}
    assert not found_in(secret.encode()[: 6 + WINDOW])


def test_every_secret_was_where_it_could_have_left_from(left: Left) -> None:
    """What a law does not plant it cannot find: each is at home, in files or in what was said."""
    home = b"".join(
        path.read_bytes() + str(path).encode()
        for path in left.federated.server.folder.parent.rglob("*")
        if path.is_file() and left.federated.server.folder not in path.parents
        if path.name not in ("planted.py", "log.aside") and path.suffix != ".pyc"
    )
    missing = set(PLACES) - found_in(home)
    assert missing == {"broken_log"}  # it was there while the site was asked


def test_the_parts_failed_and_the_run_went_on(left: Left) -> None:
    east, west = left.federated.hospitals["east"], left.federated.hospitals["west"]
    assert SECRETS["exception"] in (east.site / "errors.txt").read_text()
    assert SECRETS["exit"] in (west.rehearsal / "errors.txt").read_text()
    log = left.running["north"].log.read_text()
    assert SECRETS["logged"] in log
    assert SECRETS["warned"] in log
    assert SECRETS["printed"] in log


def test_no_secret_is_in_any_byte_that_left(left: Left) -> None:
    everything = list(left.all())
    kinds = {where.split()[1] for where, _ in everything if where.startswith("the ")}
    assert kinds == {"letterbox", "socket", "outbox", "figures"}
    assert sum(where == "Flower" for where, _ in everything) > 20
    leaks = {(where, place) for where, body in everything for place in found_in(body)}
    leaks |= {(where, "traceback") for where, body in everything if b"raceback" in body}
    assert leaks == set()


def test_no_row_of_a_record_is_in_any_byte_that_left(left: Left) -> None:
    everything = b"\xff\xff\xff".join(body for _, body in left.all())
    for hospital in left.federated.hospitals.values():
        inputs = read_arrays(hospital.site / "train.npz")["inputs"]
        assert len(inputs) > 40
        for row in inputs:
            for spelled in (row.astype("<f4"), row.astype("<f8")):
                assert spelled.tobytes() not in everything
