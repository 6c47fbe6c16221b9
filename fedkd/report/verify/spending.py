"""What a population has spent, from its charges alone: never the number that a log says.

Filter `gdp` adds up squares of mu, and turns their sum into epsilon in closed form (Balle, Wang,
2018, arXiv:1805.06530, theorem 8): the standard library is enough. Filter `rdp` needs
dp_accounting; where that is not installed, nobody can tell.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fedkd.audit.verify import CannotTell, Refuted

_MOST_DEPTH: Final = 8
_HALVINGS: Final = 200
_FAR: Final = 30.0
"""Standard deviations from which on the normal tail is taken from its series."""


def spent(opened: Mapping[str, Any], costs: Sequence[Any]) -> float:
    """The epsilon, in nats, that `costs` come to under the filter of the opening record.

    Infinite where something without protection was let out. Raises `CannotTell` where it needs an
    accountant that is not here, `Refuted` where a cost is none.
    """
    leaves = [leaf for cost in costs for leaf in _leaves(cost, 1, 0)]
    if any(event["event"] == "NonPrivate" for event, _ in leaves):
        return math.inf
    if not leaves:
        return 0.0
    delta, filter = opened.get("delta"), opened.get("filter")
    if type(delta) is not float or not 0 < delta < 1:
        raise Refuted("budget.opened", f"delta {delta!r}", "a number in (0, 1)")
    if filter == "gdp":
        return epsilon_of_mu(
            math.sqrt(sum(_mu(event) ** 2 * count for event, count in leaves)), delta
        )
    if filter == "rdp":
        return _by_library(leaves, opened.get("order"), delta)
    raise CannotTell(f"found filter {filter!r}, expected gdp or rdp")


def _leaves(cost: Any, count: int, depth: int) -> Iterator[tuple[Mapping[str, Any], int]]:
    if depth > _MOST_DEPTH or not isinstance(cost, Mapping) or "event" not in cost:
        raise Refuted("budget.charged", "no cost", "an event with its numbers")
    match cost["event"]:
        case "NoOp":
            return
        case "SelfComposed":
            yield from _leaves(cost["of"], count * int(cost["count"]), depth + 1)
        case "Composed":
            for one in cost["of"]:
                yield from _leaves(one, count, depth + 1)
        case "NonPrivateDpEvent":
            yield {"event": "NonPrivate"}, count
        case "PoissonSampled" if cost["rate"] == 1:
            yield from _leaves(cost["of"], count, depth + 1)
        case _:
            yield cost, count


def _mu(event: Mapping[str, Any]) -> float:
    if event["event"] == "Gaussian":
        return 1 / float(event["noise_multiplier"])
    if event["event"] == "EpsilonDelta" and event.get("delta", 0.0) == 0.0:
        return _mu_of_pure(float(event["epsilon"]))
    raise CannotTell(f"found a cost of {event['event']}, which filter gdp has no closed form for")


def _mu_of_pure(epsilon: float) -> float:
    """-2 times the normal quantile of 1/(1 + e^epsilon), by bisection."""
    goal = -epsilon - math.log1p(math.exp(-epsilon))
    low, high = 0.0, 2 * epsilon + 10
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _log_tail(-middle / 2) > goal else (low, middle)
    return high


def epsilon_of_mu(mu: float, delta: float) -> float:
    """The least epsilon, in nats, for which mu-GDP is (epsilon, delta)-DP."""
    if mu == 0 or _delta(mu, 0.0) <= delta:
        return 0.0
    high = 1.0
    while _delta(mu, high) > delta:
        high *= 2
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(mu, middle) > delta else (low, middle)
    return high


def _delta(mu: float, epsilon: float) -> float:
    first = _log_tail(mu / 2 - epsilon / mu)
    second = epsilon + _log_tail(-mu / 2 - epsilon / mu)
    return math.exp(first) * max(0.0, -math.expm1(min(0.0, second - first)))


def _log_tail(x: float) -> float:
    """The logarithm of the normal distribution function at x."""
    if x > -_FAR:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    inverse = 1 / (x * x)  # Abramowitz, Stegun, 26.2.12
    series = 1 - inverse * (1 - 3 * inverse * (1 - 5 * inverse))
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log(series)


def _by_library(leaves: Sequence[tuple[Mapping[str, Any], int]], order: Any, delta: float) -> float:
    try:
        import dp_accounting
        from dp_accounting.rdp import RdpAccountant
    except ImportError:
        raise CannotTell(
            "found no dp_accounting here, expected it for an epsilon under filter rdp; install it"
        ) from None
    accountant = RdpAccountant([float(order)], dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    for event, count in leaves:
        accountant.compose(_event(event, dp_accounting), count)
    return float(accountant.get_epsilon(delta))


def _event(event: Mapping[str, Any], library: Any) -> Any:
    match event["event"]:
        case "Gaussian":
            return library.GaussianDpEvent(event["noise_multiplier"])
        case "Laplace":
            return library.LaplaceDpEvent(event["noise_multiplier"])
        case "ZCDp":
            return library.ZCDpEvent(event["rho"], event["xi"])
        case "PoissonSampled":
            return library.PoissonSampledDpEvent(event["rate"], _event(event["of"], library))
    raise CannotTell(f"found a cost of {event['event']}, which no accountant here counts")
