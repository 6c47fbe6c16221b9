"""Walks back from a model to its sources, and finds the entry behind every name on the way."""

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from fedkd.audit.verify.leaves import Header
from fedkd.audit.verify.logs import CheckedLog
from fedkd.audit.verify.naming import MAKES, SERVER, OpenEntry, Place, Silence, Wish, named, wishes
from fedkd.audit.verify.refusals import CannotTell, Refuted

Logs: TypeAlias = Mapping[str, CheckedLog]
"""Logs that hold, each under its party's name."""

NOT_STATED: Final = "not stated"
CARD: Final = ("name", "version", "modality", "licence", "legal_basis", "origin", "citation")
STUDENT: Final = "student.updated"
PARTITION: Final = "data.partitioned"


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing with a name: its kind, the name, and the entry that made or registered it."""

    kind: str
    name: str
    place: Place


class Use(NamedTuple):
    """That an activity used something, as what."""

    role: str
    entity: Entity


@dataclass(frozen=True, slots=True)
class Activity:
    """What one entry records: what was done when, what it used, what came of it.

    `time` is the entry's (RFC 3339, UTC), written by the party when the activity was done.
    `round` is 0 where it belongs to none.
    """

    place: Place
    type: str
    time: str
    run: str | None
    round: int
    body: Mapping[str, Any]
    uses: tuple[Use, ...]
    made: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the walk ends: a data set with what its card says, or a generator of queries.

    `card` has every key of `CARD`, "not stated" where the log says nothing. `part_of` is the data
    set that this one was cut from, `used_by` the entries that used it.
    """

    kind: str
    name: str
    place: Place
    role: str
    card: Mapping[str, str]
    part_of: Entity | None
    used_by: tuple[Place, ...]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """What the entry at `place` names and nobody here can tell: a closed body, a missing log.

    `closed` is the entry whose closed body hides it, if that is the reason.
    """

    place: Place
    why: str
    closed: Place | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


@dataclass(frozen=True, slots=True)
class Lineage:
    """All that the models `of` go back to, sorted by entry; complete where there is no gap.

    `followed` counts the names that were followed to the entry behind them.
    """

    of: tuple[Entity, ...]
    activities: tuple[Activity, ...]
    entities: tuple[Entity, ...]
    agents: tuple[str, ...]
    sources: tuple[Source, ...]
    gaps: tuple[Gap, ...]
    followed: int


def lineage(logs: Logs, model: str | None = None) -> Lineage:
    """The lineage of the student or site's model with this digest; of the newest student without.

    Raises `Refuted` where a name has no entry that made or registered it, or a thing comes from
    itself, and `CannotTell` where the entry that made the model is closed or not here.
    """
    walk = _Walk(logs)
    return walk.back_from([walk.newest_student() if model is None else walk.maker_of(model)])


def check_lineage(logs: Logs) -> int:
    """How many names lead from every student and every released model back to their sources.

    Raises as `lineage` does, and `CannotTell` where a closed body, or a log that is not here,
    hides what a name stands for; a dangling name elsewhere is found all the same.
    """
    found = every_lineage(logs)
    if found.gaps:
        more = f" ({len(found.gaps)} such gaps)" if len(found.gaps) > 1 else ""
        raise CannotTell(f"{found.gaps[0]}{more}")
    return found.followed


def every_lineage(logs: Logs) -> Lineage:
    """The lineage of every student and every released model; `Refuted` as `lineage` raises it."""
    walk = _Walk(logs)
    return walk.back_from(walk.all_of("model.released", STUDENT))


def open_entries(logs: Logs, party: str, type: str) -> list[OpenEntry]:
    """The entries of one type in one party's log whose bodies are open, in order."""
    leaves = logs[party].entries if party in logs else ()
    return [
        OpenEntry(Place(party, leaf.header.sequence), leaf.header, leaf.body)
        for leaf in leaves
        if leaf.header.type == type and leaf.body is not None
    ]


def card_of(body: Mapping[str, Any]) -> dict[str, str]:
    """What a registered data set's card says, "not stated" where it says nothing."""
    card = body.get("card")
    return {key: stated(card if isinstance(card, dict) else {}, key) for key in CARD}


def stated(said: Mapping[str, Any], key: str) -> str:
    """The text or whole number under `key`, or "not stated"."""
    found = said.get(key)
    return str(found) if isinstance(found, str | int) and str(found).strip() else NOT_STATED


@dataclass(slots=True)
class _Walk:
    logs: Logs
    by_name: dict[tuple[str, str, str], list[OpenEntry]] = field(default_factory=dict)
    closed: dict[tuple[str, str], list[Header]] = field(default_factory=dict)
    gaps: set[Gap] = field(default_factory=set)

    def __post_init__(self) -> None:
        for party, log in self.logs.items():
            for leaf in log.entries:
                header = leaf.header
                if leaf.body is None:
                    self.closed.setdefault((party, header.type), []).append(header)
                    continue
                entry = OpenEntry(Place(party, header.sequence), header, leaf.body)
                for name in entry.made():
                    self.by_name.setdefault((party, header.type, name), []).append(entry)

    def all_of(self, *types: str) -> list[OpenEntry]:
        """The server's entries of these types, in order; a gap for each that is closed."""
        for type_ in types:
            for header in self.closed.get((SERVER, type_), []):
                place = Place(SERVER, header.sequence)
                self.gaps.add(Gap(place, f"this {type_} is closed or erased", place))
        return self._entries_of(types)

    def _entries_of(self, types: Sequence[str]) -> list[OpenEntry]:
        found = {
            entry.place: entry
            for (party, type_, _), entries in self.by_name.items()
            if party == SERVER and type_ in types
            for entry in entries
        }
        return [found[place] for place in sorted(found)]

    def newest_student(self) -> OpenEntry:
        if SERVER not in self.logs:
            raise CannotTell("lineage: found no log of the server, expected it beside the sites'")
        students = self._entries_of([STUDENT])
        closed = self.closed.get((SERVER, STUDENT), [])
        if closed and (not students or closed[-1].sequence > students[-1].place.index):
            place = Place(SERVER, closed[-1].sequence)
            raise CannotTell(f"{place}: the newest {STUDENT} is closed or erased")
        if not students:
            raise CannotTell(f"lineage: found no {STUDENT} in the server's log, expected one")
        return students[-1]

    def maker_of(self, model: str) -> OpenEntry:
        for party in (SERVER, *sorted(self.logs.keys() - {SERVER})):
            for type_ in (STUDENT, "train.local"):
                if found := self.by_name.get((party, type_, model)):
                    return found[-1]
        closed = [
            Place(party, headers[0].sequence)
            for (party, type_), headers in sorted(self.closed.items())
            if type_ in (STUDENT, "train.local")
        ]
        if closed:
            raise CannotTell(
                f"model {named(model)}: found no open entry that made it; {closed[0]} is closed"
            )
        raise Refuted(f"model {named(model)}", "no entry that made it", "one in these logs")

    def back_from(self, roots: Sequence[OpenEntry]) -> Lineage:
        reached = {root.place: root for root in roots}
        waiting = list(reached.values())
        uses: dict[Place, list[Use]] = {}
        while waiting:
            entry = waiting.pop()
            uses[entry.place] = []
            for role, name, found in self._behind(entry):
                uses[entry.place].append(Use(role, _entity(found, name)))
                if found.place not in reached:
                    reached[found.place] = found
                    waiting.append(found)
        _expect_no_circle({place: [use.entity.place for use in uses[place]] for place in uses})
        return _lineage(roots, reached, uses, self.gaps)

    def _behind(self, entry: OpenEntry) -> Iterator[tuple[str, str, OpenEntry]]:
        for wish in wishes(entry):
            if isinstance(wish, Silence):
                why = f"this {entry.type} says no {wish.key}; an earlier fedkd wrote it"
                self.gaps.add(Gap(entry.place, why))
            elif (found := self._find(entry, wish)) is not None:
                yield wish.role, wish.name, found
        if entry.type == "dataset.registered":
            yield from self._partition(entry)

    def _partition(self, entry: OpenEntry) -> Iterator[tuple[str, str, OpenEntry]]:
        """The entry that says of which larger set this one is a part, if there is one."""
        for name in entry.made():
            cuts = self.by_name.get((SERVER, PARTITION, name), [])
            found = [cut for cut in cuts if cut.body.get("input") != name]
            if found:
                yield "partition", name, found[-1]
            for header in () if found else self.closed.get((SERVER, PARTITION), []):
                place = Place(SERVER, header.sequence)
                why = f"{place}, closed or erased, may say what {named(name)} is part of"
                self.gaps.add(Gap(entry.place, why, place))

    def _find(self, asker: OpenEntry, wish: Wish) -> OpenEntry | None:
        """The newest entry that is meant; None, and a gap, where that cannot be told."""
        if wish.party not in self.logs:
            self.gaps.add(Gap(asker.place, f"{wish}: the log of {named(wish.party)} is not here"))
            return None
        candidates = self.by_name.get((wish.party, wish.type, wish.name), [])
        for entry in reversed(candidates):
            if _may_be_meant(asker, wish, entry.header, entry.round):
                return entry
        hidden = [
            header.sequence
            for header in self.closed.get((wish.party, wish.type), [])
            if _may_be_meant(asker, wish, header, None)
        ]
        if hidden:
            others = f" or {len(hidden) - 1} more" if len(hidden) > 1 else ""
            first = Place(wish.party, hidden[0])
            why = f"{wish}: {first}{others}, closed or erased, may have made it"
            self.gaps.add(Gap(asker.place, why, first))
            return None
        if self._is_of_another_run(asker, wish):
            why = f"{wish}: the server's log of run {asker.header.run} is not here"
            self.gaps.add(Gap(asker.place, why))
            return None
        other = f"; {candidates[-1].place}, which did, cannot be meant" if candidates else ""
        raise Refuted(
            f"{asker.place}, {asker.type}",
            f"{wish}, which no {wish.type} in the log of {named(wish.party)} made or "
            f"registered before{other}",
            "an entry behind every name",
        )

    def _is_of_another_run(self, asker: OpenEntry, wish: Wish) -> bool:
        """Whether a site's entry tells of a run that this server's log knows nothing of."""
        elsewhere = wish.party == SERVER != asker.place.party
        runs = (leaf.header.run for leaf in self.logs[wish.party].entries)
        return elsewhere and asker.header.run not in runs


def _may_be_meant(asker: OpenEntry, wish: Wish, header: Header, round: int | None) -> bool:
    if wish.party == asker.place.party:
        return header.sequence < asker.place.index
    # A site's log may hold many runs, and in every run the rounds are the clock of both logs.
    return header.run == asker.header.run and (round is None or round in wish.rounds)


def _entity(entry: OpenEntry, name: str) -> Entity:
    kind = MAKES[entry.type][0]
    if entry.type == "aggregate.computed" and name != entry.body.get("output"):
        kind = "lesson"
    return Entity(kind, name, entry.place)


def _expect_no_circle(before: Mapping[Place, Sequence[Place]]) -> None:
    try:
        graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
        circle = " from ".join(str(place) for place in reversed(error.args[1]))
        raise Refuted("lineage", f"what comes from itself: {circle}", "causes first") from None


def _lineage(
    roots: Sequence[OpenEntry],
    reached: Mapping[Place, OpenEntry],
    uses: Mapping[Place, Sequence[Use]],
    gaps: set[Gap],
) -> Lineage:
    of = [_entity(root, root.made()[0]) for root in roots]
    made = {place: {entity: None for entity in of if entity.place == place} for place in reached}
    for used in uses.values():
        for use in used:
            made[use.entity.place][use.entity] = None
    activities = tuple(
        Activity(
            place,
            entry.type,
            entry.header.time,
            entry.header.run,
            entry.round,
            entry.body,
            tuple(uses[place]),
            tuple(made[place]),
        )
        for place, entry in sorted(reached.items())
    )
    return Lineage(
        of=tuple(of),
        activities=activities,
        entities=tuple(entity for activity in activities for entity in activity.made),
        agents=tuple(sorted({place.party for place in reached})),
        sources=tuple(_sources(activities)),
        gaps=tuple(sorted(gaps)),
        followed=sum(map(len, uses.values())),
    )


def _sources(activities: Sequence[Activity]) -> Iterator[Source]:
    users: dict[Place, list[Place]] = {}
    wholes: dict[Place, Entity] = {}
    for activity in activities:
        for role, entity in activity.uses:
            users.setdefault(entity.place, []).append(activity.place)
            if role == "whole":
                wholes[activity.place] = entity
    drawn: dict[tuple[str, ...], list[Activity]] = {}
    for activity in activities:
        body = activity.body
        if activity.type == "dataset.registered":
            parts = [wholes[e.place] for role, e in activity.uses if e.place in wholes]
            yield Source(
                "data set",
                activity.made[0].name,
                activity.place,
                stated(body, "role"),
                card_of(body),
                parts[0] if parts else None,
                tuple(users.get(activity.place, ())),
                body,
            )
        elif activity.type == "synthetic.generated":
            told = tuple(stated(body, key) for key in ("generator", "code", "seed"))
            drawn.setdefault(told, []).append(activity)
    for (name, *_), sets in drawn.items():
        yield Source(
            "generator",
            name,
            sets[0].place,
            "queries",
            dict.fromkeys(CARD, NOT_STATED),
            None,
            tuple(sorted({user for one in sets for user in users.get(one.place, ())})),
            sets[0].body,
        )
