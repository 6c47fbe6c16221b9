"""Says what an entry names, as what, and where the entry that made it must stand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from fedkd.audit.verify.leaves import Header
from fedkd.audit.verify.refusals import Malformed

SERVER: Final = "server"
MAKES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "model.released": ("released model", ("model",)),
    "student.updated": ("student", ("output",)),
    "aggregate.computed": ("consensus", ("output", "lesson")),
    "release.outputs": ("answer", ("digest",)),
    "train.local": ("model", ("output",)),
    "queries.posed": ("query set", ("digest",)),
    "synthetic.generated": ("synthetic set", ("digest",)),
    "dataset.registered": ("data set", ("id",)),
    "config.fixed": ("configuration", ("run",)),
    "data.partitioned": ("partition", ("parts",)),
}
"""What an entry of each type makes, and where in its body the name of that stands."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """An entry, as `party#index`."""

    party: str
    index: int

    def __str__(self) -> str:
        return f"{self.party}#{self.index}"


@dataclass(frozen=True, slots=True)
class OpenEntry:
    """An entry whose body is open."""

    place: Place
    header: Header
    body: Mapping[str, Any]

    @property
    def type(self) -> str:
        """The event's type."""
        return self.header.type

    @property
    def round(self) -> int:
        """The round that it belongs to; 0 where it says none."""
        found = self.body.get("round")
        return found if type(found) is int else 0

    def made(self) -> list[str]:
        """The names of what it made or registered."""
        keys = MAKES[self.type][1] if self.type in MAKES else ()
        names: dict[str, None] = {}
        for key in keys:
            found = self.body.get(key)
            each = [found] if isinstance(found, str) else found if isinstance(found, dict) else ()
            names |= dict.fromkeys(name for name in each if name)
        return list(names)


class Wish(NamedTuple):
    """A name that an entry says: as what, and the party and type of the entry that made it.

    In the log of the entry's own party that one comes earlier; in another's it belongs to the
    same run, and to one of `rounds`.
    """

    role: str
    name: str
    party: str
    type: str
    rounds: range

    def __str__(self) -> str:
        return f"{self.role} {named(self.name)}"


class Silence(NamedTuple):
    """A key that the entry should have and has not, as in a log that an earlier fedkd wrote."""

    key: str


Said: TypeAlias = Iterator[Wish | Silence]


def wishes(entry: OpenEntry) -> Said:
    """All that `entry` names, in a reader's order; `Malformed` where it names it wrongly."""
    rule = _RULES.get(entry.type)
    return iter(()) if rule is None else rule(entry)


def named(name: str) -> str:
    """A name as it is printed: whole if it is short and plain, else quoted and cut."""
    plain = name.isascii() and name.isprintable()
    return (
        name if plain and len(name) <= 80 else ascii(name if len(name) <= 80 else name[:77] + "...")
    )


def _released_model(entry: OpenEntry) -> Said:
    yield from _one(entry, "model", "student.updated")


def _student(entry: OpenEntry) -> Said:
    yield from _many(entry, "consensus", "aggregate.computed", "inputs")
    yield from _one(entry, "query set", "queries.posed", "queries")
    yield from _one(entry, "parent", "student.updated", or_null=True)
    if "parent" in entry.body and entry.body["parent"] is None:  # made from the run's seed
        yield from _one(entry, "configuration", "config.fixed", "run")


def _consensus(entry: OpenEntry) -> Said:
    inputs = entry.body.get("inputs")
    if inputs is None:
        yield Silence("inputs")
        return
    if not isinstance(inputs, dict):
        raise Malformed(f"{entry.place}, inputs", type(inputs).__name__, "answers by site")
    own = range(entry.round, entry.round + 1)
    for site, name in sorted(inputs.items()):
        yield Wish("answer", _text(entry, "inputs", name), site, "release.outputs", own)


def _answer(entry: OpenEntry) -> Said:
    yield from _one(entry, "model", "train.local")
    yield from _one(entry, "query set", "queries.posed", "queries", SERVER, beyond=1)


def _local_model(entry: OpenEntry) -> Said:
    yield from _many(entry, "data set", "dataset.registered", "inputs")
    yield from _one(entry, "lesson", "aggregate.computed", party=SERVER, or_null=True)
    yield from _one(entry, "parent", "train.local", or_null=True)


def _queries(entry: OpenEntry) -> Said:
    origin = entry.body.get("origin")
    if origin is None:
        yield Silence("origin")
        return
    kind = origin.get("kind") if isinstance(origin, dict) else None
    if kind == "public":
        yield from _one(entry, "data set", "dataset.registered", "name", said=origin)
    elif kind == "synthetic":
        yield from _one(entry, "synthetic set", "synthetic.generated", "digest")
        yield from _parents(entry, origin)
    else:
        raise Malformed(f"{entry.place}, origin", named(str(kind)), "public or synthetic")


def _synthetic(entry: OpenEntry) -> Said:
    yield from _parents(entry, entry.body)


def _parents(entry: OpenEntry, said: Mapping[str, Any]) -> Said:
    yield from _many(entry, "consensus", "aggregate.computed", "parents", said)
    yield from _one(entry, "student", "student.updated", said=said, or_null=True)


def _partition(entry: OpenEntry) -> Said:
    yield from _one(entry, "whole", "dataset.registered", "input")


_RULES: Final = {
    "model.released": _released_model,
    "student.updated": _student,
    "aggregate.computed": _consensus,
    "release.outputs": _answer,
    "train.local": _local_model,
    "queries.posed": _queries,
    "synthetic.generated": _synthetic,
    "data.partitioned": _partition,
}


def _one(
    entry: OpenEntry,
    role: str,
    type: str,
    key: str = "",
    party: str = "",
    *,
    said: Mapping[str, Any] | None = None,
    beyond: int = 0,
    or_null: bool = False,
) -> Said:
    """The name under `key` (or `role`); of an earlier round, or with `beyond` 1 of its own."""
    key, said = key or role, entry.body if said is None else said
    if key not in said:
        yield Silence(key)
    elif not (or_null and said[key] is None):
        rounds = range(entry.round + beyond)
        yield Wish(role, _text(entry, key, said[key]), party or entry.place.party, type, rounds)


def _many(
    entry: OpenEntry, role: str, type: str, key: str, said: Mapping[str, Any] | None = None
) -> Said:
    found = (entry.body if said is None else said).get(key)
    if found is None:
        yield Silence(key)
        return
    if not isinstance(found, list):
        raise Malformed(f"{entry.place}, {key}", type_name(found), "a list of names")
    for name in found:
        yield Wish(role, _text(entry, key, name), entry.place.party, type, range(entry.round))


def _text(entry: OpenEntry, key: str, found: object) -> str:
    if not isinstance(found, str) or not found:
        raise Malformed(f"{entry.place}, {key}", type_name(found), "a name")
    return found


def type_name(found: object) -> str:
    """How a value of another type is told of in an error."""
    return "an empty name" if found == "" else f"a value of type {type(found).__name__}"
