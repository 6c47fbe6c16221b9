"""Noise: the right distribution, whole numbers exactly, and a source that says what it is."""

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedkd.knowledge import BadInput
from fedkd.privacy import noise
from fedkd.privacy.noise import (
    discrete_gaussian,
    discrete_laplace,
    hardened,
    keyed_noise,
    rehearsal_noise,
    system_bits,
    system_noise,
)

BY_CHANCE = 1e-4
"""How often a right sampler may fail one of these tests, were the bits drawn anew."""


def fixed(name: str) -> Callable[[int], bytes]:
    """Bits that are the same each time: a hash in counter mode."""
    counter = iter(range(10**9))

    def bits(count: int) -> bytes:
        return hashlib.shake_128(f"{name} {next(counter)}".encode()).digest(count)

    return bits


# Sources ------------------------------------------------------------------------------------


def given_out(monkeypatch, bits: Callable[[int], bytes]) -> list[bytes]:
    """All that the operating system gives from now on, which is `bits`."""
    given: list[bytes] = []

    def urandom(count: int) -> bytes:
        given.append(bits(count))
        return given[-1]

    monkeypatch.setattr(os, "urandom", urandom)
    return given


@pytest.mark.parametrize("count", [100, 20_000])  # asked for as they are, stretched from keys
def test_the_systems_noise_comes_from_the_operating_system_alone(count, monkeypatch) -> None:
    source = system_noise()
    assert not source.reproducible
    np.random.seed(0)
    first = source(count)
    np.random.seed(0)
    assert not np.array_equal(source(count), first)
    np.random.seed(0)
    seeded = np.random.get_state()[1].tolist()
    # The same from the operating system, whatever was drawn before: the same noise.
    given = given_out(monkeypatch, fixed("stand-in"))
    one = [source(count), source(count)]
    assert not np.array_equal(*one)
    assert sum(map(len, given)) >= min(2 * 4 * 8 * count, 2 * 32)
    given_out(monkeypatch, fixed("stand-in"))
    assert np.array_equal([system_noise()(count), system_noise()(count)], one)
    assert np.random.get_state()[1].tolist() == seeded


@pytest.mark.parametrize("count", [1, noise.FEW, noise.FEW + 1, 3 * noise.OF_ONE_KEY + 5])
def test_no_key_of_the_systems_bits_serves_twice(count, monkeypatch) -> None:
    given = given_out(monkeypatch, fixed("keys"))
    drawn = system_bits(count) + system_bits(count)
    assert len(drawn) == 2 * count
    if count <= noise.FEW:
        assert given == [drawn[:count], drawn[count:]]
        return
    pieces = math.ceil(count / noise.OF_ONE_KEY)
    assert [len(key) for key in given] == [32] * 2 * pieces
    assert len(set(given)) == 2 * pieces
    blocks = {drawn[start : start + 16] for start in range(0, count - 15, 16)}
    assert len(blocks) == count // 16


def test_bits_are_stretched_as_the_standard_says(monkeypatch) -> None:
    # E(K, 0), E(K, 1) and E(K, 2) for a key of zeros: H of test case 13, its tag, and the
    # ciphertext of test case 14 in McGrew and Viega, 2005, The Galois/Counter Mode of Operation.
    given_out(monkeypatch, bytes)
    assert system_bits(noise.FEW + 1)[:48].hex() == (
        "dc95c078a2408989ad48a21492842087"
        "530f8afbc74536b9a963b4f1c4cb738b"
        "cea7403d4d606b6e074ec5d3baf39d18"
    )


FORKED = """
import os
from fedkd.privacy.noise import system_noise

source = system_noise()
before = [source(3).tolist(), source(5000)[-3:].tolist()]
reading, writing = os.pipe()
child = os.fork()
drawn = [source(3).tolist(), source(5000)[-3:].tolist(), source.uniforms(5000)[-3:].tolist()]
if child == 0:
    os.write(writing, repr(drawn).encode())
    os._exit(0)
os.waitpid(child, 0)
print([before, drawn, eval(os.read(reading, 10_000))])
"""


def test_keyed_noise_is_the_same_for_the_same_key_and_for_no_other() -> None:
    key = bytes(range(32))
    drawn = [keyed_noise(key, "noise")(200) for _ in range(2)]
    assert np.array_equal(*drawn)
    others = [keyed_noise(key, "sampling"), keyed_noise(key[::-1], "noise")]
    assert not any(np.array_equal(drawn[0], other(200)) for other in others)
    source = keyed_noise(key, "noise")
    assert np.array_equal(source(200), drawn[0])
    assert not np.array_equal(source(200), drawn[0]), "it goes on, and never begins again"
    assert not source.reproducible
    blocks = source.bits(2 * noise.OF_ONE_KEY + 7)
    assert len(blocks) == 2 * noise.OF_ONE_KEY + 7
    assert blocks[:64] != blocks[noise.OF_ONE_KEY :][:64], "each block has a key of its own"


def test_a_forked_process_draws_noise_of_its_own() -> None:
    options = ["-W", "ignore::DeprecationWarning"]  # numpy has threads, none of which runs
    ran = subprocess.run(
        [sys.executable, *options, "-c", FORKED], capture_output=True, text=True, check=True
    )
    before, parent, child = eval(ran.stdout)  # noqa: S307 - our own program printed it
    numbers = [number for draw in [*before, *parent, *child] for number in draw]
    assert len(numbers) == 24
    assert len(set(numbers)) == 24


def test_a_rehearsal_says_that_it_can_be_drawn_again() -> None:
    one, other = (rehearsal_noise(np.random.default_rng(3)) for _ in range(2))
    assert one.reproducible
    assert np.array_equal(one(50), other(50))
    assert np.array_equal(one.uniforms(50), other.uniforms(50))
    assert np.array_equal(one.discrete_gaussians(4, 50), other.discrete_gaussians(4, 50))
    assert not np.array_equal(one(50), rehearsal_noise(np.random.default_rng(4))(50))


@pytest.mark.parametrize("make", [system_noise, lambda: rehearsal_noise(np.random.default_rng(1))])
def test_every_source_gives_as_many_numbers_as_asked(make) -> None:
    source = make()
    for count in (0, 1, 2, 3, 1000):
        for drawn in (source(count), source.uniforms(count)):
            assert drawn.shape == (count,)
            assert drawn.dtype == np.float64
            assert np.isfinite(drawn).all()
        whole = source.discrete_gaussians(9, count)
        assert whole.shape == (count,)
        assert whole.dtype == np.int64


# Normal numbers -----------------------------------------------------------------------------


def test_hardened_numbers_are_standard_normal() -> None:
    drawn = hardened(fixed("normal"), 200_000)
    assert stats.kstest(drawn, "norm").pvalue > BY_CHANCE
    assert abs(drawn.std() - 1) < 4 / math.sqrt(2 * len(drawn))
    assert abs(stats.kurtosis(drawn)) < 4 * math.sqrt(24 / len(drawn))
    tail = (np.abs(drawn) > 3).mean()
    assert abs(tail / 0.0026998 - 1) < 4 / math.sqrt(0.0027 * len(drawn))


def test_hardened_numbers_are_independent() -> None:
    drawn = hardened(fixed("pairs"), 2**17)
    half = len(drawn) // 2
    for one, other in (
        (drawn[:-1], drawn[1:]),
        (drawn[:half], drawn[half:]),
        (drawn[: half // 2], drawn[half // 2 : half]),  # where sine and cosine might meet again
    ):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(len(one))
        assert abs(np.corrcoef(one**2, other**2)[0, 1]) < 5 / math.sqrt(len(one))


def words(*numbers: int) -> Callable[[int], bytes]:
    """Bits that are these words of 64, signed, over and over in that order."""
    return lambda count: np.resize(np.array(numbers, dtype=np.int64), count // 8).tobytes()


def test_a_number_is_the_sum_of_two_by_box_and_muller() -> None:
    count = 5000  # more than are made in one go
    drawn = hardened(fixed("two"), count)
    bits, expected = fixed("two"), []
    for now in (noise.AT_ONCE, count - noise.AT_ONCE):
        whole = np.frombuffer(bits(4 * 8 * now), dtype=np.int64)
        uniform = ((whole >> 11) + 2**52) * 2.0**-53
        radius = np.sqrt(-2 * np.log(1 - uniform[: 2 * now])).reshape(2, now)
        angle = (np.pi * (uniform[2 * now :] - 0.5)).reshape(2, now)
        expected.append((radius * np.sin(angle)).sum(axis=0) / math.sqrt(2))
    assert np.allclose(drawn, np.concatenate(expected), rtol=0, atol=1e-14)


def test_it_is_half_the_sum_of_both_outputs_of_both_pairs() -> None:
    # Holohan and Braghin (2021), note 2: cos a + sin a is the root of 2 times cos (a - pi/4). The
    # four that opacus sums are these two wherever they come in pairs.
    rng = np.random.default_rng(0)
    radius, angle = rng.random((2, 1000)), 2 * np.pi * rng.random((2, 1000))
    four = radius * np.cos(angle) + radius * np.sin(angle)
    two = radius * np.cos(angle - np.pi / 4)
    assert np.allclose(four.sum(axis=0) / 2, two.sum(axis=0) / math.sqrt(2), rtol=0, atol=1e-14)


def test_every_bit_of_four_numbers_counts_in_one_number_alone() -> None:
    count = 6
    plain = bytearray(fixed("own")(8 * 4 * count))
    drawn = hardened(lambda count: bytes(plain), count)
    for word in range(4 * count):
        changed = plain.copy()
        changed[8 * word + 7] ^= 0x10  # one of its high bits: little-endian
        moved = hardened(lambda count, changed=changed: bytes(changed), count) != drawn
        assert np.flatnonzero(moved).tolist() == [word % count]


@pytest.mark.parametrize("radius", [-(2**63), -1, 0, 2**63 - 1])
@pytest.mark.parametrize("angle", [-(2**63), -1, 0, 2**63 - 1])
def test_extreme_bits_give_finite_numbers(radius, angle) -> None:
    drawn = hardened(words(radius, radius, angle, angle), 1)
    assert np.isfinite(drawn).all()
    assert np.abs(drawn).max() < 12.13


def test_the_furthest_number_is_as_far_as_is_said() -> None:
    furthest = hardened(words(2**63 - 1, 2**63 - 1, -(2**63), -(2**63)), 1)
    assert float(furthest[0]) == pytest.approx(-math.sqrt(4 * 53 * math.log(2)))
    assert 2 * stats.norm.sf(abs(furthest[0])) < 1e-33


def test_uniform_numbers_stay_below_one_and_fill_their_range() -> None:
    source = noise.NoiseSource(np.zeros, fixed("uniform"), True)
    drawn = source.uniforms(100_000)
    assert stats.kstest(drawn, "uniform").pvalue > BY_CHANCE
    top = noise.NoiseSource(np.zeros, lambda count: b"\xff" * count, True)
    assert float(top.uniforms(1)[0]) == 1 - 2.0**-53


# Whole numbers ------------------------------------------------------------------------------


def masses(weight: Callable[[int], float], reach: int) -> dict[int, float]:
    weights = {x: weight(x) for x in range(-reach, reach + 1)}
    total = sum(weights.values())
    return {x: weight / total for x, weight in weights.items()}


def gaussian_masses(variance: float) -> dict[int, float]:
    reach = math.ceil(12 * math.sqrt(variance)) + 2
    return masses(lambda x: math.exp(-(x**2) / (2 * variance)), reach)


def chi_square(drawn: np.ndarray, expected: dict[int, float]) -> float:
    """The probability of as bad a fit; rare values are put together."""
    counts = Counter(drawn.tolist())
    assert set(counts) <= set(expected)
    common = [x for x, mass in expected.items() if mass * len(drawn) >= 10]
    found = [counts[x] for x in common]
    share = [expected[x] for x in common]
    rest = 1 - sum(share)
    if rest * len(drawn) >= 5:
        found.append(len(drawn) - sum(found))
        share.append(rest)
    total = sum(found)
    wanted = [total * one / sum(share) for one in share]
    return float(stats.chisquare(found, wanted).pvalue)


VARIANCES = [Fraction(1, 10), Fraction(1, 3), 1, 2.5, Fraction(81, 4), 400]


@pytest.mark.parametrize("variance", VARIANCES)
def test_whole_noise_has_the_discrete_gaussians_probabilities(variance) -> None:
    drawn = discrete_gaussian(variance, 60_000, fixed(f"gaussian {variance}"))
    assert chi_square(drawn, gaussian_masses(float(variance))) > BY_CHANCE


@pytest.mark.parametrize("variance", [2.0**20, 2.0**41, 2.0**79])
def test_wide_whole_noise_is_as_good_as_normal(variance) -> None:
    drawn = discrete_gaussian(variance, 20_000, fixed(f"wide {variance}")).astype(float)
    spread = (drawn + np.random.default_rng(0).uniform(-0.5, 0.5, len(drawn))) / math.sqrt(variance)
    assert stats.kstest(spread, "norm").pvalue > BY_CHANCE


@pytest.mark.parametrize("scale", [1, 2, 7, 64])
def test_what_it_is_made_from_is_discrete_laplace(scale) -> None:
    drawn = discrete_laplace(scale, 60_000, fixed(f"laplace {scale}"))
    expected = masses(lambda x: math.exp(-abs(x) / scale), 60 * scale)
    assert chi_square(drawn, expected) > BY_CHANCE
    # Kept: of the tries with x = u + t v, those that pass exp(-u / t), less one of two zeros.
    passing = sum(math.exp(-u / scale) for u in range(scale)) / scale
    zero = (1 - math.exp(-1)) / scale / 2  # u = 0 and v = 0, with a minus
    kept = passing - zero
    error = math.sqrt(kept * (1 - kept) / 60_000)
    assert abs(len(drawn) / 60_000 - kept) < 4 * error


@pytest.mark.parametrize("variance", [0.5, 3.0, 100.0, 1e4])
def test_as_many_are_rejected_as_the_paper_says(variance) -> None:
    # Canonne, Kamath and Steinke (2020), algorithm 3: the probability of keeping a candidate.
    scale = math.isqrt(math.floor(variance)) + 1
    laplace = masses(lambda x: math.exp(-abs(x) / scale), 60 * scale)
    expected = sum(
        mass * math.exp(-((abs(x) - variance / scale) ** 2) / (2 * variance))
        for x, mass in laplace.items()
    )
    bits = fixed(f"rejected {variance}")
    candidates = discrete_laplace(scale, 60_000, bits)
    kept = noise._is_gaussian(candidates, Fraction(variance), scale, bits).mean()
    assert abs(kept - expected) < 4 * math.sqrt(expected * (1 - expected) / len(candidates))
    assert expected > 0.25


@pytest.mark.parametrize("variance", [Fraction(1, 7), 1, 2.5, 12345.678, 2.0**60])
def test_deciding_everything_exactly_changes_no_draw(variance, monkeypatch) -> None:
    quick = discrete_gaussian(variance, 300, fixed("exact"))
    monkeypatch.setattr(noise, "DOUBT", 2.0)
    assert np.array_equal(quick, discrete_gaussian(variance, 300, fixed("exact")))


@settings(max_examples=40, deadline=None)
@given(
    gamma=st.fractions(min_value=Fraction(1, 10**6), max_value=60),
    offset=st.integers(-3, 3),
)
def test_close_calls_are_decided_as_with_any_number_of_digits(gamma, offset) -> None:
    low, high = noise._exp_of_minus(gamma, digits=60)
    assert low < high
    assert high - low < Fraction(1, 10**55)
    word = math.floor(low * 2**64) + offset
    if not 0 <= word < 2**64:
        return
    for more, below in ((b"\x00", True), (b"\xff", False)):
        happens = noise._happens_exactly(word, gamma, lambda count, more=more: more * count)
        # The word alone decides, or, where it holds the probability, the bits that follow.
        assert happens == (offset < 0 if offset else below)


def test_an_event_that_is_certain_happens_and_one_that_is_hopeless_does_not() -> None:
    bits = fixed("sure")
    assert noise._happens_exactly(2**64 - 1, Fraction(0), bits)
    assert not noise._happens_exactly(1, Fraction(10**30), bits)
    assert not noise._happens_exactly(0, Fraction(10**30), bits)
    top = noise._happens(np.zeros(5), lambda place: Fraction(0), lambda count: b"\xff" * count)
    assert top.all()


@pytest.mark.parametrize("bound", [1, 2, 3, 5, 8, 100, 2**40 + 1])
def test_whole_numbers_below_a_bound_are_uniform(bound) -> None:
    drawn = noise._below(bound, 20_000, fixed(f"below {bound}"))
    assert drawn.min() >= 0
    assert drawn.max() < bound
    if bound <= 100:
        counts = np.bincount(drawn, minlength=bound)
        assert bound == 1 or stats.chisquare(counts).pvalue > BY_CHANCE
    else:
        assert stats.kstest(drawn / bound, "uniform").pvalue > BY_CHANCE


@pytest.mark.parametrize("variance", [0, -1.0, math.nan, math.inf, 2.0**81])
def test_a_variance_that_makes_no_sense_is_refused(variance) -> None:
    with pytest.raises(BadInput, match="a number above 0, at most 2"):
        discrete_gaussian(variance, 3, os.urandom)


# Planted faults -----------------------------------------------------------------------------


def test_a_variance_that_is_off_by_a_tenth_is_found() -> None:
    drawn = discrete_gaussian(2.25, 60_000, fixed("planted"))
    assert chi_square(drawn, gaussian_masses(2.5)) < 1e-6


def test_rounded_normal_numbers_are_found() -> None:
    drawn = np.rint(np.sqrt(0.5) * hardened(fixed("rounded"), 60_000)).astype(int)
    assert chi_square(drawn, gaussian_masses(0.5)) < 1e-6
