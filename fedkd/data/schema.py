"""Declares what a table's columns mean: names, kinds, ranges, categories, units."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableSchema:
    """Placeholder shape: the data room completes it."""

    columns: tuple[str, ...]
