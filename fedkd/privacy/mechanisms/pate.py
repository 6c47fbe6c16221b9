"""Lets models of disjoint shards of the patients answer together, with noise on what they say."""

import math
from fractions import Fraction
from typing import Annotated

import numpy as np

from fedkd.knowledge import Array, BadInput, OneOf, Range
from fedkd.privacy.events import NO_OP, Cost, self_composed, zcdp
from fedkd.privacy.filters import BudgetExhausted
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.mechanism import AnswerPlan, Mechanism, Plan, PublicFacts, unit_of
from fedkd.privacy.noise import LARGEST_VARIANCE, NoiseSource
from fedkd.privacy.planning import noise_for_ledger

# k shards, Q queries, C classes.

GRID = 2**20
"""Steps in a probability of one: what a shard says is rounded to whole steps before it is added."""
SLACK = 1e-3
"""How far a shard's row may be from summing to one before it is no distribution."""


def pate(
    shards: Annotated[int, Range(2, 10_000)] = 50,
    batches: Annotated[int, Range(1, 1_000_000)] = 1,
    answer: Annotated[str, OneOf(("mean", "vote"))] = "mean",
    unit: Annotated[str, OneOf(("patient", "record"))] = "patient",
) -> Mechanism:
    """Private aggregation of teacher ensembles, within one site.

    Papernot et al., 2017, 1610.05755; votes with Gaussian noise (GNMax) as in Papernot et al.,
    2018, 1802.08908, section 4.1, but charged whatever the votes were: an epsilon that depends on
    them would tell about them. Any classifier will do, since only what it says is bounded.

    A patient is in one shard alone, so all [Q, C] answers of a batch move by at most sqrt(2Q) of
    the k shards' sum. The sum is a whole number of steps of 2^-20, and gets exact discrete
    Gaussian noise (Canonne, Kamath and Steinke, 2020, 2004.00010): rho-zCDP with rho = 1/(2 z^2)
    for each batch of new queries, charged by the filter `rdp`. The noise is such that `batches`
    batches fit the plan. What is done after the noise costs nothing.
    """
    is_vote = answer == "vote"

    def cost_at(facts: PublicFacts, noise_multiplier: float) -> Cost:
        _expect_enough(facts)
        return self_composed(batches, zcdp(_rho(noise_multiplier)))

    def plan(facts: PublicFacts, ledger: Ledger, epsilon: float | None) -> AnswerPlan:
        # Where records name nobody, each is a patient of its own, and either unit means the same.
        if facts.named and ledger.unit != unit:
            raise BadInput(
                f"a plan that protects a {unit}", f"what the budget protects: a {ledger.unit}"
            )
        return AnswerPlan(
            patients=facts.patients,
            shards=shards,
            batches=batches,
            noise_multiplier=noise_for_ledger(ledger, lambda z: cost_at(facts, z), epsilon),
            vote=is_vote,
            unit=unit_of(unit) if facts.named else "record",
        )

    def training_cost(facts: PublicFacts, planned: Plan | None) -> Cost:
        return NO_OP  # the shards' models stay at home

    def answer_cost(facts: PublicFacts, planned: Plan | None, queries: int) -> Cost:
        if queries == 0:
            return NO_OP
        its = _of_answers(planned)
        if variance(its, queries, facts.classes) > LARGEST_VARIANCE:
            raise BudgetExhausted(
                f"noise of {its.noise_multiplier:.3g} on {queries} queries at once",
                "noise that leaves something of an answer",
                "take more epsilon, or fewer queries",
            )
        return zcdp(_rho(its.noise_multiplier))

    def worst_pair(facts: PublicFacts, queries: int) -> tuple[Array, Array]:
        said = np.zeros((shards, queries, facts.classes))
        for number in range(shards):  # undecided, so that the one that changes decides
            said[number, :, number % 2] = 1.0
        left, right = said.copy(), said.copy()
        left[-1], right[-1] = np.eye(facts.classes)[0], np.eye(facts.classes)[1]
        return left, right

    def _expect_enough(facts: PublicFacts) -> None:
        if shards > facts.patients:
            raise BadInput(
                f"{shards} shards for {facts.patients} {unit}s",
                "at most one for each: some models would learn from nobody",
                "set mechanism.shards lower, or take mechanism=dp_training for so few",
            )

    return Mechanism(
        name="pate",
        private=True,
        filter="rdp",
        unit=unit_of(unit),
        speaker="any",
        cost_at=cost_at,
        plan=plan,
        training_cost=training_cost,
        answer_cost=answer_cost,
        release=release,
        worst_pair=worst_pair,
        shards=shards,
        way=answer,
    )


def release(said: Array, planned: Plan | None, noise: NoiseSource) -> Array:
    """What k shards say together, noised: distributions [Q, C] from `said` [k, Q, C].

    The noise is for all the Q queries as one batch. With `vote` each row is the one class that
    won. Otherwise it is the point of the simplex that is nearest to the noised mean.
    """
    plan = _of_answers(planned)
    total = votes(said) if plan.vote else in_steps(said)
    count, classes = total.shape
    if len(said) != plan.shards:
        raise ValueError(f"found answers of {len(said)} shards, expected {plan.shards}")
    drawn = noise.discrete_gaussians(variance(plan, count, classes), total.size)
    noised = total + drawn.reshape(total.shape)
    if plan.vote:
        chosen: Array = np.eye(classes)[noised.argmax(axis=1)]
        return chosen
    return nearest_on_simplex(noised / (plan.shards * GRID))


def in_steps(said: Array) -> Array:
    """The shards' sum [Q, C] of `said` [k, Q, C] in whole steps of 2^-20, int64."""
    _check(said)
    exact = said.astype(np.float64)
    steps: Array = np.rint(exact / exact.sum(axis=2, keepdims=True) * GRID).astype(np.int64)
    return steps.sum(axis=0)  # type: ignore[no-any-return]  # numpy's stub loses the type


def votes(said: Array) -> Array:
    """How many of the shards hold each class likeliest: [Q, C] of `said` [k, Q, C], int64."""
    _check(said)
    each = np.eye(said.shape[2], dtype=np.int64)[said.argmax(axis=2)]
    return each.sum(axis=0)  # type: ignore[no-any-return]  # numpy's stub loses the type


def squared_sensitivity(vote: bool, queries: int, classes: int) -> int:
    """By how much one unit may move the shards' sum, squared, rounded up: in votes or in steps.

    One shard's Q rows go from one corner of the simplex to another: sqrt(2Q) in L2. Rounding adds
    at most a step to each of the Q C numbers: sqrt(QC) steps.
    """
    if vote:
        return 2 * queries
    mixed = math.isqrt(8 * classes * (GRID * queries) ** 2) + 1  # 2 sqrt(2Q) GRID sqrt(QC)
    return 2 * queries * GRID**2 + mixed + queries * classes


def variance(plan: AnswerPlan, queries: int, classes: int) -> Fraction:
    """Of the noise on a batch: exactly what makes the rho that is charged true."""
    sensitivity = squared_sensitivity(plan.vote, queries, classes)
    return sensitivity / (2 * Fraction(_rho(plan.noise_multiplier)))


def nearest_on_simplex(rows: Array) -> Array:
    """The nearest distributions to `rows` [Q, C]: Duchi et al., 2008, 10.1145/1390156.1390191."""
    high = -np.sort(-rows, axis=1)
    over = (np.cumsum(high, axis=1) - 1) / np.arange(1, rows.shape[1] + 1)
    kept = (high > over).sum(axis=1, keepdims=True)
    return np.maximum(rows - np.take_along_axis(over, kept - 1, axis=1), 0)


def _rho(noise_multiplier: float) -> float:
    return 1 / (2 * noise_multiplier**2)


def _of_answers(planned: Plan | None) -> AnswerPlan:
    if not isinstance(planned, AnswerPlan):
        raise ValueError(f"found {planned!r}, expected the plan that the answers are paid by")
    return planned


def _check(said: Array) -> None:
    """Raises `ValueError` unless `said` is distributions [k, Q, C]: the sensitivity rests on it."""
    sound = said.ndim == 3 and bool(np.isfinite(said).all()) and bool((said >= 0).all())
    if not sound or bool((np.abs(said.sum(axis=2) - 1) > SLACK).any()):
        raise ValueError("found answers of shards that are no distributions, expected [k, Q, C]")
