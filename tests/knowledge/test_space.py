"""A space says what one input looks like, and refuses everything else."""

import json
import math

import numpy as np
import pytest

from fedkd.knowledge import NotInSpace, OneOf, Range, Space

GREY = Space("image", (2, 3), "uint8", 0, 16, ("a", "b"))
ROWS = Space("table", (3,), "float32", -1.5, 2, ("a", "b"), offset=1, divisor=2)


def test_inputs_of_the_space_are_taken_edges_included():
    GREY.check(np.full((4, 2, 3), 16, dtype=np.uint8))
    GREY.check(np.empty((0, 2, 3), dtype=np.uint8))
    ROWS.check(np.array([[-1.5, 0, 2]], dtype=np.float32))


@pytest.mark.parametrize(
    ("space", "inputs"),
    [
        (GREY, np.zeros((4, 2, 3))),
        (GREY, np.zeros((4, 2, 3), dtype=bool)),
        (GREY, np.zeros((4, 3, 2), dtype=np.uint8)),
        (GREY, np.zeros((2, 3), dtype=np.uint8)),
        (GREY, np.zeros((4, 2, 3, 1), dtype=np.uint8)),
        (GREY, np.uint8(0)),
        (GREY, np.full((4, 2, 3), 17, dtype=np.uint8)),
        (ROWS, np.full((1, 3), np.nan, dtype=np.float32)),
        (ROWS, np.full((1, 3), np.inf, dtype=np.float32)),
        (ROWS, np.full((1, 3), -1.6, dtype=np.float32)),
        (ROWS, np.zeros((1, 3), dtype=">f4")),
    ],
)
def test_inputs_of_no_such_space_are_refused(space, inputs):
    with pytest.raises(NotInSpace, match="found"):
        space.check(inputs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": ()},
        {"shape": (3, 0)},
        {"classes": ("a",)},
        {"low": 2},
        {"low": 16},
        {"high": float("inf")},
        {"low": float("nan")},
        {"divisor": 0},
        {"divisor": float("nan")},
        {"offset": float("nan")},
    ],
    ids=str,
)
def test_a_space_that_is_none_is_refused(wrong):
    right = {**ROWS.to_json(), "shape": (3,), "classes": ("a", "b")}
    with pytest.raises(ValueError, match="found"):
        Space(**{**right, **wrong})


def test_scaling_is_public_and_in_float32():
    seen = ROWS.scaled(np.array([[1, 2, -1]], dtype=np.float32))
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, [[0, 0.5, -1]])


@pytest.mark.parametrize("space", [GREY, ROWS])
def test_a_space_comes_back_from_json(space):
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space


def test_ranges_hold_their_ends_and_not_what_is_no_number():
    assert 1 in Range(0, 1)
    assert 0 in Range(0, 1)
    assert 2 not in Range(0, 1)
    assert -1e9 in Range(None, 1)
    assert not any(number in Range(0, 1) for number in (math.nan, math.inf))
    assert "a" in OneOf(("a", "b"))
    assert "c" not in OneOf(("a", "b"))
