"""Charts of what the evidence says in numbers, each with a table of the same numbers."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from fedkd.audit.verify.refusals import ODD
from fedkd.report.verify import picture as draw
from fedkd.report.verify.deriving import Derived
from fedkd.report.verify.glance import (
    Evaluation,
    evaluation,
    privacy,
    traffic,
    unanswered_lessons,
)
from fedkd.report.verify.heading import names, unsupported
from fedkd.report.verify.page_parts import (
    Cell,
    Chart,
    Html,
    Table,
    details,
    element,
    joined,
    link,
    table,
    to_entries,
    to_entry,
    words,
)
from fedkd.report.verify.picture_quality import calibration_chart, shares_chart
from fedkd.report.verify.shares import Interval
from fedkd.report.verify.spending import spent
from fedkd.report.verify.values import NOT_STATED

_LEFT: Final = 8
_RIGHT: Final = draw.WIDTH - 8
_ROW: Final = 42
_GROUPS: Final = "a4.2g.discrimination"
_MOST_CHARGES: Final = 60
"""Up to so many charges are shown one by one."""


def charts(derived: Derived) -> list[Chart]:
    """Those that the evidence has numbers for, in the order in which they are shown."""
    makers: tuple[Callable[[Derived], Chart | None], ...] = (
        privacy_chart,
        accuracy_chart,
        shares_chart,
        calibration_chart,
        bytes_chart,
    )
    made = (make(derived) for make in makers)
    return [chart for chart in made if chart is not None]


def told(value: float | None, digits: int = 3) -> str:
    """A figure with so many digits after the point, or "not stated"."""
    return NOT_STATED if value is None else f"{value:.{digits}f}"


def told_epsilon(value: float | None, why: str = "") -> str:
    """An epsilon in words: a bound, none at all, or why nobody here can tell it."""
    if value is None:
        return f"cannot be told here: {why}" if why else NOT_STATED
    return "without bound" if math.isinf(value) else f"{value:.4g}"


def told_interval(interval: Interval | None) -> str:
    """An interval, or that there is none."""
    return NOT_STATED if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def told_bytes(count: int) -> str:
    """A number of bytes, in units that can be read."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def privacy_chart(derived: Derived) -> Chart | None:
    """Epsilon spent beside epsilon allowed, by hospital."""
    found = privacy(derived.evidence)
    if not found:
        return None
    sizes = [size for one in found for size in (one.budget, one.spent) if size is not None]
    most = max([size for size in sizes if math.isfinite(size)], default=0.0) or 1.0
    across = (_RIGHT - _LEFT) / most
    parts, said = [], []
    for index, one in enumerate(found):
        y = 8 + index * _ROW
        name = draw.fitted(one.party, 150)
        parts.append(draw.text(_LEFT, y + 12, name, bold=True))
        if unsupported(derived, one.party):
            told_here = "NOT SUPPORTED: see above"
            parts.append(draw.box(_LEFT, y + 18, _RIGHT - _LEFT, 12, edge="warn", dash="2 4"))
        elif one.withheld:
            told_here = "WITHHELD"
            parts.append(draw.box(_LEFT, y + 18, _RIGHT - _LEFT, 12, dash="2 4"))
        elif one.open or (one.spent is not None and math.isinf(one.spent)):
            told_here = "NOT PRIVATE: no bound"
            parts.append(draw.box(_LEFT, y + 18, _RIGHT - _LEFT, 12, edge="warn", dash="5 3"))
        else:
            budget = told_epsilon(one.budget)
            told_here = f"{told_epsilon(one.spent, 'see the table')} of {budget}"
            room = (one.budget or 0.0) * across
            parts.append(draw.box(_LEFT, y + 18, room, 12, round=0))
            if one.spent is not None:
                parts.append(draw.bar(_LEFT, y + 18, one.spent * across, 12, colour="one"))
        colour = "warn" if one.open else "ink"
        parts.append(draw.text(_RIGHT, y + 12, told_here, anchor="end", colour=colour))
        said.append(f"{one.party}: {told_here}")
    title = "Privacy spent by hospital (epsilon)"
    drawn = draw.drawing("privacy", 8 + len(found) * _ROW, title, "; ".join(said) + ".", parts)
    heads = ("Hospital", "Epsilon spent", "Epsilon allowed", "Delta", "Unit", "Relation", "Filter",
             "Patients", "Charges", "Evidence")  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        spent_here = told_epsilon(one.spent, one.why)
        facts = [one.says(key) for key in ("delta", "unit", "relation", "filter", "patients")]
        behind = to_entries((one.entry, *one.charges))
        allowed = "NOT PRIVATE: open" if one.open else told_epsilon(one.budget)
        allowed = "WITHHELD" if one.withheld else allowed
        allowed = unsupported(derived, one.party).strip() or allowed
        charged = str(len(one.charges))
        rows.append((one.party, spent_here, allowed, *facts, charged, behind))
    notes: list[Cell] = [
        "Spent is recomputed from the charges in each hospital's log, never the number that a log "
        "says. A filled bar is what was spent, its frame what is allowed."
    ]
    by_round = _by_charge(derived)
    if by_round is not None:
        notes.append(by_round)
    return Chart("privacy", drawn, Table(title, heads, rows), tuple(notes))


def _by_charge(derived: Derived) -> Html | None:
    """Each charge in order, the round that it was for, and what all up to it come to."""
    rounds = _rounds(derived)
    rows: list[tuple[Cell, ...]] = []
    for one in privacy(derived.evidence):
        costs = []
        for entry in one.charges[:_MOST_CHARGES]:
            body = entry.body
            if body is None:
                rows.append((one.party, NOT_STATED, "withheld", to_entry(entry)))
                break
            costs.append(body.get("cost"))
            try:
                after = told_epsilon(spent(one.entry.body or {}, costs))
            except ODD:
                after = "cannot be told here"
            round = rounds.get(str(body.get("question")), NOT_STATED)
            rows.append((one.party, round, after, to_entry(entry)))
    if not rows:
        return None
    heads = ("Hospital", "Round", "Epsilon up to here", "Evidence")
    shown = table(Table("Privacy spent by hospital and round", heads, rows))
    return details("Privacy spent by hospital and round", shown)


def _rounds(derived: Derived) -> Mapping[str, str]:
    return {
        str(entry.body.get("question")): str(entry.body.get("round"))
        for entry in derived.evidence.told("answers.admitted")
        if entry.body is not None
    }


def accuracy_chart(derived: Derived) -> Chart | None:
    """Accuracy on the common test set: the student, and each hospital's model now and alone."""
    found = evaluation(derived.evidence)
    if found is None:
        return None
    lines: list[tuple[str, float | None, float | None]] = [
        ("Student", found.student.get("accuracy"), None)
    ]
    lines += [
        (site, has.get("accuracy"), has.get("local_accuracy")) for site, _, has in found.clients
    ]
    values = [value for _, now, alone in lines for value in (now, alone) if value is not None]
    ends = [found.interval(value) for value in values]
    lows = [one.low for one in ends if one is not None] + values
    low = max(0.0, math.floor(min(lows, default=0.0) * 10) / 10)
    across = (_RIGHT - _LEFT - 16) / max(1.0 - low, 0.1)

    def at(value: float) -> float:
        return _LEFT + 8 + (value - low) * across

    bottom = 34 + len(lines) * 36
    parts = [draw.mark(14, 12, "circle", colour="one"), draw.text(24, 16, "now")]
    parts += [draw.mark(74, 12, "ring", colour="two"), draw.text(84, 16, "trained alone")]
    parts += [draw.line([(186, 12), (206, 12)], colour="one", width=2)]
    parts += [draw.text(212, 16, "95 % interval")]
    for step in range(round(low * 10), 11):
        parts.append(draw.line([(at(step / 10), 28), (at(step / 10), bottom)], width=0.5))
        parts.append(
            draw.text(at(step / 10), bottom + 16, f"{step / 10:.1f}", anchor="middle", size=11)
        )
    said = []
    for index, (name, now, alone) in enumerate(lines):
        y = 40 + index * 36
        parts.append(draw.text(_LEFT, y + 4, draw.fitted(name, 200), bold=True))
        parts.append(draw.text(_RIGHT, y + 4, told(now), anchor="end"))
        for value, shape, colour, lower in ((alone, "ring", "two", 20), (now, "circle", "one", 14)):
            if value is None:
                continue
            interval = found.interval(value)
            if interval is not None:
                span = [(at(interval.low), y + lower), (at(interval.high), y + lower)]
                parts.append(draw.line(span, colour=colour, width=2 if shape == "circle" else 1))
            parts.append(draw.mark(at(value), y + lower, shape, colour=colour))
        more = f", {told(alone)} alone" if alone is not None else ""
        said.append(f"{name}: {told(now)}{more}")
    title = "Accuracy on the common test set"
    drawn = draw.drawing("accuracy", bottom + 24, title, "; ".join(said) + ".", parts)
    return Chart(
        "accuracy", drawn, _accuracy_table(found, title), tuple(_accuracy_notes(derived, found))
    )


def _accuracy_table(found: Evaluation, title: str) -> Table:
    heads = (
        "Model",
        "Accuracy",
        "95 % interval",
        "Trained alone",
        "95 % interval, alone",
        "Balanced accuracy",
        "AUROC",
        "AUROC alone",
        "On its own mix of classes",
        "AUROC on its own records",
    )
    keys = ("balanced_accuracy", "auroc", "local_auroc", "own_mix", "own_auroc")
    rows: list[tuple[Cell, ...]] = []
    every = [("Student", "", found.student), *found.clients]
    for name, model, has in every:
        now, alone = has.get("accuracy"), has.get("local_accuracy")
        shown = [told(now), told_interval(found.interval(now)), told(alone)]
        shown += [told_interval(found.interval(alone)), *(told(has.get(key)) for key in keys)]
        rows.append((f"{name} ({model})" if model else name, *shown))
    return Table(title, heads, rows)


def _accuracy_notes(derived: Derived, found: Evaluation) -> list[Cell]:
    measured = Html(f"Measured on {words(found.on)}, {to_entry(found.entry)}.")
    interval = found.interval(found.student.get("accuracy"))
    if interval is None:
        return [measured, "The log has no size of that test set, so that no interval is given."]
    return [
        measured,
        f"Intervals are Wilson's (1927) at 95 % for {interval.of:,} test records taken as "
        "independent: they tell what chance in this test set leaves open, not how another "
        "hospital, another year or another training would come out.",
        _by_group(derived),
    ]


def _by_group(derived: Derived) -> Html:
    """Whether anything was measured by group of persons, and where it stands."""
    found = next((one for one in derived.answers if one.field.id == _GROUPS), None)
    if found is None or found.status in ("MISSING", "WITHHELD"):
        return Html("By group of persons: not measured here.")
    return joined(("By group of persons: see ", link(_GROUPS, found.field.requirement), "."))


def _not_counted(derived: Derived) -> list[Cell]:
    """What went to and fro after the entry that the bytes stand in: it has none of its own."""
    said: list[Cell] = [
        element("strong", "NOT COUNTED"),
        ": the bytes of what closes a run are in no entry of these logs. That is the last roll "
        "call, questions of an evaluation, and the closing message with what answers it",
    ]
    lessons = unanswered_lessons(derived.evidence)
    if lessons:
        told = [(entry.body or {}).get("recipients") for entry in lessons]
        sites = sorted({str(site) for them in told if isinstance(them, list) for site in them})
        said += [f", which brought the last lesson to {names(sites)} (", to_entries(lessons), ")"]
    return [*said, ". The summary.json of the run has the sum of all bytes, and nobody signs it."]


def bytes_chart(derived: Derived) -> Chart | None:
    """Bytes to and from each hospital."""
    found = traffic(derived.evidence)
    if not found:
        return None
    most = max(max(one.down, one.up) for one in found.values()) or 1
    across = (_RIGHT - _LEFT - 150) / most
    parts, said = [], []
    for index, (site, one) in enumerate(found.items()):
        y = 8 + index * 50
        parts.append(draw.text(_LEFT, y + 10, draw.fitted(site, 340), bold=True))
        for lower, size, to, colour in (
            (16, one.up, "from it", "one"),
            (30, one.down, "to it", "two"),
        ):
            parts.append(draw.bar(_LEFT, y + lower, size * across, 10, colour=colour))
            where = _LEFT + size * across + 6
            parts.append(draw.text(where, y + lower + 9, f"{told_bytes(size)} {to}", size=11))
        said.append(f"{site}: {told_bytes(one.up)} from it, {told_bytes(one.down)} to it")
    title = "Bytes to and from each hospital"
    drawn = draw.drawing("bytes", 10 + len(found) * 50, title, "; ".join(said) + ".", parts)
    rows = [
        (site, f"{one.up:,}", f"{one.down:,}", to_entries(one.entries))
        for site, one in found.items()
    ]
    heads = ("Hospital", "Bytes from it", "Bytes to it", "Evidence")
    counted = (
        "As the server counted them up to the last round whose answers it admitted. What left a "
        "hospital are output distributions: no records, weights or gradients."
    )
    notes = (counted, element("p", *_not_counted(derived), class_="doubt"))
    return Chart("bytes", drawn, Table(title, heads, rows), notes)
