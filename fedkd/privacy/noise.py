"""Draws privacy noise: from the operating system for patients, from a seed for a rehearsal."""

import decimal
import hmac
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from fedkd.knowledge import Array, BadInput

# N numbers.

Bits: TypeAlias = Callable[[int], bytes]
"""How many -> that many random bytes."""

AT_ONCE = 2**12
"""Numbers that are made in one go: what lies between stays in the cache."""
FEW = 2**12
"""Bytes up to which the operating system is asked for them: a key would take as long."""
OF_ONE_KEY = 2**16
"""Bytes that are made of one key, at most: NIST SP 800-90A, revision 1, table 3, for AES."""
DOUBT = 2.0**-30
"""Where a draw is closer than this to its threshold, float64 does not decide.

Twice what float64 can be wrong by here is below 2^-38 (see `_happens`).
"""
LARGEST_VARIANCE = 2**80


@dataclass(frozen=True, slots=True)
class NoiseSource:
    """Where noise comes from; called with a number it gives that many standard normals, float64.

    `reproducible` noise can be drawn again by whoever has the seed: it protects nobody.
    """

    normals: Callable[[int], Array]
    bits: Bits
    reproducible: bool

    def __call__(self, count: int) -> Array:
        """Independent standard normal numbers [N], float64."""
        return self.normals(count)

    def uniforms(self, count: int) -> Array:
        """Independent numbers [N], uniform in [0, 1) in steps of 2^-53, float64."""
        return _uniforms(self.bits, count)

    def discrete_gaussians(self, variance: Fraction | int | float, count: int) -> Array:
        """Independent whole numbers [N], int64, exactly as `discrete_gaussian` says."""
        return discrete_gaussian(variance, count, self.bits)

    def geometrics(self, rate: Fraction | int | float, count: int) -> Array:
        """Independent whole numbers [N], int64, exactly as `geometric` says."""
        return geometric(rate, count, self.bits)


def system_noise() -> NoiseSource:
    """Noise from the operating system's cryptographic generator, and from nothing else.

    There is no seed, and nothing is kept from one call to the next that a fork or a copy of this
    process could repeat (`system_bits`). A normal number here is a sum of several (`hardened`):
    about 0.06 s for a million.
    """
    return NoiseSource(lambda count: hardened(system_bits, count), system_bits, reproducible=False)


def system_bits(count: int) -> bytes:
    """That many random bytes of the operating system's generator; many are stretched from it.

    Of each 32 bytes that it gives, as a key, AES-256 in counter mode (NIST SP 800-38A) makes up to
    `OF_ONE_KEY`, some ten times as fast; the key serves once and is forgotten.
    """
    if count <= FEW:
        return os.urandom(count)
    sizes = (min(OF_ONE_KEY, count - start) for start in range(0, count, OF_ONE_KEY))
    return b"".join(_keystream(os.urandom(32), size) for size in sizes)


def _keystream(key: bytes, count: int) -> bytes:
    return Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(count))


def keyed_noise(key: bytes, purpose: str) -> NoiseSource:
    """The system's noise stretched from one secret `key` [32 bytes] that the system gave.

    The same key and purpose give the same numbers in the same order, for a training that was cut
    off and is done again as it was. Whoever has the key can take the noise away: it serves one
    training, stays at home, and is erased once what that makes is kept, or its run is
    over for the site. No key of its own makes more than `OF_ONE_KEY` bytes here either: block n is
    keyed by HMAC-SHA-256(key, purpose and n).
    """
    blocks = itertools.count()

    def block(size: int) -> bytes:
        name = f"{purpose} {next(blocks)}".encode()
        return _keystream(hmac.digest(key, name, "sha256"), size)

    def bits(count: int) -> bytes:
        starts = range(0, count, OF_ONE_KEY)
        return b"".join(block(min(OF_ONE_KEY, count - start)) for start in starts)

    return NoiseSource(lambda count: hardened(bits, count), bits, reproducible=False)


def rehearsal_noise(rng: np.random.Generator) -> NoiseSource:
    """Noise that can be drawn again from `rng`'s seed: for rehearsals, NOT PRIVATE.

    Distributed as the system's; its normal numbers are numpy's, which are cheaper.
    """
    return NoiseSource(rng.standard_normal, rng.bytes, reproducible=True)


# Normal numbers ------------------------------------------------------------------------------


def hardened(bits: Bits, count: int) -> Array:
    """Standard normal numbers [N], each a sum of two by Box and Muller (1958) that share no bits.

    Floating-point noise takes some values and not others, so that the last bits of a sum can
    tell what it was added to (Mironov, 2012, for Laplace noise; Jin et al., 2022, 2112.05307, for
    normal noise). A sum of several draws comes about in so many ways that this becomes hard to
    use: Holohan and Braghin (2021, 2107.10138, section 5.1) take n, or 2n where cosine and sine
    of one angle are both summed, which is one cosine of another angle (their notes 2 and 3). As
    with opacus' secure mode n is 2: four uniform numbers of 53 bits go into a number and into no
    other, so that three have to be guessed, 2^159 tries. It is a defence and no proof: where
    numbers may be whole, take `discrete_gaussian`. No number is further than 12.13 from zero,
    where a normal number would be with probability 8e-34.
    """
    parts = [_summed(bits, min(AT_ONCE, count - start)) for start in range(0, count, AT_ONCE)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _summed(bits: Bits, count: int) -> Array:
    # (r sin a + r' sin a') / sqrt 2: one output of each pair, so that no two numbers share a bit.
    steps = (_words(bits, 4 * count).view(np.int64) >> 11) * 2.0**-53  # [4N], in [-1/2, 1/2)
    radius = np.sqrt(-4.0 * np.log(0.5 - steps[: 2 * count]))  # sqrt 2 r
    # Half the circle has all sines. sin a = 2 t / (1 + t^2) for t = tan a/2, as exact, and numpy
    # has a vectorised tangent but no vectorised sine in float64.
    tangent = np.tan(np.pi / 2 * steps[2 * count :])
    drawn = radius * tangent / (1.0 + tangent * tangent)
    summed: Array = drawn[:count] + drawn[count:]
    return summed


def _uniforms(bits: Bits, count: int) -> Array:
    steps: Array = (_words(bits, count) >> np.uint64(11)).astype(np.float64)
    return steps * 2.0**-53


def _words(bits: Bits, count: int) -> Array:
    return np.frombuffer(bits(8 * count), dtype=np.uint64)


# Whole numbers -------------------------------------------------------------------------------


def discrete_gaussian(variance: Fraction | int | float, count: int, bits: Bits) -> Array:
    """Whole numbers x [N], int64, each with probability proportional to exp(-x^2 / 2 variance).

    Canonne, Kamath and Steinke, 2020, 2004.00010, algorithms 1 to 3, for all numbers at once and
    exactly: a comparison of a uniform number with a probability is decided in float64 only where
    float64 cannot be wrong, and with as many more bits as it takes where it might be. Added to a
    whole number of sensitivity s it is (s^2 / 2 variance)-zCDP (their theorem 4); it is not
    Gaussian DP. `variance` is taken as the fraction that it is, and lies in (0, 2^80].
    """
    if not (math.isfinite(variance) and 0 < variance <= LARGEST_VARIANCE):
        raise BadInput(f"variance={variance}", "a number above 0, at most 2^80")
    exact = Fraction(variance)
    scale = math.isqrt(math.floor(exact)) + 1  # floor of the deviation, and one: their t
    found: list[Array] = []
    lacking = count
    while lacking > 0:
        drawn = discrete_laplace(scale, 2 * lacking + 8, bits)
        kept = drawn[_is_gaussian(drawn, exact, scale, bits)][:lacking]
        found.append(kept)
        lacking -= len(kept)
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def geometric(rate: Fraction | int | float, count: int, bits: Bits) -> Array:
    """Whole numbers x [N], int64, each with probability proportional to exp(-rate |x|), exactly.

    Two-sided geometric noise (Ghosh, Roughgarden, Sundararajan, 2009, 0811.2841): added to a whole
    number of sensitivity s it is (s rate)-DP. `rate` is taken as the fraction that it is, and lies
    in [2^-32, 2^10], with a denominator of at most 2^32.
    """
    exact = Fraction(rate) if math.isfinite(rate) else Fraction(0)
    if not (2**-32 <= exact <= 2**10 and exact.denominator <= 2**32):
        raise BadInput(f"rate={rate}", "a fraction in [2^-32, 2^10] of a denominator up to 2^32")
    found: list[Array] = []
    lacking = count
    while lacking > 0:
        tries = 4 * lacking + 8
        kept = discrete_laplace(exact.denominator, tries, bits, exact.numerator)[:lacking]
        found.append(kept)
        lacking -= len(kept)
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def discrete_laplace(scale: int, tries: int, bits: Bits, every: int = 1) -> Array:
    """Whole numbers x, int64, each with probability proportional to exp(-|x| every / scale).

    Algorithm 2 of 2004.00010, `scale` and `every` being its t and s: what is left of `tries`
    tries, where `every` is 1 more than a third of them.
    """
    rest = _below(scale, tries, bits)
    taken = _happens(rest / scale, lambda place: Fraction(int(rest[place]), scale), bits)
    rest = rest[taken]
    whole = np.zeros(len(rest), dtype=np.int64)
    going = np.arange(len(rest))
    while len(going):
        going = going[_happens(np.ones(len(going)), lambda place: Fraction(1), bits)]
        whole[going] += 1
    size = (rest + scale * whole) // every
    negative = (_words(bits, len(size)) & np.uint64(1)).astype(bool)
    signed = np.where(negative, -size, size)
    kept: Array = signed[~(negative & (size == 0))]  # zero has one sign
    return kept


def _is_gaussian(drawn: Array, variance: Fraction, scale: int, bits: Bits) -> Array:
    # Algorithm 3: kept with probability exp(-(|x| - variance / t)^2 / (2 variance)).
    nearly = float(variance)
    size = np.abs(drawn)

    def exact(place: int) -> Fraction:
        return (int(size[place]) - variance / scale) ** 2 / (2 * variance)

    return _happens((size - nearly / scale) ** 2 / (2 * nearly), exact, bits)


def _below(bound: int, count: int, bits: Bits) -> Array:
    # Uniform whole numbers [N] in 0 ... bound - 1, int64: words too large are drawn again.
    mask = np.uint64(2 ** (bound - 1).bit_length() - 1)
    found = _words(bits, count) & mask
    high = np.flatnonzero(found >= np.uint64(bound))
    while len(high):
        found[high] = _words(bits, len(high)) & mask
        high = high[found[high] >= np.uint64(bound)]
    return found.astype(np.int64)


def _happens(nearly: Array, exactly: Callable[[int], Fraction], bits: Bits) -> Array:
    """Events [N], bool, of probability exp(-gamma): gamma `nearly` in float64, and `exactly`.

    A word w decides whether a uniform number in [w, w + 1) 2^-64 lies below the probability.
    Float64 makes at most 2^-53 of the word's value, and of gamma, whose error is below 2^-39
    where exp(-gamma) is above `DOUBT`, an error of the probability below that.
    """
    words = _words(bits, len(nearly))
    drawn, chance = words * 2.0**-64, np.exp(-nearly)
    happens: Array = drawn < chance
    for place in np.flatnonzero(np.abs(drawn - chance) <= DOUBT):
        happens[place] = _happens_exactly(int(words[place]), exactly(int(place)), bits)
    return happens


def _happens_exactly(word: int, gamma: Fraction, bits: Bits) -> bool:
    if gamma == 0:
        return True
    length = 64
    while True:
        if gamma < length:
            low, high = _exp_of_minus(gamma, digits=length // 3 + 10)
            if Fraction(word + 1, 2**length) <= low:
                return True
            if Fraction(word, 2**length) >= high:
                return False
        elif word > 0:  # exp(-gamma) < 2^-length, which is at most what was drawn
            return False
        word = word << 64 | int.from_bytes(bits(8), "big")
        length += 64


def _exp_of_minus(gamma: Fraction, digits: int) -> tuple[Fraction, Fraction]:
    # Between which exp(-gamma) lies: decimal rounds a quotient and an exponential correctly.
    with decimal.localcontext(decimal.Context(prec=digits)):
        quotient = decimal.Decimal(gamma.numerator) / decimal.Decimal(gamma.denominator)
        value = Fraction((-quotient).exp())
    slack = (gamma + 2) * Fraction(1, 10 ** (digits - 1))
    return value * (1 - slack), value * (1 + slack)
