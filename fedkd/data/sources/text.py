"""Reads labelled texts from a CSV or TSV file, as hashed n-grams."""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np

from fedkd.data.files import file_of
from fedkd.data.records import Card, Dataset, Records
from fedkd.data.typed_by_hand import nearest
from fedkd.knowledge import Array, BadInput, OneOf, Range, Space

# N texts, D hashed features.

RESEARCH = (
    "Texts published for research by their collectors; a hospital that processes its own would "
    "have to state its own basis (GDPR, Articles 6 and 9)."
)


def text(
    path: str | None = None,
    file: str | None = None,
    label: str = "label",
    text: str = "text",
    header: bool = True,
    separator: str = ",",
    quoted: bool = True,
    encoding: str = "utf-8",
    classes: list[str] | None = None,
    features: Annotated[int, Range(16, 65536)] = 1024,
    ngrams: Annotated[int, Range(1, 8)] = 2,
    analyzer: Annotated[str, OneOf(("word", "char_wb"))] = "word",
    name: str | None = None,
    licence: str = "not stated",
    origin: str = "not stated",
    citation: str = "",
) -> Dataset:
    """Texts of the file at `path` (or called `file` in the folder `path`), float32 [N, D].

    Each is its counts of 1 to `ngrams` neighbouring words (or characters within words), hashed
    into `features` signed buckets and scaled to length 1: fixed and public, nothing is fitted
    (Weinberger et al., 2009, arXiv:0902.2206). A text that occurs again is dropped, with a note:
    else it could be private and examined at once. `classes` in the order of their codes (None:
    the labels found, sorted). Without `header` the file has the two columns `label`, `text`.
    """
    place = file_of(path, file, "a CSV or TSV file with a label and a text column")
    rows = _read(place, separator, quoted, encoding)
    titles = [label, text] if not header else [title.strip() for title in rows.pop(0)]
    at = [_place(titles, each, place) for each in (label, text)]
    short = next((n for n, row in enumerate(rows) if len(row) <= max(at)), None)
    if short is not None or not rows:
        found = "no row" if short is None else f"{len(rows[short])} fields in row {short + 1}"
        raise BadInput(f"{found} of {place.name}", f"{len(titles)} fields in each row")
    labels = [row[at[0]].strip() for row in rows]
    texts = [row[at[1]] for row in rows]
    kept, notes = _distinct(labels, texts)
    names = tuple(str(each) for each in classes) if classes else tuple(sorted(set(labels)))
    if len(names) < 2:
        raise BadInput(f"the labels {list(names)} in {place.name}", "at least two classes")
    codes = np.array([_code(labels[row], names, label) for row in kept], dtype=np.int64)
    inputs = hashed([texts[row] for row in kept], features, ngrams, analyzer)
    # A row of length 1 has entries of this size on the average: a model sees about 1.
    space = Space("text", (features,), "float32", -1, 1, names, divisor=features**-0.5)
    card = Card(name or place.name, "not stated", "texts", licence, RESEARCH, origin, citation)
    return Dataset(card, space, Records(inputs, codes), None, None, notes)


def hashed(texts: list[str], features: int, ngrams: int, analyzer: str) -> Array:
    """Hashed n-gram counts of `texts`, float32 [N, `features`], each row of length 1 (or 0)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        n_features=features, ngram_range=(1, ngrams), analyzer=analyzer, dtype=np.float32
    )
    counts = np.asarray(vectorizer.transform(texts).toarray(), dtype=np.float32)
    return np.asarray(np.clip(counts, -1, 1))


def _read(place: Path, separator: str, quoted: bool, encoding: str) -> list[list[str]]:
    if len(separator) != 1:
        raise BadInput(f"data.separator={separator!r}", "one character, such as ',' or a tab")
    plain = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
    try:
        with place.open(encoding=plain, newline="") as lines:
            if quoted:
                read = csv.reader(lines, delimiter=separator)
            else:
                read = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
            rows = [row for row in read if row]
    except (UnicodeError, LookupError) as error:
        raise BadInput(
            f"{place.name}, which is not {encoding} ({error})",
            f"a text file in the encoding {encoding}",
            "set data.encoding=latin-1, or whatever the file is written in",
        ) from error
    except csv.Error as error:
        raise BadInput(
            f"{place.name}, which does not read as a table ({error})",
            f"fields separated by {separator!r}",
            "set data.quoted=false where quotation marks are part of the texts",
        ) from error
    if not rows:
        raise BadInput(f"{place.name}, an empty file", "rows with a label and a text")
    return rows


def _place(titles: list[str], wanted: str, place: Path) -> int:
    if titles.count(wanted) != 1:
        times = "twice" if wanted in titles else "not at all"
        raise BadInput(
            f"the column {wanted!r} {times} in {place.name}, which has {', '.join(titles[:12])}",
            "it once",
            nearest(wanted, titles) or "set data.label, data.text, data.separator or data.header",
        )
    return titles.index(wanted)


def _distinct(labels: list[str], texts: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Rows whose text occurs for the first time, and notes about those that were dropped."""
    first: dict[str, int] = {}
    kept, torn = [], 0
    for row, each in enumerate(texts):
        if first.setdefault(each, row) == row:
            kept.append(row)
        else:
            torn += labels[first[each]] != labels[row]
    dropped = len(texts) - len(kept)
    notes = [f"{dropped} texts that occur again were dropped"] if dropped else []
    if torn:
        notes.append(f"{torn} of them had another label than the first one, which was kept")
    return kept, tuple(notes)


def _code(said: str, names: tuple[str, ...], column: str) -> int:
    if said not in names:
        raise BadInput(
            f"the value {said!r} in the label column {column!r}",
            f"one of {', '.join(names[:12])}",
            nearest(said, names) or "add it to data.classes",
        )
    return names.index(said)
