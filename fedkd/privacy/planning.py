"""Solves a plan under the ledger's own filter, so that a plan for epsilon 4 fits a budget of 4.

steps T, rate q in (0, 1] (1: full batches), noise multiplier z; epsilons are in nats. No record
is needed: all of it is known before a run.
"""

import math
from collections.abc import Callable
from functools import cache
from numbers import Integral

from fedkd.knowledge import BadInput
from fedkd.privacy.accounting import WHOLE_ORDERS, edge
from fedkd.privacy.events import Cost, canonical, gaussian, poisson_sampled, self_composed
from fedkd.privacy.filters import BudgetExhausted, Filter, NotChargeable, filter_of
from fedkd.privacy.ledger import Ledger

LEAST_NOISE, MOST_NOISE = 1e-3, 1e6
"""Noise multipliers that are tried: below, nothing is protected; above, nothing is said. So what
rounding leaves of a budget is nothing to plan for."""


def default_delta(patients: int) -> float:
    """min(1e-5, n^-1.1): far below 1/n, at which letting one patient's records out would pass."""
    return float(min(1e-5, _counted(patients) ** -1.1))


def expect_delta(delta: float, patients: int) -> None:
    """`BadInput` unless delta is in (0, 1/n)."""
    most = 1 / _counted(patients)
    if isinstance(delta, bool) or not 0 < delta < most:
        raise BadInput(
            f"delta {delta!r} for {patients} patients",
            f"a number above 0 and below 1/{patients} = {most:.3g}",
            f"take null, which is {default_delta(patients):.3g}",
        )


def _counted(patients: object) -> int:
    if isinstance(patients, bool) or not isinstance(patients, Integral) or patients < 1:
        raise BadInput(f"{patients!r} patients", "an integer of at least 1")
    return int(patients)


def training_cost(steps: int, rate: float, noise_multiplier: float) -> Cost:
    """What T noisy steps cost, each on a sample of rate q: full batches where q is 1."""
    step = gaussian(noise_multiplier)
    return self_composed(steps, step if rate == 1 else poisson_sampled(rate, step))


def solve_noise(
    filter: str, order: float | None, steps: int, rate: float, epsilon: float, delta: float
) -> float:
    """The least noise multiplier for which a filter of `epsilon` covers `steps` at `rate`.

    `order` None under `rdp`: the best one for this plan. `BadInput` where this filter cannot
    charge such steps, or no noise is enough.
    """
    return noise_for_budget(
        filter, order, lambda noise: training_cost(steps, rate, noise), epsilon, delta
    )


def noise_for_budget(
    filter: str, order: float | None, cost_at: Callable[[float], Cost], epsilon: float, delta: float
) -> float:
    """The same for any mechanism: `cost_at` is its cost at a noise multiplier, falling with it."""
    if filter == "rdp" and order is None:
        order = best_order_for(cost_at, epsilon, delta)
    return _least_noise(cost_at, filter_of(filter, delta, order), epsilon)


def noise_for_ledger(
    ledger: Ledger, cost_at: Callable[[float], Cost], epsilon: float | None = None
) -> float:
    """The least noise multiplier whose cost this ledger accepts; `BadInput` where none is.

    With `epsilon` the plan alone is also at most that, at its own best order under `rdp`: what a
    plan may spend, beside what the population may.
    """
    if ledger.epsilon is None or ledger.delta is None:
        raise BadInput(
            f"an open budget of {ledger.population}",
            "one with an epsilon and a delta",
            "a plan is solved for a budget: set budget.epsilon",
        )
    expect_covered(ledger, cost_at(MOST_NOISE))
    alone = LEAST_NOISE
    if epsilon is not None:
        alone = noise_for_budget(ledger.filter, None, cost_at, epsilon, ledger.delta)
        if ledger.covers(cost_at(alone)):
            return alone
    return _least(alone, lambda noise: ledger.covers(cost_at(noise)))


def expect_covered(ledger: Ledger, cost: Cost) -> None:
    """`BadInput` where the ledger would refuse this cost: said when planning, not when training."""
    if not ledger.covers(cost):
        try:
            ledger.charge(cost)
        except BudgetExhausted as error:
            raise BadInput(error.found, error.expected, error.remedy) from None


def epsilon_of_plan(
    filter: str, order: float | None, steps: int, rate: float, noise_multiplier: float, delta: float
) -> float:
    """The epsilon of a budget that such steps use up: what a wanted noise means."""
    return epsilon_of_cost(filter, order, training_cost(steps, rate, noise_multiplier), delta)


def epsilon_of_cost(filter: str, order: float | None, cost: Cost, delta: float) -> float:
    """The epsilon of a budget that `cost` uses up; `order` None under `rdp`: its best one."""
    cost = canonical(cost)
    return min(one.epsilon(_price(one, cost)) for one in _filters(filter, order, delta))


def steps_within(
    filter: str,
    order: float | None,
    rate: float,
    noise_multiplier: float,
    epsilon: float,
    delta: float,
) -> int:
    """How many steps at this noise a filter of `epsilon` covers: 0 where it covers not one."""
    return times_within(filter, order, training_cost(1, rate, noise_multiplier), epsilon, delta)


def times_within(filter: str, order: float | None, cost: Cost, epsilon: float, delta: float) -> int:
    """How often a filter of `epsilon` covers `cost`; `order` None under `rdp`: its best one."""
    cost = canonical(cost)
    return max(one.limit(epsilon) // _price(one, cost) for one in _filters(filter, order, delta))


def best_order(steps: int, rate: float, epsilon: float, delta: float) -> float:
    """The order at which `rdp` needs the least noise for this plan: to be fixed at opening."""
    return best_order_for(lambda noise: training_cost(steps, rate, noise), epsilon, delta)


def best_order_for(cost_at: Callable[[float], Cost], epsilon: float, delta: float) -> float:
    """The same for any mechanism: `cost_at` is its cost at a noise multiplier, falling with it."""
    orders = [order for order in WHOLE_ORDERS if filter_of("rdp", delta, order).limit(epsilon) > 0]
    if not orders:
        raise BadInput(
            f"epsilon {epsilon!r} at delta {delta:g}",
            "one that filter rdp reaches at some order",
            "take more epsilon, or filter gdp with full batches",
        )

    _price(filter_of("rdp", delta, orders[0]), cost_at(MOST_NOISE))  # or it cannot be charged

    @cache
    def noise(index: int) -> float:
        try:
            return _least_noise(cost_at, filter_of("rdp", delta, orders[index]), epsilon, 16)
        except BadInput:
            return math.inf

    low, high = 0, len(orders) - 1
    while high - low > 2:  # too low an order wastes epsilon on its conversion, too high a one noise
        left, right = low + (high - low) // 3, high - (high - low) // 3
        low, high = (low, right - 1) if noise(left) <= noise(right) else (left + 1, high)
    return orders[min(range(low, high + 1), key=noise)]


def _filters(filter: str, order: float | None, delta: float) -> list[Filter]:
    if filter == "rdp" and order is None:
        return [filter_of("rdp", delta, one) for one in WHOLE_ORDERS]
    return [filter_of(filter, delta, order)]


def _price(filter_: Filter, cost: Cost) -> int:
    try:
        return filter_.price(canonical(cost))
    except NotChargeable as error:
        raise BadInput(error.found, error.expected, error.remedy) from None


def _least_noise(
    cost_at: Callable[[float], Cost], filter_: Filter, epsilon: float, halvings: int = 200
) -> float:
    limit = filter_.limit(epsilon)
    if limit == 0 or _price(filter_, cost_at(MOST_NOISE)) > limit:
        raise BadInput(
            f"epsilon {epsilon!r} under filter {filter_.name}, order {filter_.order}",
            "an epsilon that some noise reaches",
            "take more epsilon, fewer steps, or another order",
        )

    return _least(LEAST_NOISE, lambda noise: _price(filter_, cost_at(noise)) <= limit, halvings)


def _least(low: float, fits: Callable[[float], bool], halvings: int = 200) -> float:
    """The least noise from `low` on that fits; it is known that `MOST_NOISE` does."""
    if fits(low):
        return low
    high = low
    while not fits(high := min(2 * high, MOST_NOISE)):
        low = high
    return edge(high, low, fits, halvings)
