"""Declares what a table's columns mean, and turns its rows into what a model sees."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fedkd.data.columns import Cells, Column, NumberFormat, column_from_json
from fedkd.data.labels import Label, label_from_json
from fedkd.data.typed_by_hand import NAMED, listed, mapping_of, nearest, read_yaml, spelling, text
from fedkd.knowledge import Array, BadInput, Space

if TYPE_CHECKING:
    import pandas as pd

# N rows, D encoded columns.

Frame: TypeAlias = "pd.DataFrame | Mapping[str, Any]"
"""Raw columns by name: a data frame, or a mapping to arrays of equal length.

A missing number is NaN, a missing category None, NaN or one of `missing_values`.
"""

MISSING_VALUES = ("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null")
KEYS = (
    "columns",
    "label",
    "site",
    "patient",
    "missing_values",
    "encoding",
    "separator",
    "decimal",
    "thousands",
    "header",
)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The public dictionary of a table, typed by a person: nothing here is fitted on records.

    `columns` in the order in which a model sees them. `label`, and where the table has them the
    columns that name the `site` and the `patient`. The rest says how a file is written:
    `missing_values` (spellings; a declared category wins over them), `encoding`, `separator`,
    `decimal`, `thousands`, and `header` (the names, in order, of a file that has no header line).
    """

    columns: tuple[Column, ...]
    label: Label
    site: str | None = None
    patient: str | None = None
    missing_values: tuple[str, ...] = MISSING_VALUES
    encoding: str = "utf-8"
    separator: str = ","
    decimal: str = "."
    thousands: str | None = None
    header: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) != len(names):
            raise BadInput(f"columns {names} in the schema", "at least one, each name once")
        for role, name in (("label", self.label.column), ("patient", self.patient)):
            if name in names:
                raise BadInput(
                    f"the {role} column {name!r} among the columns that a model sees",
                    f"it named as {role} alone",
                    f"take {name!r} out of columns",
                )
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise BadInput(
                f"encoding {self.encoding!r}", "a known one", "such as utf-8 or latin-1"
            ) from error
        for key, mark in (("separator", self.separator), ("decimal", self.decimal)):
            if len(mark) != 1:
                raise BadInput(f"{key} {mark!r} in the schema", "one character")
        if self.thousands is not None and len(self.thousands) != 1:
            raise BadInput(f"thousands {self.thousands!r} in the schema", "one character or null")
        if self.thousands == self.decimal:
            raise BadInput(f"{self.decimal!r} as decimal and as thousands", "two different marks")

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the D encoded columns, in order."""
        return tuple(name for column in self.columns for name in column.features)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their codes."""
        return self.label.classes

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the raw columns that a table of records must have, features first."""
        extra = [self.label.column, self.site, self.patient]
        names = [column.name for column in self.columns] + [name for name in extra if name]
        return tuple(dict.fromkeys(names))

    @property
    def number_format(self) -> NumberFormat:
        """How numbers and missing values are written."""
        return NumberFormat(self.decimal, self.thousands, frozenset({*self.missing_values, ""}))

    def column(self, name: str) -> Column:
        """The declared column `name`; `BadInput` with the nearest spelling if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        names = [column.name for column in self.columns]
        raise BadInput(f"no column {name!r}", f"one of {', '.join(names)}", nearest(name, names))

    def space(self, classes: tuple[str, ...] | None = None) -> Space:
        """The space of encoded rows: float32 [D], closed by the declared ranges; `classes` default
        to the label's own. It needs no further scaling.
        """
        bounds = [column.bounds for column in self.columns]
        low = float(np.float32(min(low for low, _ in bounds)))
        high = float(np.float32(max(high for _, high in bounds)))
        return Space("table", (len(self.features),), "float32", low, high, classes or self.classes)

    @property
    def ranges(self) -> tuple[Array, Array]:
        """The lowest and the highest number of each encoded column: float64 [D], twice."""
        ranges = np.array([each for column in self.columns for each in column.ranges])
        return ranges[:, 0], ranges[:, 1]

    def encode(self, frame: Frame) -> Array:
        """What a model sees of raw rows: float32 [N, D] within `space()`.

        Numbers are `(x - centre) / scale` of their declared column, clipped to the declared range;
        missing is 0, with a 0/1 flag after it where a column may be missing. Categories are
        one-hot, zeros where missing or unknown. Needs the columns alone, no label. `BadInput` for
        a missing column, texts among numbers, or values out of range in bulk (wrong units).
        """
        return self.encode_with_notes(frame)[0]

    def encode_with_notes(self, frame: Frame) -> tuple[Array, tuple[str, ...]]:
        """As `encode`, with what a person should know: clipped, unknown, constant, undeclared."""
        parts, notes = [], []
        for column in self.columns:
            part, said = column.encode(self.cells(frame, column.name), self.number_format)
            parts.append(part)
            notes.extend(said)
        lengths = {len(part) for part in parts}
        if len(lengths) > 1:
            raise BadInput(f"columns of {sorted(lengths)} rows", "columns of equal length")
        return np.concatenate(parts, axis=1).astype(np.float32), tuple(notes)

    def labels(self, frame: Frame) -> Array:
        """Class codes int64 [N], -1 where the label is missing; `BadInput` for unknown values."""
        return self.label.codes(self.cells(frame, self.label.column, "label"), self.number_format)

    def cells(self, frame: Frame, name: str, role: str = "") -> Cells:
        """The raw column `name` as distinct values and codes; `BadInput` where it is not there."""
        import pandas as pd

        if name not in frame:
            names = [str(key) for key in frame]
            raise BadInput(
                f"no {role + ' ' if role else ''}column {name!r} in the table",
                f"the schema's columns; the table has {_shortened(names)}",
                nearest(name, names) or f"name the column as the table does, {NAMED}",
            )
        codes, distinct = pd.factorize(pd.Series(frame[name]))
        return Cells(list(distinct), np.asarray(codes, dtype=np.int64))

    def to_json(self) -> dict[str, Any]:
        """Plain values, to be kept in a site's folder; lists wherever order matters."""
        return {
            "columns": [column.to_json() for column in self.columns],
            "label": self.label.to_json(),
            "site": self.site,
            "patient": self.patient,
            "missing_values": list(self.missing_values),
            "encoding": self.encoding,
            "separator": self.separator,
            "decimal": self.decimal,
            "thousands": self.thousands,
            "header": None if self.header is None else list(self.header),
        }

    @staticmethod
    def from_json(declared: object) -> "TableSchema":
        """The schema that `to_json` wrote or a person typed (`columns` may map names to columns).

        Every wrong key, kind or type is a `BadInput` with the nearest right spelling.
        """
        given = mapping_of(declared, "the schema", KEYS)
        for key in ("columns", "label"):
            if key not in given:
                raise BadInput(f"a schema without {key}", "columns and label", f"add {key}:")
        optional: dict[str, Any] = {
            key: None if given.get(key) is None else text(given[key], key)
            for key in ("site", "patient", "thousands")
        }
        written: dict[str, Any] = {
            key: text(given[key], key)
            for key in ("encoding", "separator", "decimal")
            if given.get(key) is not None
        }
        lists: dict[str, Any] = {
            key: tuple(spelling(value, key) for value in listed(given[key], key))
            for key in ("missing_values", "header")
            if given.get(key) is not None
        }
        return TableSchema(
            columns=_columns(given["columns"]),
            label=label_from_json(given["label"]),
            **optional,
            **written,
            **lists,
        )

    @staticmethod
    def from_yaml(path: str | Path) -> "TableSchema":
        """The schema in the YAML file at `path`; its `card`, if it has one, is left aside."""
        declared = read_yaml(Path(path))
        return TableSchema.from_json({k: v for k, v in declared.items() if k != "card"})


def _columns(declared: object) -> tuple[Column, ...]:
    if isinstance(declared, Mapping):
        return tuple(
            column_from_json(spelling(name, "names of columns"), each)
            for name, each in declared.items()
        )
    columns = []
    for each in listed(declared, "columns"):
        if not isinstance(each, Mapping) or "name" not in each:
            raise BadInput(f"{each!r} among the columns", "a mapping with a name and a kind")
        rest = {key: value for key, value in each.items() if key != "name"}
        columns.append(column_from_json(text(each["name"], "name of a column"), rest))
    return tuple(columns)


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
