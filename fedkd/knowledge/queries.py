"""Holds what is asked: a set of queries, where it came from, and the digest that names both."""

from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from fedkd.knowledge.digests import Array, Digest, digest_of_arrays
from fedkd.knowledge.distributions import read_only

MOST_SEEDS = 2**53
"""RFC 8785 takes JSON's numbers as doubles: from here on two seeds would be one."""


class WrongDigest(ValueError):
    """A query set whose inputs are not the ones its digest names."""


@dataclass(frozen=True, slots=True)
class Public:
    """Queries from a public set: its name, its licence, the digest of the file or of the rows."""

    name: str
    licence: str
    digest: str

    def __post_init__(self) -> None:
        _expect_texts(self.name, self.licence, self.digest)


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

    def __post_init__(self) -> None:
        students = () if self.student is None else (self.student,)
        _expect_texts(self.generator, self.code, *self.parents, *students)
        if not all(type(n) is int and 0 <= n < MOST_SEEDS for n in (self.seed, self.round)):
            raise ValueError("found a seed or round that is no whole number from 0 to 2**53 - 1")


def _expect_texts(*texts: object) -> None:
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError("found an origin with a missing text, expected names and digests")


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


def origin_from_json(plain: Any) -> Origin:
    """The origin that `origin_to_json` wrote; `ValueError` if it is none."""
    if not isinstance(plain, dict):
        raise ValueError("found an origin that is no object")
    rest = {key: value for key, value in plain.items() if key != "kind"}
    kinds: dict[Any, type[Origin]] = {"public": Public, "synthetic": Synthetic}
    kind = kinds.get(plain.get("kind")) if isinstance(plain.get("kind"), str) else None
    if kind is None:
        raise ValueError("found an origin of another kind, expected public or synthetic")
    # every field is there, none is foreign: one origin has one spelling
    if rest.keys() != kind.__dataclass_fields__.keys():
        raise ValueError("found an origin with missing or foreign fields")
    if kind is Synthetic:
        if not isinstance(rest["parents"], list):
            raise ValueError("found parents that are no list")
        rest["parents"] = tuple(rest["parents"])
    return kind(**rest)
