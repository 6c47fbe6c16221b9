"""A server that means harm: what it asks costs a site little, and gets it nothing more."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.run import Run
from fedkd.federation.participant import open_participant
from fedkd.knowledge import Distributions
from fedkd.wire import Answer, Closed, Reason, Refusal, encode
from fedkd.wire.frames import MAGIC
from tests.federation.small import asked, files, question


def framed(head: bytes, rest: bytes = b"") -> bytes:
    return MAGIC + len(head).to_bytes(4, "little") + head + rest


def huge(shape: str, dtype: str = "|u1") -> bytes:
    listed = f'[{{"dtype":"{dtype}","name":"queries","shape":{shape}}}]'
    return framed(f'{{"arrays":{listed},"kind":"question","v":1}}'.encode())


ATTACKS = {
    "a deep list": framed(b'{"arrays":' + b"[" * 500_000 + b"]" * 500_000 + b"}"),
    "a deep object": framed(b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
    "a long number": framed(b'{"arrays":[],"v":' + b"9" * 900_000 + b"}"),
    "a number beyond floats": framed(b'{"arrays":[],"v":1e999}'),
    "half a letter": framed(b'{"arrays":[],"kind":"\\ud800","v":1}'),
    "the same key twice": framed(b'{"arrays":[],"arrays":[],"kind":"roll_call","v":1}'),
    "no JSON": framed(b"\xff" * 1000),
    "a header of 4 GiB": MAGIC + b"\xff\xff\xff\xff" + b"{}",
    "a terabyte announced": huge("[1099511627776]"),
    "more than any number announced": huge("[1099511627776,1099511627776]", "<f8"),
    "a side below zero": huge("[-1]"),
    "sides of nothing and all": huge("[0,1099511627776]"),
    "a pickle in place of a type": huge("[1]", "|O"),
}


@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS)
def test_hostile_bytes_cost_little_and_are_refused(body: bytes, run: Run, site: Path) -> None:
    participant = open_participant(site, run.build)
    tracemalloc.start()
    try:
        asked(site, run, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    said = asked(site, run, body)
    assert said in (
        Refusal("site-01", "unknown", 0, reason) for reason in (Reason.MALFORMED, Reason.VERSION)
    )
    assert peak < 64 * 2**20 + 20 * len(body)
    assert participant.settings.name == "site-01"
    assert not list((site / "models").iterdir())


def test_a_question_without_end_is_not_read(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = encode(question(run))
    monkeypatch.setattr("fedkd.federation.participant.MOST_QUESTION_BYTES", len(body) - 1)
    assert asked(site, run, body) == Refusal("site-01", "unknown", 0, Reason.MALFORMED)
    monkeypatch.setattr("fedkd.federation.participant.MOST_QUESTION_BYTES", len(body))
    assert isinstance(asked(site, run, body), Answer)


def test_an_older_question_asked_again_gets_the_old_answer(run: Run, site: Path) -> None:
    participant = open_participant(site, run.build)
    first = encode(question(run))
    bodies = [first]
    for round in (2, 3):
        queries = question(run)
        told = np.full((12, 10), 0.1, np.float32)
        lesson = Distributions(told, queries.about)
        bodies.append(encode(question(run, round=round, queries=None, lesson=lesson)))
    said = [participant.answer(body) for body in bodies]
    with Log(site / "log.sqlite", "site-01") as log:
        before = len(log)
    state = files(site / "models")
    for body, answer in reversed(list(zip(bodies, said, strict=True))):
        assert open_participant(site, run.build).answer(body) == answer
    with Log(site / "log.sqlite", "site-01") as log:
        assert len(log) == before
    assert files(site / "models") == state


def test_a_question_asked_again_with_another_plan_or_codec_gets_the_old_answer(
    run: Run, site: Path
) -> None:
    """What names a question is (run, round, queries, lesson): no other word makes it new."""
    first = asked(site, run, question(run))
    assert isinstance(first, Answer)
    plan = replace(run.terms().plan, local_epochs=100)
    for changed in ({"plan": plan}, {"codec": "other"}, {"queries": None}, {"closing": True}):
        again = asked(site, run, question(run, **changed))
        assert isinstance(again, Answer)
        assert encode(again) == encode(first)


def test_a_closing_question_before_any_other_and_without_a_lesson_gets_no_number(
    run: Run, site: Path
) -> None:
    said = asked(site, run, question(run, round=3, closing=True))
    assert said == Closed("site-01", run.id, 3, question(run, round=3).key)
    with Log(site / "log.sqlite", "site-01") as log:
        assert not list(log.entries("release.outputs"))
        # it has trained: that is charged, as any training is
        assert [entry.key for entry in log.entries("budget.charged")] == [f"{run.id}/train/charge"]


def test_a_lesson_in_another_runs_name_does_not_touch_this_runs_models(
    run: Run, site: Path
) -> None:
    asked(site, run, question(run))
    before = files(site / "models" / run.id)
    lesson = Distributions(np.full((12, 10), 0.1, np.float32), question(run).about)
    asked(site, run, question(run, run="other"))
    asked(site, run, question(run, run="other", round=2, queries=None, lesson=lesson))
    assert files(site / "models" / run.id) == before


def test_a_second_lesson_for_a_round_that_was_learnt_trains_nothing_more(
    run: Run, site: Path
) -> None:
    asked(site, run, question(run))
    about = question(run).about
    lessons = [Distributions(np.full((12, 10), 0.1, np.float32), about)]
    lessons.append(Distributions(np.eye(10, dtype=np.float32)[[0] * 12], about))
    answers = [
        asked(site, run, question(run, round=2, queries=None, lesson=lesson)) for lesson in lessons
    ]
    said = [answer.coded["probs"] for answer in answers if isinstance(answer, Answer)]
    np.testing.assert_array_equal(said[0], said[1])
    with Log(site / "log.sqlite", "site-01") as log:
        assert len(list(log.entries("train.local"))) == 2


@pytest.mark.parametrize("batch", [1, 100_000])
def test_a_batch_of_any_size_costs_no_memory(batch: int, run: Run, site: Path) -> None:
    plan = replace(run.terms().plan, batch=batch)
    assert isinstance(asked(site, run, question(run, plan=plan)), Answer)


def test_a_plan_that_makes_training_diverge_is_a_refusal(run: Run, site: Path) -> None:
    asked(site, run, question(run))
    plan = replace(run.terms().plan, loss_weight=1e3, temperature=1e-6)
    lesson = Distributions(np.eye(10, dtype=np.float32)[[0] * 12], question(run).about)
    said = asked(site, run, question(run, round=2, queries=None, lesson=lesson, plan=plan))
    assert isinstance(said, Answer | Refusal)
    if isinstance(said, Refusal):
        assert said.reason == Reason.FAILED
