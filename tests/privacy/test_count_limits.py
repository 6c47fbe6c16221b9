"""Intervals of noised counts: they hold as often as they say, and say no more than they know."""

import numpy as np
import pytest

from fedkd.privacy.attacks.intervals import clopper_pearson
from fedkd.privacy.count_limits import NoiseLaw, Tally, most_noise, share
from fedkd.privacy.noise import rehearsal_noise

GEOMETRIC, GAUSSIAN = NoiseLaw("geometric", 4.7), NoiseLaw("discrete_gaussian", 4.0)
EXACT = NoiseLaw("none", 0.0)


def drawn(law: NoiseLaw, shape: tuple[int, ...], seed: int):
    source, count = rehearsal_noise(np.random.default_rng(seed)), int(np.prod(shape))
    if law.name == "geometric":
        found = source.geometrics(round(2**20 / law.scale) / 2**20, count)
    else:
        found = source.discrete_gaussians(law.scale**2, count)
    return found.reshape(shape)


@pytest.mark.parametrize("law", [GEOMETRIC, GAUSSIAN], ids=lambda it: it.name)
@pytest.mark.parametrize("many", [1, 2, 20])
def test_a_sum_of_noise_passes_its_quantile_as_often_as_stated(law: NoiseLaw, many: int) -> None:
    sums = drawn(law, (40_000, many), many).sum(axis=1)
    for alpha in (0.2, 0.025):
        most = most_noise([law] * many, alpha)
        error = 4 * np.sqrt(alpha / len(sums))
        assert np.mean(sums > most) <= alpha + error
        assert np.mean(sums > most - 1) >= alpha - error, "the least such number"


def test_noise_of_several_laws_adds_up_and_no_noise_adds_nothing() -> None:
    both = most_noise([GEOMETRIC, GAUSSIAN], 0.05)
    assert max(most_noise([GEOMETRIC], 0.05), most_noise([GAUSSIAN], 0.05)) < both
    assert most_noise([GEOMETRIC, EXACT], 0.05) == most_noise([GEOMETRIC], 0.05)
    assert most_noise([], 0.05) == most_noise([EXACT] * 3, 0.05) == 0


def test_noise_too_wide_for_a_table_is_bounded_from_above() -> None:
    wide = NoiseLaw("geometric", 1e6)
    assert most_noise([wide], 0.025) >= 1e6 * np.log(1 / 0.05)


@pytest.mark.parametrize("law", [GEOMETRIC, GAUSSIAN], ids=lambda it: it.name)
def test_a_law_has_the_variance_of_what_is_drawn(law: NoiseLaw) -> None:
    assert drawn(law, (100_000,), 5).var() == pytest.approx(law.variance, rel=0.05)


def test_without_noise_the_limits_are_clopper_and_pearsons() -> None:
    found = share(Tally(9, (EXACT,)), Tally(3, (EXACT,)))
    assert found == (0.75, *clopper_pearson(9, 12))
    assert share(Tally(0, (EXACT,)), Tally(0, (EXACT,))) == (None, 0.0, 1.0)


@pytest.mark.parametrize(
    ("patients", "truth", "law", "cells", "floor"),
    [
        (30, 0.8, GEOMETRIC, 1, 5),
        (100, 0.5, GEOMETRIC, 5, 1),
        (100, 0.9, GEOMETRIC, 5, 5),
        (60, 0.5, NoiseLaw("geometric", 8.8), 1, 1),
        (300, 0.95, GAUSSIAN, 4, 5),
        (1000, 0.99, NoiseLaw("geometric", 1.3), 4, 5),
    ],
)
def test_an_interval_holds_the_true_share_as_often_as_it_says(
    patients: int, truth: float, law: NoiseLaw, cells: int, floor: int
) -> None:
    """Counts of several sites, noised, and those below the floor withheld."""
    rng, tries, holds = np.random.default_rng(3), 600, 0
    noise = drawn(law, (tries, 2, cells), 4)
    for number in range(tries):
        hits = rng.binomial(patients, truth)
        tallies = []
        for sums, added in zip((hits, patients - hits), noise[number], strict=True):
            seen = rng.multinomial(sums, np.ones(cells) / cells) + added
            shown = seen[seen >= floor]
            hidden = ((floor, law),) * (cells - len(shown))
            tallies.append(Tally(int(shown.sum()), (law,) * len(shown), hidden))
        found = share(*tallies)
        assert 0 <= found.low <= found.high <= 1
        holds += found.low <= truth <= found.high
    assert holds / tries >= 0.95 - 0.025  # 2.5 % is three standard errors


def test_more_noise_makes_an_interval_wider_and_a_withheld_count_too() -> None:
    def width(law: NoiseLaw, hidden: int) -> float:
        found = share(Tally(80, (law,)), Tally(20, (law,), ((5, law),) * hidden))
        return found.high - found.low

    quiet, loud = NoiseLaw("geometric", 1.0), NoiseLaw("geometric", 10.0)
    assert width(quiet, 0) < width(loud, 0)
    assert width(quiet, 0) < width(quiet, 3)


def test_a_sums_limits_hold_what_was_withheld() -> None:
    hidden = Tally(50, (EXACT,), ((5, EXACT), (3, EXACT)))
    assert hidden.limits(0.05) == (50, 56)
    assert hidden.middle == 53
    low, high = Tally(50, (GEOMETRIC,)).limits(0.05)
    assert low == 50 - most_noise([GEOMETRIC], 0.025)
    assert high == 50 + most_noise([GEOMETRIC], 0.025)
    assert (Tally(1, (GEOMETRIC,)) + Tally(2)).total == 3
