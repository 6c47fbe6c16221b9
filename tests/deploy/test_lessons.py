"""A server that teaches a hospital: only about queries that people there let in."""

from typing import Any

import numpy as np
import pytest

from fedkd.cli.deployed import DeployedRun
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import Distributions, QuerySet
from fedkd.wire import Answer, Closed, Question, Reason, Refusal
from tests.deploy.federated import Federated, approve, taken_in
from tests.deploy.test_policy import posed, question, said

World = tuple[Federated, DeployedRun]


@pytest.fixture
def approved(federated: Federated) -> World:
    """A run without cosigning that everybody approved."""
    run = federated.proposed("audit.cosigners=0")
    taken_in(federated, run)
    approve(federated, run)
    return federated, run


def lesson_about(queries: QuerySet) -> Distributions:
    return Distributions(np.full((len(queries), 2), 0.5, dtype=np.float32), queries.digest)


def expect_outside(federated: Federated, asked: Question, why: str) -> None:
    assert said(federated, asked) == Refusal("east", asked.run, asked.round, Reason.OUTSIDE_POLICY)
    assert why in (federated.hospitals["east"].site / "errors.txt").read_text()


@pytest.mark.parametrize("closing", [True, False])
def test_no_lesson_is_taken_about_queries_that_nobody_approved(
    approved: World, closing: bool
) -> None:
    """Rows that a server chose, and what it says of them, would be learnt beside records."""
    federated, run = approved
    last: dict[str, Any] = {"closing": closing, "round": 2 + closing}
    taught = SiteFolder(federated.hospitals["east"].site).taught
    stranger = QuerySet(posed(run).inputs[::-1], posed(run).origin)
    lesson = lesson_about(stranger)
    why = "does not make this set"
    expect_outside(federated, question(run, stranger, **last, lesson=lesson), why)
    assert not taught.has(stranger.digest)
    taught.keep_queries(stranger)  # as of another run
    expect_outside(federated, question(run, **last, lesson=lesson), "the lesson: found ")
    assert not taught.has(lesson.digest)
    kind = Closed if closing else Answer
    assert isinstance(said(federated, question(run, **last, lesson=lesson_about(posed(run)))), kind)


def test_a_lesson_may_be_about_what_was_answered_in_the_run(approved: World) -> None:
    """A round may ask fewer queries than the round whose consensus it brings."""
    federated, run = approved
    assert isinstance(said(federated, question(run)), Answer)
    generator = run.rules().generator
    fewer = generator.pose(generator.init(run.terms().seed), None, 20)[1]
    asked = question(run, fewer, round=2, lesson=lesson_about(posed(run)))
    assert isinstance(said(federated, asked), Answer)


def test_a_closing_question_brings_no_copies_of_one_query(approved: World) -> None:
    federated, run = approved
    copies = QuerySet(np.repeat(posed(run).inputs[:1], len(posed(run)), axis=0), posed(run).origin)
    asked = question(run, copies, round=3, closing=True, lesson=lesson_about(copies))
    expect_outside(federated, asked, "does not make this set")
