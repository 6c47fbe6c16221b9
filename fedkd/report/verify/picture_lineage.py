"""Draws where the student comes from: sources, hospitals, consensus, student, from top to bottom.

Rounds are put together: an arrow stands for all uses of a kind that the logs name.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from fedkd.audit.verify import CannotTell, Refuted
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.lineage import Activity, Lineage, stated
from fedkd.report.verify import picture as draw
from fedkd.report.verify.deriving import Derived, Place
from fedkd.report.verify.origins import origin, withheld_by
from fedkd.report.verify.page_parts import Cell, Chart, Table, to_entries, to_entry

_MOST_ROWS: Final = 24
_BOX: Final = 34
_STEP: Final = 44
_DATA: Final = (22, 146)
_MODEL: Final = (190, 156)
_WIDE: Final = 324
_TOP: Final = 6.0
_TO: Final = 364
_BACK: Final = 10


class _Row(NamedTuple):
    site: str
    data: tuple[str, ...]
    trained: int
    answered: int
    model: str


def lineage_chart(derived: Derived) -> Chart | str:
    """The picture, or why none can be drawn."""
    evidence = derived.evidence
    if any(book.log is None for book in evidence.books.values()):
        return "A log does not hold, so that nobody can tell where the student comes from."
    try:
        found = origin(evidence)
    except (CannotTell, Refuted) as error:
        return f"It cannot be told here where the student comes from: {error}"
    return _drawn(found)


def _drawn(found: Lineage) -> Chart:
    rows = _rows(found)
    combined, students = _of(found, "aggregate.computed"), _of(found, "student.updated")
    whole, top = _whole(found)
    hospitals, below = _hospitals(rows, top, cut=bool(whole))
    meeting, under = _consensus(found, combined, below, top=top, hospitals=bool(rows))
    name = found.of[0].name[:19] if found.of else "none"
    kind = stated(students[-1].body, "model") if students else "model"
    size = f"{kind}, {_times(len(students), 'update')}"
    student = _boxed(_DATA[0], under, _WIDE, f"Student {name}", size, bold=True)
    learnt = any(use.role == "lesson" for one in found.activities for use in one.uses)
    lessons = "Lessons went back to the hospitals after each round." if learnt else ""
    if lessons:
        student.append(draw.text(_DATA[0], under + _BOX + 18, lessons, size=11, colour="soft"))
    title = "From the sources to the student"
    kinds = f"{len(found.sources)} sources, {len(rows)} hospitals, {len(combined)} consensuses"
    said = f"{kinds} and {len(students)} updates lead to the student {name}. {lessons}"
    parts = [*whole, *hospitals, *meeting, *student]
    drawn = draw.drawing("lineage", under + _BOX + (28 if lessons else 8), title, said, parts)
    return Chart("lineage", drawn, _table(found), tuple(_notes(found)))


def _whole(found: Lineage) -> tuple[list[str], float]:
    """The sets that others were cut from, and where the next row begins."""
    names = sorted({one.part_of.name for one in found.sources if one.part_of is not None})
    if not names:
        return [], _TOP
    name = draw.fitted(", ".join(names), _WIDE - 24)
    parts = _boxed(_DATA[0], _TOP, _WIDE, name, "data set, cut into parts")
    middle = _TOP + _BOX / 2
    parts.append(draw.line([(_DATA[0], middle), (_BACK, middle), (_BACK, _TOP + _STEP + 6)]))
    return parts, _TOP + _STEP + 6


def _hospitals(rows: Sequence[_Row], y: float, *, cut: bool) -> tuple[list[str], float]:
    """A row for each hospital: its data, and its model that learnt from them and answered."""
    parts: list[str] = []
    for row in rows[:_MOST_ROWS]:
        name = draw.fitted(", ".join(row.data) or "no data set named", _DATA[1] - 12, 11)
        parts += _boxed(_DATA[0], y, _DATA[1], name, "training data", 11)
        counts = f"{_times(row.trained, 'training')}, {_times(row.answered, 'answer')}"
        site = draw.fitted(f"{row.site} ({row.model})", _MODEL[1] - 12, 11)
        parts += _boxed(_MODEL[0], y, _MODEL[1], site, counts, 11)
        middle = y + _BOX / 2
        parts.append(_across(middle))
        parts.append(draw.line([(_MODEL[0] + _MODEL[1], middle), (_TO, middle)]))
        if cut:
            into = [(_BACK, middle - _STEP), (_BACK, middle), (_DATA[0] - 1, middle)]
            parts.append(draw.line(into, arrow=True))
        y += _STEP
    if len(rows) > _MOST_ROWS:
        left = f"and {len(rows) - _MOST_ROWS} more hospitals, in the table"
        parts.append(draw.text(_DATA[0], y + 12, left, size=11))
        y += 22
    return parts, y + 8


def _consensus(
    found: Lineage, combined: Sequence[Activity], y: float, *, top: float, hospitals: bool
) -> tuple[list[str], float]:
    """Queries and consensus beside each other, an arrow down, and where that ends."""
    queries = _of(found, "queries.posed")
    kind, name = _origin(queries[-1] if queries else None)
    asked = f"{kind} queries, {_times(len(queries), 'set')}"
    parts = _boxed(_DATA[0], y, _DATA[1], name, asked, 11)
    rule = stated(combined[-1].body, "rule") if combined else "none"
    said = f"rule {rule}, {_times(len(combined), 'round')}"
    parts += _boxed(_MODEL[0], y, _MODEL[1], "Consensus", draw.fitted(said, _MODEL[1], 10))
    middle = y + _BOX / 2
    parts.append(_across(middle))
    if any(one.role == "queries" and one.part_of is not None for one in found.sources):
        from_whole = [(_BACK, top), (_BACK, middle), (_DATA[0] - 1, middle)]
        parts.append(draw.line(from_whole, arrow=True))
    if hospitals:
        answers = [(_TO, top + _BOX / 2), (_TO, middle), (_MODEL[0] + _MODEL[1] + 1, middle)]
        parts.append(draw.line(answers, arrow=True))
    under, x = y + _STEP + 14, _MODEL[0] + _MODEL[1] / 2
    parts.append(draw.line([(x, y + _BOX), (x, under - 2)], arrow=True))
    return parts, under


def _across(middle: float) -> str:
    """The arrow from the left box of a row to the right one."""
    return draw.line([(_DATA[0] + _DATA[1], middle), (_MODEL[0] - 2, middle)], arrow=True)


def _rows(found: Lineage) -> list[_Row]:
    rows = []
    for site in found.agents:
        own = [one for one in found.activities if one.place.party == site]
        trained = [one for one in own if one.type == "train.local"]
        answered = [one for one in own if one.type == "release.outputs"]
        if site == SERVER or not (trained or answered):
            continue
        names = {
            use.entity.name
            for one in trained
            for use in one.uses
            if use.entity.kind == "data set" and use.entity.place.party == site
        }
        model = stated(trained[-1].body, "model") if trained else "model"
        rows.append(_Row(site, tuple(sorted(names)), len(trained), len(answered), model))
    return rows


def _of(found: Lineage, type: str) -> list[Activity]:
    return [one for one in found.activities if one.type == type and one.place.party == SERVER]


def _origin(query: Activity | None) -> tuple[str, str]:
    """Of what kind the queries are, and where they come from."""
    origin = query.body.get("origin") if query is not None else None
    if not isinstance(origin, dict):
        return "no", "Queries"
    name = stated(origin, "name" if origin.get("kind") == "public" else "generator")
    return stated(origin, "kind"), draw.fitted(name, _DATA[1] - 12, 11)


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _boxed(
    x: float, y: float, width: float, first: str, second: str, size: int = 12, *, bold: bool = False
) -> list[str]:
    edge = "ink" if bold else "line"
    return [
        draw.box(x, y, width, _BOX, edge=edge),
        draw.text(x + 6, y + 14, first, size=size, bold=True),
        draw.text(x + 6, y + 28, second, size=10, colour="soft"),
    ]


def _table(found: Lineage) -> Table:
    heads = ("Source", "Kind", "Used as", "Part of", "Licence", "Registered", "Used by")
    rows: list[Sequence[Cell]] = []
    for one in found.sources:
        whole = one.part_of.name if one.part_of is not None else "nothing larger"
        used = [Place(place.party, place.index) for place in one.used_by]
        registered = to_entry(Place(one.place.party, one.place.index))
        users: Cell = to_entries(used) if used else "no entry"
        row = (one.name, one.kind, one.role, whole, one.card["licence"], registered, users)
        rows.append(row)
    return Table("Everything that the student goes back to", heads, rows)


def _notes(found: Lineage) -> list[Cell]:
    notes: list[Cell] = [
        f"{found.followed:,} names were followed to the entries behind them, over all rounds."
    ]
    if kept := withheld_by(found.gaps):
        notes.append(f"WITHHELD BY {', '.join(kept)}: what some of their answers were made from.")
    elif found.gaps:
        more = f", and {len(found.gaps) - 3} more" if len(found.gaps) > 3 else ""
        listed = "; ".join(str(gap) for gap in found.gaps[:3])
        notes.append(f"NOT WHOLE: {listed}{more}.")
    return notes
