"""Holds what came in from the sites, what is made of it, and what a site learns from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fedkd.knowledge.digests import Array, Digest
from fedkd.knowledge.distributions import Distributions, read_only
from fedkd.knowledge.queries import QuerySet

# P participants, Q queries, C classes.


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What came in: `probs` [P, Q, C], `weights` [P], `answered` [P, Q] bool, in order of `sites`.

    Weights are 1, or sizes that are public. A query that a site did not answer has a uniform row
    and does not count in any rule. Sites are sorted by name: a rule that adds in this order gives
    the same bits on every engine.
    """

    sites: tuple[str, ...]
    probs: Array
    weights: Array
    answered: Array
    about: Digest

    def __post_init__(self) -> None:
        participants = len(self.sites)
        if list(self.sites) != sorted(set(self.sites)):
            raise ValueError(f"found sites {self.sites}, expected distinct names in order")
        if self.probs.ndim != 3 or self.probs.shape[0] != participants or not participants:
            raise ValueError(f"found probs of shape {self.probs.shape} for {participants} sites")
        if self.weights.shape != (participants,) or self.answered.shape != self.probs.shape[:2]:
            raise ValueError("found weights or answered of the wrong shape")
        if self.answered.dtype != np.bool_:
            raise ValueError(f"found answered of type {self.answered.dtype}, expected bool")
        if not (np.isfinite(self.weights).all() and (self.weights > 0).all()):
            raise ValueError(f"found weights {self.weights}, expected positive numbers")
        for name in ("probs", "weights", "answered"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @staticmethod
    def of(said: Mapping[str, Distributions]) -> "Answers":
        """The answers of the sites in `said`, equally weighted, every query answered."""
        sites = tuple(sorted(said))
        abouts = {said[site].about for site in sites}
        if len(abouts) != 1:
            raise ValueError(f"found answers about {len(abouts)} query sets, expected one")
        probs = np.stack([said[site].probs.astype(np.float64) for site in sites])
        everything = np.ones(probs.shape[:2], dtype=bool)
        return Answers(sites, probs, np.ones(len(sites)), everything, abouts.pop())

    def only(self, keep: Array) -> "Answers":
        """These answers without the sites where `keep` [P] is false."""
        chosen = np.flatnonzero(keep)
        return Answers(
            tuple(self.sites[i] for i in chosen),
            self.probs[chosen],
            self.weights[chosen],
            self.answered[chosen],
            self.about,
        )


@dataclass(frozen=True, slots=True)
class Consensus:
    """What is made of the answers: `common` for everybody, or `by_site` for each its own."""

    common: Distributions
    by_site: Mapping[str, Distributions] | None = None

    def for_site(self, site: str) -> Distributions:
        """What `site` is taught."""
        return self.by_site[site] if self.by_site and site in self.by_site else self.common


@dataclass(frozen=True, slots=True)
class Kept:
    """Who is left: the answers that stay, and for each site that was left out the reason."""

    answers: Answers
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a site learns from: queries and the consensus about them."""

    queries: QuerySet
    consensus: Distributions

    def __post_init__(self) -> None:
        if self.consensus.about != self.queries.digest:
            raise ValueError("found a consensus about another query set than the lesson's")
        if len(self.consensus.probs) != len(self.queries):
            raise ValueError(
                f"found {len(self.consensus.probs)} rows for {len(self.queries)} queries"
            )


Memory: TypeAlias = Mapping[str, Any]
"""What a rule carries from round to round: JSON values and arrays, kept in the checkpoint."""


def remember_nothing() -> Memory:
    """The memory of a rule that has none."""
    return {}


class Aggregator(NamedTuple):
    """How many become one: a pair of pure functions.

    `withstands` is a promise that a law holds it to: while no more than this share of sites lie,
    and the others answer near-IID and clearly, no argmax of the consensus moves.
    """

    init: Callable[[], Memory]
    combine: Callable[[Memory, Answers], tuple[Memory, Consensus]]
    withstands: float = 0.0


class Filter(NamedTuple):
    """Who is left out, and why: a pair of pure functions."""

    init: Callable[[], Memory]
    keep: Callable[[Memory, Answers], tuple[Memory, Kept]]
