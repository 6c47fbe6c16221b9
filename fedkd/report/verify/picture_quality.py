"""Charts of how good the student is: shares at the threshold that is used, and calibration."""

from collections.abc import Sequence
from typing import Final

from fedkd.report.verify import picture as draw
from fedkd.report.verify.deriving import MISSING, Derived
from fedkd.report.verify.glance import evaluation
from fedkd.report.verify.page_parts import Cell, Chart, Table, element, to_entry
from fedkd.report.verify.shares import (
    NAMES,
    Bin,
    Row,
    Share,
    bins,
    error_of,
    released,
    rows,
    wilson,
)
from fedkd.report.verify.values import NOT_STATED

FIELDS: Final = ("a4.2g.metrics", "a4.3.groups")
"""Where the same stands in sentences."""
_ORDER: Final = ("whole", "outsider", "hospital", "group")
_DRAWN: Final = 10
_FROM: Final = 96
_TO: Final = 316
_RIGHT: Final = draw.WIDTH - 8
_LEFT: Final = 8


def ordered(derived: Derived) -> list[Row]:
    """The rows that count, those of all places together first; of a question asked twice the last.

    Hospitals that took no part come before those that did: they tell most of how a device fares.
    """
    newest = {
        (one.kind, one.where, one.group, one.data, one.at): one for one in rows(derived.evidence)
    }
    return sorted(newest.values(), key=lambda one: _ORDER.index(one.kind))


def not_measured(derived: Derived) -> list[str]:
    """What is missing of the figures that a device's file asks for, and who could supply it."""
    return [
        statement.text
        for id in FIELDS
        for statement in derived.answer(id).statements
        if statement.status == MISSING
    ]


def told_row(row: Row) -> str:
    """A row in words."""
    mark = ", which took no part" if row.kind == "outsider" else ""
    return f"{row.name}{mark}, at {row.at}: {row.told()}"


def used(derived: Derived) -> str:
    """Which version the figures are about."""
    version = released(derived.evidence)
    if version.entry is None:
        return "No version is released in these logs; shown is what the student does at 0.5"
    at = "" if version.threshold is None else f", threshold {version.threshold:g}"
    return f"Version {version.version}{at}"


def shares_chart(derived: Derived) -> Chart | None:
    """Sensitivity, specificity and predictive values, with intervals, by hospital and group."""
    found = ordered(derived)
    if not found:
        return None
    shown = found[:_DRAWN]
    parts: list[str] = []
    said: list[str] = []
    y = 10.0
    for row in shown:
        mark = " (took no part)" if row.kind == "outsider" else ""
        named = f"{row.name}{mark}, {row.at}"
        head, wide = row.name + mark, _RIGHT - _LEFT - 10
        parts.append(draw.text(_LEFT, y + 8, draw.fitted(head, wide * 0.9), bold=True))
        where = draw.fitted(f"{row.at}, on {row.data}", wide, 11)
        parts.append(draw.text(_LEFT, y + 22, where, size=11, colour="soft"))
        y += 28
        y = _bars(parts, row, y) + 10
        said.append(f"{named}: {row.told()}")
    for place, name in ((0.0, "0"), (0.5, "0.5"), (1.0, "1")):
        parts.append(draw.text(_at(place), y + 6, name, anchor="middle", size=11))
    version = released(derived.evidence)
    title = "Sensitivity, specificity and predictive values"
    drawn = draw.drawing("shares", y + 14, title, "; ".join(said) + ".", parts)
    notes: list[Cell] = [f"{used(derived)}. A line is the 95 % interval."]
    if len(found) > len(shown):
        notes.append(f"{len(found) - len(shown)} more rows stand in the table.")
    notes += [f"{text}" for text in dict.fromkeys(f"Intervals: {row.intervals}." for row in found)]
    notes += not_measured(derived)
    if version.entry is not None:
        notes.append(element("p", "Released in ", to_entry(version.entry), "."))
    return Chart("shares", drawn, _table(found, title), tuple(notes))


def _at(value: float) -> float:
    return _FROM + value * (_TO - _FROM)


def _bars(parts: list[str], row: Row, y: float) -> float:
    for key, share in row.shares.items():
        parts.append(draw.text(_LEFT, y + 10, NAMES[key], size=11, colour="soft"))
        parts.append(draw.line([(_at(0), y + 6), (_at(1), y + 6)], width=0.5))
        if share.value is not None:
            parts.append(
                draw.line(
                    [(_at(share.low), y + 6), (_at(share.high), y + 6)], colour="one", width=3
                )
            )
            parts.append(draw.mark(_at(share.value), y + 6, "circle", colour="one"))
        value = "none" if share.value is None else f"{share.value:.3f}"
        parts.append(draw.text(_RIGHT, y + 10, value, anchor="end", size=11))
        y += 16
    return y


def in_short(derived: Derived) -> Table | None:
    """All together and hospitals that took no part, for a reader in a hurry."""
    found = [one for one in ordered(derived) if one.kind in ("whole", "outsider")]
    found = [one for one in found if one.in_short][:_DRAWN]
    if not found:
        return None
    keys = _keys(found)
    made: list[Sequence[Cell]] = []
    for row in found:
        mark = " (took no part)" if row.kind == "outsider" else ""
        shown = [_limits(row.shares.get(key)) for key in keys]
        made.append((f"{row.name}{mark}: {row.data}", *shown, to_entry(row.entry)))
    heads = ("Whom (95 % intervals)", *map(_head, keys), "Evidence")
    return Table(used(derived), heads, made)


def _limits(share: Share | None) -> str:
    if share is None or share.value is None:
        return NOT_STATED
    return f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})"


def _keys(found: Sequence[Row]) -> list[str]:
    return [key for key in NAMES if any(key in row.shares for row in found)]


def _head(key: str) -> str:
    return NAMES[key][:1].upper() + NAMES[key][1:]


def _table(found: Sequence[Row], title: str) -> Table:
    keys = _keys(found)
    heads = ("Whom", "At", *map(_head, keys), "Measured on", "Intervals", "Evidence")
    made: list[Sequence[Cell]] = []
    for row in found:
        name = f"{row.name} (took no part)" if row.kind == "outsider" else row.name
        cells = [_cell(row.shares.get(key)) for key in keys]
        made.append((name, row.at, *cells, row.data, row.intervals, to_entry(row.entry)))
    return Table(title, heads, made)


def _cell(share: Share | None) -> str:
    return NOT_STATED if share is None else share.told()


def calibration_chart(derived: Derived) -> Chart | None:
    """The reliability diagram of the student, or its calibration error alone on a scale."""
    found = evaluation(derived.evidence)
    if found is None:
        return None
    counted = bins(found.entry.body)
    if counted:
        return _reliability(counted, to_entry(found.entry), found.on)
    return _scale(found.student.get("ece"), to_entry(found.entry))


_BOX: Final = (44.0, 10.0, 320.0)
"""Left, top and side of the square in which confidence is held against the share that is right."""
_COUNTS: Final = 70.0


def _reliability(counted: Sequence[Bin], entry: Cell, on: str) -> Chart:
    left, top, side = _BOX

    def across(value: float) -> float:
        return left + min(value, 1.0) * side

    def down(value: float) -> float:
        return top + (1 - value) * side

    parts = [draw.box(left, top, side, side, round=0)]
    for step in range(0, 11, 2):
        value = step / 10
        parts.append(draw.line([(across(value), top), (across(value), top + side)], width=0.5))
        parts.append(draw.line([(left, down(value)), (left + side, down(value))], width=0.5))
        parts.append(draw.text(left - 6, down(value) + 4, f"{value:.1f}", anchor="end", size=11))
    parts.append(draw.line([(left, top + side), (left + side, top)], dash="5 4", width=1.5))
    most = max(one.count for one in counted)
    floor = top + side + 14 + _COUNTS
    rows: list[tuple[Cell, ...]] = []
    said: list[str] = []
    for one in counted:
        share = one.right / one.count
        interval = wilson(share, one.count)
        x = across(one.confidence)
        parts.append(draw.line([(x, down(interval.low)), (x, down(interval.high))], colour="one"))
        parts.append(draw.mark(x, down(share), "circle", colour="one"))
        height = one.count / most * (_COUNTS - 14)
        wide = across(one.high) - across(one.low) - 2
        parts.append(draw.bar(across(one.low) + 1, floor - height, wide, height, colour="two"))
        middle = (across(one.low) + across(one.high)) / 2
        parts.append(draw.text(middle, floor - height - 3, str(one.count), anchor="middle", size=9))
        bounds = f"{one.low:.3f} to {one.high:.3f}"
        shown = f"{share:.3f} ({interval.low:.3f} to {interval.high:.3f})"
        rows.append((bounds, f"{one.count:,}", f"{one.right:,}", shown, f"{one.confidence:.3f}",
                     entry))  # fmt: skip
        said.append(
            f"{one.count} answers of mean confidence {one.confidence:.2f}, {share:.2f} right"
        )
    parts.append(draw.line([(left, floor), (left + side, floor)]))
    for step in range(0, 11, 2):
        label = f"{step / 10:.1f}"
        parts.append(draw.text(across(step / 10), floor + 14, label, anchor="middle", size=11))
    error = error_of(counted)
    title = "Calibration: reliability diagram of the student"
    description = f"Expected calibration error {error:.3f}. {'; '.join(said)}."
    drawn = draw.drawing("calibration", floor + 22, title, description, parts)
    heads = ("Confidence", "Answers", "Right", "Share right (95 % interval)", "Mean confidence",
             "Evidence")  # fmt: skip
    notes = (
        f"Measured on {on}. Across: how sure the student was; up: the share that was right, with "
        "Wilson's 95 % interval; below: how many answers there are. On the dashed line it is as "
        "sure as it should be, below it too sure.",
        f"Expected calibration error {error:.3f}, computed from these counts; 0 would be perfect.",
    )
    return Chart("calibration", drawn, Table(title, heads, rows), notes)


def _scale(error: float | None, entry: Cell) -> Chart | None:
    if error is None or not 0 <= error <= 1:
        return None
    across = (_RIGHT - _LEFT - 16) / max(0.5, error)

    def at(value: float) -> float:
        return _LEFT + 8 + value * across

    parts = [draw.text(_LEFT, 14, "Student", bold=True)]
    parts.append(draw.text(_RIGHT, 14, f"{error:.3f}", anchor="end"))
    parts.append(draw.line([(at(0), 30), (at(max(0.5, error)), 30)]))
    for step in range(int(max(0.5, error) * 10) + 1):
        parts.append(draw.line([(at(step / 10), 26), (at(step / 10), 34)]))
        parts.append(draw.text(at(step / 10), 50, f"{step / 10:.1f}", anchor="middle", size=11))
    parts.append(draw.line([(at(0), 30), (at(error), 30)], colour="one", width=3))
    parts.append(draw.mark(at(error), 30, "circle", colour="one"))
    title = "Calibration: expected calibration error of the student"
    drawn = draw.drawing("calibration", 58, title, f"{error:.3f}; 0 would be perfect.", parts)
    rows = [("Student", f"{error:.3f}", entry)]
    notes = (
        "0 would be perfect: among answers given with confidence 0.8, 80 % would be right. The "
        "log holds no counts by confidence, so that no reliability diagram can be drawn.",
    )
    same = Table(title, ("Model", "Expected calibration error", "Evidence"), rows)
    return Chart("calibration", drawn, same, notes)
