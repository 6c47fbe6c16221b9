"""Answers are kept in the order of sites' names, whatever order they came in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.knowledge import (
    Answers,
    Consensus,
    Distributions,
    Lesson,
    Public,
    QuerySet,
    digest_of_bytes,
)
from fedkd.knowledge.laws import answers_of, near_iid, skewed

ABOUT = digest_of_bytes(b"queries")
SAID = {name: Distributions(probs, ABOUT) for name, probs in zip("bcad", skewed(4), strict=True)}


@given(st.permutations(sorted(SAID)))
def test_the_order_of_arrival_does_not_matter(names):
    answers = Answers.of({name: SAID[name] for name in names})
    assert answers.sites == ("a", "b", "c", "d")
    for site, probs in zip(answers.sites, answers.probs, strict=True):
        np.testing.assert_array_equal(probs, SAID[site].probs)
    assert answers.answered.all()
    assert (answers.weights == 1).all()


def test_answers_about_two_query_sets_are_no_answers():
    with pytest.raises(ValueError, match="2 query sets"):
        Answers.of({"a": SAID["a"], "b": Distributions(SAID["b"].probs, digest_of_bytes(b"x"))})


def test_only_some_sites():
    answers = answers_of(near_iid(4), np.array([1.0, 2, 3, 4]))
    kept = answers.only(np.array([False, True, False, True]))
    assert kept.sites == (answers.sites[1], answers.sites[3])
    np.testing.assert_array_equal(kept.probs, answers.probs[[1, 3]])
    np.testing.assert_array_equal(kept.weights, [2, 4])


@pytest.mark.parametrize(
    "wrong",
    [
        {"sites": ("b", "a")},
        {"sites": ("a", "a")},
        {"sites": ("a",)},
        {"sites": (), "probs": np.ones((0, 3, 2)), "weights": np.ones(0)},
        {"weights": np.ones(3)},
        {"weights": np.array([1, 0.0])},
        {"weights": np.array([1, np.nan])},
        {"answered": np.ones((2, 4), dtype=bool)},
        {"answered": np.ones((2, 3))},
        {"probs": np.ones((2, 3))},
    ],
    ids="-".join,
)
def test_answers_of_the_wrong_form_are_refused(wrong):
    right = {
        "sites": ("a", "b"),
        "probs": np.full((2, 3, 2), 0.5),
        "weights": np.ones(2),
        "answered": np.ones((2, 3), dtype=bool),
        "about": ABOUT,
    }
    Answers(**right)
    with pytest.raises(ValueError, match="found"):
        Answers(**{**right, **wrong})


def test_nobody_writes_into_answers():
    answers = answers_of(near_iid(2))
    with pytest.raises(ValueError, match="read-only"):
        answers.probs[0] = 0


def test_a_site_is_taught_its_own_consensus_where_there_is_one():
    common, own = SAID["a"], SAID["b"]
    consensus = Consensus(common, {"x": own})
    assert consensus.for_site("x") is own
    assert consensus.for_site("y") is common
    assert Consensus(common).for_site("x") is common


def test_a_lesson_is_about_its_queries():
    queries = QuerySet(np.zeros((2, 1)), Public("n", "l", "d"))
    half = np.full((2, 2), 0.5)
    assert Lesson(queries, Distributions(half, queries.digest)).queries is queries
    with pytest.raises(ValueError, match="another query set"):
        Lesson(queries, Distributions(half, ABOUT))
    with pytest.raises(ValueError, match="3 rows for 2"):
        Lesson(queries, Distributions(np.full((3, 2), 0.5), queries.digest))
