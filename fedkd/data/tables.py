"""Reads a table as its schema says, and makes records of its rows."""

import codecs
import csv
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from fedkd.data.columns import Cells
from fedkd.data.records import Card, Dataset, Records, folder_name
from fedkd.data.schema import TableSchema
from fedkd.data.typed_by_hand import NAMED, SPELT, nearest, plain_text
from fedkd.knowledge import Array, BadInput

if TYPE_CHECKING:
    import pandas as pd

# N rows.

UNKNOWN_SITE = "unknown"
"""The site of rows whose site is missing."""


class WrongColumns(BadInput):
    """A table with columns that cannot be taken: `each` of the reasons, and the `rest` of it."""

    def __init__(self, each: Sequence[BadInput], rest: "pd.DataFrame") -> None:
        self.each, self.rest = tuple(each), rest
        found, expected, remedy = (
            "; ".join(dict.fromkeys(part for part in parts if part))
            for parts in zip(*((one.found, one.expected, one.remedy) for one in each), strict=True)
        )
        super().__init__(found, expected, remedy)


def read_table(path: Path, schema: TableSchema) -> "pd.DataFrame":
    """The needed columns of the CSV[.gz] or Parquet file at `path`; a CSV's cells stay texts.

    `BadInput` for another encoding than the schema's, another separator, two columns of one name,
    a row of another length, an empty or damaged file; `WrongColumns` for missing ones.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        frame = _parquet(path)
        return _expect_all([str(name) for name in frame.columns], path, schema, frame)
    try:
        return _csv(path, schema)
    except UnicodeError as error:
        raise BadInput(
            f"bytes in {path.name} that are not {schema.encoding} ({error})",
            f"a file in the encoding {schema.encoding}",
            f"say the file's own encoding {SPELT}, such as `encoding: latin-1` or "
            "`encoding: windows-1252` for files saved by older spreadsheets",
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path.name}, a damaged gzip file ({error})", "a whole one") from error


def _parquet(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        import pyarrow
    except ImportError as error:
        raise BadInput(
            f"a Parquet file {path.name} and no reader for it",
            "pyarrow",
            "pip install fedkd[parquet]",
        ) from error
    try:
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadInput(
            f"{path.name}, which does not read as Parquet ({error})", "Parquet"
        ) from error


def _csv(path: Path, schema: TableSchema) -> "pd.DataFrame":
    """Every row is held against the header's length: a shifted row is an error, never a guess."""
    import pandas as pd

    try:
        with _opened(path, schema) as lines:
            reader = csv.reader(lines, delimiter=schema.separator)
            rows = (row for row in reader if row)
            header = list(schema.header or [name.strip() for name in next(rows, [])])
            if not header:
                raise BadInput(f"{path.name}, an empty file", "a header line and rows")
            _check_header(header, path, schema)
            at = [header.index(name) for name in schema.needed if name in header]
            kept = []
            for row in rows:
                if len(row) != len(header):
                    raise _other_length(row, header, reader.line_num, path, schema)
                kept.append([row[place] for place in at])
    except csv.Error as error:
        raise BadInput(
            f"{path.name}, which does not read as CSV ({error})", "a CSV file"
        ) from error
    frame = pd.DataFrame(
        kept, columns=[header[place] for place in at], index=range(len(kept)), dtype=object
    )
    return _expect_all(header, path, schema, frame)


def _opened(path: Path, schema: TableSchema) -> TextIO:
    # A mark in front of the first name is Excel's, and no part of the name.
    utf8 = codecs.lookup(schema.encoding).name == "utf-8"
    encoding = "utf-8-sig" if utf8 else schema.encoding
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def _other_length(
    row: list[str], header: list[str], line: int, path: Path, schema: TableSchema
) -> BadInput:
    return BadInput(
        f"{len(row)} fields in line {line} of {path.name}",
        f"{len(header)} fields separated by {schema.separator!r}",
        f"is that the file's own separator (else say it {SPELT}), and are texts that hold it "
        "quoted?",
    )


def _check_header(header: list[str], path: Path, schema: TableSchema) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadInput(
            f"the column name {twice[0]!r} twice in {path.name}",
            "each name once",
            "rename one of them: which one is meant cannot be told",
        )
    if len(header) == 1 and schema.separator not in header[0]:
        other = next((mark for mark in ";\t|," if mark in header[0]), None)
        if other is not None:
            raise BadInput(
                f"one column {header[0][:80]!r} in {path.name}",
                f"several, separated by {schema.separator!r}",
                f"say separator: {other!r} {SPELT}",
            )


def _expect_all(
    header: list[str], path: Path, schema: TableSchema, frame: "pd.DataFrame"
) -> "pd.DataFrame":
    """`frame`, or `WrongColumns` that names all the needed columns that are not in `header`."""
    absent = [name for name in schema.needed if name not in header]
    if not absent:
        return frame
    roles = {schema.label.column: "label ", schema.site: "site ", schema.patient: "patient "}
    named = [f"{roles.get(name, '')}column {name!r}" for name in absent]
    shown = ", ".join(header[:12]) + (", ..." if len(header) > 12 else "")
    near = [remedy for name in absent if (remedy := nearest(name, header))]
    error = BadInput(
        f"no {', no '.join(named)} in {path.name}",
        f"the columns that are named; the file has {shown}",
        "; ".join([*near, f"name each as the file does, {NAMED}"]),
    )
    raise WrongColumns([error], frame)


def dataset_from_frame(frame: "pd.DataFrame", schema: TableSchema, card: Card) -> Dataset:
    """The records in `frame`, encoded as `schema` says, with notes on all that was mended.

    Rows without a label are left out. A row without a patient is a person of its own; a row
    without a site belongs to the site `unknown`. `BadInput` where no labelled row is left.
    """
    if not len(frame):
        raise BadInput("a table without rows", "at least one labelled row")
    labels = schema.labels(frame)
    kept = labels >= 0
    if not kept.any():
        raise BadInput(
            f"{len(labels)} rows, none with a label in {schema.label.column!r}", "labelled rows"
        )
    labelled = frame[kept]
    inputs, notes = schema.encode_with_notes(labelled)
    said = list(notes)
    if not kept.all():
        said.append(f"{int((~kept).sum())} rows without a label were left out")
    names, patients = _patients(labelled, schema, said)
    sites = _sites(labelled, schema, said)
    records = Records(inputs, labels[kept], patients, sites)
    return Dataset(card, schema.space(), records, None, schema, tuple(said), names)


def _patients(
    frame: "pd.DataFrame", schema: TableSchema, said: list[str]
) -> tuple[tuple[str, ...], Array | None]:
    if schema.patient is None:
        return (), None
    names, codes = _names(schema.cells(frame, schema.patient, "patient"), schema)
    nobody = codes < 0
    if nobody.any():
        said.append(f"{int(nobody.sum())} rows without a patient count as persons of their own")
    return tuple(names), np.where(nobody, len(names) + np.arange(len(codes)), codes)


def _sites(frame: "pd.DataFrame", schema: TableSchema, said: list[str]) -> Array | None:
    if schema.site is None:
        return None
    names, codes = _names(schema.cells(frame, schema.site, "site"), schema)
    if (codes < 0).any():
        said.append(f"{int((codes < 0).sum())} rows without a site are at {UNKNOWN_SITE!r}")
    return folder_names([*names, UNKNOWN_SITE])[codes]


def _names(cells: Cells, schema: TableSchema) -> tuple[list[str], Array]:
    """Names as they are without spaces around them, and for each row which; -1 where missing."""
    missing = schema.number_format.is_missing
    place: dict[str, int] = {}
    at = [
        -1 if missing(value) else place.setdefault(plain_text(value), len(place))
        for value in cells.distinct
    ]
    return list(place), np.array([*at, -1], dtype=np.int64)[cells.codes]


def folder_names(names: list[str]) -> Array:
    """Site names that can be folders, for `names`; `BadInput` where two become the same."""
    made = [folder_name(name) for name in names]
    first: dict[str, str] = {}
    for name, new in zip(names, made, strict=True):
        if first.setdefault(new, name) != name:
            raise BadInput(
                f"the sites {first[new]!r} and {name!r}, both {new!r} as a folder",
                "sites that differ in letters, digits, dot, dash or underscore",
                "rename one in the table",
            )
    return np.array(made)
