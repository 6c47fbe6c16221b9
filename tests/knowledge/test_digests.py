"""Digests name contents: another content, type, shape or origin has another name."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.knowledge import Distributions, Public, QuerySet, Synthetic, WrongDigest
from fedkd.knowledge.digests import digest_of_arrays, digest_of_bytes, little_endian

ARRAYS = hnp.arrays(
    st.sampled_from(["u1", "<f4", "<f8", "<i8"]), hnp.array_shapes(max_dims=3, max_side=4)
)
ORIGIN = Public("digits", "CC-BY-4.0", "sha256:aa")


@given(ARRAYS)
def test_the_same_content_has_the_same_digest(array):
    assert digest_of_arrays({"a": 1}, {"x": array}) == digest_of_arrays(
        {"a": 1}, {"x": array.copy()}
    )


@given(ARRAYS, st.data())
def test_one_bit_gives_another_digest(array, data):
    bytes_of = bytearray(array.tobytes())
    bytes_of[data.draw(st.integers(0, len(bytes_of) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    other = np.frombuffer(bytes(bytes_of), array.dtype).reshape(array.shape)
    assert digest_of_arrays({}, {"x": array}) != digest_of_arrays({}, {"x": other})


def test_shape_type_name_and_header_enter_the_digest():
    array = np.zeros((2, 3), dtype="<f4")
    digests = [
        digest_of_arrays({}, {"x": array}),
        digest_of_arrays({}, {"x": array.T}),
        digest_of_arrays({}, {"x": array.reshape(6)}),
        digest_of_arrays({}, {"x": array.view("<i4")}),
        digest_of_arrays({}, {"y": array}),
        digest_of_arrays({"h": 1}, {"x": array}),
        digest_of_arrays({}, {"x": array, "y": array}),
    ]
    assert len(set(digests)) == len(digests)


@given(hnp.arrays(st.sampled_from([">f4", ">i8", ">u2"]), hnp.array_shapes(max_dims=2)))
def test_byte_order_and_memory_layout_do_not_enter(array):
    native = array.astype(array.dtype.newbyteorder("<"))
    assert digest_of_arrays({}, {"x": array}) == digest_of_arrays({}, {"x": native})
    fortran = np.asfortranarray(native)
    assert digest_of_arrays({}, {"x": fortran}) == digest_of_arrays({}, {"x": native})


def test_a_number_without_dimensions_keeps_none():
    assert little_endian(np.array(3.0)).shape == ()


def test_addresses_are_no_content():
    with pytest.raises(TypeError, match="addresses"):
        digest_of_arrays({}, {"x": np.array(["a", None], dtype=object)})


def test_a_digest_is_spelt_one_way():
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4
    assert digest_of_bytes(b"") == f"sha256:{empty}"


def test_a_query_set_is_named_by_inputs_and_origin():
    inputs = np.arange(12, dtype=np.uint8).reshape(3, 4)
    origins = [
        ORIGIN,
        Public("digits", "CC-BY-4.0", "sha256:bb"),
        Public("digits", "CC0", "sha256:aa"),
        Synthetic("procedural", "sha256:aa", 0, 0),
        Synthetic("procedural", "sha256:aa", 1, 0),
        Synthetic("procedural", "sha256:aa", 0, 1),
        Synthetic("procedural", "sha256:aa", 0, 0, parents=("sha256:cc",)),
        Synthetic("procedural", "sha256:aa", 0, 0, student="sha256:cc"),
    ]
    digests = {QuerySet(inputs, origin).digest for origin in origins}
    digests |= {QuerySet(inputs.astype("<f4"), ORIGIN).digest, QuerySet(inputs.T, ORIGIN).digest}
    assert len(digests) == len(origins) + 2


def test_a_query_set_under_a_wrong_name_is_refused():
    queries = QuerySet(np.zeros((1, 2)), ORIGIN)
    assert queries.expect(queries.digest) is queries
    with pytest.raises(WrongDigest):
        queries.expect("sha256:" + "0" * 64)


def test_distributions_are_named_by_numbers_type_and_what_they_are_about():
    probs = np.array([[0.25, 0.75]])
    digests = {
        Distributions(probs, digest_of_bytes(b"a")).digest,
        Distributions(probs, digest_of_bytes(b"b")).digest,
        Distributions(probs[:, ::-1], digest_of_bytes(b"a")).digest,
        Distributions(probs.astype(np.float32), digest_of_bytes(b"a")).digest,
    }
    assert len(digests) == 4
