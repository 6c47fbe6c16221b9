"""Holds a hospital's own table against the federation's schema, column by column, in words.

What it says counts records: it is printed for whoever works at the hospital, and goes nowhere.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from fedkd.data.columns import FEW, CategoricalColumn, Cells, NumericColumn
from fedkd.data.schema import Frame, TableSchema
from fedkd.data.typed_by_hand import plain_text
from fedkd.deploy.units import Guess, guess
from fedkd.deploy.verdicts import Verdict, passed, problem
from fedkd.knowledge import BadInput

MANY = 0.2
"""Above this share of values out of range, or in no category, a person has to look."""
UNEXPECTED = 0.2
"""By how much more may be missing than the schema declares."""
Counts: TypeAlias = Sequence[tuple[object, int]]
"""Distinct values with how often each occurs."""


def check_table(frame: Frame, schema: TableSchema) -> Iterator[Verdict]:
    """Verdicts on columns, their values, the label's classes and the patients of raw rows.

    About columns that are not in `frame` it says nothing: whoever read the table has.
    """
    absent = [name for name in schema.needed if name not in frame]
    wrong: list[Verdict] = []
    notes: list[Verdict] = []
    here = [column for column in schema.columns if column.name not in absent]
    for column in here:
        cells = schema.cells(frame, column.name)
        for verdict in _column(column, cells, schema):
            (wrong if verdict.outcome == "problem" else notes).append(verdict)
    spoilt = {verdict.check for verdict in wrong}
    if here and len(spoilt) < len(here):
        good = len(here) - len(spoilt)
        yield passed("columns", f"{good} of {len(schema.columns)} hold what the schema declares")
    yield from wrong
    yield from notes
    if schema.label.column not in absent:
        yield from _label(frame, schema)
    if schema.patient and schema.patient not in absent:
        cells = schema.cells(frame, schema.patient, "patient")
        rows = sum(often for _, often in _counted(cells))
        yield passed("patients", f"{len(cells.distinct)} patients in {rows} rows")


def _column(
    column: NumericColumn | CategoricalColumn, cells: Cells, schema: TableSchema
) -> Iterator[Verdict]:
    counts = _counted(cells)
    rows = len(cells.codes)
    if isinstance(column, CategoricalColumn):
        yield from _categories(column, counts, schema)
        missing = rows - sum(n for value, n in counts if not _is_missing(value, schema))
    else:
        values, strange = _numbers(column, counts, schema)
        if strange:
            yield _no_numbers(column, strange, schema)
        else:
            yield from _range(column, values)
        missing = rows - sum(n for _, n in (*values, *strange))
    yield from _missing(column, missing, rows)


def _range(column: NumericColumn, values: Sequence[tuple[float, int]]) -> Iterator[Verdict]:
    total = sum(often for _, often in values)
    below = sum(often for value, often in values if value < column.low)
    above = sum(often for value, often in values if value > column.high)
    out = below + above
    if not out:
        return
    side, count = ("below", below) if below >= above else ("above", above)
    unit = f" {column.unit}" if column.unit else ""
    said = f"{_share(count, total)} of {column.name} {side} range"
    declared = f"{column.low:g} to {column.high:g}{unit}"
    hint = guess(column.name, column.unit, column.low, column.high, values)
    if hint is not None and out >= min(FEW, total):
        yield problem(
            column.name,
            f"{said}: {hint.unit}? (declared {declared}, here typically {_median(values):.3g})",
            _convert(hint, column),
        )
    elif out > MANY * total and out >= FEW:
        yield problem(
            column.name,
            f"{said} {declared} (here typically {_median(values):.3g})",
            "look at its unit and codes; convert them under columns: in site.yaml",
        )
    else:
        yield passed(column.name, f"{said} {declared}: {out} values are clipped to it")


def _convert(hint: Guess, column: NumericColumn) -> str:
    return (
        f"a guess by known factors, and no more: if the laboratory says {hint.unit}, write it "
        f"under columns: in site.yaml ({column.name}: {{column: ..., {hint.rule}}}); then "
        f"{_percent(hint.share)} lie inside"
    )


def _no_numbers(column: NumericColumn, strange: Counts, schema: TableSchema) -> Verdict:
    shown = ", ".join(repr(plain_text(value)) for value, _ in strange[:3])
    return problem(
        column.name,
        f"{sum(n for _, n in strange)} values that are no numbers, such as {shown}",
        f"numbers have the decimal mark {schema.decimal!r}; list words for 'not measured' under "
        "data: missing_values: in site.yaml",
    )


def _categories(
    column: CategoricalColumn, counts: Counts, schema: TableSchema
) -> Iterator[Verdict]:
    there = [(value, n) for value, n in counts if not _is_missing(value, schema)]
    unknown = [(value, n) for value, n in there if plain_text(value) not in column.categories]
    total, strange = sum(n for _, n in there), sum(n for _, n in unknown)
    if not strange:
        return
    shown = ", ".join(repr(plain_text(value)) for value, _ in unknown[:3])
    said = f"{_share(strange, total)} of {column.name} in no declared category, such as {shown}"
    if strange > MANY * total:
        known = ", ".join(column.categories)
        yield problem(
            column.name, said, f"map them to {known} under columns: in site.yaml (codes:)"
        )
    else:
        yield passed(column.name, f"{said}: read as missing")


def _missing(
    column: NumericColumn | CategoricalColumn, missing: int, rows: int
) -> Iterator[Verdict]:
    if rows and missing == rows:
        yield passed(column.name, "all values are missing: nothing is learnt from it here")
    elif missing > (column.missing + UNEXPECTED) * rows:
        declared = f"the schema expects {_percent(column.missing)}"
        yield passed(column.name, f"{_share(missing, rows)} missing, {declared}")


def _label(frame: Frame, schema: TableSchema) -> Iterator[Verdict]:
    try:
        codes = Counter(schema.labels(frame).tolist())
    except BadInput as error:
        yield problem("label", f"found {error.found}", _remedy(error))
        return
    without = codes.pop(-1, 0)
    said = ", ".join(f"{name} {codes[at]}" for at, name in enumerate(schema.classes))
    if not codes:
        yield problem(
            "label", f"{without} rows, none with a label", "which column is it? See site.yaml"
        )
        return
    lone = [name for at, name in enumerate(schema.classes) if not codes[at]]
    yield passed("label", said + (f"; no {', '.join(lone)} here" if lone else ""))
    yield passed("rows", f"{sum(codes.values())} used, {without} left out: no label")


def _numbers(
    column: NumericColumn, counts: Counts, schema: TableSchema
) -> tuple[list[tuple[float, int]], list[tuple[object, int]]]:
    """Numbers that are there, and values that are none; missing ones are in neither."""
    numbers, strange = [], []
    spelt = schema.number_format
    for value, often in counts:
        if _is_missing(value, schema):
            continue
        read = spelt.parse(value)
        if read is None:
            strange.append((value, often))
        elif read or not column.zero_is_missing:
            numbers.append((read, often))
    return numbers, strange


def _is_missing(value: object, schema: TableSchema) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or schema.number_format.is_missing(value)
    )


def _counted(cells: Cells) -> list[tuple[object, int]]:
    often = Counter(cells.codes.tolist())
    return [(value, often[at]) for at, value in enumerate(cells.distinct)]


def _median(values: Sequence[tuple[float, int]]) -> float:
    half = sum(often for _, often in values) / 2
    seen = 0
    for value, often in sorted(values):
        seen += often
        if seen >= half:
            return value
    return float("nan")


def _share(part: int, whole: int) -> str:
    return _percent(part / whole if whole else 0.0)


def _percent(share: float) -> str:
    """A share in whole per cent; never 0 or 100 where it is neither."""
    whole = round(100 * share)
    if (whole == 0 and share > 0) or (whole == 100 and share < 1):
        return f"{100 * share:.1f} %"
    return f"{whole} %"


def _remedy(error: BadInput) -> str:
    return f"expected {error.expected}" + (f"; {error.remedy}" if error.remedy else "")
