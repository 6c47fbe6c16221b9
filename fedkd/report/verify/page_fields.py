"""Draws the fields of the report, chapter by chapter, each sentence with what stands behind it."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from fedkd.audit.verify.bundle import CANNOT_TELL
from fedkd.report.verify.deriving import MISSING, Answered, Derived, Place, Statement
from fedkd.report.verify.evidence import Evidence, Told
from fedkd.report.verify.heading import MEANINGS, apart, elsewhere
from fedkd.report.verify.page_entries import leaf_digest
from fedkd.report.verify.page_parts import (
    Cell,
    Html,
    Table,
    badge,
    details,
    element,
    entry_id,
    joined,
    link,
    log_id,
    section,
    table,
    to_entry,
)

_WHOLE_LOGS: Final = "Evidence: whole logs"
_WHOLE: Final = 30
"""So many entries behind a sentence are told of line by line; the others are links alone."""


def chapters(derived: Derived) -> list[tuple[str, str, list[Answered]]]:
    """The chapters in order: their names in the page, their titles, their fields."""
    found: list[tuple[str, str, list[Answered]]] = []
    for title, answers in groupby(
        derived.answers, lambda answer: derived.catalogue.chapter(answer.field)
    ):
        found.append((f"chapter-{len(found) + 1}", title, list(answers)))
    return found


def field_sections(derived: Derived, *, paper: bool = False) -> Html:
    """All chapters; on `paper` the evidence is named, for nothing can be opened there."""
    return joined(
        section(id, title, *(_field(derived, one, paper) for one in answers), class_="chapter")
        for id, title, answers in chapters(derived)
    )


def coverage(derived: Derived) -> Html:
    """How many fields have which status, apart; and the same by chapter."""
    tiles = joined(
        element(
            "li",
            element("span", f"{count}", class_="count"),
            link("fields", badge(status), data_only=status),
            element("span", MEANINGS[status], class_="meaning"),
        )
        for status, count in derived.coverage().items()
    )
    heads = ("Chapter", *MEANINGS)
    rows: list[Sequence[Cell]] = [
        (
            link(id, title),
            *(str(sum(one.status == status for one in counted)) for status in MEANINGS),
        )
        for id, title, answers in chapters(derived)
        if (counted := [one for one in answers if not one.field.conditional])
    ]
    said = (
        "Five counts, which must not be added up into one: a computed fact, a typed one and a "
        "person's word are not the same. None of them says that anything conforms to a law."
    )
    by_chapter = details("By chapter", table(Table("Fields by chapter and status", heads, rows)))
    return section(
        "coverage", "Coverage at a glance", element("p", said),
        element("ul", tiles, class_="tiles"), *_not_counted(derived), by_chapter,
    )  # fmt: skip


def _not_counted(derived: Derived) -> list[Html]:
    """The fields that stand in no count, each with what it is asked of; and what is not here."""
    said: list[Html] = []
    if derived.conditional:
        items = (
            element("li", badge(one.status), " ", link(one.field.id, one.field.requirement),
                    f" (applies: {one.field.applies})")
            for one in derived.conditional
        )  # fmt: skip
        said += [element("p", f"{apart(derived)}:"), element("ul", *items, class_="open")]
    if derived.elsewhere:
        said.append(element("p", f"{elsewhere(derived)}."))
    return said


def supply(derived: Derived) -> Html:
    """What is open, by who could supply it."""
    if not roles(derived):
        return section(
            "supply", "What a person still has to supply", element("p", "Nothing is open.")
        )
    said = (
        "A person at the hospital supplies it, beside this paper: in the report of a run "
        "“fedkd report declare FIELD” takes a signed answer in."
        if derived.evidence.alone
        else "“fedkd report questions” writes what is open as a form for each role; "
        "“fedkd report declare FIELD” takes a signed answer in."
    )
    lists: list[Cell] = []
    for role, answers in roles(derived).items():
        lists.append(element("h3", f"{role.capitalize()}: {len(answers)} open", id=role_id(role)))
        for why, of in _reasons(answers).items():
            items = (
                element("li", link(one.field.id, f"{_point(one)}: {one.field.requirement}"))
                for one in of
            )
            lists.append(element("p", f"{why[:1].upper()}{why[1:]}:", class_="why"))
            lists.append(element("ul", *items, class_="open"))
    return section(
        "supply", "What a person still has to supply", element("p", said), *lists, *_parts(derived)
    )


def _parts(derived: Derived) -> list[Cell]:
    """What is missing inside fields that are answered otherwise, each once."""
    found: dict[str, str] = {}
    for statement in derived.statements:
        if statement.status == MISSING:
            found.setdefault(statement.text, statement.id)
    if not found:
        return []
    items = (element("li", link(id, text)) for text, id in found.items())
    heading = element("h3", f"Parts of fields: {len(found)} open", id="supply-parts")
    return [heading, element("ul", *items, class_="open")]


def _reasons(answers: Sequence[Answered]) -> dict[str, list[Answered]]:
    """Open fields by why they are open, the commonest reason first."""
    found: dict[str, list[Answered]] = {}
    for answer in answers:
        found.setdefault(answer.why, []).append(answer)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def roles(derived: Derived) -> dict[str, list[Answered]]:
    """The fields that are open, by who could supply them."""
    found: dict[str, list[Answered]] = {}
    for answer in derived.answers:
        if answer.why:
            found.setdefault(answer.field.asks, []).append(answer)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def role_id(role: str) -> str:
    """The name of a role's list in the page."""
    return f"supply-{role.removeprefix('the ').replace(' ', '-')}"


def _point(answer: Answered) -> str:
    return answer.field.point.removeprefix("AIA ")


def _field(derived: Derived, answer: Answered, paper: bool) -> Html:
    field = answer.field
    heading = element(
        "h3", element("span", _point(answer), class_="point"), Html(" "), field.requirement
    )
    meta = [badge(answer.status), Html(" "), link(field.id, field.id, class_="id")]
    if answer.why:
        meta += [
            Html(" "),
            element("span", f"{answer.why[:1].upper()}{answer.why[1:]}.", class_="why"),
        ]
    notes = [f"Applies: {field.applies}."] if field.applies else []
    notes += [f"Note: {field.note}."] if field.note else []
    inside: list[Cell] = [heading, element("p", *meta, class_="meta")]
    if notes:
        inside.append(element("p", " ".join(notes), class_="note"))
    if answer.statements:
        said = joined(_statement(derived.evidence, one, paper) for one in answer.statements)
        inside.append(element("ul", said, class_="statements"))
    return element(
        "article", *inside, id=field.id, class_="field", data_status=answer.status,
        data_asks=field.asks,
    )  # fmt: skip


def _statement(evidence: Evidence, one: Statement, paper: bool) -> Html:
    kind = "q" if one.author is not None else "span"
    inside: list[Cell] = [element(kind, one.text, class_="said"), Html(" "), badge(one.status)]
    if one.author is not None:
        inside.append(element("span", f" declared by {one.author}", class_="author"))
    if one.doubt is not None:
        inside.append(
            element("p", element("strong", "NOT SUPPORTED"), f": {one.doubt}", class_="doubt")
        )
    inside.append(_named(one) if paper else _behind(evidence, one))
    class_ = "statement doubtful" if one.doubt is not None else "statement"
    return element("li", *inside, id=one.id, class_=class_)


def _behind(evidence: Evidence, one: Statement) -> Html:
    own = link(one.id, f"link to {one.id}", class_="id")
    if not one.evidence and one.status == MISSING:
        return element("p", own, class_="behind")
    if not one.evidence:
        whole = ", ".join(
            f"{party} ({len(book.entries):,} entries)" for party, book in evidence.books.items()
        )
        kind = "could not be told from" if one.status == CANNOT_TELL else "follows from"
        said = f"No single entry: it {kind} the whole logs of {whole}."
        return details(_WHOLE_LOGS, element("p", said), own)
    items = joined(_line(evidence, place) for place in one.evidence[:_WHOLE])
    inside: list[Cell] = [element("ul", items, class_="entries")]
    if len(one.evidence) > _WHOLE:
        others = joined((to_entry(place) for place in one.evidence[_WHOLE:]), ", ")
        inside.append(element("p", "Further entries: ", others))
    heads = dict.fromkeys(place.log for place in one.evidence)
    inside.append(element("p", "Signed heads: ", joined(_heads(evidence, heads), "; ")))
    return details(_short(one), *inside, own)


def _named(one: Statement) -> Html:
    return element("p", _short(one), class_="behind")


def _short(one: Statement) -> str:
    if not one.evidence:
        return "Nothing in these logs" if one.status == MISSING else _WHOLE_LOGS
    shown = ", ".join(f"{place.log}#{place.index}" for place in one.evidence[:3])
    more = f" and {len(one.evidence) - 3:,} more" if len(one.evidence) > 3 else ""
    return f"Evidence: {shown}{more}"


def _line(evidence: Evidence, place: Place) -> Html:
    told = entry_at(evidence, place)
    if told is None:
        return element("li", f"{place.log}#{place.index}: not in the evidence")
    digest = leaf_digest(evidence, told)
    body = "body open" if told.body is not None else "body kept at home or erased"
    facts = joined((told.type, told.time, Html(f"leaf <code>{digest}</code>"), body), " · ")
    return element("li", to_entry(place), Html(" "), facts, data_entry=entry_id(place))


def entry_at(evidence: Evidence, place: Place) -> Told | None:
    """The entry at a place; None where the evidence has none there."""
    book = evidence.books.get(place.log)
    return book.entries[place.index] if book and 0 <= place.index < len(book.entries) else None


def _heads(evidence: Evidence, parties: Sequence[str] | dict[str, None]) -> Iterator[Html]:
    for party in parties:
        book = evidence.books.get(party)
        if book is None or book.log is None:
            yield joined((link(log_id(party), party), " DOES NOT HOLD"))
        else:
            root = Html(f", root <code>{book.log.root.hex()}</code>")
            yield joined((link(log_id(party), f"{party}, {len(book.entries):,} entries"), root))
