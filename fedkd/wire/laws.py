"""The laws that every wire codec keeps, as plain functions; see `fedkd.knowledge.laws`."""

from collections.abc import Callable, Iterator

import numpy as np

from fedkd.knowledge import Array, NotDistributions, check_distributions
from fedkd.knowledge.laws import LawBroken, expect
from fedkd.wire.codecs.float32 import Codec
from fedkd.wire.frames import Malformed, pack, unpack

# Q queries, C classes.

SIZES = ((1, 2), (3, 10), (64, 5), (33, 3))


def _answers() -> Iterator[Array]:
    for seed, (queries, classes) in enumerate(SIZES):
        rng = np.random.default_rng([5, seed])
        for strength in (0.05, 1.0, 50.0):
            yield rng.dirichlet(np.full(classes, strength), size=queries).astype(np.float32)
        yield np.eye(classes, dtype=np.float32)[rng.integers(classes, size=queries)]
        yield np.full((queries, classes), 1 / classes, dtype=np.float32)


def _coded(codec: Codec, probs: Array) -> dict[str, Array]:
    try:
        return codec.encode(probs)
    except Exception as error:
        raise LawBroken(f"found {type(error).__name__} ({error}), expected arrays") from error


def _read(codec: Codec, arrays: dict[str, Array], queries: int, classes: int) -> Array | None:
    """What the codec reads; None where it refuses."""
    try:
        return codec.decode(arrays, queries, classes)
    except Malformed:
        return None
    except Exception as error:
        raise LawBroken(f"found {type(error).__name__} ({error}), expected Malformed") from error


def _expect_distributions(read: Array, queries: int, classes: int) -> None:
    expect(read.shape == (queries, classes), f"found {read.shape}, expected {queries, classes}")
    try:
        check_distributions(read)
    except NotDistributions as error:
        raise LawBroken(f"found numbers that are no distributions: {error}") from error


def _round_trip(codec: Codec) -> None:
    for probs in _answers():
        read = _read(codec, _coded(codec, probs), *probs.shape)
        if read is None:
            raise LawBroken("found its own arrays refused")
        _expect_distributions(read, *probs.shape)
        gap = float(np.abs(read.astype(np.float64) - probs).max())
        expect(gap <= codec.error, f"found an error of {gap:.3g}, promised {codec.error:.3g}")


def _travels(codec: Codec) -> None:
    for probs in _answers():
        arrays = _coded(codec, probs)
        try:
            _, read = unpack(pack({}, arrays), 1 << 24)
        except Malformed as error:
            raise LawBroken(f"found arrays that no message can hold: {error}") from error
        back = [_read(codec, each, *probs.shape) for each in (arrays, read)]
        same = back[0] is not None and back[1] is not None and np.array_equal(back[0], back[1])
        expect(same, "found other probabilities behind the wire")


def _weighs(codec: Codec) -> None:
    for probs in _answers():
        weight = sum(array.nbytes for array in _coded(codec, probs).values())
        claimed = codec.raw_bytes(*probs.shape)
        expect(weight == claimed, f"found {weight} bytes for {probs.shape}, claimed {claimed}")


def _same_bytes(codec: Codec) -> None:
    for probs in _answers():
        before = probs.tobytes()
        one, two = (pack({}, _coded(codec, probs)) for _ in range(2))
        expect(one == two, "found two spellings of the same answer")
        expect(probs.tobytes() == before, "found an answer changed by being written")


def _refuses(codec: Codec) -> None:
    for probs in _answers():
        queries, classes = probs.shape
        arrays = _coded(codec, probs)
        for what, wrong in _misshapen(arrays):
            expect(_read(codec, wrong, queries, classes) is None, f"found {what} accepted")
        for asked in ((queries + 1, classes), (queries, classes + 1)):
            expect(_read(codec, arrays, *asked) is None, f"found {probs.shape} taken for {asked}")


def _misshapen(arrays: dict[str, Array]) -> Iterator[tuple[str, dict[str, Array]]]:
    yield "no array", {}
    yield "a foreign array", {**arrays, "more": np.zeros(1, dtype=np.uint8)}
    for name, array in arrays.items():
        rest = {key: value for key, value in arrays.items() if key != name}
        yield "a missing array", rest
        yield "an array of another name", {**rest, name + "s": array}
        other = np.float64 if array.dtype != np.float64 else np.float32
        yield "another type", {**arrays, name: array.astype(other)}
        yield "one more dimension", {**arrays, name: array[None]}
        yield "a longer array", {**arrays, name: np.concatenate([array, array])}
        yield "an empty array", {**arrays, name: array[:0]}


def _hostile(codec: Codec) -> None:
    rng = np.random.default_rng(6)
    for probs in _answers():
        arrays = _coded(codec, probs)
        for wrong in _spoilt(arrays, rng):
            read = _read(codec, wrong, *probs.shape)
            if read is not None:
                _expect_distributions(read, *probs.shape)


def _spoilt(arrays: dict[str, Array], rng: np.random.Generator) -> Iterator[dict[str, Array]]:
    """Arrays of the right shapes and types that hold anything at all."""
    for name, array in arrays.items():
        noise = rng.integers(256, size=array.nbytes, dtype=np.uint8)
        yield {**arrays, name: noise.view(array.dtype).reshape(array.shape)}
        fills: tuple[float, ...] = (0, 1)
        if array.dtype.kind == "f":
            fills = (0, 1, -1, np.nan, np.inf, -np.inf, 1e30, 0.1001)
        for fill in fills:
            one = array.copy()
            one.flat[0] = fill
            yield {**arrays, name: one}
            yield {**arrays, name: np.full_like(array, fill)}


CODEC_LAWS: dict[str, Callable[[Codec], None]] = {
    "an answer comes back within the stated error": _round_trip,
    "an answer survives the wire": _travels,
    "an answer weighs what is claimed": _weighs,
    "an answer has one spelling": _same_bytes,
    "arrays of another name, number, type or shape are refused": _refuses,
    "whatever the arrays hold, what is read are distributions": _hostile,
}
