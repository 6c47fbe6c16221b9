"""Declares what one column of a table may hold, and how it becomes numbers that a model sees."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fedkd.data.typed_by_hand import (
    SPELT,
    listed,
    mapping_of,
    nearest,
    number,
    plain_text,
    spelling,
    text,
)
from fedkd.data.typed_by_hand import truth as truth_value
from fedkd.knowledge import Array, BadInput

# N rows, U distinct values of a column, K categories.

HALF_RANGE = 2.5
"""A declared range without mean and deviation is taken as this many deviations to each side.

Log-normal draws with the declared range at 2.5 deviations repaired the threshold of students on
skewed columns; uniform draws put every query into one class (measured on breast_cancer).
"""
BULK = 0.5
"""Above this share of values out of range (or of unknown categories), something else is wrong."""
FEW = 5
"""Fewer values than this are never `in bulk`."""


class Cells(NamedTuple):
    """One column as it came: `distinct` values [U] and for each row `codes` [N], -1 = missing."""

    distinct: list[Any]
    codes: Array

    def count(self, which: Array) -> int:
        """Number of rows whose distinct value is marked in `which` [U]."""
        return int(np.append(which, False)[self.codes].sum())


class NumberFormat(NamedTuple):
    """How the table writes numbers, and what it writes where it has none."""

    decimal: str
    thousands: str | None
    missing_values: frozenset[str]

    def parse(self, value: object) -> float | None:
        """The number that `value` spells; None where it spells none. Never guesses.

        With `thousands` as a comma, `1,234` is a number and `1,23` is not: a decimal comma read
        as a separator would be wrong by a factor of hundreds.
        """
        if isinstance(value, int | float | np.number | np.bool_):
            return float(value) if math.isfinite(value) else None
        said = str(value).strip()
        if not self._pattern().fullmatch(said):
            return None
        if self.thousands:
            said = said.replace(self.thousands, "")
        read = float(said.replace(self.decimal, "."))
        return read if math.isfinite(read) else None

    def _pattern(self) -> re.Pattern[str]:
        point, groups = re.escape(self.decimal), ""
        if self.thousands:
            groups = rf"[0-9]{{1,3}}(?:{re.escape(self.thousands)}[0-9]{{3}})+|"
        return re.compile(
            rf"[+-]?(?:(?:{groups}[0-9]+)(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"
        )

    def is_missing(self, value: object) -> bool:
        """Whether `value` is one of the spellings for a value that is not there."""
        return isinstance(value, str) and value.strip() in self.missing_values


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """A measured column: its range `low` to `high` in `unit`, typed by a person, never computed.

    A model sees `(x - centre) / scale`. With `mean` and `sd` (public knowledge about such
    patients, in `unit`) these are the two; else the range is taken as 2.5 deviations to each side.
    With `log` all of it happens to the natural logarithm; mean and sd are then turned into those
    of a log-normal, and where `low` is 0, what lies under a hundredth of `high` counts as that.
    `missing` is the declared share of missing values, `zero_is_missing` says that a 0 is none.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    mean: float | None = None
    sd: float | None = None
    log: bool = False
    zero_is_missing: bool = False
    missing: float = 0.0

    def __post_init__(self) -> None:
        where = f"column {self.name!r}"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise BadInput(f"range {self.low} to {self.high} of {where}", "finite low < high")
        if (self.mean is None) != (self.sd is None):
            raise BadInput(f"one of mean and sd of {where}", "both of them, or neither")
        if self.mean is not None and not self.low <= self.mean <= self.high:
            raise BadInput(f"mean {self.mean} of {where}", f"within {self.low} to {self.high}")
        if self.sd is not None and not (math.isfinite(self.sd) and self.sd > 0):
            raise BadInput(f"sd {self.sd} of {where}", "a positive number")
        if self.log and (self.low < 0 or (self.mean is not None and self.mean <= 0)):
            raise BadInput(f"log: true for {where}, which may be negative", "low >= 0 and mean > 0")
        if self.zero_is_missing and self.low <= 0 <= self.high:
            raise BadInput(f"zero_is_missing for {where}, whose range holds 0", "low above 0")
        _check_share(self.missing, where)

    @property
    def may_be_missing(self) -> bool:
        """Whether a 0/1 flag column follows the value."""
        return self.missing > 0 or self.zero_is_missing

    @property
    def centre(self) -> float:
        """What is subtracted, on the log scale where `log`."""
        if self.mean is None or self.sd is None:
            return (self._seen(self.low) + self._seen(self.high)) / 2
        if not self.log:
            return self.mean
        return math.log(self.mean) - self.scale**2 / 2

    @property
    def scale(self) -> float:
        """What is divided by, on the log scale where `log`; positive."""
        if self.mean is None or self.sd is None:
            return (self._seen(self.high) - self._seen(self.low)) / (2 * HALF_RANGE)
        if not self.log:
            return self.sd
        return math.sqrt(math.log1p((self.sd / self.mean) ** 2))

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest number that a model sees of this column, missing = 0 included."""
        return min(low for low, _ in self.ranges), max(high for _, high in self.ranges)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The same of each of `features`."""
        low, high = self.scaled(np.array([self.low, self.high]))
        flag = ((0.0, 1.0),) if self.may_be_missing else ()
        return (min(low, 0.0), max(high, 0.0)), *flag

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the encoded columns: the value, then `<name> missing` where it may be."""
        flag = (f"{self.name} missing",) if self.may_be_missing else ()
        return (self.name, *flag)

    def scaled(self, values: Array) -> Array:
        """What a model sees of raw `values` (any shape): float64, clipped first; NaN stays."""
        inside = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        if self.log:
            inside = np.log(np.maximum(inside, self._floor()))
        return np.asarray((inside - self.centre) / self.scale)

    def unscaled(self, seen: Array) -> Array:
        """Raw values in `unit`, clipped to the range, of `seen`: a standard normal draw is typical.

        The inverse of `scaled` within the range; for generators.
        """
        raw = np.asarray(seen, dtype=np.float64) * self.scale + self.centre
        if self.log:
            raw = np.exp(np.minimum(raw, math.log(self.high)))
        return np.asarray(np.clip(raw, self.low, self.high))

    def encode(self, cells: Cells, spelt: NumberFormat) -> tuple[Array, list[str]]:
        """Columns [N, 1 or 2] and notes; `BadInput` for texts and for units wrong in bulk."""
        values = np.full(len(cells.distinct), np.nan)
        wrong = np.zeros(len(cells.distinct), dtype=bool)
        for at, value in enumerate(cells.distinct):
            read = None if spelt.is_missing(value) else spelt.parse(value)
            wrong[at] = read is None and not spelt.is_missing(value)
            values[at] = np.nan if read is None else read
        if wrong.any():
            raise self._not_numbers(cells, wrong, spelt)
        if self.zero_is_missing:
            values[values == 0] = np.nan
        notes = self._check_range(cells, values)
        raw = np.append(values, np.nan)[cells.codes]
        gone = np.isnan(raw)
        if gone.any() and not self.may_be_missing:
            notes.append(
                f"column {self.name!r}: {int(gone.sum())} values are missing though the schema "
                "declares none; they are read as typical ones, without a flag"
            )
        if len(raw) > 1 and not gone.all() and np.nanmin(raw) == np.nanmax(raw):
            notes.append(f"column {self.name!r} is constant here: kept, but nothing to learn from")
        seen = np.where(gone, 0.0, self.scaled(np.where(gone, self.low, raw)))
        flags = [gone.astype(np.float64)] if self.may_be_missing else []
        return np.stack([seen, *flags], axis=1), notes

    def _seen(self, value: float) -> float:
        return math.log(max(value, self._floor())) if self.log else value

    def _floor(self) -> float:
        return self.low if self.low > 0 else self.high / 100

    def _check_range(self, cells: Cells, values: Array) -> list[str]:
        there = ~np.isnan(values)
        outside = there & ((values < self.low) | (values > self.high))
        out, total = cells.count(outside), cells.count(there)
        if out >= FEW and out > BULK * total:
            unit = f" {self.unit}" if self.unit else ""
            raise BadInput(
                f"{out} of {total} values of column {self.name!r} outside {self.low:g} to "
                f"{self.high:g}{unit}",
                "most values inside the declared range",
                f"are they in another unit than {self.unit or 'the declared one'}? Convert them, "
                "or declare low, high and unit as the table has them",
            )
        if not out:
            return []
        return [f"column {self.name!r}: {out} of {total} values out of range were clipped to it"]

    def _not_numbers(self, cells: Cells, wrong: Array, spelt: NumberFormat) -> BadInput:
        shown = [str(cells.distinct[at]) for at in np.flatnonzero(wrong)[:3]]
        grouped = re.compile(r"[+-]?[0-9]{1,3}(?:[,.' ][0-9]{3})+(?:[.,][0-9]+)?")
        if any("," in value and not spelt.thousands for value in shown) or any(
            grouped.fullmatch(value) for value in shown
        ):
            remedy = f"say thousands: ',' or decimal: ',' {SPELT}, if numbers are written so"
        else:
            remedy = (
                f"list such spellings under missing_values ({SPELT}) if they mean missing, "
                "or declare the column as kind: categorical"
            )
        return BadInput(
            f"{cells.count(wrong)} values of column {self.name!r} that are no numbers, "
            f"such as {', '.join(map(repr, shown))}",
            f"numbers with the decimal mark {spelt.decimal!r}",
            remedy,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values that `column_from_json` reads."""
        return {
            "name": self.name,
            "kind": "numeric",
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "mean": self.mean,
            "sd": self.sd,
            "log": self.log,
            "zero_is_missing": self.zero_is_missing,
            "missing": self.missing,
        }


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """A column of a closed list of categories, in their declared order.

    `shares` [K] are public shares of the categories among values that are there (None: not
    known), `missing` is the declared share of missing values. A value that is missing or not in
    the list is encoded as zeros.
    """

    name: str
    categories: tuple[str, ...]
    shares: tuple[float, ...] | None = None
    missing: float = 0.0

    def __post_init__(self) -> None:
        where = f"column {self.name!r}"
        if not self.categories or len(set(self.categories)) != len(self.categories):
            raise BadInput(f"categories {list(self.categories)} of {where}", "distinct ones")
        if self.shares is not None:
            usable = all(math.isfinite(share) and share >= 0 for share in self.shares)
            if len(self.shares) != len(self.categories) or not usable or not sum(self.shares):
                raise BadInput(
                    f"shares {list(self.shares)} of {where}",
                    f"{len(self.categories)} numbers from 0, one a category, not all 0",
                )
        _check_share(self.missing, where)

    @property
    def probabilities(self) -> Array:
        """Shares of the categories, float64 [K], summing to 1; equal where none are declared."""
        shares = np.array(self.shares or [1.0] * len(self.categories), dtype=np.float64)
        return np.asarray(shares / shares.sum())

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest number that a model sees of this column."""
        return 0.0, 1.0

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The same of each of `features`."""
        return (self.bounds,) * len(self.features)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the encoded columns, one a category."""
        return tuple(f"{self.name}={category}" for category in self.categories)

    def encode(self, cells: Cells, spelt: NumberFormat) -> tuple[Array, list[str]]:
        """One-hot columns [N, K] and notes; `BadInput` where most values are in no category."""
        place = {category: at for at, category in enumerate(self.categories)}
        kept = np.full(len(cells.distinct), -1, dtype=np.int64)
        unknown = np.zeros(len(cells.distinct), dtype=bool)
        for at, value in enumerate(cells.distinct):
            kept[at] = place.get(plain_text(value), -1)
            unknown[at] = kept[at] < 0 and not spelt.is_missing(value)
        notes = self._check_known(cells, kept, unknown)
        codes = np.append(kept, -1)[cells.codes]
        if len(codes) > 1 and codes[0] >= 0 and (codes == codes[0]).all():
            notes.append(f"column {self.name!r} is constant here: kept, but nothing to learn from")
        return (codes[:, None] == np.arange(len(self.categories))).astype(np.float64), notes

    def _check_known(self, cells: Cells, kept: Array, unknown: Array) -> list[str]:
        strange, known = cells.count(unknown), cells.count(kept >= 0)
        if not strange:
            return []
        shown = [plain_text(cells.distinct[at]) for at in np.flatnonzero(unknown)[:3]]
        if strange >= FEW and strange > BULK * (strange + known):
            raise BadInput(
                f"{strange} of {strange + known} values of column {self.name!r} in no declared "
                f"category, such as {', '.join(map(repr, shown))}",
                f"one of {', '.join(map(repr, self.categories))}",
                nearest(shown[0], self.categories)
                or "declare the categories as the table has them",
            )
        return [
            f"column {self.name!r}: {strange} of {strange + known} values are in no declared "
            "category and are read as missing"
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values that `column_from_json` reads."""
        return {
            "name": self.name,
            "kind": "categorical",
            "categories": list(self.categories),
            "shares": None if self.shares is None else list(self.shares),
            "missing": self.missing,
        }


Column: TypeAlias = NumericColumn | CategoricalColumn

KINDS = ("numeric", "categorical")
NUMERIC_KEYS = ("kind", "low", "high", "unit", "mean", "sd", "log", "zero_is_missing", "missing")
CATEGORICAL_KEYS = ("kind", "categories", "shares", "missing")


def column_from_json(name: str, declared: object) -> Column:
    """The column `name` as a schema declares it; `BadInput` with the nearest spelling otherwise."""
    where = f"column {name!r}"
    kind = declared.get("kind") if isinstance(declared, Mapping) else None
    if kind not in KINDS:
        raise BadInput(
            f"kind {kind!r} of {where}",
            "numeric or categorical",
            nearest(str(kind), KINDS) or "write kind: numeric with low and high",
        )
    if kind == "categorical":
        return _categorical(name, mapping_of(declared, where, CATEGORICAL_KEYS), where)
    return _numeric(name, mapping_of(declared, where, NUMERIC_KEYS), where)


def _numeric(name: str, given: dict[str, Any], where: str) -> NumericColumn:
    for key in ("low", "high"):
        if given.get(key) is None:
            raise BadInput(f"no {key} of {where}", "low and high in the column's unit")
    optional = {
        key: None if given.get(key) is None else number(given[key], f"{key} of {where}")
        for key in ("mean", "sd")
    }
    return NumericColumn(
        name,
        low=number(given["low"], f"low of {where}"),
        high=number(given["high"], f"high of {where}"),
        unit=text(given.get("unit", ""), f"unit of {where}"),
        log=truth_value(given.get("log", False), f"log of {where}"),
        zero_is_missing=truth_value(
            given.get("zero_is_missing", False), f"zero_is_missing, {where}"
        ),
        missing=number(given.get("missing", 0.0), f"missing of {where}"),
        **optional,
    )


def _categorical(name: str, given: dict[str, Any], where: str) -> CategoricalColumn:
    shares = given.get("shares")
    return CategoricalColumn(
        name,
        categories=tuple(
            spelling(value, f"categories of {where}")
            for value in listed(given.get("categories"), f"categories of {where}")
        ),
        shares=None
        if shares is None
        else tuple(number(s, f"shares of {where}") for s in listed(shares, f"shares of {where}")),
        missing=number(given.get("missing", 0.0), f"missing of {where}"),
    )


def _check_share(share: float, where: str) -> None:
    if not (math.isfinite(share) and 0 <= share <= 1):
        raise BadInput(f"missing share {share} of {where}", "a share from 0 to 1")
