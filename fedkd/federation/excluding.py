"""Takes patients out of a site's records for all future training, and names what came before."""

import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fedkd.audit import Log
from fedkd.audit.locking import read_secret
from fedkd.data import Records
from fedkd.federation.drawing import forget_all
from fedkd.federation.excluded import identities, read_excluded, write_excluded
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput, digest_of_bytes

MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Excluded:
    """What became of a wish to be taken out.

    `new` ids are out since now, `before` were out already, `absent` have no record here; `rows`
    counts the records of the new ones. `models` and `runs` are what the site's log says learnt
    from them earlier. `entry` is the place of the log's entry, None where nothing was new.
    """

    new: tuple[str, ...]
    before: tuple[str, ...]
    absent: tuple[str, ...]
    rows: int
    models: tuple[str, ...]
    runs: tuple[str, ...]
    entry: int | None


def exclude(
    site: SiteFolder, ids: Sequence[str], reason: str, *, may_be_absent: bool = False
) -> Excluded:
    """Takes the records of `ids` out of training, validation and counts from now on, durably.

    n, which is public, stays as it was: prices do not change, nor do refusals, unless a hospital's
    policy wants more patients to learn from than are left, or a private training was cut off and
    waits. That one is never done again, whatever comes of the wish, whose patient may have no
    record here: its refusal tells that there was a wish, and nothing of whose records there are.

    Where the site knows patients an id is the one that its source gave (rows without a patient
    have none, and stay); else it is a record's number, counted from 1 over training and
    validation. `BadInput` for an id without a record here, unless absent ones are allowed. The log
    gets keyed commitments to the ids, and no id.
    """
    wanted = tuple(dict.fromkeys(one.strip() for one in ids if one.strip()))
    if not wanted:
        raise BadInput("no id", "the ids of patients to be taken out")
    settings = site.settings()
    with site.turn(), site.log(settings.name) as log:
        forget_all(site.folder)  # before anybody is looked up: it depends on nobody
        whose = _whose(site)
        absent = tuple(one for one in wanted if one not in whose)
        if absent and not may_be_absent:
            shown = ", ".join(absent[:MOST_SHOWN]) + (", ..." if len(absent) > MOST_SHOWN else "")
            raise BadInput(
                f"{len(absent)} of {len(wanted)} ids without a record here: {shown}",
                _expected(whose, site),
                "nobody was taken out; with --ids-may-be-absent the others are",
            )
        present = [one for one in wanted if one in whose]
        said = _withdrawn(log)
        key = read_secret(site.folder / "commitment.key")
        bound = {one: _commitment(key, settings.dataset, whose[one]) for one in present}
        new = tuple(one for one in present if bound[one] not in said)
        # First the records, then the entry: a crash in between leaves nobody in by mistake, and
        # the same command again writes the entry.
        out = read_excluded(site.folder) | {whose[one] for one in present}
        write_excluded(site.folder, out)
        models, runs = _before(log, settings.dataset)
        place = None
        if new:
            commitments = sorted(bound[one] for one in new)
            named = digest_of_bytes("\n".join(commitments).encode())
            body = {
                "id": settings.dataset,
                "reason": reason,
                "patients": commitments,
                "from": "all training and counting after this entry",
                "models_before": list(models),
                "runs_before": list(runs),
            }
            place = log.append(f"withdrawn/{named}", "dataset.withdrawn", body).index
    taken = {whose[one] for one in new}
    rows = sum(it in taken for part in site.parts() for it in identities(part))
    before = tuple(one for one in present if one not in new)
    return Excluded(new, before, absent, rows, models, runs, place)


def keep_out(site: SiteFolder, dataset: str, log: Log) -> None:
    """Takes out again whom the log says was taken out: the list in the folder may be an old one."""
    said = _withdrawn(log)
    if not said:
        return
    key, out = read_secret(site.folder / "commitment.key"), read_excluded(site.folder)
    everybody = {one for part in site.parts() for one in identities(part)}
    lacking = {one for one in everybody - out if _commitment(key, dataset, one) in said}
    if lacking:
        write_excluded(site.folder, out | lacking)


def _withdrawn(log: Log) -> set[str]:
    return {it for entry in log.entries("dataset.withdrawn") for it in entry.body["patients"]}


def _whose(site: SiteFolder) -> dict[str, str]:
    """Each id that this site knows, and the identity of the records under it."""
    parts = site.parts()
    if any(part.patients is None for part in parts):
        return {str(number): one for number, one in enumerate(_all(parts), start=1)}
    names = site.patient_names()
    codes = {one.removeprefix("patient ") for one in _all(parts)}
    if names:  # a row without a patient has a code and no id: its code may be somebody's id
        return {names[code]: f"patient {code}" for code in codes & names.keys()}
    return {code: f"patient {code}" for code in codes}


def _all(parts: Sequence[Records]) -> Iterator[str]:
    for part in parts:
        yield from identities(part)


def _expected(whose: Mapping[str, str], site: SiteFolder) -> str:
    if any(part.patients is None for part in site.parts()):
        return (
            f"numbers of records from 1 to {len(whose)}, since no patient column was named: "
            "training records first, then those for validation"
        )
    return "ids as the hospital's own table has them in its patient column"


def _commitment(key: bytes, dataset: str, identity: str) -> str:
    # Keyed: ids are few enough that a plain hash of one is the id.
    message = f"withdrawn\n{dataset}\n{identity}".encode()
    return "hmac-sha256:" + hmac.new(key, message, sha256).hexdigest()


def _before(log: Log, dataset: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the log says was trained on `dataset`, and the runs whose students learnt from it."""
    trained = [_said(entry.said) for entry in log.entries("train.local")]
    models = dict.fromkeys(
        body["output"] for body in trained if body and dataset in body.get("inputs", ())
    )
    answered = [_said(entry.said) for entry in log.entries("release.outputs")]
    runs = dict.fromkeys(body["run"] for body in answered if body)
    return tuple(models), tuple(runs)


def _said(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if body is None else body
