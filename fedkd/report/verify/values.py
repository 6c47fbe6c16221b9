"""Values that a sentence may name: one of an entry, or a function over all entries of a type.

The functions are a closed list; each looks at the whole range of entries, so that none can be
left out unseen. Numbers come out in one spelling.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fedkd.audit.verify import CannotTell
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.lineage import Source
from fedkd.report.verify.evidence import Evidence, Told
from fedkd.report.verify.origins import origin, told_in_bands, withheld_by
from fedkd.report.verify.shares import bins, error_of
from fedkd.report.verify.spending import spent

NOT_STATED: Final = "not stated"
_SHORT: Final = 19


class Absent(Exception):
    """The evidence says nothing of this: the sentence is not made."""


class KeptBack(Exception):
    """An entry that would tell is there, and its body is closed: `party` holds it."""

    def __init__(self, party: str) -> None:
        super().__init__(party)
        self.party = party


def pointed(value: Any, pointer: str) -> Any:
    """What stands at a path of keys, as in `card/licence`; `Absent` where nothing does."""
    for key in pointer.split("/") if pointer else ():
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise Absent(pointer)
    return value


def matches(entry: Told, where: Mapping[str, Any]) -> bool:
    """Whether an open entry says all that `where` asks for.

    A value may be a list of such, or `{"not": value}`.
    """
    if entry.body is None:
        return False
    for pointer, wanted in where.items():
        try:
            found = pointed(entry.body, pointer)
        except Absent:
            found = None
        if isinstance(wanted, Mapping):
            if found == wanted["not"]:
                return False
        elif found not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def computed(
    evidence: Evidence, told: Mapping[str, Any], party: str | None, about: Told | None = None
) -> tuple[Any, list[Told]]:
    """The value of one function, and the entries that it looked at.

    `about` is the entry that the sentence is about: some functions hold another against it.
    Raises `KeptBack` where a body that it needs is closed, `Absent` where there is no entry at
    all, and `CannotTell` where it needs what is not installed here.
    """
    whose = party if told.get("party") == "same" else told.get("party")
    entries = evidence.told(told["type"], whose) if "type" in told else []
    name = told["fn"]
    if name not in ("count", "until") or told.get("where"):
        for entry in entries:
            if entry.body is None:
                raise KeptBack(entry.party)
    chosen = [entry for entry in entries if not told.get("where") or matches(entry, told["where"])]
    if name in BESIDE_PARENT:
        parent = _parent(chosen, about)
        return BESIDE_PARENT[name](parent.body or {}, (about or parent).body or {}, told), [parent]
    return FUNCTIONS[name](evidence, told, chosen, whose), chosen


def _values(entries: Iterable[Told], told: Mapping[str, Any]) -> list[Any]:
    found = []
    for entry in entries:
        try:
            found.append(pointed(entry.body, told["pointer"]))
        except Absent:
            continue
    if not found:
        raise Absent(told["pointer"])
    return found


def _count(evidence: Evidence, told: Mapping[str, Any], entries: list[Told], _: Any) -> Any:
    return len(entries)


def _sum(evidence: Evidence, told: Mapping[str, Any], entries: list[Told], _: Any) -> Any:
    return sum(_values(entries, told))


def _max(evidence: Evidence, told: Mapping[str, Any], entries: list[Told], _: Any) -> Any:
    return max(_values(entries, told))


def _last(evidence: Evidence, told: Mapping[str, Any], entries: list[Told], _: Any) -> Any:
    return _values(entries, told)[-1]


def _set(evidence: Evidence, told: Mapping[str, Any], entries: list[Told], _: Any) -> Any:
    names: set[str] = set()
    for value in _values(entries, told):
        names.update(map(str, value if isinstance(value, list | dict) else [value]))
    return sorted(names)


def _parent(entries: Iterable[Told], about: Told | None) -> Told:
    """The version that the one of `about` follows, where it was released before in the same log."""
    named = None if about is None or about.body is None else about.body.get("parent")
    for entry in reversed(list(entries)):
        earlier = about is not None and (entry.party, entry.index) < (about.party, about.index)
        if earlier and entry.body is not None and entry.body.get("version") == named:
            return entry
    raise Absent("parent")


def _until(evidence: Evidence, told: Mapping[str, Any], entries: list[Told], _: Any) -> Any:
    if not entries:
        raise Absent(told["type"])
    return entries[-1].time


def _total_epsilon(
    evidence: Evidence, told: Mapping[str, Any], entries: list[Told], party: str | None
) -> Any:
    opened = evidence.told("budget.opened", party)
    charged = evidence.told("budget.charged", party)
    for entry in (*opened, *charged):
        if entry.body is None:
            raise KeptBack(entry.party)
    if not opened:
        raise Absent("budget.opened")
    newest: dict[str, Mapping[str, Any]] = {}
    for entry in opened:
        assert entry.body is not None  # noqa: S101 - seen above
        newest[str(entry.body["population"])] = entry.body
    if len(newest) > 1:
        raise CannotTell("found several populations of one party, expected one")
    (body,) = newest.values()
    entries += [*opened, *charged]
    return spent(body, [entry.body["cost"] for entry in charged if entry.body is not None])


def _sources_of(evidence: Evidence, told: Mapping[str, Any], entries: list[Told], _: Any) -> Any:
    banded = {
        (meant.party, meant.index): entry
        for meant, entry, _ in told_in_bands(evidence, "dataset.registered")
    }
    names: list[str] = []
    for source in sources(evidence):
        entry = banded.get((source.place.party, source.place.index))
        names.append(source.name if entry is None else f"{source.name} (as {entry.party} says)")
        entries += [] if entry is None else [entry]
    return names


def sources(evidence: Evidence) -> list[Source]:
    """Everything that the student goes back to.

    `KeptBack` where sites' closed bodies alone hide a step, `CannotTell` where anything else does,
    `Absent` in a hospital's own paper: no student is in its log.
    """
    if evidence.alone:
        raise Absent(SERVER)
    found = origin(evidence)
    kept = withheld_by(found.gaps)
    if kept:
        raise KeptBack(kept[0])
    if found.gaps:
        raise CannotTell(str(found.gaps[0]))
    return list(found.sources)


FUNCTIONS: Final[Mapping[str, Callable[[Evidence, Mapping[str, Any], list[Told], Any], Any]]] = {
    "count": _count,
    "sum": _sum,
    "max": _max,
    "last": _last,
    "set": _set,
    "until": _until,
    "total_epsilon": _total_epsilon,
    "sources_of": _sources_of,
}


BESIDE_PARENT: Final[Mapping[str, Callable[[Any, Any, Mapping[str, Any]], Any]]] = {
    "of_parent": lambda parent, own, told: pointed(parent, told["pointer"]),
    "changed": lambda parent, own, told: [
        key for key in told["pointers"] if parent.get(key) != own.get(key)
    ],
    "unchanged": lambda parent, own, told: [
        key for key in told["pointers"] if parent.get(key) == own.get(key)
    ],
}
"""(what the parent says, what its successor says, the rule) -> value."""


def _bins(value: Any) -> str:
    found = bins({"reliability": value})
    if not found:
        raise Absent("reliability")
    total = sum(one.count for one in found)
    return f"{error_of(found):.3f} over {total:,} answers in {len(found)} bins of confidence"


def _odds(value: Any) -> str:
    """How many times the odds rise at most, as `privacy.risk` says it."""
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise Absent("epsilon")
    times = math.exp(min(value, 700.0))
    return f"{times:.2f}" if times < 100 else f"{times:.3g}"


RELATIONS: Final = {
    "replace_special": "one unit's records made blank, its place kept (replace_special)",
    "add_or_remove_one": "one unit's records there or not (add_or_remove_one)",
    "replace_one": "one unit's records exchanged for any others (replace_one)",
}
_MADE: Final[Mapping[str, Callable[[Any], str]]] = {
    "attack": lambda value: (
        "It REFUTES the claim" if value is True else "It is silent: that confirms nothing"
    ),
    "bins": _bins,
    "odds": _odds,
    "relation": lambda value: RELATIONS.get(str(value), str(value)),
}


def spelled(value: Any, how: str) -> str:
    """A value as it stands in a sentence; `how` is one of a closed list, or empty."""
    if how in _MADE:
        return _MADE[how](value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or value is None:
        return (value or NOT_STATED)[: _SHORT if how == "short" else None]
    if isinstance(value, int | float):
        return _number(value, how)
    several: list[str] = []
    if isinstance(value, list):
        several = [spelled(one, how) for one in value]
    elif isinstance(value, Mapping):
        several = [f"{key} {spelled(value[key], how)}" for key in sorted(value)]
    else:
        return str(value)
    return ", ".join(several) or "none"


def _number(value: float, how: str) -> str:
    if how == "thousandths":
        return f"{value:.3f}"
    if how == "percent":
        return f"{100 * value:.1f} %"
    if how == "seconds":
        return f"{value:.1f} s"
    if value == float("inf"):
        return "without bound"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
