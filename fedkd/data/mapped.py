"""Reads a hospital's own table as a federation's schema has it: other names, units and codes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fedkd.data.columns import Column, NumberFormat, NumericColumn
from fedkd.data.records import Card, Dataset
from fedkd.data.schema import TableSchema
from fedkd.data.tables import WrongColumns, dataset_from_frame, read_table
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


Turn: TypeAlias = Callable[["pd.Series[Any]", Mapped], Any]
"""Makes a column of the federation's of one of the file's."""


def frame_of(
    schema: TableSchema, data: DataFile, columns: Mapping[str, Mapped], label: Mapped | None
) -> "pd.DataFrame":
    """The file's table under the schema's names, in its units and codes, not yet encoded.

    `label` None: as the schema has it. `WrongColumns` for columns that are not mapped or not
    there, another unit without a factor, or values that no code explains: all of them at once.
    """
    import pandas as pd

    label = label or Mapped(schema.label.column)
    if label.column is None:
        raise BadInput("no column for the label", "the file's column that says the class")
    wrong = _wrongly_mapped(schema, columns)
    problems = list(wrong.values())
    known = [column for column in schema.columns if column.name not in wrong]
    try:
        read = read_table(data.path, _as_in_file(schema, known, data, columns, label.column))
    except WrongColumns as error:
        read = error.rest
        problems += error.each
    spelt = replace(schema, **data.spelt()).number_format
    made: dict[str, Any] = {}
    for name, told, turned in [
        *((column.name, columns[column.name], _turned(column, spelt)) for column in known),
        (schema.label.column, label, _coded("label", schema.classes, spelt)),
    ]:
        if told.column is None:
            made[name] = pd.Series([""] * len(read), dtype=object)
        elif told.column in read:
            try:
                made[name] = turned(read[told.column], told)
            except BadInput as error:
                problems.append(error)
    if data.patient is not None and data.patient in read:
        made[PATIENT] = read[data.patient]
    frame = pd.DataFrame(made, index=read.index)
    if problems:
        raise WrongColumns(problems, frame)
    return frame


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


def _wrongly_mapped(schema: TableSchema, mapped: Mapping[str, Mapped]) -> dict[str, BadInput]:
    """What is wrong with the columns of a site.yaml, by their names there."""
    wanted = [column.name for column in schema.columns]
    wrong = {
        name: BadInput(
            f"the column {name!r} in site.yaml",
            f"the federation's columns: {', '.join(wanted)}",
            nearest(name, wanted),
        )
        for name in mapped
        if name not in wanted
    }
    for column in schema.columns:
        error = _objection(column, mapped.get(column.name))
        if error is not None:
            wrong[column.name] = error
    return wrong


def _objection(column: Column, told: Mapped | None) -> BadInput | None:
    if told is None:
        return BadInput(
            f"no column {column.name!r} in site.yaml",
            "every column of the federation",
            f"write {column.name}: {{column: NAME IN THE FILE}}",
        )
    if not isinstance(column, NumericColumn):
        return None
    if told.column is None and not column.may_be_missing:
        return BadInput(
            f"column: null for {column.name}",
            "a column of the file: the federation declares that it is never missing",
        )
    if told.unit and told.unit != column.unit and (told.factor, told.offset) == (1, 0):
        return BadInput(
            f"{column.name} in {told.unit}",
            f"{column.unit or 'no unit'}, as the federation has it",
            f"say what to multiply by: {column.name}: {{column: {told.column}, unit: "
            f"{told.unit}, factor: ...}}; factor: 1.0 with unit: {column.unit} if it is the "
            "same unit under another name",
        )
    return None


def _as_in_file(
    schema: TableSchema,
    known: Sequence[Column],
    data: DataFile,
    mapped: Mapping[str, Mapped],
    label: str,
) -> TableSchema:
    """The schema by which the file is read: the same, under the file's own names."""
    columns = tuple(
        replace(column, name=name)
        for column in known
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


def _turned(column: Column, spelt: NumberFormat) -> Turn:
    if isinstance(column, NumericColumn):
        return _numbers(column, spelt)
    return _coded(column.name, column.categories, spelt)


def _numbers(column: NumericColumn, spelt: NumberFormat) -> Turn:
    """Numbers in the federation's unit; what is none stays, and is named when it is encoded."""

    def turned(cells: "pd.Series[Any]", told: Mapped) -> Any:
        if (told.factor, told.offset) == (1.0, 0.0):
            return cells

        def converted(value: object) -> object:
            read = None if spelt.is_missing(value) else spelt.parse(value)
            if read is None or (read == 0 and column.zero_is_missing):
                return value
            return read * told.factor + told.offset

        return cells.map(converted)

    return turned


def _coded(name: str, known: tuple[str, ...], spelt: NumberFormat) -> Turn:
    def turned(cells: "pd.Series[Any]", told: Mapped) -> Any:
        codes = told.codes
        if codes is None:
            return cells
        for raw, meant in codes.items():
            if meant not in known:
                raise BadInput(
                    f"{raw}: {meant} among the codes of {name}",
                    f"one of {', '.join(known)}",
                    nearest(meant, known),
                )
        strange = sorted(
            {
                plain_text(value)
                for value in cells.unique()
                if plain_text(value) not in codes and not spelt.is_missing(value)
            }
        )
        if strange:
            raise BadInput(
                f"{', '.join(map(repr, strange[:3]))} in the column {told.column!r} for {name}",
                f"one of the codes {', '.join(map(repr, codes))}",
                f"add it to the codes of {name}, or to missing_values of data",
            )
        return cells.map(lambda value: codes.get(plain_text(value), value))

    return turned
