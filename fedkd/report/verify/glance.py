"""What a reader asks first, read from the bodies: data, privacy, quality, lineage, traffic.

Every value comes with the entry that it stands in. A body of another shape is passed over, never
guessed at: what is not there is not stated.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from fedkd.audit.verify import CannotTell, Refuted
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.lineage import card_of, stated
from fedkd.audit.verify.refusals import ODD
from fedkd.report.verify.evidence import Evidence, Told
from fedkd.report.verify.origins import told_in_bands
from fedkd.report.verify.shares import Interval, wilson
from fedkd.report.verify.values import Absent, KeptBack, computed, pointed

REPRODUCIBLE: Final = "reproducible, not private"


class DataSet(NamedTuple):
    """A registered data set: what its card says, and how many records it holds, where told."""

    entry: Told
    id: str
    role: str
    card: Mapping[str, str]
    records: Mapping[str, int | str]

    @property
    def size(self) -> str:
        """The number of records in words; in bands where its site tells no more."""
        if set(self.records) == {"records"}:
            return f"{_count(self.records['records'])} records"
        return ", ".join(f"{_count(count)} {part}" for part, count in self.records.items())


class Privacy(NamedTuple):
    """What a hospital's budget is, and what was spent of it (nats), as the charges come to.

    `budget` is None where it is open; `spent` is None where nobody here can tell, and then `why`
    says why not; infinite where something without protection was let out. A hospital that keeps
    the opening record at home is `withheld`, and says neither.
    """

    entry: Told
    charges: tuple[Told, ...]
    budget: float | None
    spent: float | None
    why: str
    rehearsed: bool

    @property
    def party(self) -> str:
        """Whose budget it is."""
        return self.entry.party

    @property
    def open(self) -> bool:
        """Whether nothing bounds what may be spent."""
        return self.budget is None and not self.withheld

    @property
    def withheld(self) -> bool:
        """Whether the hospital keeps its budget at home."""
        return self.entry.body is None

    def says(self, key: str) -> str:
        """What the opening record says under `key`."""
        found = (self.entry.body or {}).get(key)
        if isinstance(found, float):
            return f"{found:.6g}"
        return stated(self.entry.body or {}, key)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The newest examination: figures of the student and of each hospital's model."""

    entry: Told
    on: str
    test: DataSet | None
    student: Mapping[str, float]
    clients: tuple[tuple[str, str, Mapping[str, float]], ...]

    def interval(self, share: float | None) -> Interval | None:
        """Of an accuracy on the common test set, where its size is logged."""
        of = 0 if self.test is None else self.test.records.get("records", 0)
        if share is None or not 0 <= share <= 1 or not isinstance(of, int) or of < 1:
            return None
        return wilson(share, of)


class Traffic(NamedTuple):
    """Bytes to the hospital and from it, up to the last admitted round."""

    down: int
    up: int
    entries: tuple[Told, ...]


def data_sets(evidence: Evidence) -> list[DataSet]:
    """Every data set as it was registered last, the hospitals' first."""
    newest: dict[tuple[str, str], DataSet] = {}
    for entry, body in (*_in_bands(evidence), *_registered(evidence)):
        id = stated(body, "id")
        found = DataSet(
            entry, id, stated(body, "role"), card_of(body), _records(body.get("records"))
        )
        newest[entry.party, id] = found
    return sorted(
        newest.values(),
        key=lambda one: (one.entry.party == SERVER, one.entry.party, one.entry.index),
    )


def _registered(evidence: Evidence) -> Iterator[tuple[Told, Mapping[str, Any]]]:
    for entry in evidence.told("dataset.registered"):
        if entry.body is not None:
            yield entry, entry.body


def _in_bands(evidence: Evidence) -> Iterator[tuple[Told, Mapping[str, Any]]]:
    """Data sets whose registration stays at home, as their sites tell of them: counts in bands."""
    for _, entry, value in told_in_bands(evidence, "dataset.registered"):
        yield entry, value


def _count(count: int | str) -> str:
    return f"{count:,}" if isinstance(count, int) else count


def _records(told: Any) -> Mapping[str, int | str]:
    if type(told) in (int, str):
        return {"records": told}
    if not isinstance(told, Mapping):
        return {}
    named = {"train": "to train on", "validation": "for validation"}
    return {named.get(key, key): told[key] for key in sorted(told) if type(told[key]) in (int, str)}


def privacy(evidence: Evidence) -> list[Privacy]:
    """What each hospital's budget came to, by name."""
    found = []
    for party in evidence.sites:
        opened = evidence.told("budget.opened", party)
        if not opened:
            continue
        entry = next((one for one in reversed(opened) if one.body is not None), opened[-1])
        budget = _number((entry.body or {}).get("epsilon"))
        charges = tuple(evidence.told("budget.charged", party))
        spent, why = _spent(evidence, party)
        found.append(Privacy(entry, charges, budget, spent, why, rehearsed(evidence, party)))
    return found


def _spent(evidence: Evidence, party: str) -> tuple[float | None, str]:
    try:
        value, _ = computed(evidence, {"fn": "total_epsilon", "party": party}, party)
    except KeptBack as kept:
        return None, f"withheld by {kept.party}"
    except Absent:
        return None, "nothing is logged"
    except (CannotTell, Refuted) as error:
        return None, str(error)
    except ODD:
        return None, "the charges have another shape than is known here"
    return float(value), ""


def rehearsed(evidence: Evidence, party: str) -> bool:
    """Whether a site's noise came from a seed, and so can be drawn again by whoever has it."""
    for entry in evidence.told("train.local", party) + evidence.told("release.outputs", party):
        for pointer in ("dp/noise", "noise"):
            try:
                if pointed(entry.body or {}, pointer) == REPRODUCIBLE:
                    return True
            except Absent:
                continue
    return False


def mechanisms(evidence: Evidence, party: str) -> list[str]:
    """The mechanisms under which a site answered, by its own releases."""
    entries = evidence.told("release.outputs", party)
    names = {stated(entry.body, "mechanism") for entry in entries if entry.body is not None}
    return sorted(names)


def evaluation(evidence: Evidence) -> Evaluation | None:
    """The newest examination of the student that the report is about; None where there is none.

    One that tells an accuracy comes before one that tells none, as a question to hospitals does.
    """
    found = list(_evaluations(evidence))
    return next((one for one in found if "accuracy" in one.student), found[0] if found else None)


def _evaluations(evidence: Evidence) -> Iterator[Evaluation]:
    for entry in reversed(evidence.told("evaluation.done", SERVER)):
        body = entry.body
        if body is None or evidence.model not in (None, body.get("model")):
            continue
        figures = body.get("figures")
        if not isinstance(figures, Mapping) or not isinstance(figures.get("student"), Mapping):
            continue
        on = stated(body, "data")
        tests = [one for one in data_sets(evidence) if one.entry.party == SERVER and one.id == on]
        clients = figures.get("clients")
        listed = clients if isinstance(clients, list) else []
        rows = [one for one in listed if isinstance(one, Mapping)]
        yield Evaluation(
            entry,
            on,
            tests[-1] if tests else None,
            _figures(figures["student"]),
            tuple((stated(one, "site"), stated(one, "model"), _figures(one)) for one in rows),
        )


def _figures(told: Mapping[str, Any]) -> Mapping[str, float]:
    numbers = {key: _number(value) for key, value in told.items()}
    return {key: value for key, value in numbers.items() if value is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def traffic(evidence: Evidence) -> dict[str, Traffic]:
    """Bytes by hospital, as the server counted them up to each run's last admitted round.

    An entry counts from the start of its run, so that the last one holds those before it.
    """
    found: dict[str, Traffic] = {}
    last = {entry.run: entry for entry in evidence.told("answers.admitted", SERVER) if entry.body}
    for entry in last.values():
        told = (entry.body or {}).get("traffic")
        if not isinstance(told, Mapping):
            continue
        down, up = told.get("down"), told.get("up")
        if not isinstance(down, Mapping) or not isinstance(up, Mapping):
            continue
        for site in sorted(down.keys() | up.keys()):
            before = found.get(site, Traffic(0, 0, ()))
            more = [it if type(it) is int else 0 for it in (down.get(site), up.get(site))]
            entries = (*before.entries, entry)
            found[site] = Traffic(before.down + more[0], before.up + more[1], entries)
    return dict(sorted(found.items()))


def unanswered_lessons(evidence: Evidence) -> list[Told]:
    """Lessons that went out after their run's last admitted round, so that no bytes count them."""
    last = {entry.run: entry.index for entry in evidence.told("answers.admitted", SERVER)}
    sent = evidence.told("lesson.sent", SERVER)
    return [entry for entry in sent if entry.body and entry.index > last.get(entry.run, -1)]


def releases(evidence: Evidence) -> list[tuple[Told, str]]:
    """Everything that the sites let out, in order, each in words."""
    told = []
    for one, said in _words(evidence, "release.outputs"):
        what = f"{said('items')} {said('kind')} to {said('recipient')}"
        when = f"round {said('round')} of run {said('run')}"
        told.append((one, f"{what}, {when}, mechanism {said('mechanism')}"))
    return told


def refusals(evidence: Evidence) -> list[tuple[Told, str]]:
    """Everything that the sites refused, in order, each in words."""
    return [
        (one, f"{said('rule')}, round {said('round')} of run {said('run')}")
        for one, said in _words(evidence, "release.refused")
    ]


def _words(evidence: Evidence, type: str) -> Iterator[tuple[Told, Callable[[str], str]]]:
    for entry in evidence.told(type):
        if entry.party != SERVER:
            yield entry, partial(stated, entry.body or {})


def settings(evidence: Evidence) -> tuple[Told | None, Mapping[str, Any]]:
    """The configuration that was fixed last, and the entry that it stands in."""
    for entry in reversed(evidence.told("config.fixed", SERVER)):
        config = (entry.body or {}).get("config")
        if isinstance(config, Mapping):
            return entry, config
    return None, {}


def setting(config: Mapping[str, Any], pointer: str) -> str:
    """One setting in words; "not stated" where there is none."""
    try:
        found = pointed(config, pointer)
    except Absent:
        found = None
    return stated({"value": found}, "value")
