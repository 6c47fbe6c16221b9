"""A query set's origin has one spelling, and its inputs stay as they are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.knowledge import Public, QuerySet, Synthetic, origin_from_json, origin_to_json

TEXT = st.text(min_size=1, max_size=10)
COUNT = st.integers(0, 2**53 - 1)
ORIGINS = st.builds(Public, TEXT, TEXT, TEXT) | st.builds(
    Synthetic,
    TEXT,
    TEXT,
    COUNT,
    COUNT,
    st.lists(TEXT, max_size=3).map(tuple),
    st.none() | TEXT,
)


@given(ORIGINS)
def test_an_origin_comes_back_from_json(origin):
    assert origin_from_json(json.loads(json.dumps(origin_to_json(origin)))) == origin


SYNTHETIC = origin_to_json(Synthetic("g", "c", 0, 0))
PUBLIC = origin_to_json(Public("n", "l", "d"))


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        "public",
        {},
        {"kind": "other"},
        {"kind": ["public"]},
        {**PUBLIC, "more": 1},
        {**PUBLIC, "name": 3},
        {**PUBLIC, "name": ""},
        {**PUBLIC, "kind": "synthetic"},
        {key: value for key, value in SYNTHETIC.items() if key != "parents"},
        {key: value for key, value in SYNTHETIC.items() if key != "student"},
        {**SYNTHETIC, "parents": "abc"},
        {**SYNTHETIC, "parents": [1]},
        {**SYNTHETIC, "parents": {"a": 1}},
        {**SYNTHETIC, "student": False},
        {**SYNTHETIC, "seed": True},
        {**SYNTHETIC, "seed": -1},
        {**SYNTHETIC, "seed": 2**53},
        {**SYNTHETIC, "round": 0.5},
        {**SYNTHETIC, "round": None},
    ],
    ids=str,
)
def test_any_other_spelling_is_refused(plain):
    with pytest.raises(ValueError, match="found"):
        origin_from_json(plain)


def test_a_query_set_is_a_read_only_copy_of_at_least_one_query():
    inputs = np.zeros((2, 3), dtype=np.uint8)
    queries = QuerySet(inputs, Public("n", "l", "d"))
    inputs[:] = 1
    assert len(queries) == 2
    assert not queries.inputs.any()
    with pytest.raises(ValueError, match="read-only"):
        queries.inputs[0] = 1
    with pytest.raises(ValueError, match="no query"):
        QuerySet(inputs[:0], Public("n", "l", "d"))
