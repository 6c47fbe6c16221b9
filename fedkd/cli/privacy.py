"""Says what a plan will cost before it runs."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from fedkd.knowledge import BadInput
from fedkd.privacy.curves import curve_of, curves
from fedkd.privacy.curves import in_words as expected_in_words
from fedkd.privacy.planning import (
    best_order,
    default_delta,
    epsilon_of_plan,
    expect_delta,
    solve_noise,
    steps_within,
)
from fedkd.privacy.risk import in_words

DONE = 0
GAP = " " * 10


def plan(
    *,
    patients: int,
    epsilon: float | None,
    delta: float | None,
    noise: float | None,
    steps: int,
    rate: float,
    as_json: bool,
    classes: int | None = None,
    like: str | None = None,
) -> int:
    """Prints what `dp_training` costs or needs: no record is read for it.

    With `epsilon` alone the noise that it needs; with `noise` alone the epsilon that it means;
    with both how many steps they allow. `like` names a kept curve, of what was reached elsewhere.
    """
    if epsilon is None and noise is None:
        raise BadInput("neither an epsilon nor a noise", "one of them, or both", "add --epsilon 4")
    delta = default_delta(patients) if delta is None else delta
    expect_delta(delta, patients)
    filter = "gdp" if rate == 1 else "rdp"
    order = None
    if epsilon is not None and filter == "rdp":
        order = best_order(steps, rate, epsilon, delta)
    told: dict[str, Any] = {"patients": patients, "delta": delta, "filter": filter, "order": order}
    if noise is None:
        assert epsilon is not None  # noqa: S101 - one of the two is there
        noise = solve_noise(filter, order, steps, rate, epsilon, delta)
    elif epsilon is None:
        epsilon = epsilon_of_plan(filter, order, steps, rate, noise, delta)
    else:
        steps = steps_within(filter, order, rate, noise, epsilon, delta)
    told |= {
        "epsilon": epsilon,
        "noise_multiplier": noise,
        "steps": steps,
        "sampling_rate": rate,
        "unit": "patient",
        "relation": "replace_special",
        "accuracy": None
        if like is None
        else curve_of(like).expectation(epsilon, patients, classes),
        "risk": in_words(epsilon, delta, filter),
    }
    if as_json:
        print(json.dumps(told, indent=2))
        return DONE
    sample = "all patients" if rate == 1 else f"{rate:g} of the patients, by chance"
    at = "" if order is None else f", order {order:g}"
    print(f"A plan of dp_training for {patients} patients. No record was read for it.\n")
    for what, said in (
        ("epsilon", f"{epsilon:.4g} for each patient, ever: what the budget has to hold"),
        ("delta", f"{delta:.3g}, below 1/{patients}"),
        ("steps", f"{steps} on {sample}"),
        ("noise", f"{noise:.4g} times the clip, on the sum of the patients' gradients"),
        ("filter", f"{filter}{at}"),
        ("risk", str(told["risk"])),
        ("expect", _expected(told["accuracy"])),
    ):
        for line in textwrap.wrap(said, 100, initial_indent=f"{what:<10}", subsequent_indent=GAP):
            print(line)
    return DONE


def _expected(accuracy: Mapping[str, Any] | None) -> str:
    if accuracy is None:
        known = ", ".join(curves())
        return f"unknown: nothing was said of the data; curves are kept for --like {known}"
    return "; ".join(expected_in_words(accuracy))
