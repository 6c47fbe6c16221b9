"""Knows which patients of a site were taken out, and leaves their records out of what is read."""

import hashlib
from pathlib import Path

import numpy as np

from fedkd.data import Records
from fedkd.federation.durable import read_json, write_json
from fedkd.knowledge.digests import little_endian

# N records.

FILE = "excluded.json"


def identities(records: Records) -> list[str]:
    """Whose each of N records is: a patient's code, or, where none are known, its own bytes."""
    if records.patients is not None:
        return [f"patient {int(code)}" for code in records.patients]
    rows = little_endian(records.inputs)
    return [
        "record " + hashlib.sha256(row.tobytes() + str(int(label)).encode()).hexdigest()
        for row, label in zip(rows, records.labels, strict=True)
    ]


def read_excluded(folder: Path) -> frozenset[str]:
    """The identities that were taken out of the site in `folder`; empty where none was."""
    path = folder / FILE
    return frozenset(read_json(path)) if path.exists() else frozenset()


def write_excluded(folder: Path, whom: frozenset[str]) -> None:
    """Keeps the identities that are taken out, on disk when this returns."""
    write_json(folder / FILE, sorted(whom))


def without(records: Records, whom: frozenset[str]) -> Records:
    """`records` without those of `whom`, in their order: nobody else's record changes."""
    if not whom:
        return records
    return records.take(np.array([one not in whom for one in identities(records)], dtype=bool))
