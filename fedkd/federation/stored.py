"""Keeps every noised answer that was paid for, so that the same query never gets a second one."""

import hashlib
from pathlib import Path

import numpy as np

from fedkd.federation.durable import read_arrays, write_arrays
from fedkd.knowledge import Array
from fedkd.knowledge.digests import little_endian

# Q queries, C classes.


class StoredAnswers:
    """What one population's speaker said of each query, whatever run asked.

    A query is known by its bytes. A second answer to it with fresh noise would cost once more and
    tell more; the stored one is free. A batch is one file, there whole or not at all.
    """

    def __init__(self, folder: Path, population: str, speaker: str, way: str) -> None:
        name = hashlib.sha256(repr((population, speaker, way)).encode()).hexdigest()
        self._folder = folder / name

    def unanswered(self, inputs: Array) -> Array:
        """The places [N] of those of `inputs` [Q, ...] that need an answer, each query once."""
        known = set(self._known())
        names = names_of(inputs)
        first: dict[bytes, int] = {}
        for place, name in enumerate(names):
            if name not in known:
                first.setdefault(name, place)
        return np.array(list(first.values()), dtype=np.int64)

    def keep(self, inputs: Array, probs: Array) -> None:
        """Keeps the answers `probs` [Q, C] to `inputs` [Q, ...], on disk when this returns."""
        names = names_of(inputs)
        if len(names) != len(probs) or set(names) & set(self._known()):
            raise ValueError(
                "found an answer to a query that has one, or to none, expected new ones"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        queries = np.frombuffer(b"".join(names), dtype=np.uint8).reshape(len(names), -1)
        number = len(list(self._folder.glob("*.npz"))) + 1
        write_arrays(self._folder / f"{number:06d}.npz", {"queries": queries, "probs": probs})

    def read(self, inputs: Array) -> Array:
        """The answers [Q, C] to `inputs` [Q, ...]; `KeyError` where one has none."""
        known = self._known()
        return np.stack([known[name] for name in names_of(inputs)])

    def _known(self) -> dict[bytes, Array]:
        known: dict[bytes, Array] = {}
        for path in sorted(self._folder.glob("*.npz")):
            kept = read_arrays(path)
            names = [bytes(row) for row in kept["queries"]]
            known |= dict(zip(names, kept["probs"], strict=True))
        return known


def names_of(inputs: Array) -> list[bytes]:
    """The digest of each of `inputs` [Q, ...]: equal for queries that are equal byte for byte."""
    rows = little_endian(inputs)
    about = repr((rows.dtype.str, rows.shape[1:])).encode()
    return [hashlib.sha256(about + row.tobytes()).digest() for row in rows]
