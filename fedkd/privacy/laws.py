"""The laws that every privacy mechanism keeps: its price, its plans, and what it lets out.

Letters: Q queries, C classes, k shards, n releases; mu is the parameter of Gaussian differential
privacy. All draws have fixed seeds: a mechanism that keeps a law today keeps it tomorrow.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from fedkd.knowledge import Array, BadInput, check_distributions
from fedkd.knowledge.laws import LawBroken, expect
from fedkd.privacy.accounting import mu_of_pure
from fedkd.privacy.attacks import lower_bound_mu
from fedkd.privacy.events import Cost, canonical, gaussian, in_words, leaves
from fedkd.privacy.filters import BudgetExhausted, NotChargeable, filter_of
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.mechanism import AnswerPlan, Mechanism, Plan, PublicFacts, TrainingPlan
from fedkd.privacy.noise import NoiseSource, rehearsal_noise
from fedkd.privacy.planning import best_order_for, default_delta, epsilon_of_cost

FACTS = (PublicFacts(10_000, 2, 5), PublicFacts(50_000, 10, 5))
EPSILONS = (0.5, 1.0, 4.0, 8.0)
QUERIES = (1, 10, 500)
NOISES = (0.7, 1.0, 3.0, 10.0, 100.0)

ALPHA = 0.01
"""How likely all empirical bounds of one mechanism together are to refute a claim that is true."""
RELEASES = 8000
"""Of either side of a worst pair: noise 20 % too small is found, and it takes some seconds."""
DRAWN_AHEAD = 20_000
"""Whole numbers of noise that are drawn at once."""
ASKED = (1, 9)
"""Queries of a worst pair: several of them show a price that forgets that they add up."""

TAKEN = {"cost_at": 2, "plan": 3, "training_cost": 2, "answer_cost": 3, "release": 3}
"""How many arguments each part of a mechanism takes, and no more: what it sees is given to it."""


# What a mechanism's laws are tried on ------------------------------------------------------


@lru_cache(maxsize=64)
def ledger_for(mechanism: Mechanism, facts: PublicFacts, epsilon: float) -> Ledger:
    """A fresh budget such as a site opens for this mechanism."""
    delta, order = default_delta(facts.patients), None
    if mechanism.filter == "rdp" and mechanism.cost_at is not None:
        cost_at = mechanism.cost_at
        order = best_order_for(lambda noise: cost_at(facts, noise), epsilon, delta)
    return Ledger(
        "the patients of the laws", epsilon, delta, mechanism.filter, order, mechanism.unit
    )


def plan_of(mechanism: Mechanism, facts: PublicFacts, epsilon: float = 4.0) -> Plan | None:
    """What the mechanism plans for a fresh budget; None where it plans nothing."""
    if mechanism.plan is None:
        return None
    try:
        return mechanism.plan(facts, ledger_for(mechanism, facts, epsilon), None)
    except (BadInput, BudgetExhausted) as error:
        raise LawBroken(f"no plan for epsilon {epsilon:g}: {error}") from None


def mu_of(cost: Cost) -> float:
    """The mu that a cost claims; `LawBroken` where it claims none.

    What is zCDP is read as the Gaussian noise, on whole numbers, that it is charged for here.
    """
    squares: dict[str, Callable[[Cost], float]] = {
        "Gaussian": lambda leaf: leaf["noise_multiplier"] ** -2.0,
        "ZCDp": lambda leaf: 2 * leaf["rho"] if leaf["xi"] == 0 else math.nan,
        "EpsilonDelta": lambda leaf: mu_of_pure(leaf["epsilon"]) ** 2,
        "Laplace": lambda leaf: mu_of_pure(1 / leaf["noise_multiplier"]) ** 2,
    }
    total = 0.0
    for leaf, count in leaves(canonical(cost)):
        of_one = squares.get(leaf["event"])
        square = math.nan if of_one is None else of_one(leaf)
        expect(square > 0, f"found {in_words(leaf)}, a claim that no attack here tests")
        total += count * square
    return math.sqrt(total)


def _plans(mechanism: Mechanism) -> Iterator[tuple[PublicFacts, Plan | None]]:
    for facts in FACTS:
        yield facts, plan_of(mechanism, facts)


def _costs(mechanism: Mechanism, facts: PublicFacts, plan: Plan | None) -> list[Cost]:
    """All prices of a plan: its training, its answers, and what it is planned at."""
    costs = [mechanism.training_cost(facts, plan)]
    costs += [mechanism.answer_cost(facts, plan, queries) for queries in QUERIES]
    if mechanism.cost_at is not None:
        costs += [mechanism.cost_at(facts, noise) for noise in NOISES]
    return costs


def _said(mechanism: Mechanism, facts: PublicFacts, queries: int) -> Iterator[Array]:
    """What a speaker, or each of its shards, may say: at the corners, in between, and unsure."""
    shape: tuple[int, ...] = (queries, facts.classes)
    if mechanism.worst_pair is not None:
        pair = mechanism.worst_pair(facts, queries)
        yield from pair
        shape = pair[0].shape
    rng = np.random.default_rng(7)
    yield np.full(shape, 1 / facts.classes)
    yield np.eye(facts.classes)[rng.integers(facts.classes, size=shape[:-1])]
    yield rng.dirichlet(np.full(facts.classes, 0.3), size=shape[:-1])


# The price -----------------------------------------------------------------------------------


def cost_sees_public_facts(mechanism: Mechanism) -> None:
    """The same facts cost the same, whatever a speaker said in between; nothing else is given."""
    for name, count in TAKEN.items():
        part = getattr(mechanism, name)
        if part is None:
            continue
        taken = list(inspect.signature(part).parameters)
        expect(len(taken) == count, f"found {name}({', '.join(taken)}), expected {count} arguments")
        held = inspect.unwrap(part)
        for cell in getattr(held, "__closure__", None) or ():
            found = f"found an array that {name} keeps: a price is a matter of public numbers"
            expect(not isinstance(cell.cell_contents, np.ndarray), found)
    for facts, plan in _plans(mechanism):
        before = _costs(mechanism, facts, plan)
        for said in _said(mechanism, facts, 3):
            mechanism.release(said, plan, rehearsal_noise(np.random.default_rng(0)))
            after = _costs(mechanism, facts, plan)
            expect(after == before, "found another price after an answer was given")
        expect(plan_of(mechanism, facts) == plan, "found another plan for the same budget")


def cost_can_be_charged(mechanism: Mechanism) -> None:
    """Each cost is in its one spelling, and the mechanism's own kind of filter has a price."""
    for facts, plan in _plans(mechanism):
        for cost in _costs(mechanism, facts, plan):
            try:
                spelled = canonical(cost)
            except BadInput as error:
                raise LawBroken(str(error)) from None
            expect(spelled == cost, f"found {cost!r}, expected {spelled!r}")
            if mechanism.private:
                _price(mechanism, facts, cost)


def _price(mechanism: Mechanism, facts: PublicFacts, cost: Cost, epsilon: float = 4.0) -> int:
    ledger = ledger_for(mechanism, facts, epsilon)
    try:
        delta = default_delta(facts.patients)
        return filter_of(mechanism.filter, delta, ledger.order).price(canonical(cost))
    except NotChargeable as error:
        raise LawBroken(str(error)) from None


def more_never_costs_less(mechanism: Mechanism) -> None:
    """Steps, samples, batches and queries add to a price; noise takes from it."""
    if not mechanism.private:
        return
    for facts, plan in _plans(mechanism):
        if plan is None:  # who protects has one: another law
            return

        def price(cost: Cost, facts: PublicFacts = facts) -> int:
            return _price(mechanism, facts, cost)

        def whole(plan: Plan, facts: PublicFacts = facts) -> int:
            return _whole_price(mechanism, facts, plan)

        asked = [price(mechanism.answer_cost(facts, plan, queries)) for queries in QUERIES]
        _rises(asked, "an answer to more queries")
        if mechanism.cost_at is not None:
            planned = [price(mechanism.cost_at(facts, noise)) for noise in NOISES]
            _falls(planned, "a plan with more noise")
        _falls([whole(replace(plan, noise_multiplier=it)) for it in NOISES], "more noise")
        if isinstance(plan, AnswerPlan):
            _rises([whole(replace(plan, batches=it)) for it in (1, 2, 20)], "more batches")
            continue
        _rises([whole(replace(plan, steps=it)) for it in (1, 2, 60, 600)], "more steps")
        rates = (0.01, 0.1, 0.5, 0.99)
        if plan.sampling_rate < 1:
            _rises([whole(replace(plan, sampling_rate=it)) for it in rates], "a larger sample")


def _whole_price(mechanism: Mechanism, facts: PublicFacts, plan: Plan) -> int:
    training = _price(mechanism, facts, mechanism.training_cost(facts, plan))
    answers = plan.batches if isinstance(plan, AnswerPlan) else 1
    queries = QUERIES[-1]
    return training + answers * _price(
        mechanism, facts, mechanism.answer_cost(facts, plan, queries)
    )


def _rises(prices: list[int], what: str) -> None:
    down = [(low, high) for low, high in pairwise(prices) if high < low]
    expect(not down, f"found {what} for less")


def _falls(prices: list[int], what: str) -> None:
    up = [(high, low) for high, low in pairwise(prices) if low > high]
    expect(not up, f"found {what} for more")
    expect(prices[-1] < prices[0], f"found {what} for the same price, however much there is")


def plan_fits_its_budget(mechanism: Mechanism) -> None:
    """All that a plan pays for is covered, comes to what was planned, and once more is not."""
    if mechanism.plan is None:
        return
    for facts in FACTS:
        for epsilon in EPSILONS:
            fresh = ledger_for(mechanism, facts, epsilon)
            _fits(mechanism, facts, fresh, None)
            spent = fresh.charge(gaussian(20 / epsilon))
            _fits(mechanism, facts, spent, None)
            _fits(mechanism, facts, fresh, epsilon / 2)


def _fits(mechanism: Mechanism, facts: PublicFacts, ledger: Ledger, own: float | None) -> None:
    assert mechanism.plan is not None  # noqa: S101 - its caller has seen to it
    plan = mechanism.plan(facts, ledger, own)
    costs = _charges(mechanism, facts, plan)
    where = f"a plan for epsilon {own or ledger.left():.4g}"
    after = ledger
    try:
        for cost in costs:
            after = after.charge(cost)
    except BudgetExhausted as error:
        raise LawBroken(f"{where} that its budget does not cover: {error.found}") from None
    expect(after.spent() <= (ledger.epsilon or 0.0), f"found {where} that passes its budget")
    delta = ledger.delta or 0.5
    order = None if own is not None else ledger.order
    alone = epsilon_of_cost(mechanism.filter, order, {"event": "Composed", "of": costs}, delta)
    within = own is None or alone <= own * (1 + 1e-9)  # turned into epsilon, it is rounded up
    expect(within, f"found {where} that comes to {alone:.6g}")
    if mechanism.cost_at is not None:
        planned = mechanism.cost_at(facts, plan.noise_multiplier)
        priced = epsilon_of_cost(mechanism.filter, order, planned, delta)
        found = f"{where} was planned at {priced:.6g} and pays {alone:.6g}"
        expect(math.isclose(priced, alone, rel_tol=1e-9), found)
    if own is None:
        again = after.covers(costs[0]) and after.charge(costs[0]).covers(costs[-1])
        expect(not again, f"{where} that could be paid twice: its noise was not solved for it")


def _charges(mechanism: Mechanism, facts: PublicFacts, plan: Plan) -> list[Cost]:
    """What a plan is charged for, in order, as a site charges it."""
    answers = plan.batches if isinstance(plan, AnswerPlan) else 1
    return [
        mechanism.training_cost(facts, plan),
        *(mechanism.answer_cost(facts, plan, QUERIES[-1]) for _ in range(answers)),
    ]


# What leaves ---------------------------------------------------------------------------------


def release_gives_distributions(mechanism: Mechanism) -> None:
    """[Q, C] on the simplex, the same for the same noise; what the speaker said is not touched."""
    for facts, plan in _plans(mechanism):
        for queries in (1, 17):
            for said in _said(mechanism, facts, queries):
                kept = said.copy()
                one = mechanism.release(said, plan, rehearsal_noise(np.random.default_rng(3)))
                expect(np.array_equal(said, kept), "found what the speaker said changed")
                two = mechanism.release(said, plan, rehearsal_noise(np.random.default_rng(3)))
                shape = (queries, facts.classes)
                expect(one.shape == shape, f"found {one.shape}, expected {shape}")
                try:
                    check_distributions(one)
                except ValueError as error:
                    raise LawBroken(str(error)) from None
                expect(np.array_equal(one, two), "found noise from elsewhere than its source")


def says_what_it_is(mechanism: Mechanism) -> None:
    """Who claims nothing says NonPrivate everywhere; who protects says what is paid, and how.

    Noise on the answers of one ordinary model bounds no record: it is no mechanism.
    """
    for facts, plan in _plans(mechanism):
        costs = _costs(mechanism, facts, plan)
        bare = ["NonPrivate" in repr(cost) for cost in costs]
        if not mechanism.private:
            expect(all(bare), "found a price, expected NonPrivate: nothing is protected")
            continue
        expect(not any(bare), "found NonPrivate as a price of what is said to be private")
        expect(plan is not None, "found no plan, expected one that a budget can pay")
        paid = (mechanism.training_cost(facts, plan), mechanism.answer_cost(facts, plan, 1))
        free = [cost == {"event": "NoOp"} for cost in paid]
        expect(not all(free), "found neither training nor answers paid")
        trained = isinstance(plan, TrainingPlan)
        expect(trained != free[0], "found a training plan that is free, or one that is none")
        found = "found answers that are paid and no worst pair to attack them by"
        expect(free[1] or mechanism.worst_pair is not None, found)
    kinds = {True: ("gradients", "any"), False: ("ordinary",)}[mechanism.private]
    found = f"a speaker that is {mechanism.speaker}, private={mechanism.private}"
    expect(mechanism.speaker in kinds, f"found {found}, expected one of {', '.join(kinds)}")


class Ahead(NoiseSource):
    """Noise of a rehearsal that draws whole numbers many at once, and then hands them out.

    They are the same numbers in distribution, and thousands of releases take a second.
    """

    @classmethod
    def of(cls, rng: np.random.Generator) -> "Ahead":
        """From `rng`'s seed."""
        source = rehearsal_noise(rng)
        ahead = cls(source.normals, source.bits, source.reproducible)
        object.__setattr__(ahead, "_kept", {})
        return ahead

    def discrete_gaussians(self, variance: Fraction | int | float, count: int) -> Array:
        """Independent whole numbers [N], int64, none of which was handed out before."""
        kept: dict[Any, Array] = self.__dict__["_kept"]
        left = kept.get(variance, np.zeros(0, dtype=np.int64))
        if len(left) < count:
            left = super().discrete_gaussians(variance, count + DRAWN_AHEAD)
        kept[variance] = left[count:]
        return left[:count]


def answers_keep_their_claim(
    mechanism: Mechanism, seed: int = 0, releases: int = RELEASES, asked: tuple[int, ...] = ASKED
) -> None:
    """Neighbours are told apart no better than the price of an answer says.

    Each side of the worst pair is released n times; a lower bound on mu, by Clopper and Pearson
    (1934), from how well a projection of [Q, C] tells them apart, is at most the mu that is paid.
    """
    if mechanism.worst_pair is None:
        return
    facts = FACTS[0]
    plan = plan_of(mechanism, facts)
    if plan is None:  # who protects has one: another law
        return
    plan = replace(plan, noise_multiplier=1.0)  # where 20 % of it shows best
    for queries in asked:
        pair = mechanism.worst_pair(facts, queries)
        direction = _direction(*pair)
        left, right = (
            _projected(mechanism, said, plan, direction, releases, [seed, queries, side])
            for side, said in enumerate(pair)
        )
        claim = mu_of(mechanism.answer_cost(facts, plan, queries))
        bound = lower_bound_mu(left, right, ALPHA / len(asked))
        expect(
            bound <= claim,
            f"found mu at least {bound:.3g} in {queries} answers that are paid as {claim:.3g}",
        )


def _direction(left: Array, right: Array) -> Array:
    """Where neighbours differ, [Q, C]; `LawBroken` where they are none, or are too much alike."""
    expect(left.shape == right.shape, f"found a pair of shapes {left.shape} and {right.shape}")
    gap = right - left
    if gap.ndim == 3:
        moved = int(gap.any(axis=(1, 2)).sum())
        expect(moved == 1, f"found {moved} shards that differ, expected the one of a patient")
        far, most = float(np.linalg.norm(gap)), math.sqrt(2 * gap.shape[1])
        expect(far > 0.999 * most, f"found a pair {far:.4g} apart, where {most:.4g} is possible")
        gap = gap.sum(axis=0)
    expect(gap.any(), "found a worst pair that is alike")
    return gap


def _projected(
    mechanism: Mechanism, said: Array, plan: Plan, direction: Array, releases: int, seed: list[int]
) -> Array:
    noise = Ahead.of(np.random.default_rng(seed))
    return np.array(
        [float((mechanism.release(said, plan, noise) * direction).sum()) for _ in range(releases)]
    )


PRIVACY_LAWS: dict[str, Callable[[Mechanism], None]] = {
    "a price sees public facts alone": cost_sees_public_facts,
    "a price is one that the mechanism's own filter charges": cost_can_be_charged,
    "more steps, samples, batches or queries never cost less, more noise never more": (
        more_never_costs_less
    ),
    "a plan that was solved for a budget fits it, once": plan_fits_its_budget,
    "what leaves are distributions, with noise from the given source alone": (
        release_gives_distributions
    ),
    "a mechanism says whether it protects, and what pays for that": says_what_it_is,
    "no attack on the worst pair refutes what an answer costs": answers_keep_their_claim,
}
