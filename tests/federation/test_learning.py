"""How a site's model learns over a run: it never leaves worse, and it is found again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.audit import Log
from fedkd.cli.run import Run
from fedkd.federation.examination import SiteExaminer
from fedkd.federation.learning import CAME, Learner, is_worse
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import Array, Distributions
from fedkd.wire import Answer, Closed
from tests.federation.small import asked, conducted, files, founded, question

hits = st.lists(st.integers(0, 1), min_size=2, max_size=60).map(tuple)


@given(hits)
def test_a_model_is_not_worse_than_itself(one: tuple[int, ...]) -> None:
    assert not is_worse(one, one)


@given(hits, st.data())
def test_a_model_that_is_right_wherever_the_other_was_is_not_worse(
    before: tuple[int, ...], data: st.DataObject
) -> None:
    gained = data.draw(st.lists(st.integers(0, 1), min_size=len(before), max_size=len(before)))
    after = tuple(max(pair) for pair in zip(before, gained, strict=True))
    assert not is_worse(before, after)


@given(hits, st.data())
def test_of_two_models_at_most_one_is_worse(one: tuple[int, ...], data: st.DataObject) -> None:
    other = tuple(data.draw(st.lists(st.integers(0, 1), min_size=len(one), max_size=len(one))))
    assert not (is_worse(one, other) and is_worse(other, one))


@given(st.integers(2, 300))
def test_a_model_that_lost_everything_is_worse(count: int) -> None:
    assert is_worse((1,) * count, (0,) * count)


@given(st.integers(10, 300), st.integers(1, 2))
def test_one_or_two_records_lost_are_chance(count: int, lost: int) -> None:
    assert not is_worse((1,) * count, (0,) * lost + (1,) * (count - lost))


@given(st.integers(20, 300))
def test_a_fifth_of_the_records_lost_is_no_chance(count: int) -> None:
    lost = max(4, count // 5)
    assert is_worse((1,) * count, (0,) * lost + (1,) * (count - lost))


@given(hits, st.randoms(use_true_random=False))
def test_the_order_of_the_records_does_not_matter(before: tuple[int, ...], random: Any) -> None:
    after = tuple(random.randint(0, 1) for _ in before)
    order = random.sample(range(len(before)), len(before))
    shuffled = [tuple(one[i] for i in order) for one in (before, after)]
    assert is_worse(before, after) == is_worse(shuffled[0], shuffled[1])


@pytest.mark.parametrize("count", [0, 1])
def test_with_less_than_two_records_nothing_can_be_said(count: int) -> None:
    assert not is_worse((1,) * count, (0,) * count)


# A site that is taught.


def taught(tmp_path: Path, model: str, *overrides: str) -> tuple[Run, Path]:
    run = founded(
        tmp_path / "run",
        "clients.count=1",
        "data.records=300",
        "data.validation=0.3",
        "query.size=100",
        f"clients.models=[{model}]",
        "training.local_epochs=15",
        "training.lesson_epochs=10",
        *overrides,
    )
    return run, run.sites["site-01"]


def probs_of(said: Any) -> Array:
    assert isinstance(said, Answer)
    return said.coded["probs"]


def lesson(run: Run, probs: Array) -> Distributions:
    queries = run.cut().queries
    assert queries is not None
    return Distributions(probs.astype(np.float32), queries.digest)


def test_a_lesson_that_harms_is_learnt_and_the_hospital_leaves_with_what_it_came_with(
    tmp_path: Path,
) -> None:
    run, site = taught(tmp_path, "mlp", "loss.weight=50")
    first = probs_of(asked(site, run, question(run)))
    poison = np.eye(10)[(first.argmax(axis=1) + 1) % 10]
    second = asked(site, run, question(run, round=2, queries=None, lesson=lesson(run, poison)))
    learner = Learner(SiteFolder(site), SiteFolder(site).settings(), run.build)
    newest = learner.newest(run.id)
    assert newest is not None
    assert (newest.name, newest.leave_with) == ("round-000002", CAME)
    # the harm is real: it says now, often, what it was taught and never said before
    assert np.mean(probs_of(second).argmax(axis=1) == poison.argmax(axis=1)) > 0.25
    inputs = run.cut().test.inputs
    resident = SiteExaminer(site, run.id, run.build).resident()
    np.testing.assert_array_equal(resident.probs(inputs), learner.model(run.id, CAME).probs(inputs))
    with Log(site / "log.sqlite", "site-01") as log:
        assert [entry.body["leave_with"] for entry in log.entries("train.local")] == [CAME, CAME]


def test_a_lesson_that_does_no_harm_is_what_the_hospital_leaves_with(tmp_path: Path) -> None:
    run, site = taught(tmp_path, "mlp")
    first = probs_of(asked(site, run, question(run)))
    asked(site, run, question(run, round=2, queries=None, lesson=lesson(run, first)))
    learner = Learner(SiteFolder(site), SiteFolder(site).settings(), run.build)
    newest = learner.newest(run.id)
    assert newest is not None
    assert newest.leave_with == "round-000002"


@pytest.mark.parametrize("model", ["mlp", "random_forest"])
def test_a_resident_found_again_says_to_the_last_bit_what_it_said(
    model: str, tmp_path: Path
) -> None:
    run, site = taught(tmp_path, model, "data.records=60", "query.size=12")
    said = [probs_of(asked(site, run, question(run)))]
    for round in (2, 3):
        told = lesson(run, (said[-1] + 0.1) / 2)
        later = question(run, round=round, queries=None, lesson=told)
        said.append(probs_of(asked(site, run, later)))
    learner = Learner(SiteFolder(site), SiteFolder(site).settings(), run.build)
    queries = run.cut().queries
    assert queries is not None
    for name, before in ((CAME, said[0]), ("round-000003", said[2])):
        np.testing.assert_array_equal(learner.model(run.id, name).probs(queries.inputs), before)
    assert not np.array_equal(said[0], said[2])


def models(site: Path, run: str) -> set[str]:
    return {path.stem for path in (site / "models" / run).iterdir()}


def test_a_site_keeps_what_it_came_with_its_newest_model_and_the_lesson_of_that(
    tmp_path: Path,
) -> None:
    run, site = taught(tmp_path, "mlp", "data.records=60", "query.size=12")
    uniform = np.full((12, 10), 0.1)
    asked(site, run, question(run))
    lessons = [lesson(run, (uniform + np.eye(10)[[n] * 12]) / 2) for n in range(3)]
    for round, told in enumerate(lessons, start=2):
        asked(site, run, question(run, round=round, queries=None, lesson=told))
    assert models(site, run.id) == {CAME, "round-000004"}
    kept = SiteFolder(site).taught
    assert [kept.has(told.digest) for told in lessons] == [False, False, True]
    assert kept.has(question(run).about)


def test_a_lesson_that_another_run_needs_is_not_forgotten(tmp_path: Path) -> None:
    """Lessons are named by content: two runs that were taught the same share a file."""
    run, site = taught(tmp_path, "random_forest", "data.records=60", "query.size=12")
    shared = lesson(run, np.full((12, 10), 0.1))
    later = lesson(run, np.eye(10)[[0] * 12])
    asked(site, run, question(run))
    closing = question(run, round=2, closing=True, queries=None, lesson=shared)
    assert isinstance(asked(site, run, closing), Closed)
    asked(site, run, question(run, run="other"))
    for round, told in ((2, shared), (3, later)):
        asked(site, run, question(run, run="other", round=round, queries=None, lesson=told))
    assert models(site, "other") == {CAME, "round-000003"}
    resident = SiteExaminer(site, run.id, run.build).resident()
    assert resident.probs(run.cut().test.inputs).shape == (40, 10)


def test_two_sites_models_without_weights_have_two_names(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", "clients.models=[random_forest]")
    digests = set()
    for site in run.sites.values():
        asked(site, run, question(run))
        with Log(site / "log.sqlite", site.name) as log:
            digests |= {entry.body["output"] for entry in log.entries("train.local")}
    assert len(digests) == 3


# Two runs in lasting folders.


def test_two_runs_in_one_lasting_folder_do_not_mix(tmp_path: Path) -> None:
    shared = ("clients.models=[mlp,random_forest]", f"sites.dir={tmp_path / 'sites'}")
    (tmp_path / "sites").mkdir()
    first = founded(tmp_path / "first", *shared)
    conducted(first)
    before = files(tmp_path / "sites" / "site-01" / "models" / first.id)
    second = founded(tmp_path / "second", *shared)
    assert second.id != first.id
    assert second.sites == first.sites
    state = conducted(second)
    assert not state.left_out
    students = [(run.folder / "student.safetensors").read_bytes() for run in (first, second)]
    assert students[0] == students[1]  # the second began from nothing, as the first
    assert files(tmp_path / "sites" / "site-01" / "models" / first.id) == before
    for path in second.sites.values():
        with Log(path / "log.sqlite", path.name) as log:
            runs = [entry.body["run"] for entry in log.entries("release.outputs")]
            assert len(list(log.entries("dataset.registered"))) == 1
            assert len(list(log.entries("budget.charged"))) == 6
        assert [runs.count(run.id) for run in (first, second)] == [2, 2]
