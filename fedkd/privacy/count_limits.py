"""Says what noised counts tell about a share: an interval for chance and noise together.

Let a share p be that of A in A + B, two sums of counts, of which A' and B' are seen: independent
noise, whose law is public, lies on them. Whatever A + B = n is, (1 - p) A' - p B' has mean 0, and
variance n p (1 - p) by chance and (1 - p)^2 V(A') + p^2 V(B') by noise (Fieller, 1954, Some
problems in interval estimation; with chance, Wilson's score interval of 1927). The interval holds
every p at which it is no larger than

    sqrt(z^2 (A' + B' + 1) p (1 - p) + f^2 ((1 - p)^2 V(A') + p^2 V(B')))

z is the normal quantile of alpha. f is at least z, and as much larger as the exact quantiles of the
noise on A' and on B' ask for (`most_noise`): geometric noise has longer tails. A count that was
withheld is anything from 0 to one below its floor, whichever makes the interval wider, and its
noise. Without noise the limits are Clopper and Pearson's. Patients count as independent draws.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

from fedkd.knowledge import Array
from fedkd.privacy.attacks.intervals import clopper_pearson

MOST_GRID = 2**22
POINTS = 2001
"""Shares that are tried."""
_ROUNDING = 1e-9
"""More than a Fourier transform loses of a probability here."""


class NoiseLaw(NamedTuple):
    """A law by its name, and its scale: 1 / rate (geometric), a deviation (discrete Gaussian)."""

    name: str
    scale: float

    @property
    def variance(self) -> float:
        """Of one draw."""
        return _variance(self)


@lru_cache(maxsize=4096)
def _variance(law: NoiseLaw) -> float:
    if law.name == "geometric":
        return 1 / (2 * math.sinh(1 / (2 * law.scale)) ** 2)
    if law.name == "none":
        return 0.0
    whole = np.arange(-_reach(law), _reach(law) + 1, dtype=np.float64)
    return float((_mass(law, whole) * whole**2).sum())


@dataclass(frozen=True, slots=True)
class Tally:
    """A sum of counts, of which some were shown: their total, and the law on each of them.

    `withheld` has, for each of the others, the floor that its noised count was below, and its law.
    """

    total: int = 0
    laws: tuple[NoiseLaw, ...] = ()
    withheld: tuple[tuple[int, NoiseLaw], ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.total + other.total, self.laws + other.laws, self.withheld + other.withheld
        )

    @property
    def middle(self) -> float:
        """The best guess: a withheld count is taken as the middle of 0 and one below its floor."""
        return max(0.0, self.total + sum((floor - 1) / 2 for floor, _ in self.withheld))

    @property
    def is_exact(self) -> bool:
        """Whether the sum is what it says."""
        return not self.withheld and all(law.name == "none" for law in self.laws)

    @property
    def most(self) -> int:
        """The sum with every withheld count at one below its floor."""
        return self.total + sum(floor - 1 for floor, _ in self.withheld)

    @property
    def every_law(self) -> tuple[NoiseLaw, ...]:
        """The laws on all counts, shown or not."""
        return (*self.laws, *(law for _, law in self.withheld))

    @property
    def variance(self) -> float:
        """That of the noise in the sum."""
        return sum(law.variance for law in self.every_law)

    def factor(self, alpha: float) -> float:
        """How many deviations of the noise its sum passes with a probability of `alpha`."""
        deviation = math.sqrt(self.variance)
        return most_noise(self.every_law, alpha / 2) / deviation if deviation else 0.0

    def limits(self, alpha: float) -> tuple[int, int]:
        """Between which whole numbers the true sum lies, save with probability `alpha`."""
        low = max(0, self.total - most_noise(self.laws, alpha / 2))
        return low, max(low, self.most + most_noise(self.every_law, alpha / 2))


class Share(NamedTuple):
    """A share in [0, 1], None where nothing is known of it, and the limits of its interval."""

    value: float | None
    low: float
    high: float


def share(part: Tally, rest: Tally, alpha: float = 0.05) -> Share:
    """The share of `part` in both together, and its interval, as this file's docstring says."""
    whole = part.middle + rest.middle
    value = part.middle / whole if whole > 0 else None
    if part.is_exact and rest.is_exact:
        return Share(value, *clopper_pearson(part.total, part.total + rest.total, alpha))
    # Withheld counts at their least, or at their most, whichever moves the share further.
    low = _accepted(part.total, rest.most, part, rest, alpha)[0]
    high = _accepted(part.most, rest.total, part, rest, alpha)[1]
    return Share(value, low, high)


def _accepted(
    part_sum: int, rest_sum: int, part: Tally, rest: Tally, alpha: float
) -> tuple[float, float]:
    """The least and the largest share that the sums do not speak against."""
    shares = np.linspace(0.0, 1.0, POINTS)
    others = 1 - shares
    z = float(special.ndtri(1 - alpha / 2))
    factor = max(z, part.factor(alpha), rest.factor(alpha))
    chance = z**2 * (part_sum + rest_sum + 1) * shares * others
    noise = others**2 * part.variance + shares**2 * rest.variance
    apart = np.abs(others * part_sum - shares * rest_sum)
    accepted = shares[apart <= np.sqrt(chance + factor**2 * noise)]
    if not len(accepted):  # between two points
        middle = part_sum / (part_sum + rest_sum)
        accepted = np.array([middle])
    step = 1 / (POINTS - 1)
    return max(0.0, float(accepted[0]) - step), min(1.0, float(accepted[-1]) + step)


def most_noise(laws: Iterable[NoiseLaw], alpha: float) -> int:
    """The least whole number that the sum of independent draws passes with at most `alpha`.

    Exact, by the product of the laws' Fourier transforms; where that takes more than 2^22 points,
    by Cantelli's inequality, which is wider.
    """
    counted = Counter(law for law in laws if law.name != "none")
    return _most_noise(tuple(sorted(counted.items())), alpha) if counted else 0


@lru_cache(maxsize=4096)
def _most_noise(laws: tuple[tuple[NoiseLaw, int], ...], alpha: float) -> int:
    variance = sum(count * law.variance for law, count in laws)
    reach = math.ceil(12 * math.sqrt(variance)) + max(_reach(law) for law, _ in laws)
    points = 2 ** math.ceil(math.log2(2 * reach + 1))
    if points > MOST_GRID:
        return math.ceil(math.sqrt(variance * (1 / alpha - 1)))
    whole = np.fft.fftfreq(points, 1 / points)
    transform = np.ones(points // 2 + 1, dtype=np.complex128)
    for law, count in laws:
        transform *= np.fft.rfft(_mass(law, whole)) ** count
    mass: Array = np.fft.irfft(transform, points)[: points // 2]
    # The law is even: what lies beyond x is half of what is neither 0 nor within.
    beyond = (1 - mass[0]) / 2 - np.cumsum(mass[1:])
    beyond = np.concatenate([[(1 - mass[0]) / 2], beyond]) + _ROUNDING
    return int(np.flatnonzero(beyond <= alpha)[0])


def _reach(law: NoiseLaw) -> int:
    """Beyond it a draw lies with a probability below 1e-15."""
    return math.ceil(36 * law.scale) if law.name == "geometric" else math.ceil(9 * law.scale) + 1


def _mass(law: NoiseLaw, whole: Array) -> Array:
    """Probabilities of the whole numbers, which reach far enough to hold nearly all."""
    if law.name == "geometric":
        exponent = -np.abs(whole) / law.scale
    else:
        exponent = -(whole**2) / (2 * law.scale**2)
    mass = np.exp(exponent)
    return np.asarray(mass / mass.sum())
