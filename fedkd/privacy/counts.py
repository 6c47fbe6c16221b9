"""Counts patients for an evaluation, prices the counts, and puts exact noise on them.

N rows; G groups, B answers (T + 1 ranges between T thresholds, or C classes), C true classes.

**What one patient can change.** Every patient is counted in exactly one cell, once: by the first of
their rows, as stored (`once_each`), however many they have. The cells [G, B, C] are disjoint. Which
row that is depends on the patient's own rows alone, and what the model says of it on that row alone
(`cells`). So where all of a patient's records are replaced by null, one count falls by 1 and no
other moves: the sensitivity is 1, in L1 and in L2, whatever G, T and C are. Counts at several
thresholds are sums of these cells and cost no more. Two counts for a patient, or one for each
record, would break this: a patient with m rows would then move counts by m, and noise for 1 would
protect them m times less.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import numpy as np

from fedkd.knowledge import Array, BadInput
from fedkd.privacy.events import NON_PRIVATE, Cost, pure, zcdp
from fedkd.privacy.filters import BudgetExhausted
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.noise import NoiseSource
from fedkd.privacy.planning import noise_for_budget

Law: TypeAlias = Literal["geometric", "discrete_gaussian", "none"]

GRID = 2**20
"""Noise is a fraction of this denominator, so that what is drawn is exactly what is charged."""


@dataclass(frozen=True, slots=True)
class CountNoise:
    """What lies on each count, independently: the law, its parameter, and what it costs.

    `parameter` is the rate of geometric noise (its epsilon, in nats, for a count), the variance of
    discrete Gaussian noise, or 0.
    """

    law: Law
    parameter: Fraction
    cost: Cost

    @property
    def scale(self) -> float:
        """1 / rate of geometric noise, the deviation of Gaussian noise, or 0: for a reader."""
        if self.law == "geometric":
            return float(1 / self.parameter)
        return math.sqrt(self.parameter)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the entry that pays for it holds them."""
        return {
            "law": self.law,
            "numerator": self.parameter.numerator,
            "denominator": self.parameter.denominator,
        }

    @classmethod
    def paid(cls, kept: Mapping[str, Any], cost: Cost) -> "CountNoise":
        """What `to_json` gave: the noise that `cost` was charged for."""
        return cls(kept["law"], Fraction(kept["numerator"], kept["denominator"]), cost)

    def draw(self, count: int, source: NoiseSource) -> Array:
        """So many independent whole numbers [N], int64."""
        if self.law == "geometric":
            return source.geometrics(self.parameter, count)
        if self.law == "discrete_gaussian":
            return source.discrete_gaussians(self.parameter, count)
        return np.zeros(count, dtype=np.int64)


def noise_for(ledger: Ledger, epsilon: float) -> CountNoise:
    """The noise of counts of sensitivity 1 that may cost `epsilon` under the ledger's filter.

    Under `gdp` it is geometric noise, an epsilon-DP event; under `rdp` the discrete Gaussian, which
    is zCDP and no Gaussian DP. Either is solved as a plan of that epsilon is (`noise_for_ledger`):
    alone it is at most that, under `rdp` at its own best order. An open budget gets no noise, and a
    cost without protection. `BudgetExhausted` where the ledger does not cover it, or no noise is
    enough: that depends on public facts alone.
    """
    if ledger.epsilon is None:
        return CountNoise("none", Fraction(0), NON_PRIVATE)
    make = _geometric if ledger.filter == "gdp" else _gaussian
    if ledger.delta is None or ledger.left() <= 0:
        raise BudgetExhausted(
            f"a budget of {ledger.population} with nothing left", "one that covers an evaluation"
        )
    try:
        noise = noise_for_budget(
            ledger.filter, None, lambda noise: _about(ledger, noise), epsilon, ledger.delta
        )
    except BadInput as error:
        raise BudgetExhausted(error.found, error.expected, error.remedy) from None
    made = make(noise)
    ledger.charge(made.cost)
    return made


def _about(ledger: Ledger, noise: float) -> Cost:
    return pure(1 / noise) if ledger.filter == "gdp" else zcdp(1 / (2 * noise**2))


def _geometric(scale: float) -> CountNoise:
    rate = Fraction(math.floor(GRID / scale), GRID)
    if rate == 0:
        raise BudgetExhausted(f"noise of scale {scale:g} on counts", f"at most {GRID}")
    return CountNoise("geometric", rate, pure(float(rate)))


def _gaussian(deviation: float) -> CountNoise:
    variance = Fraction(math.floor(deviation**2 * GRID) + 1, GRID)
    rho = math.nextafter(float(1 / (2 * variance)), math.inf)
    return CountNoise("discrete_gaussian", variance, zcdp(rho))


def once_each(patients: Array | None, count: int, *, by_record: bool = False) -> Array:
    """Indices of the rows that are counted, in order: of each patient the first, as stored.

    `patients` [N] say which rows are one person's; without them, or where a budget protects single
    records (`by_record`), every row counts for itself.
    """
    if patients is None or by_record:
        return np.arange(count)
    _, first = np.unique(patients, return_index=True)
    return np.sort(first)


def cells(
    probs: Array, labels: Array, thresholds: tuple[float, ...], groups: Array, group_count: int
) -> Array:
    """How many rows are in each cell, int64 [G, B, C]: every row is in one.

    `probs` [N, C], `labels` [N], `groups` [N] codes below `group_count`. With thresholds, of which
    two classes have at least one, b is how many of them the second class's probability reaches;
    without, b is the class that is said, the first of equals. Where a model says nothing of a row
    (NaN), b is 0: it is counted all the same, or its being refused would tell of the patient.
    """
    classes = probs.shape[1]
    probs = np.nan_to_num(probs.astype(np.float64), nan=0.0)
    if thresholds:
        said = np.searchsorted(np.asarray(thresholds), probs[:, 1], "right")
        answers = len(thresholds) + 1
    else:
        said, answers = probs.argmax(axis=1), classes
    counted = np.zeros((group_count, answers, classes), dtype=np.int64)
    np.add.at(counted, (groups, said, labels), 1)
    return counted


def noised(counts: Array, noise: CountNoise, source: NoiseSource) -> Array:
    """The counts with independent noise on each, int64, of the same shape: may be negative."""
    return np.asarray(counts + noise.draw(counts.size, source).reshape(counts.shape))
