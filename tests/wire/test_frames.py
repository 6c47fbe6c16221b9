"""Frames: one spelling of every content, and one kind of error for every other body."""

import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fedkd.wire import Malformed, OtherVersion, header_of, pack, unpack
from fedkd.wire.frames import DTYPES, MAGIC, MOST_ARRAYS, MOST_HEADER_BYTES

MOST = 1 << 20
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e6, 1e6)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
HEADERS = st.dictionaries(
    st.text(max_size=5).filter(lambda key: key != "arrays"), PLAIN, max_size=4
)
ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(max_dims=3, min_side=0, max_side=4)),
    max_size=3,
)


def framed(head: bytes, tail: bytes = b"") -> bytes:
    return MAGIC + len(head).to_bytes(4, "little") + head + tail


def announced(*arrays, tail=b"", **rest):
    return framed(rfc8785.dumps({**rest, "arrays": list(arrays)}), tail)


def one(name="x", dtype="<f4", shape=(1,)):
    return {"name": name, "dtype": dtype, "shape": list(shape)}


@given(HEADERS, ARRAYS)
def test_what_is_packed_comes_back(header, arrays):
    body = pack(header, arrays)
    read, found = unpack(body, MOST)
    assert read == header
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        assert not found[name].flags.writeable
    assert pack(read, found) == body


@given(HEADERS, ARRAYS)
def test_the_order_of_names_does_not_matter(header, arrays):
    turned = dict(reversed(header.items())), dict(reversed(arrays.items()))
    assert pack(*turned) == pack(header, arrays)


@pytest.mark.parametrize("dtype", [">f4", ">i8", ">u2"])
def test_bytes_are_little_endian(dtype):
    array = np.arange(3).astype(dtype)
    _, found = unpack(pack({}, {"x": array}), MOST)
    np.testing.assert_array_equal(found["x"], array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(1, dtype=np.int32),
        np.zeros(1, dtype=bool),
        np.zeros(1, dtype=np.float16),
        np.array(["a"]),
        np.array(1.0),
        np.zeros((1,) * 7),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_nothing_is_sent_that_could_not_be_read(array):
    with pytest.raises(Malformed):
        pack({}, {"x": array})


@pytest.mark.parametrize(
    "header", [{"x": float("nan")}, {"x": 2**53}, {"x": object()}, {"x": "a" * MOST_HEADER_BYTES}]
)
def test_a_header_that_json_cannot_say_is_not_sent(header):
    with pytest.raises(Malformed):
        pack(header, {})


@pytest.mark.parametrize(
    "head",
    [
        b'{"arrays":[],"a":1,"a":1}',
        b'{"a":1,"a":2,"arrays":[]}',
        b'{"arrays":[],"a":1}',
        b'{"a":1, "arrays":[]}',
        b'{"a":1.0,"arrays":[]}',
        b'{"a":1e0,"arrays":[]}',
        b'{"a":-0,"arrays":[]}',
        b'{"a":"\\u0041","arrays":[]}',
        b'{"a":NaN,"arrays":[]}',
        b'{"a":Infinity,"arrays":[]}',
        b'{"a":1e400,"arrays":[]}',
        b'{"a":' + b"9" * 5000 + b',"arrays":[]}',
        b'{"a":9007199254740992,"arrays":[]}',
        b'{"a":"\\ud800","arrays":[]}',
        b'{"a":"\xff","arrays":[]}',
        b'\xef\xbb\xbf{"arrays":[]}',
        '{"arrays":[]}'.encode("utf-16"),
        b'{"arrays":[]} ',
        b'{"arrays":{}}',
        b'{"arrays":null}',
        b"{}",
        b"[]",
        b"null",
        b"",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\x80\x04N.",
    ],
    ids=lambda head: repr(head[:30]),
)
def test_a_header_of_another_spelling_is_refused(head):
    with pytest.raises(Malformed):
        unpack(framed(head), MOST)


@pytest.mark.parametrize(
    "body",
    [
        announced(one(), tail=b"123"),
        announced(one(), tail=b"12345"),
        announced(tail=b"1"),
        announced(one("b"), one("a"), tail=b"12345678"),
        announced(one("a"), one("a"), tail=b"12345678"),
        announced(one(""), tail=b"1234"),
        announced(one("x" * 65), tail=b"1234"),
        announced(one(3), tail=b"1234"),
        announced(one(dtype="<i4"), tail=b"1234"),
        announced(one(dtype="|O"), tail=b"12345678"),
        announced(one(dtype=">f4"), tail=b"1234"),
        announced(one(dtype="f4"), tail=b"1234"),
        announced(one(dtype=["<f4"]), tail=b"1234"),
        announced(one(dtype=None), tail=b"1234"),
        announced(one(shape=())),
        announced(one(shape=(1,) * 7), tail=b"1234"),
        announced(one(shape=(True,)), tail=b"1234"),
        announced(one(shape=(-1,))),
        announced(one(shape=(-1, -1)), tail=b"1234"),
        announced(one(shape=(0.5,))),
        announced(one(shape=("1",)), tail=b"1234"),
        announced(one(shape=(2**50,))),
        announced(one(shape=(2**26, 2**26))),
        announced(one(shape=(0, 2**52, 2**52))),
        announced(one(shape=(0, 2**39, 2**39))),
        announced({**one(), "more": 1}, tail=b"1234"),
        announced({"name": "x", "shape": [1]}, tail=b"1234"),
        announced("x", tail=b"1234"),
        announced(*(one(f"{n:02d}", shape=(0,)) for n in range(MOST_ARRAYS + 1))),
        MAGIC,
        MAGIC + b"\x01\x00\x00",
        MAGIC + b"\xff\xff\xff\xff",
        MAGIC + (MOST_HEADER_BYTES + 1).to_bytes(4, "little") + b" " * (MOST_HEADER_BYTES + 1),
    ],
    ids=lambda body: repr(body[12:100]),
)
def test_arrays_described_wrongly_are_refused(body):
    with pytest.raises(Malformed):
        unpack(body, 1 << 22)


@pytest.mark.parametrize("body", [b"", b"fedkd/2\n" + bytes(10), b"PK\x03\x04", b"\x1f\x8b" * 40])
def test_another_protocol_is_told_apart(body):
    with pytest.raises(OtherVersion):
        unpack(body, MOST)


def test_a_body_over_the_limit_is_refused_unread():
    body = pack({}, {"x": np.zeros(100, dtype=np.uint8)})
    unpack(body, len(body))
    with pytest.raises(Malformed, match="at most"):
        unpack(body, len(body) - 1)


@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2**20), (2**30, 0)])
def test_nothing_is_allocated_for_what_is_only_announced(shape):
    body = announced(one(shape=shape), tail=b"1" if 0 in shape else b"")
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            unpack(body, MOST)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_refusal_repeats_nothing_of_the_body():
    for body in (announced(one("Smith John", "<i4")), framed(b'{"Smith John":1 }')):
        with pytest.raises(Malformed) as refused:
            unpack(body, MOST)
        assert "Smith" not in str(refused.value)
        assert refused.value.__cause__ is None


@given(HEADERS, ARRAYS)
def test_a_header_is_read_without_what_stands_behind_it(header, arrays):
    body = pack(header, arrays)
    read, place = header_of(body)
    assert [entry["name"] for entry in read.pop("arrays")] == sorted(arrays)
    assert read == header
    assert header_of(body[:place]) == header_of(body)
    with pytest.raises(Malformed):
        header_of(body[: place - 1])
