"""The test is looked at once, at the end, and what is compared has worked as long."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.audit import Contradiction, Log
from fedkd.cli.conduct import server_log
from fedkd.cli.examine import examine, summarise
from fedkd.cli.run import Run, open_run
from fedkd.data import Records
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.examination import (
    Examination,
    OpenedTwice,
    SiteExaminer,
    figures_of,
    own_mix_weights,
    pooled_validation,
)
from fedkd.federation.learning import CAME
from tests.federation.small import Wiretap, conducted, finished, founded


def test_the_test_opens_once(tmp_path: Path) -> None:
    read = []

    def test() -> Records:
        read.append(1)
        return Records(np.zeros((2, 1)), np.zeros(2, dtype=np.int64))

    with Log(tmp_path / "log.sqlite", "server") as log:
        examination = Examination(test, log, "run", "test")
        assert not read  # nobody has looked before it opens
        assert len(examination.open()) == 2
        with pytest.raises(OpenedTwice):
            examination.open()
    assert len(read) == 1


def test_what_the_test_said_is_logged_and_stays(tmp_path: Path) -> None:
    with Log(tmp_path / "log.sqlite", "server") as log:
        examination = Examination(
            lambda: Records(np.zeros((0, 1)), np.zeros(0, int)), log, "run", "test"
        )
        examination.done({"accuracy": 0.5}, "sha256:s")
        examination.done({"accuracy": 0.5}, "sha256:s")
        with pytest.raises(Contradiction):
            examination.done({"accuracy": 0.75}, "sha256:s")
        (entry,) = log.entries("evaluation.done")
    said = {"run": "run", "model": "sha256:s", "data": "test", "figures": {"accuracy": 0.5}}
    assert entry.body == said


def test_a_run_is_examined_after_its_last_round_and_once(tmp_path: Path) -> None:
    run = founded(tmp_path / "run")
    finished(run, Wiretap(run))
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        told = [entry.type for entry in log.entries()]
    assert told.count("evaluation.done") == 1
    assert told[-3:] == ["run.ended", "access.performed", "evaluation.done"]
    summary = read_json(run.folder / "summary.json")
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        (entry,) = log.entries("evaluation.done")
    said = entry.body["figures"]["student"]["accuracy"]
    assert summary["student"]["accuracy"] == pytest.approx(said)


def test_a_test_that_was_opened_is_not_opened_again_for_a_summary_that_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = founded(tmp_path / "run")
    finished(run, Wiretap(run))
    before = read_json(run.folder / "summary.json")
    (run.folder / "summary.json").unlink()
    shutil.rmtree(run.folder / "figures")
    monkeypatch.delattr(Examination, "open")  # whoever asks for the test fails
    again = open_run(str(run.folder))
    with server_log(again) as log:
        summarise(again, examine(again, log))
    after = read_json(run.folder / "summary.json")
    assert after["student"] == before["student"]
    assert after["clients"] == before["clients"]
    assert list((run.folder / "figures").iterdir())


labels = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(np.array)


@given(labels, labels)
def test_weights_give_the_test_a_sites_own_class_mix(own: Any, test: Any) -> None:
    weights = own_mix_weights(own, test, 4)
    lacking = set(own.tolist()) - set(test.tolist())
    assert (weights is None) == bool(lacking)
    if weights is not None:
        mix = np.bincount(test, weights=weights, minlength=4) / weights.sum()
        np.testing.assert_allclose(mix, np.bincount(own, minlength=4) / len(own), atol=1e-12)


def test_figures_of_a_perfect_answer() -> None:
    truth = np.arange(12) % 3
    figures = figures_of(np.eye(3, dtype=np.float32)[truth], truth)
    assert figures["accuracy"] == figures["balanced_accuracy"] == figures["macro_f1"] == 1
    assert figures["auroc"] == 1
    assert figures["ece"] == pytest.approx(0)


def test_validation_slices_are_pooled_and_none_is_none(tmp_path: Path) -> None:
    run = founded(tmp_path / "run")
    pooled = pooled_validation(list(run.sites.values()))
    assert pooled is not None
    assert len(pooled) == 6
    bare = founded(tmp_path / "bare", "data.validation=0.0")
    assert pooled_validation(list(bare.sites.values())) is None


@dataclass
class Steps:
    """A model that counts: the steps of everything it was asked to learn."""

    taken: list[int]
    architecture: str = "counting"

    def weights(self) -> dict[str, Any]:
        """Something, so that it starts warm."""
        return {"w": np.zeros(1, np.float32)}

    def with_weights(self, weights: Any) -> "Steps":
        return self

    def fit(self, records: Any, lesson: Any, plan: Any, rng: Any) -> "Steps":
        queries = 0 if lesson is None else len(lesson.queries)
        self.taken.append(plan.step_count(len(records), queries))
        return replace(self)

    def probs(self, inputs: Any) -> Any:
        return np.full((len(inputs), 10), 0.1, np.float32)


TAKEN: list[int] = []


def counting(space: Any, rng: Any) -> Steps:
    """A model whose steps end up in `TAKEN`."""
    return Steps(TAKEN)


@pytest.mark.parametrize("steps", ["records", "lesson", "longest"])
def test_a_site_alone_takes_as_many_steps_as_in_the_run(steps: str, tmp_path: Path) -> None:
    run = founded(
        tmp_path / "run",
        f"training.steps={steps}",
        "training.lesson_epochs=3",
        "training.batch=4",
        "query.size=50",
        "rounds=3",
    )
    settings = read_json(run.sites["site-01"] / "site.json")
    settings["model"] = {"_target_": f"{__name__}.counting"}
    write_json(run.sites["site-01"] / "site.json", settings)
    TAKEN.clear()
    conducted(run)
    first, *lessons = TAKEN
    assert len(lessons) == 3  # the lessons of rounds 1 and 2, and the closing one
    start, records, plan, _ = SiteExaminer(run.sites["site-01"], run.id, run.build).alone_task(3)
    alone = plan.step_count(len(records), 0)
    an_epoch = math.ceil(len(records) / 4)
    assert sum(lessons) <= alone < sum(lessons) + an_epoch
    assert isinstance(start, Steps)  # it goes on from what it came with
    assert first == 2 * an_epoch


def test_an_examiner_tells_who_took_part_and_how_long_it_took(
    run: Run, site: Path, tmp_path: Path
) -> None:
    idle = SiteExaminer(site, "another run", run.build)
    assert not idle.took_part()
    assert idle.count() == 20
    assert idle.seconds() == 0
    with pytest.raises(FileNotFoundError):
        idle.resident()
    own = founded(tmp_path / "run")
    conducted(own)
    busy = SiteExaminer(own.sites["site-01"], own.id, own.build)
    assert busy.took_part()
    assert busy.seconds() > 0
    assert busy.learner.learnt(own.id, CAME) is not None
