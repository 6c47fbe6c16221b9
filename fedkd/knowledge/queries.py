"""Holds what is asked: a set of queries, where it came from, and the digest that names both."""

from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from fedkd.knowledge.digests import Array, Digest, digest_of_arrays
from fedkd.knowledge.distributions import read_only


class WrongDigest(ValueError):
    """A query set whose inputs are not the ones its digest names."""


@dataclass(frozen=True, slots=True)
class Public:
    """Queries from a public set: its name, its licence, the digest of the file or of the rows."""

    name: str
    licence: str
    digest: str


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Queries that a generator made.

    `code` is the digest of the generator's source; `parents` are the digests of the consensuses
    that it learnt from, `student` the digest of the student that it looked at. With no parent
    and no student the queries are independent of every record, and anyone can draw them again.
    """

    generator: str
    code: str
    seed: int
    round: int
    parents: tuple[str, ...] = ()
    student: str | None = None


Origin: TypeAlias = Public | Synthetic


@dataclass(frozen=True, slots=True, eq=False)
class QuerySet:
    """A query set: `inputs` [Q, ...] (a read-only copy), their origin, and the digest of both."""

    inputs: Array
    origin: Origin
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        if not len(self.inputs):
            raise ValueError("found no query, expected at least one")
        object.__setattr__(self, "inputs", read_only(self.inputs))
        header = {"kind": "query-set", "origin": origin_to_json(self.origin)}
        object.__setattr__(self, "digest", digest_of_arrays(header, {"inputs": self.inputs}))

    def __len__(self) -> int:
        return len(self.inputs)

    def expect(self, digest: str) -> "QuerySet":
        """This set, or `WrongDigest` if `digest` names another one."""
        if self.digest != digest:
            raise WrongDigest(f"found a query set {self.digest}, expected {digest}")
        return self


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """Plain values that say where queries came from."""
    kind = "public" if isinstance(origin, Public) else "synthetic"
    plain = {"kind": kind, **asdict(origin)}
    if "parents" in plain:
        plain["parents"] = list(plain["parents"])
    return plain


def origin_from_json(plain: dict[str, Any]) -> Origin:
    """The origin that `origin_to_json` wrote; `ValueError` or `TypeError` if it is none."""
    rest = {key: value for key, value in plain.items() if key != "kind"}
    if plain.get("kind") == "public":
        return Public(**rest)
    if plain.get("kind") == "synthetic":
        return Synthetic(**{**rest, "parents": tuple(rest.get("parents", ()))})
    raise ValueError(f"found origin kind {plain.get('kind')!r}, expected public or synthetic")
