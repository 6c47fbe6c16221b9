"""Reads a hospital's own table as a federation's schema has it: other names, units and codes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedkd.data.columns import NumberFormat, NumericColumn
from fedkd.data.records import Card, Dataset
from fedkd.data.schema import TableSchema
from fedkd.data.tables import dataset_from_frame, read_table
from fedkd.data.typed_by_hand import nearest, plain_text
from fedkd.knowledge import BadInput, Space

if TYPE_CHECKING:
    import pandas as pd

PATIENT = "the patient's column"


@dataclass(frozen=True, slots=True)
class DataFile:
    """Where the records are and how they are written; None: as the federation's schema says.

    `patient` names the column of patients, or for pictures is a regular expression whose first
    group, in a file's name, is the patient.
    """

    path: Path
    encoding: str | None = None
    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    missing_values: tuple[str, ...] | None = None
    header: tuple[str, ...] | None = None
    patient: str | None = None

    def spelt(self) -> dict[str, Any]:
        """What is said of how the file is written, by the names of a schema's keys."""
        named = ("encoding", "separator", "decimal", "thousands", "missing_values", "header")
        given = {name: getattr(self, name) for name in named}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Mapped:
    """Which column of the file is one of the federation's, and how it is turned into it.

    A number becomes `number * factor + offset`, in the federation's unit; a text that is a key of
    `codes` becomes its value. `column` None: this hospital does not have it.
    """

    column: str | None
    unit: str = ""
    factor: float = 1.0
    offset: float = 0.0
    codes: Mapping[str, str] | None = None


def frame_of(
    schema: TableSchema, data: DataFile, columns: Mapping[str, Mapped], label: Mapped | None
) -> "pd.DataFrame":
    """The file's table under the schema's names, in its units and codes, not yet encoded.

    `label` None: as the schema has it. `BadInput` for a column that is not mapped or not there,
    another unit without a factor, or values that no code explains.
    """
    import pandas as pd

    _expect_all_mapped(schema, columns)
    label = label or Mapped(schema.label.column)
    if label.column is None:
        raise BadInput("no column for the label", "the file's column that says the class")
    read = read_table(data.path, _as_in_file(schema, data, columns, label.column))
    spelt = replace(schema, **data.spelt()).number_format
    made: dict[str, Any] = {}
    for column in schema.columns:
        told = columns[column.name]
        if told.column is None:
            made[column.name] = pd.Series([""] * len(read), dtype=object)
        elif isinstance(column, NumericColumn):
            made[column.name] = _numbers(read[told.column], column, told, spelt)
        else:
            cells = read[told.column]
            made[column.name] = _coded(cells, column.name, told, column.categories, spelt)
    made[schema.label.column] = _coded(read[label.column], "label", label, schema.classes, spelt)
    if data.patient is not None:
        made[PATIENT] = read[data.patient]
    return pd.DataFrame(made)


def dataset_of(
    schema: TableSchema,
    data: DataFile,
    columns: Mapping[str, Mapped],
    label: Mapped | None,
    card: Card,
) -> Dataset:
    """The file's records, encoded as `schema` says, with notes on all that was mended."""
    written = {key: value for key, value in data.spelt().items() if key != "header"}
    patient = None if data.patient is None else PATIENT
    alone = replace(schema, site=None, patient=patient, header=None, **written)
    if label is not None and label.codes:
        names = tuple((name,) for name in schema.classes)
        alone = replace(alone, label=replace(schema.label, values=names, above=None))
    frame = frame_of(schema, data, columns, label)
    return replace(dataset_from_frame(frame, alone, card), schema=schema)


def pictures(space: Space, data: DataFile, card: Card) -> Dataset:
    """The folder CLASS/FILE.png, with the classes and the scaling of `space`."""
    from fedkd.data.sources.image_folder import image_folder

    if space.kind != "image" or space.shape[1] != space.shape[2]:
        raise BadInput(f"a federation of {space.kind} {space.shape}", "a table, or square pictures")
    read = image_folder(
        str(data.path), size=space.shape[1], grey=space.shape[0] == 1, patient=data.patient
    )
    return replace(in_form(read, space), card=card)


def in_form(read: Dataset, space: Space) -> Dataset:
    """Records that are no table, with the classes and the scaling of `space`; `BadInput` if others.

    What a value is like is not looked at: `space.check` says that.
    """
    for what in ("kind", "shape", "dtype"):
        if getattr(read.space, what) != getattr(space, what):
            raise BadInput(
                f"records with {what} {getattr(read.space, what)}",
                f"{getattr(space, what)}, as the federation's have",
            )
    for name in read.space.classes:
        if name not in space.classes:
            raise BadInput(
                f"pictures of the class {name!r}",
                f"the federation's classes: {', '.join(space.classes)}",
                nearest(name, space.classes) or "rename the folder",
            )
    place = np.array([space.classes.index(name) for name in read.space.classes], dtype=np.int64)
    test = None if read.test is None else replace(read.test, labels=place[read.test.labels])
    records = replace(read.records, labels=place[read.records.labels])
    return replace(read, space=space, records=records, test=test)


def _expect_all_mapped(schema: TableSchema, mapped: Mapping[str, Mapped]) -> None:
    wanted = [column.name for column in schema.columns]
    for name in mapped:
        if name not in wanted:
            raise BadInput(
                f"the column {name!r} in site.yaml",
                f"the federation's columns: {', '.join(wanted)}",
                nearest(name, wanted),
            )
    for column in schema.columns:
        told = mapped.get(column.name)
        if told is None:
            raise BadInput(
                f"no column {column.name!r} in site.yaml",
                "every column of the federation",
                f"write {column.name}: {{column: NAME IN THE FILE}}",
            )
        if not isinstance(column, NumericColumn):
            continue
        if told.column is None and not column.may_be_missing:
            raise BadInput(
                f"column: null for {column.name}",
                "a column of the file: the federation declares that it is never missing",
            )
        if told.unit and told.unit != column.unit and (told.factor, told.offset) == (1, 0):
            raise BadInput(
                f"{column.name} in {told.unit}",
                f"{column.unit or 'no unit'}, as the federation has it",
                f"say what to multiply by: {column.name}: {{column: {told.column}, unit: "
                f"{told.unit}, factor: ...}}; factor: 1.0 with unit: {column.unit} if it is the "
                "same unit under another name",
            )


def _as_in_file(
    schema: TableSchema, data: DataFile, mapped: Mapping[str, Mapped], label: str
) -> TableSchema:
    """The schema by which the file is read: the same, under the file's own names."""
    columns = tuple(
        replace(column, name=name)
        for column in schema.columns
        if (name := mapped[column.name].column) is not None
    )
    return replace(
        schema,
        columns=columns,
        label=replace(schema.label, column=label),
        site=None,
        patient=data.patient,
        **{"header": None, **data.spelt()},
    )


def _numbers(
    cells: "pd.Series[Any]", column: NumericColumn, mapped: Mapped, spelt: NumberFormat
) -> Any:
    """Numbers in the federation's unit; what is none stays, and is named when it is encoded."""
    if (mapped.factor, mapped.offset) == (1.0, 0.0):
        return cells

    def converted(value: object) -> object:
        read = None if spelt.is_missing(value) else spelt.parse(value)
        if read is None or (read == 0 and column.zero_is_missing):
            return value
        return read * mapped.factor + mapped.offset

    return cells.map(converted)


def _coded(
    cells: "pd.Series[Any]", name: str, mapped: Mapped, known: tuple[str, ...], spelt: NumberFormat
) -> Any:
    if mapped.codes is None:
        return cells
    for raw, meant in mapped.codes.items():
        if meant not in known:
            raise BadInput(
                f"{raw}: {meant} among the codes of {name}",
                f"one of {', '.join(known)}",
                nearest(meant, known),
            )
    codes = mapped.codes
    strange = sorted(
        {
            plain_text(value)
            for value in cells.unique()
            if plain_text(value) not in codes and not spelt.is_missing(value)
        }
    )
    if strange:
        raise BadInput(
            f"{', '.join(map(repr, strange[:3]))} in the column {mapped.column!r} for {name}",
            f"one of the codes {', '.join(map(repr, codes))}",
            f"add it to the codes of {name}, or to missing_values of data",
        )
    return cells.map(lambda value: codes.get(plain_text(value), value))
