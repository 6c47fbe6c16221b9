"""Holds what a hospital keeps: records, where they came from, and the space they live in."""

import re
import unicodedata
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fedkd.data.schema import TableSchema
from fedkd.knowledge import (
    Array,
    BadInput,
    Digest,
    NotInSpace,
    Space,
    digest_of_arrays,
    read_only,
)

# N records.

SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a site may be called: its state lies in a folder of this name."""


def folder_name(name: str) -> str:
    """`name` without accents, and with a dash for whatever a folder's name should not hold."""
    bare = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", bare).strip("-._")[:64] or "site"


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
    `sites` [N] str, usable as folder names, say where each row was taken, if the source knows.
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
        if len(self.labels) and self.labels.min() < 0:
            raise BadInput(f"a label {self.labels.min()}", "int64 codes from 0")
        if self.patients is not None and self.patients.dtype != np.int64:
            raise BadInput(f"patients of type {self.patients.dtype}", "int64 codes")
        if self.sites is not None:
            for site in np.unique(self.sites):
                if not SITE_NAME.fullmatch(str(site)):
                    raise BadInput(
                        f"the site name {str(site)!r}",
                        "letters, digits, dot, dash and underscore, 64 at most: it names a folder",
                    )
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

    def arrays(self) -> dict[str, Array]:
        """The columns that are there, by name."""
        every = {
            "inputs": self.inputs,
            "labels": self.labels,
            "patients": self.patients,
            "sites": self.sites,
        }
        return {name: column for name, column in every.items() if column is not None}


def no_records(space: Space) -> Records:
    """No record at all, in the form of `space`."""
    return Records(np.zeros((0, *space.shape), space.dtype), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """What a source yields: `records` to be dealt out, a `test` part where the source has one.

    All inputs lie in `space`, all labels below its number of classes. `schema` is there for
    tables: it makes the dictionary of declared ranges that synthetic queries are drawn from.
    `notes` say what was found odd and mended; they count records, so at a hospital they stay.
    `patients` are what the source calls those that `Records.patients` has codes for, by code.
    """

    card: Card
    space: Space
    records: Records
    test: Records | None = None
    schema: TableSchema | None = None
    notes: tuple[str, ...] = field(default=())
    patients: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for part in (self.records, self.test):
            if part is None:
                continue
            try:
                self.space.check(part.inputs)
            except NotInSpace as error:
                raise BadInput(
                    f"records of {self.card.name} outside their space", str(error)
                ) from error
            classes = len(self.space.classes)
            if len(part) and part.labels.max() >= classes:
                raise BadInput(f"label {part.labels.max()}", f"codes below {classes}")

    @property
    def digest(self) -> Digest:
        """Names these records by their content: the same file read twice has the same digest."""
        test = {} if self.test is None else self.test.arrays()
        arrays = {**self.records.arrays(), **{f"test {name}": test[name] for name in test}}
        return digest_of_arrays({"kind": "dataset", "space": self.space.to_json()}, arrays)
