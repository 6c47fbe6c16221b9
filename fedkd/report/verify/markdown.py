"""Draws a report as Markdown: for a repository, and for whoever reads in a terminal."""

from collections.abc import Iterator

from fedkd.report.verify.deriving import Answered, Derived, Statement
from fedkd.report.verify.evidence import Told
from fedkd.report.verify.glance import (
    data_sets,
    evaluation,
    mechanisms,
    privacy,
    refusals,
    releases,
)
from fedkd.report.verify.heading import (
    MEANINGS,
    apart,
    elsewhere,
    names,
    not_cosigned,
    standing,
    title,
    unsupported,
    warnings,
)
from fedkd.report.verify.page_fields import roles
from fedkd.report.verify.page_minute import grouped
from fedkd.report.verify.picture_charts import told, told_epsilon, told_interval
from fedkd.report.verify.picture_quality import not_measured, ordered, told_row, used
from fedkd.report.verify.plain import marked_down as text

_PLACES = 4


def markdown(derived: Derived) -> str:
    """The whole report; text of persons and logs is escaped."""
    lines = [f"# {text(title(derived))}", ""]
    lines += cautions(derived)
    lines += [text(standing(derived)), "", "## In one minute", ""]
    lines += [*minute(derived), "", "## Coverage", ""]
    lines += ["Five counts, not to be added up into one.", ""]
    lines += ["| status    | fields | what it means |", "| --------- | -----: | ------------- |"]
    lines += [
        f"| {status:9} | {count:6} | {MEANINGS[status]} |"
        for status, count in derived.coverage().items()
    ]
    for said in filter(None, (apart(derived), elsewhere(derived))):
        lines += ["", f"{text(said)}."]
    chapter = ""
    for answer in derived.answers:
        now = derived.catalogue.chapter(answer.field)
        if now != chapter:
            lines += ["", f"## {text(now)}"]
            chapter = now
        lines += ["", *_field(answer)]
    lines += ["", "## Law and dates", ""]
    lines += [f"- {text(said)}." for said in derived.catalogue.law.values()]
    lines += ["", "## How to check it", ""]
    lines += [
        "    fedkd report verify report.md --policy POLICIES",
        "    python fedkd-verify.pyz report report.md --policy POLICIES",
        "",
        "Without --policy no quorum is checked: it shows only that the report fits itself.",
    ]
    return "\n".join(lines) + "\n"


def cautions(derived: Derived) -> list[str]:
    """The warnings, each a quotation of its own; for every paper in Markdown."""
    lines = []
    for line in warnings(derived):
        lines += [f"> **{text(line)}**", ""]
    return lines


def minute(derived: Derived) -> list[str]:
    """What a reader wants to know first, as a list."""
    return [
        *_data(derived),
        *_privacy(derived),
        *(_left(derived) if derived.evidence.alone else _quality(derived)),
        *_open(derived),
        *(f"- **Not confirmed by others**: {text(line)}" for line in not_cosigned(derived)),
    ]


def place(entry: Told) -> str:
    """An entry's name."""
    return text(f"{entry.party}#{entry.index}")


def _data(derived: Derived) -> Iterator[str]:
    for first, group in grouped(derived):
        card = {key: text(said) for key, said in first.card.items()}
        yield f"- **Data**: {card['name']}, version {card['version']}, {card['modality']}."
        yield f"  - Licence: {card['licence']}. Legal basis: {card['legal_basis']} (RECORDED)"
        yield f"  - Origin: {card['origin']}"
        for one in group:
            size = text(one.size or "size not stated")
            behind = f"({place(one.entry)}){unsupported(derived, one.entry.party)}"
            yield f"  - {text(one.entry.party)}: {size} {behind}"
    if not grouped(derived):
        yield "- **Data**: no training data are registered in these logs."
    for one in data_sets(derived.evidence):
        if one.role == "test":
            size = text(one.size or "size not stated")
            yield f"- **Examined on** {text(one.id)}: {size} ({place(one.entry)})"


def _privacy(derived: Derived) -> Iterator[str]:
    found = privacy(derived.evidence)
    if not found:
        yield "- **Privacy**: no budget was opened in these logs: nothing is known of it."
        return
    used = sorted({name for one in found for name in mechanisms(derived.evidence, one.party)})
    yield f"- **Privacy**: mechanism {text(', '.join(used)) or 'none'}"
    if open_ones := [one.party for one in found if one.open]:
        where = text(names(open_ones, derived.evidence.sites))
        yield f"  - **NOT PRIVATE** at {where}: nothing bounds what answers tell"
    for one in found:
        if mark := unsupported(derived, one.party):
            yield f"  - {text(one.party)}:{mark}, its log does not hold ({place(one.entry)})"
        elif one.withheld:
            kept = "what was spent is kept at home"
            yield f"  - WITHHELD by {text(one.party)}: {kept} ({place(one.entry)})"
        elif not one.open:
            spent = text(told_epsilon(one.spent, one.why))
            of = f"epsilon {spent} of {told_epsilon(one.budget)}, delta {one.says('delta')}"
            unit = text(f"by {one.says('unit')}, {one.says('relation')}")
            yield f"  - {text(one.party)}: {of}, {unit} ({place(one.entry)})"


def _quality(derived: Derived) -> Iterator[str]:
    found = evaluation(derived.evidence)
    if found is None:
        yield "- **Quality**: not measured; no examination of this student is in the logs"
        return
    has = found.student
    interval = told_interval(found.interval(has.get("accuracy")))
    said = f"accuracy {told(has.get('accuracy'))} (95 % interval {interval})"
    said += f", AUROC {told(has.get('auroc'))}, calibration error {told(has.get('ece'))}"
    yield f"- **Student**: {said} ({place(found.entry)}){unsupported(derived, found.entry.party)}"
    yield f"- **At the threshold that is used**: {text(used(derived))}"
    for row in (one for one in ordered(derived) if one.in_short):
        yield f"  - {text(told_row(row))}, on {text(row.data)} ({place(row.entry)})"
    for missing in not_measured(derived):
        yield f"  - **MISSING** {text(missing)}"
    if found.clients:
        yield "- **Each hospital's own model**, on the same test set"
    for site, model, own in found.clients:
        now = own.get("accuracy")
        shown = f"accuracy {told(now)} (95 % interval {told_interval(found.interval(now))})"
        alone = f"{told(own.get('local_accuracy'))} trained alone"
        yield f"  - {text(site)} ({text(model)}): {shown}, {alone}"


def _left(derived: Derived) -> Iterator[str]:
    for what, found in (
        ("Let out", releases(derived.evidence)),
        ("Refused", refusals(derived.evidence)),
    ):
        yield f"- **{what}**: {len(found):,}"
        yield from (f"  - {text(said)} ({place(entry)})" for entry, said in found)


def _open(derived: Derived) -> Iterator[str]:
    yield "- **A person still has to supply**:" if roles(derived) else "- **Nothing is open**"
    for role, answers in roles(derived).items():
        asked = sum(not one.field.automatic for one in answers)
        yield f"  - {text(role)}: {asked} to state and sign, {len(answers) - asked} to measure"


def _field(answer: Answered) -> Iterator[str]:
    field = answer.field
    yield f"### {text(field.point.removeprefix('AIA '))}: {text(field.requirement)}"
    yield ""
    why = f": {text(answer.why)}" if answer.why else ""
    yield f"**{answer.status}** `{field.id}`{why}"
    if field.applies:
        yield ""
        yield f"Applies: {text(field.applies)}."
    if answer.statements:
        yield ""
    for one in answer.statements:
        yield f"- {statement(one)}"


def statement(one: Statement) -> str:
    """A sentence with its status, its author, and the entries behind it."""
    names_ = ", ".join(f"{it.log}#{it.index}" for it in one.evidence[:_PLACES])
    left = len(one.evidence) - _PLACES
    behind = text(names_ + (f" and {left} more" if left > 0 else "")) or "whole logs"
    author = f", declared by {text(one.author)}" if one.author is not None else ""
    doubt = f" **NOT SUPPORTED: {text(one.doubt)}**" if one.doubt is not None else ""
    return f"{text(one.text)} _{one.status}{author}; {behind}_{doubt}"
