"""Keeps what was exchanged, by digest: query sets, answers as released, consensuses."""

import json
from pathlib import Path

import numpy as np

from fedkd.federation.durable import read_arrays, write_arrays
from fedkd.knowledge import (
    Array,
    Digest,
    Distributions,
    QuerySet,
    WrongDigest,
    origin_from_json,
    origin_to_json,
)


class Exchange:
    """A folder of `<digest>.npz` files, each named by what it holds and held against its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where the thing named `digest` is kept."""
        return self.folder / f"{digest.removeprefix('sha256:')}.npz"

    def has(self, digest: str) -> bool:
        """Whether the thing named `digest` is kept here."""
        return self.path(digest).exists()

    def keep_queries(self, queries: QuerySet) -> None:
        """Keeps a query set with its origin."""
        origin = np.array(json.dumps(origin_to_json(queries.origin)))
        self._keep(queries.digest, {"inputs": queries.inputs, "origin": origin})

    def queries(self, digest: str) -> QuerySet:
        """The query set named `digest`; `WrongDigest` if the file holds another one."""
        kept = read_arrays(self.path(digest))
        origin = origin_from_json(json.loads(str(kept["origin"])))
        return QuerySet(kept["inputs"], origin).expect(digest)

    def keep_distributions(self, said: Distributions) -> Digest:
        """Keeps answers or a consensus; returns the name."""
        self._keep(said.digest, {"probs": said.probs, "about": np.array(said.about)})
        return said.digest

    def distributions(self, digest: str) -> Distributions:
        """The distributions named `digest`; `WrongDigest` if the file holds others."""
        kept = read_arrays(self.path(digest))
        said = Distributions(kept["probs"], Digest(str(kept["about"])))
        if said.digest != digest:
            raise WrongDigest(f"found distributions {said.digest}, expected {digest}")
        return said

    def _keep(self, digest: str, arrays: dict[str, Array]) -> None:
        if not self.has(digest):
            self.folder.mkdir(exist_ok=True)  # no parents: where a disk is not mounted stays empty
            write_arrays(self.path(digest), arrays)
