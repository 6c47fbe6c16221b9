"""Values that a sentence may name: one of an entry, or a function over all entries of a type.

The functions are a closed list; each looks at the whole range of entries, so that none can be
left out unseen. Numbers come out in one spelling.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fedkd.audit.verify import CannotTell
from fedkd.audit.verify.lineage import Source, lineage
from fedkd.report.verify.evidence import Evidence, Told
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
    """Whether an open entry says all that `where` asks for; a value may be a list of such."""
    if entry.body is None:
        return False
    for pointer, wanted in where.items():
        try:
            found = pointed(entry.body, pointer)
        except Absent:
            found = None
        if found not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def computed(
    evidence: Evidence, told: Mapping[str, Any], party: str | None
) -> tuple[Any, list[Told]]:
    """The value of one function, and the entries that it looked at.

    Raises `KeptBack` where a body that it needs is closed, `Absent` where there is no entry at
    all, and `CannotTell` where it needs what is not installed here.
    """
    whose = party if told.get("party") == "same" else told.get("party")
    entries = evidence.told(told["type"], whose) if "type" in told else []
    name = told["fn"]
    if name != "count":
        for entry in entries:
            if entry.body is None:
                raise KeptBack(entry.party)
    chosen = [entry for entry in entries if not told.get("where") or matches(entry, told["where"])]
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
    return [source.name for source in sources(evidence)]


def sources(evidence: Evidence) -> list[Source]:
    """Everything that the student goes back to; `CannotTell` where a body hides a step."""
    logs = {party: book.log for party, book in evidence.books.items() if book.log is not None}
    if len(logs) < len(evidence.books):
        raise CannotTell("a log does not hold, so that not every source can be found")
    found = lineage(logs, evidence.model)
    if found.gaps:
        raise CannotTell(str(found.gaps[0]))
    return list(found.sources)


FUNCTIONS: Final[Mapping[str, Callable[[Evidence, Mapping[str, Any], list[Told], Any], Any]]] = {
    "count": _count,
    "sum": _sum,
    "max": _max,
    "last": _last,
    "set": _set,
    "total_epsilon": _total_epsilon,
    "sources_of": _sources_of,
}


def spelled(value: Any, how: str) -> str:
    """A value as it stands in a sentence; `how` is one of a closed list, or empty."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or value is None:
        return (value or NOT_STATED)[: _SHORT if how == "short" else None]
    if isinstance(value, int | float):
        return _number(value, how)
    if isinstance(value, list):
        return ", ".join(spelled(one, how) for one in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {spelled(value[key], how)}" for key in sorted(value)) or "none"
    return str(value)


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
