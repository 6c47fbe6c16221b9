"""Declares which column is the label, and which of its values make which class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedkd.data.columns import Cells, NumberFormat
from fedkd.data.typed_by_hand import (
    NAMED,
    listed,
    mapping_of,
    nearest,
    number,
    plain_text,
    spelling,
    text,
)
from fedkd.knowledge import Array, BadInput

EVERYTHING_ELSE = "*"
"""Written instead of a class's values: whatever no other class lists."""


@dataclass(frozen=True, slots=True)
class Label:
    """The label `column` and its `classes` in the order of their codes.

    One of two readings: `values` lists for each class the raw values that mean it (an empty tuple
    means everything else); or, for two classes, `above` says that a number above it is the second.
    """

    column: str
    classes: tuple[str, ...]
    values: tuple[tuple[str, ...], ...] | None = None
    above: float | None = None

    def __post_init__(self) -> None:
        where = f"label {self.column!r}"
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise BadInput(f"classes {list(self.classes)} of {where}", "two or more distinct names")
        if (self.values is None) == (self.above is None):
            raise BadInput(f"{where} with both or neither of values and above", "one of the two")
        if self.above is not None and len(self.classes) != 2:
            raise BadInput(f"above with {len(self.classes)} classes of {where}", "two classes")
        if self.values is None:
            return
        if len(self.values) != len(self.classes):
            raise BadInput(f"{len(self.values)} lists of values of {where}", "one a class")
        every = [value for values in self.values for value in values]
        if len(set(every)) != len(every) or sum(not values for values in self.values) > 1:
            raise BadInput(f"values {list(self.values)} of {where}", "each value in one class")

    def codes(self, cells: Cells, spelt: NumberFormat) -> Array:
        """Class codes int64 [N], -1 where the label is missing; `BadInput` for an unknown value."""
        read = np.array([self._code(value, spelt) for value in cells.distinct], dtype=np.int64)
        return np.append(read, np.int64(-1))[cells.codes]

    def _code(self, value: object, spelt: NumberFormat) -> int:
        if self.above is not None:
            return self._above(value, self.above, spelt)
        assert self.values is not None  # noqa: S101  # __post_init__: one of the two
        said = plain_text(value)
        for code, values in enumerate(self.values):
            if said in values:
                return code
        if spelt.is_missing(value):
            return -1
        if () in self.values:
            return self.values.index(())
        known = [name for values in self.values for name in values]
        raise BadInput(
            f"the value {said!r} in the label column {self.column!r}",
            f"one of {', '.join(map(repr, known))}",
            nearest(said, known) or f"say which class it means ({NAMED})",
        )

    def _above(self, value: object, above: float, spelt: NumberFormat) -> int:
        if spelt.is_missing(value):
            return -1
        read = spelt.parse(value)
        if read is None:
            raise BadInput(f"{value!r} in the label column {self.column!r}", "a number")
        return int(read > above)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `label_from_json` reads; lists, as the order of classes matters."""
        values = None if self.values is None else [list(v) or EVERYTHING_ELSE for v in self.values]
        return {
            "column": self.column,
            "classes": list(self.classes),
            "values": values,
            "above": self.above,
        }


def label_from_json(declared: object) -> Label:
    """The label as a schema declares it.

    `classes` is a list of names (the raw values are the names, or `values` lists them, or `above`
    splits them), or a mapping from a name to its raw values, where "*" means everything else.
    """
    given = mapping_of(declared, "label", ("column", "classes", "values", "above"))
    column = text(given.get("column"), "label's column")
    classes: Any = given.get("classes")
    values: Any = given.get("values")
    if isinstance(classes, Mapping):
        if values is not None:
            raise BadInput("label with a mapping of classes and values", "one of the two")
        classes, values = list(classes), list(classes.values())
    names = tuple(spelling(name, "classes of the label") for name in listed(classes, "classes"))
    above = given.get("above")
    if above is not None:
        threshold = number(above, "above of the label")
        return Label(column, names, None if values is None else _values(values), threshold)
    return Label(column, names, _values(names if values is None else values))


def _values(declared: object) -> tuple[tuple[str, ...], ...]:
    return tuple(_one_class(each) for each in listed(declared, "values of the label"))


def _one_class(declared: object) -> tuple[str, ...]:
    if declared == EVERYTHING_ELSE:
        return ()
    several = declared if isinstance(declared, list | tuple) else [declared]
    if not several:
        raise BadInput("a class without values in the label", 'values, or "*" for all others')
    return tuple(spelling(value, "values of the label") for value in several)
