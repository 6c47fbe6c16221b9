"""Says what a cost is: a DpEvent of dp_accounting as plain data, checked before it is counted."""

import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, TypeAlias

from fedkd.knowledge import BadInput

Cost: TypeAlias = Mapping[str, Any]
"""A differential privacy event as plain data: its name in dp_accounting, and its numbers.

| event | what was done |
| --- | --- |
| `{"event": "Gaussian", "noise_multiplier": z}` | noise of z times the L2 sensitivity |
| `{"event": "Laplace", "noise_multiplier": b}` | noise of b times the L1 sensitivity |
| `{"event": "EpsilonDelta", "epsilon": e, "delta": 0}` | e-DP, such as geometric noise |
| `{"event": "ZCDp", "rho": r, "xi": 0}` | (xi, rho)-zCDP, such as exact discrete Gaussian noise |
| `{"event": "PoissonSampled", "rate": q, "of": cost}` | each patient took part with probability q |
| `{"event": "SelfComposed", "count": k, "of": cost}` | the same, k times |
| `{"event": "Composed", "of": [cost, ...]}` | one after the other |
| `{"event": "NoOp"}` | nothing that touches a record |
| `{"event": "NonPrivate"}` | something without protection: its epsilon is infinite |

Every cost is stated under one relation: all of a patient's records are replaced by null.
"""

NO_OP: Cost = {"event": "NoOp"}
NON_PRIVATE: Cost = {"event": "NonPrivate"}

DEEPEST = 8
"""Costs within costs: more than any mechanism needs, few enough to walk."""
MOST = 2**53 - 1
"""The largest count: beyond it JSON's numbers are no integers."""

_ALIASES = {"NonPrivateDpEvent": "NonPrivate"}
"""Spellings of earlier versions, which their logs still hold."""

_WHERE = "state the cost as fedkd.privacy.events spells it"


def gaussian(noise_multiplier: float) -> Cost:
    """Gaussian noise; its standard deviation is `noise_multiplier` times the L2 sensitivity."""
    return canonical({"event": "Gaussian", "noise_multiplier": noise_multiplier})


def laplace(noise_multiplier: float) -> Cost:
    """Laplace noise; its scale is `noise_multiplier` times the L1 sensitivity."""
    return canonical({"event": "Laplace", "noise_multiplier": noise_multiplier})


def pure(epsilon: float) -> Cost:
    """Any mechanism that is epsilon-DP with a delta of 0: exact geometric noise on counts is."""
    return canonical({"event": "EpsilonDelta", "epsilon": epsilon, "delta": 0.0})


def zcdp(rho: float) -> Cost:
    """A mechanism that is rho-zCDP: exact discrete Gaussian noise is, with 1 / (2 z^2).

    Canonne, Kamath, Steinke, 2020, The discrete Gaussian for differential privacy,
    arXiv:2004.00010.
    """
    return canonical({"event": "ZCDp", "rho": rho, "xi": 0.0})


def poisson_sampled(rate: float, of: Cost) -> Cost:
    """`of`, on a sample in which each patient is with probability `rate`, independently."""
    return canonical({"event": "PoissonSampled", "rate": rate, "of": of})


def self_composed(count: int, of: Cost) -> Cost:
    """`of`, `count` times, each of which may depend on what the earlier ones said."""
    return canonical({"event": "SelfComposed", "count": count, "of": of})


def composed(*of: Cost) -> Cost:
    """One cost after the other, each of which may depend on what the earlier ones said."""
    return canonical({"event": "Composed", "of": list(of)})


def canonical(cost: object) -> Cost:
    """The one spelling of `cost`, a copy; `BadInput` where it is no cost that can be counted.

    Nothing is counted before this: dp_accounting's RDP takes a noise of NaN and says epsilon 0.
    """
    return _canonical(cost, 0)


def _canonical(cost: object, depth: int) -> Cost:
    if depth > DEEPEST:
        raise BadInput(
            f"a cost with more than {DEEPEST} costs in one another", "a flatter one", _WHERE
        )
    if not isinstance(cost, Mapping):
        raise BadInput(f"{type(cost).__name__} as a cost", "a mapping with an event", _WHERE)
    name = cost.get("event")
    name = _ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in _FIELDS:
        raise BadInput(f"event {_shown(name)}", f"one of {', '.join(sorted(_FIELDS))}", _WHERE)
    fields = _FIELDS[name]
    given = {**_DEFAULTS.get(name, {}), **{key: cost[key] for key in cost if key != "event"}}
    if set(given) != set(fields):
        raise BadInput(
            f"the fields {sorted(map(str, given))} in {name}", f"{sorted(fields)}", _WHERE
        )
    read = {key: check(f"{name}'s {key}", given[key], depth) for key, check in fields.items()}
    return {"event": name, **read}


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes out no integer of thousands of digits
        return f"a {type(value).__name__}"


def _number(what: str, value: object, expected: str, low: float, high: float) -> float:
    """A finite number in (low, high], whatever its type was."""
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        number = math.inf
    if isinstance(value, bool) or not math.isfinite(number) or not low < number <= high:
        raise BadInput(f"{_shown(value)} as {what}", expected, _WHERE)
    return number


def _positive(what: str, value: object, depth: int) -> float:
    return _number(what, value, "a finite number above 0", 0.0, math.inf)


def _not_negative(what: str, value: object, depth: int) -> float:
    below_zero = math.nextafter(0.0, -1.0)
    return abs(_number(what, value, "a finite number of at least 0", below_zero, math.inf))


def _zero(what: str, value: object, depth: int) -> float:
    below_zero = math.nextafter(0.0, -1.0)
    return abs(_number(what, value, "0: no filter here adds up deltas", below_zero, 0.0))


def _rate(what: str, value: object, depth: int) -> float:
    return _number(what, value, "a rate in (0, 1]", 0.0, 1.0)


def _count(what: str, value: object, depth: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= MOST:
        raise BadInput(f"{_shown(value)} as {what}", f"an integer in [1, {MOST}]", _WHERE)
    return int(value)


def _cost(what: str, value: object, depth: int) -> Cost:
    return _canonical(value, depth + 1)


def _costs(what: str, value: object, depth: int) -> list[Cost]:
    if not isinstance(value, list | tuple) or not value:
        raise BadInput(f"{_shown(value)} as {what}", "a list of costs, not empty", _WHERE)
    return [_canonical(one, depth + 1) for one in value]


_Check: TypeAlias = Callable[[str, object, int], Any]
_FIELDS: Mapping[str, Mapping[str, _Check]] = {
    "NoOp": {},
    "NonPrivate": {},
    "Gaussian": {"noise_multiplier": _positive},
    "Laplace": {"noise_multiplier": _positive},
    "EpsilonDelta": {"epsilon": _positive, "delta": _zero},
    "ZCDp": {"rho": _positive, "xi": _not_negative},
    "PoissonSampled": {"rate": _rate, "of": _cost},
    "SelfComposed": {"count": _count, "of": _cost},
    "Composed": {"of": _costs},
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ZCDp": {"xi": 0.0},
    "EpsilonDelta": {"delta": 0.0},
}


def dp_event(cost: Cost, *, is_canonical: bool = False) -> Any:
    """What dp_accounting counts: the `DpEvent` of a cost, which is checked unless it was before.

    `BadInput` for an `EpsilonDelta`: the library has no event for it.
    """
    import dp_accounting

    return _dp_event(cost if is_canonical else canonical(cost), dp_accounting)


def _dp_event(cost: Cost, dp: Any) -> Any:
    made: Mapping[str, Callable[[], Any]] = {
        "NoOp": dp.NoOpDpEvent,
        "NonPrivate": dp.NonPrivateDpEvent,
        "Gaussian": lambda: dp.GaussianDpEvent(cost["noise_multiplier"]),
        "Laplace": lambda: dp.LaplaceDpEvent(cost["noise_multiplier"]),
        "ZCDp": lambda: dp.ZCDpEvent(cost["rho"], cost["xi"]),
        "PoissonSampled": lambda: dp.PoissonSampledDpEvent(cost["rate"], _dp_event(cost["of"], dp)),
        "SelfComposed": lambda: dp.SelfComposedDpEvent(_dp_event(cost["of"], dp), cost["count"]),
        "Composed": lambda: dp.ComposedDpEvent([_dp_event(one, dp) for one in cost["of"]]),
    }
    if cost["event"] not in made:
        raise BadInput(f"a cost of {_in_words(cost)}", f"one of {', '.join(made)}", _WHERE)
    return made[cost["event"]]()


def cost_of(event: Any) -> Cost:
    """The cost that a `DpEvent` states; `BadInput` for one that has no spelling here."""
    fields: Mapping[str, Callable[[], Mapping[str, Any]]] = {
        "NoOpDpEvent": lambda: {"event": "NoOp"},
        "NonPrivateDpEvent": lambda: {"event": "NonPrivate"},
        "GaussianDpEvent": lambda: gaussian(event.noise_multiplier),
        "LaplaceDpEvent": lambda: laplace(event.noise_multiplier),
        "ZCDpEvent": lambda: {"event": "ZCDp", "rho": event.rho, "xi": event.xi},
        "PoissonSampledDpEvent": lambda: {
            "event": "PoissonSampled",
            "rate": event.sampling_probability,
            "of": cost_of(event.event),
        },
        "SelfComposedDpEvent": lambda: self_composed(event.count, cost_of(event.event)),
        "ComposedDpEvent": lambda: composed(*map(cost_of, event.events)),
    }
    read = fields.get(type(event).__name__)
    if read is None:
        raise BadInput(f"a {type(event).__name__}", f"one of {', '.join(fields)}", _WHERE)
    return canonical(read())


def leaves(cost: Cost) -> Iterator[tuple[Cost, int]]:
    """What a canonical cost comes down to: each single release, and how often it was made.

    A sample in which everybody takes part is no sample.
    """
    match cost["event"]:
        case "Composed":
            for one in cost["of"]:
                yield from leaves(one)
        case "SelfComposed":
            for leaf, count in leaves(cost["of"]):
                yield leaf, count * cost["count"]
        case "PoissonSampled" if cost["rate"] == 1.0:
            yield from leaves(cost["of"])
        case "NoOp":
            return
        case _:
            yield cost, 1


def in_words(cost: object) -> str:
    """A cost on one line, for a person: its numbers are public."""
    try:
        read = canonical(cost)
    except BadInput as error:
        return f"unreadable ({error.found})"
    return _in_words(read)


def _in_words(cost: Cost) -> str:
    match cost["event"]:
        case "PoissonSampled":
            return f"{_in_words(cost['of'])} on a sample of {cost['rate']:.6g}"
        case "SelfComposed":
            return f"{cost['count']} x {_in_words(cost['of'])}"
        case "Composed":
            said = [_in_words(one) for one in cost["of"][:4]]
            more = len(cost["of"]) - len(said)
            return " + ".join(said) + (f" + {more} more" if more else "")
        case name:
            numbers = ", ".join(f"{value:.6g}" for key, value in cost.items() if key != "event")
            return f"{name}({numbers})" if numbers else str(name)
