"""Holds what a hospital keeps: records, where they came from, and the space they live in."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fedkd.data.schema import TableSchema
from fedkd.knowledge import Array, BadInput, Space, read_only

# N records.


@dataclass(frozen=True, slots=True)
class Card:
    """Where a data set comes from: typed by a person, never computed.

    `legal_basis` is what a hospital would have to state to process such records; for public
    research data it says so. `citation` names the source that asks to be cited.
    """

    name: str
    version: str
    modality: str
    licence: str
    legal_basis: str
    origin: str
    citation: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a log body holds them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Labelled records: `inputs` [N, ...] in the space's type, `labels` [N] int64.

    `patients` [N] int64 codes say which rows are one person's (None: one row is one person);
    `sites` [N] str say where each row was taken, if the source knows.
    """

    inputs: Array
    labels: Array
    patients: Array | None = None
    sites: Array | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "patients", "sites"):
            column = getattr(self, name)
            if column is not None and column.shape != (len(self.inputs),):
                raise BadInput(f"{name} of shape {column.shape}", f"({len(self.inputs)},)")
        if self.labels.dtype != np.int64:
            raise BadInput(f"labels of type {self.labels.dtype}", "int64 codes from 0")
        for name in ("inputs", "labels", "patients", "sites"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Array) -> "Records":
        """The records at `rows` (indices or a mask), in that order."""
        return Records(
            self.inputs[rows],
            self.labels[rows],
            None if self.patients is None else self.patients[rows],
            None if self.sites is None else self.sites[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """What a source yields: `records` to be dealt out, a `test` part where the source has one.

    `schema` is there for tables: it makes the dictionary of declared ranges that synthetic
    queries are drawn from. `reference_model` names the model yaml that fits this kind of data.
    """

    card: Card
    space: Space
    records: Records
    test: Records | None = None
    schema: TableSchema | None = None
    notes: tuple[str, ...] = field(default=())
