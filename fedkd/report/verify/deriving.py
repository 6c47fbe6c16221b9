"""Makes every statement of a report from the evidence: builder and verifier both call this.

A rule of the catalogue says for which entries a sentence is made and where its values stand. The
sentence, its values, its status and the entries behind it follow from the evidence alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from fedkd.audit.verify import CannotTell, Refuted
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.bundle import CANNOT_TELL
from fedkd.report.verify.catalogue import Catalogue, Field
from fedkd.report.verify.declared import Declared, declarations
from fedkd.report.verify.evidence import Evidence, Told
from fedkd.report.verify.shares import released, rows
from fedkd.report.verify.values import Absent, KeptBack, computed, matches, pointed, spelled

COMPUTED: Final = "COMPUTED"
RECORDED: Final = "RECORDED"
DECLARED: Final = "DECLARED"
WITHHELD: Final = "WITHHELD"
MISSING: Final = "MISSING"
STATUSES: Final = (COMPUTED, RECORDED, DECLARED, WITHHELD, MISSING)

_SLOT: Final = re.compile(r"\{([^{}:]*)(?::([a-z]+))?\}")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """An entry: whose log, and its index there."""

    log: str
    index: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence: its text, its status, the entries that it follows from.

    `doubt` says why it cannot be leaned on: a log behind it does not hold.
    """

    id: str
    field: str
    text: str
    status: str
    evidence: tuple[Place, ...]
    doubt: str | None = None
    author: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        told = asdict(self)
        told["evidence"] = [{"log": place.log, "index": place.index} for place in self.evidence]
        return told


@dataclass(frozen=True, slots=True)
class Answered:
    """A field with what became of it: `why` says what is missing and who could supply it."""

    field: Field
    status: str
    statements: tuple[Statement, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Derived:
    """Everything that a report says."""

    catalogue: Catalogue
    evidence: Evidence
    answers: tuple[Answered, ...]
    simulation: bool
    refused: tuple[str, ...] = ()
    """Why a statement of a person does not count."""
    elsewhere: tuple[Field, ...] = ()
    """What others than the hospital whose own paper it is supply, in the run's report."""

    @property
    def trouble(self) -> list[str]:
        """What has to be said before everything else: logs that do not hold, statements refused."""
        books = self.evidence.books.values()
        return [*(str(book.error) for book in books if book.error is not None), *self.refused]

    @property
    def statements(self) -> list[Statement]:
        """All sentences, in order."""
        return [statement for answer in self.answers for statement in answer.statements]

    def coverage(self) -> dict[str, int]:
        """How many fields have which status: never to be added up.

        Those asked only under a condition do not count: see `conditional`.
        """
        return _counts(STATUSES, (one for one in self.answers if not one.field.conditional))

    @property
    def conditional(self) -> tuple[Answered, ...]:
        """The fields asked of another kind of system: DECLARED where a person says how it is."""
        return tuple(one for one in self.answers if one.field.conditional)

    def apart(self) -> dict[str, int]:
        """How many of the conditional fields are DECLARED, and of how many nobody said anything."""
        return _counts((DECLARED, MISSING), self.conditional)

    def answer(self, id: str) -> Answered:
        """The answer to the field of this name."""
        return next(answer for answer in self.answers if answer.field.id == id)


def _counts(statuses: Sequence[str], answers: Iterable[Answered]) -> dict[str, int]:
    found = [answer.status for answer in answers]
    return {status: found.count(status) for status in statuses}


def derive(evidence: Evidence, catalogue: Catalogue) -> Derived:
    """All that the evidence answers of the catalogue's fields; each field exactly once.

    A hospital's own paper, which knows no log of the server, answers the hospital's fields; the
    others are named as standing elsewhere.
    """
    simulation = evidence.rehearsal
    said, refused = declarations(evidence)
    own = list(catalogue.fields)
    if evidence.alone:  # its record of processing comes first
        own = [one for one in own if one.hospitals_own]
        own.sort(key=lambda one: not one.of_data_protection)
    answers = tuple(_answered(evidence, one, simulation, said.get(one.id, ())) for one in own)
    elsewhere = tuple(one for one in catalogue.fields if one not in own)
    return Derived(catalogue, evidence, answers, simulation, tuple(refused), elsewhere)


def _answered(
    evidence: Evidence, field: Field, simulation: bool, said: tuple[Declared, ...]
) -> Answered:
    if field.legal and simulation:
        why = f"a simulation: its parties are fictional; in a deployment {field.asks} supplies it"
        return Answered(field, MISSING, (), why)
    made = _all_made(evidence, field)
    for one in said:
        place = Place(SERVER, one.index)
        made.append(Statement("", field.id, one.text, DECLARED, (place,), author=one.author))
    statements = [
        replace(one, id=f"{field.id}/{number}", doubt=_doubt(evidence, one))
        for number, one in enumerate(made, 1)
    ]
    status = _status(evidence, field, statements)
    return Answered(field, status, tuple(statements), _why(evidence, field, status, statements))


def _all_made(evidence: Evidence, field: Field) -> list[Statement]:
    """The statements of all rules; where those of a tag say nothing, what is missing is said."""
    made: list[Statement] = []
    answered: set[str] = set()
    for rule in field.rules:
        if "alone" in rule and not evidence.alone:
            continue
        if "unless" in rule:
            if rule["unless"] not in answered:
                made.append(Statement("", field.id, rule["say"], MISSING, ()))
            continue
        kept_back = {(one.text, one.evidence) for one in made if one.status == WITHHELD}
        said = list(_made(evidence, field, rule))
        said = [one for one in said if (one.text, one.evidence) not in kept_back]
        if said and "tag" in rule:
            answered.add(rule["tag"])
        made += said
    return made


def _doubt(evidence: Evidence, statement: Statement) -> str | None:
    """Why a statement cannot be leaned on: the first log behind it that does not hold."""
    for log in sorted({place.log for place in statement.evidence}):
        book = evidence.books.get(log)
        if book is not None and book.error is not None:
            return str(book.error)
    return None


def _status(evidence: Evidence, field: Field, statements: list[Statement]) -> str:
    """The field's own: what a person says is never counted as computed."""
    found = {statement.status for statement in statements}
    if not field.automatic and DECLARED in found:
        return DECLARED
    if field.conditional:
        return MISSING  # what the logs hold of it does not say that it applies
    if field.automatic and found & {COMPUTED, RECORDED}:
        there = all(evidence.told(type) for type in field.needs)
        if there:
            return RECORDED if field.at_best == RECORDED or COMPUTED not in found else COMPUTED
    if DECLARED in found:
        return DECLARED
    return WITHHELD if WITHHELD in found else MISSING


def _why(evidence: Evidence, field: Field, status: str, statements: list[Statement]) -> str:
    if status not in (MISSING, WITHHELD):
        return ""
    if status == WITHHELD:
        return "kept at home; it can be disclosed by its site"
    how = "not recorded" if field.at_best == RECORDED else "not measured"
    gone = [type for type in field.needs if not evidence.told(type)]
    if field.automatic and gone:
        return f"{how}: no {', '.join(gone)} in the logs; {field.asks} could supply it"
    if field.automatic and any(one.status == CANNOT_TELL for one in statements):
        return "cannot be told here"
    if field.automatic:
        return f"{how}; {field.asks} could supply it"
    about = " that it applies, or that it does not and why," if field.conditional else ""
    return f"a statement{about} is missing; {field.asks} could make it"


def _made(evidence: Evidence, field: Field, rule: Mapping[str, Any]) -> Iterator[Statement]:
    """The statements of one rule: one in all, or one for each entry, or for each item of one."""
    status = rule.get("status", COMPUTED)
    if "figures" in rule:
        yield from _figures(evidence, field, rule, status)
        return
    each = rule.get("each")
    if each is None:
        yield from _said(evidence, field, rule, status, None, None, None)
        return
    closed: dict[str, int] = {}
    entries = evidence.told(each["type"], each.get("party"))
    if each.get("last"):
        newest = {entry.party: entry for entry in entries}
        entries = [entry for entry in entries if newest[entry.party] is entry]
    for entry in entries:
        if each.get("sites") and entry.party == SERVER:
            continue
        if entry.body is None:
            closed[entry.party] = closed.get(entry.party, 0) + 1
            continue
        if not matches(entry, each.get("where", {})):
            continue
        for key, item in _items(entry, each.get("over")):
            said = list(_said(evidence, field, rule, status, entry, key, item))
            yield from said
            if said and each.get("once"):
                return
    for party, count in sorted(closed.items()):
        what = "entry" if count == 1 else "entries"
        text = f"WITHHELD BY {party}: {count} {what} of type {each['type']}"
        places = tuple(
            Place(party, entry.index)
            for entry in entries
            if entry.party == party and entry.body is None
        )
        yield Statement("", field.id, text, WITHHELD, places)


def _figures(
    evidence: Evidence, field: Field, rule: Mapping[str, Any], status: str
) -> Iterator[Statement]:
    """A statement for each row of shares of the kinds that the rule names."""
    version = released(evidence)
    more = [version.entry] if version.entry is not None else []
    for row in rows(evidence):
        if row.kind in rule["figures"]:
            item = {
                "name": row.name,
                "data": row.data,
                "at": row.at,
                "shares": row.told(),
                "intervals": row.intervals,
                "version": version.named,
            }
            yield from _said(evidence, field, rule, status, row.entry, None, item, more)


def _items(entry: Told, over: str | None) -> Iterator[tuple[Any, Any]]:
    if over is None:
        yield None, entry.body
        return
    try:
        found = pointed(entry.body, over)
    except Absent:
        return
    if isinstance(found, Mapping):
        yield from sorted(found.items())
    elif isinstance(found, list):
        yield from enumerate(found)


def _said(
    evidence: Evidence,
    field: Field,
    rule: Mapping[str, Any],
    status: str,
    entry: Told | None,
    key: Any,
    item: Any,
    more: Sequence[Told] = (),
) -> Iterator[Statement]:
    behind = more if entry is None else (entry, *more)
    places = [Place(one.party, one.index) for one in behind]

    def filled(match: re.Match[str]) -> str:
        value, seen = _value(evidence, rule, match[1], entry, key, item)
        places.extend(Place(one.party, one.index) for one in seen)
        return spelled(value, match[2] or "")

    try:
        text = _SLOT.sub(filled, rule["say"])
    except Absent:
        return
    except KeptBack as kept:
        text, status = f"WITHHELD BY {kept.party}: {rule.get('about', 'a value')}", WITHHELD
    except CannotTell as error:
        text, status = f"{rule.get('about', 'A value')}: CANNOT TELL ({error})", CANNOT_TELL
    except Refuted as error:
        text, status = f"{rule.get('about', 'A value')}: REFUTED ({error})", CANNOT_TELL
    yield Statement("", field.id, text, status, tuple(dict.fromkeys(places)))


def _value(
    evidence: Evidence,
    rule: Mapping[str, Any],
    name: str,
    entry: Told | None,
    key: Any,
    item: Any,
) -> tuple[Any, list[Told]]:
    """A slot's value: `@` stands around the entry, `#` is the item's key, `$` a function."""
    if name.startswith("$"):
        party = entry.party if entry is not None else None
        return computed(evidence, rule["with"][name[1:]], party, entry)
    if name == "#":
        return key, []
    if entry is None:
        raise Absent(name)
    if name.startswith("@"):
        return {"@party": entry.party, "@time": entry.time, "@day": entry.time[:10]}[name], []
    value = pointed(entry.body, name[1:]) if name.startswith("/") else pointed(item, name)
    if value is None and name not in rule.get("may_be_empty", ()):
        raise Absent(name)
    return value, []
