"""Reads a table from a CSV or Parquet file with a schema that a person typed beside it."""

from pathlib import Path
from typing import Annotated

import numpy as np

from fedkd.data.files import file_of
from fedkd.data.records import Card, Dataset
from fedkd.data.schema import TableSchema
from fedkd.data.tables import dataset_from_frame, read_table
from fedkd.data.typed_by_hand import mapping_of, nearest, read_yaml, text
from fedkd.knowledge import BadInput, Range

NOT_STATED = "not stated"
CARD_KEYS = ("name", "version", "modality", "licence", "legal_basis", "origin", "citation")
SHIPPED = ("breast_cancer", "diabetes_130", "heart_disease")


def table(
    path: str | None = None,
    file: str | None = None,
    schema: str | None = None,
    rows: Annotated[int | None, Range(1)] = None,
) -> Dataset:
    """Records of the CSV[.gz] or Parquet file at `path` (or called `file` in the folder `path`).

    `schema` is the path of a schema yaml, or the name of one that the package ships; by default
    it lies beside the table as `<file>.schema.yaml`. `rows` takes that many rows of the file at
    random, the same ones in every run. `BadInput` for whatever the schema does not explain.
    """
    place = file_of(path, file, "a table: FILE.csv, FILE.csv.gz or FILE.parquet")
    card, declared = card_and_schema(schema_path(schema, place), name=place.name)
    frame = read_table(place, declared)
    if rows is not None and rows < len(frame):
        chosen = np.sort(np.random.default_rng(0).choice(len(frame), rows, replace=False))
        frame = frame.iloc[chosen].reset_index(drop=True)
    return dataset_from_frame(frame, declared, card)


def schema_path(schema: str | None, place: Path) -> Path:
    """Where the schema of the table at `place` lies; `BadInput` says where it was expected."""
    if schema in SHIPPED:
        return Path(__file__).with_name(f"{schema}.yaml")
    beside = place.with_name(place.name + ".schema.yaml")
    found = beside if schema is None else Path(schema).expanduser()
    if not found.is_file():
        raise BadInput(
            f"no schema {found}",
            f"a yaml that declares the columns and the label of {place.name}",
            (schema and nearest(schema, SHIPPED)) or "write one, or name it with data.schema=PATH",
        )
    return found


def card_and_schema(path: Path, name: str = NOT_STATED) -> tuple[Card, TableSchema]:
    """The card and the schema in the yaml at `path`; what a card leaves out is `not stated`."""
    declared = read_yaml(path)
    given = mapping_of(declared.pop("card", {}), f"card in {path.name}", CARD_KEYS)
    said = {key: text(value, f"{key} of the card") for key, value in given.items()}
    defaults = {**dict.fromkeys(CARD_KEYS[:-1], NOT_STATED), "name": name, "modality": "table"}
    return Card(**{**defaults, **said}), TableSchema.from_json(declared)
