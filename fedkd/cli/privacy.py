"""Says what a plan will cost before it runs."""

import json
import math
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

from fedkd.knowledge import BadInput
from fedkd.privacy import Cost, PublicFacts
from fedkd.privacy.curves import curve_of, curves
from fedkd.privacy.curves import in_words as expected_in_words
from fedkd.privacy.events import gaussian
from fedkd.privacy.mechanisms.pate import pate
from fedkd.privacy.planning import (
    LEAST_NOISE,
    MOST_NOISE,
    best_order,
    best_order_for,
    default_delta,
    epsilon_of_cost,
    epsilon_of_plan,
    expect_delta,
    noise_for_budget,
    solve_noise,
    steps_within,
    times_within,
)
from fedkd.privacy.risk import in_words

DONE = 0
FIRST_EPSILON = 1.0
GAP = " " * 10


def plan(
    *,
    patients: int,
    epsilon: float | None,
    delta: float | None,
    noise: float | None,
    steps: int | None,
    rate: float | None,
    as_json: bool,
    classes: int | None = None,
    like: str | None = None,
    mechanism: str = "dp_training",
    shards: int | None = None,
    batches: int | None = None,
    queries: int | None = None,
) -> int:
    """Prints what a mechanism costs or needs: no record is read for it.

    With `epsilon` alone the noise that it needs; with `noise` alone the epsilon that it means;
    with both how many steps, or batches of new queries, they allow. With neither it is for
    epsilon 1, at which a deployed site starts. `like` names a kept curve, of what was reached
    elsewhere.
    """
    training = {"--steps": steps, "--rate": rate, "--like": like}
    answers = {"--shards": shards, "--batches": batches, "--queries": queries}
    if mechanism not in ("dp_training", "pate"):
        raise BadInput(f"--mechanism {mechanism}", "dp_training or pate", "none costs everything")
    for option, value in (training if mechanism == "pate" else answers).items():
        if value is not None:
            raise BadInput(
                f"{option} {value} with --mechanism {mechanism}",
                ", ".join(answers if mechanism == "pate" else training),
                f"leave {option} out, or name the other mechanism",
            )
    started = epsilon is None and noise is None
    epsilon = FIRST_EPSILON if started else epsilon
    delta = default_delta(patients) if delta is None else delta
    expect_delta(delta, patients)
    asked = _Asked(patients, epsilon, delta, noise)
    if mechanism == "pate":
        told = _answering(asked, classes or 2, shards or 50, batches or 1, queries)
    else:
        told = _training(asked, steps or 100, 1.0 if rate is None else rate)
    epsilon = told["epsilon"]
    told |= {
        "unit": "patient",
        "relation": "replace_special",
        "accuracy": None
        if like is None
        else curve_of(like).expectation(
            epsilon, patients, classes, told["steps"], told["sampling_rate"]
        ),
        "risk": in_words(epsilon, delta, told["filter"]),
    }
    if as_json:
        print(json.dumps(told, indent=2))
        return DONE
    at = "" if told["order"] is None else f", order {told['order']:g}"
    why = "; none was named: a deployed site starts with it" if started else ""
    print(f"A plan of {mechanism} for {patients} patients. No record was read for it.\n")
    for what, said in (
        ("epsilon", f"{epsilon:.4g} for each patient, ever: what the budget has to hold{why}"),
        ("delta", f"{delta:.3g}, below 1/{patients}"),
        *(_said_of_answers(told) if mechanism == "pate" else _said_of_training(told)),
        ("filter", f"{told['filter']}{at}"),
        ("risk", str(told["risk"])),
        ("expect", _expected(told["accuracy"])),
    ):
        for line in textwrap.wrap(said, 100, initial_indent=f"{what:<10}", subsequent_indent=GAP):
            print(line)
    return DONE


class _Asked(NamedTuple):
    """What a plan is for: one of epsilon and noise, or both, is there."""

    patients: int
    epsilon: float | None
    delta: float
    noise: float | None

    def head(self, filter: str, order: float | None) -> dict[str, Any]:
        """What every plan says first."""
        return {
            "patients": self.patients,
            "delta": self.delta,
            "filter": filter,
            "order": order,
        }


def _training(asked: _Asked, steps: int, rate: float) -> dict[str, Any]:
    _, epsilon, delta, noise = asked
    filter = "gdp" if rate == 1 else "rdp"
    order = None
    if epsilon is not None and filter == "rdp":
        order = best_order(steps, rate, epsilon, delta)
    if noise is None:
        assert epsilon is not None  # noqa: S101 - one of the two is there
        noise = solve_noise(filter, order, steps, rate, epsilon, delta)
    elif epsilon is None:
        epsilon = epsilon_of_plan(filter, order, steps, rate, noise, delta)
    else:
        steps = steps_within(filter, order, rate, noise, epsilon, delta)
    return {
        **asked.head(filter, order),
        "epsilon": epsilon,
        "noise_multiplier": noise,
        "steps": steps,
        "sampling_rate": rate,
    }


def _answering(
    asked: _Asked, classes: int, shards: int, batches: int, queries: int | None
) -> dict[str, Any]:
    """The noise is that of the mechanism itself: its own price, asked for public facts alone."""
    patients, epsilon, delta, noise = asked
    facts = PublicFacts(patients, classes)

    def cost_of(count: int, noise: float) -> Cost:
        cost_at = pate(shards=shards, batches=count).cost_at
        assert cost_at is not None  # noqa: S101 - it plans
        return cost_at(facts, noise)

    order = None
    if epsilon is not None:
        order = best_order_for(lambda noise: cost_of(batches, noise), epsilon, delta)
    if noise is None:
        assert epsilon is not None  # noqa: S101 - one of the two is there
        noise = noise_for_budget("rdp", order, lambda z: cost_of(batches, z), epsilon, delta)
    else:
        gaussian(noise)  # a noise multiplier, or `BadInput`
        if not LEAST_NOISE <= noise <= MOST_NOISE:
            raise BadInput(f"noise {noise:g}", f"a number in [{LEAST_NOISE:g}, {MOST_NOISE:g}]")
        if epsilon is None:
            epsilon = epsilon_of_cost("rdp", order, cost_of(batches, noise), delta)
        else:
            batches = times_within("rdp", order, cost_of(1, noise), epsilon, delta)
    return {
        **asked.head("rdp", order),
        "epsilon": epsilon,
        "noise_multiplier": noise,
        "shards": shards,
        "batches": batches,
        "queries": queries,
        "noise_on_an_answer": None if queries is None else noise * math.sqrt(2 * queries) / shards,
    }


def _said_of_training(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    rate, noise = told["sampling_rate"], told["noise_multiplier"]
    sample = "all patients" if rate == 1 else f"{rate:g} of the patients, by chance"
    return [
        ("steps", f"{told['steps']} on {sample}"),
        ("noise", f"{noise:.4g} times the clip, on the sum of the patients' gradients"),
    ]


def _said_of_answers(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    shards, noise, queries = told["shards"], told["noise_multiplier"], told["queries"]
    on_one = f"for Q new queries at once {noise * math.sqrt(2) / shards:.4g} sqrt(Q)"
    if queries is not None:
        on_one = f"for {queries} new queries at once {told['noise_on_an_answer']:.4g}"
    return [
        ("batches", f"{told['batches']} of new queries; the same queries again are free"),
        ("shards", f"{shards}, each with about {told['patients'] / shards:.0f} patients"),
        (
            "noise",
            f"{noise:.4g} times the sensitivity: {on_one} on each probability of a mean answer "
            "(standard deviation)",
        ),
    ]


def _expected(accuracy: Mapping[str, Any] | None) -> str:
    if accuracy is None:
        known = ", ".join(curves())
        return f"unknown: nothing was said of the data; curves are kept for --like {known}"
    return "; ".join(expected_in_words(accuracy))
