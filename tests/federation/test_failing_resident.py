"""What goes wrong with a model that stays at home: under a mechanism nobody may notice."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.run import Run
from fedkd.distill import Gate
from fedkd.federation.durable import read_json, write_json
from fedkd.knowledge import Distributions
from fedkd.wire import Answer, Closed, Reason, Refusal
from tests.federation.small import Wiretap, asked, finished, founded, question

PRIVATE = ["mechanism=dp_training", "mechanism.steps=5", "budget.epsilon=2"]
DIVERGES = ["clients.models=[mlp]", "training.learning_rate=10", "training.weight_decay=1"]
"""A resident that some hospitals' records drive beyond all numbers, once it trains long enough."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Residents that diverge. Nobody may change it."""
    folder = tmp_path_factory.mktemp("diverging") / "run"
    return founded(folder, *PRIVATE, *DIVERGES, "training.local_epochs=300")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same federation with residents that learn nothing at all, and so cannot fail."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    zero = ["training.local_epochs=0", "training.lesson_epochs=0"]
    return founded(folder, *PRIVATE, *DIVERGES, *zero)


def kinds(folder: Path) -> list[str]:
    with Log(folder / "log.sqlite", "site-01") as log:
        return [entry.type for entry in log.entries()]


def probs(said: Any) -> Any:
    assert isinstance(said, Answer), said
    return said.coded["probs"]


def lesson(run: Run) -> Distributions:
    return Distributions(np.full((12, 10), 0.1, dtype=np.float32), question(run).about)


def test_a_resident_that_diverges_changes_no_answer_and_no_length_of_a_log(
    run: Run, calm: Run, tmp_path: Path
) -> None:
    one = Path(shutil.copytree(run.sites["site-01"], tmp_path / "one" / "site-01"))
    other = Path(shutil.copytree(calm.sites["site-01"], tmp_path / "other" / "site-01"))
    for number in (1, 2):
        taught = {} if number == 1 else {"lesson": lesson(run)}
        said = asked(one, run, question(run, round=number, **taught))
        calmly = asked(other, calm, question(calm, round=number, **taught))
        np.testing.assert_array_equal(probs(said), probs(calmly))
    closing = asked(one, run, question(run, round=3, closing=True, lesson=lesson(run)))
    assert isinstance(closing, Closed)
    asked(other, calm, question(calm, round=3, closing=True, lesson=lesson(calm)))
    assert kinds(one) == kinds(other)
    assert "DivergedTraining" in (one / "errors.txt").read_text(), "nothing failed: no test"
    assert not (other / "errors.txt").exists()


def test_without_a_mechanism_there_is_no_other_model_and_the_site_says_that_it_failed(
    tmp_path: Path,
) -> None:
    run = founded(tmp_path / "run", *DIVERGES, "training.local_epochs=300")
    said = asked(run.sites["site-01"], run, question(run))
    assert said == Refusal("site-01", run.id, 1, Reason.FAILED)


def test_a_federation_of_failing_residents_ends_and_has_no_figures_of_them(
    tmp_path: Path,
) -> None:
    run = founded(tmp_path / "run", *PRIVATE, *DIVERGES, "training.local_epochs=300")
    finished(run, Wiretap(run))
    summary = read_json(run.folder / "summary.json")
    assert summary["audit"]["verified"]
    row = next(row for row in summary["clients"] if row["site"] == "site-01")
    assert not row["left_out"]
    assert row["accuracy"] is None
    assert 0 < row["epsilon"] <= 2.0


def test_trees_that_cannot_be_fitted_at_home_answer_by_their_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any classifier may fail on what records hold; here on the whole table, and on no shard."""
    from fedkd.distill.models.scikit_classifier import ScikitClassifier

    run = founded(
        tmp_path / "run", "mechanism=pate", "mechanism.shards=4", "budget.epsilon=2",
        "clients.models=[random_forest]",
    )  # fmt: skip
    fit = ScikitClassifier.fit

    def chokes(self: Any, records: Any, lesson: Any, plan: Any, rng: Any) -> Any:
        if records is not None and len(records) > 10:
            raise ValueError("found patient 7")
        return fit(self, records, lesson, plan, rng)

    monkeypatch.setattr(ScikitClassifier, "fit", chokes)
    for number in (1, 2):
        taught = {} if number == 1 else {"lesson": lesson(run)}
        probs(asked(run.sites["site-01"], run, question(run, round=number, **taught)))
    assert "patient 7" in (run.sites["site-01"] / "errors.txt").read_text()


def lying_gate() -> Gate:
    """Says that it reads no record, and opens by how many there are."""

    def fit(space: Any, records: Any, queries: Any, rng: Any) -> Any:
        return {"share": 0.5 if len(records) else 1.0}

    def open_(space: Any, memory: Any, inputs: Any) -> Any:
        return np.full(len(inputs), memory["share"], dtype=np.float32)

    return Gate(fit, open_, reads_records=False)


def test_a_gate_that_lies_about_records_finds_none_under_a_mechanism(
    calm: Run, tmp_path: Path
) -> None:
    honest = Path(shutil.copytree(calm.sites["site-01"], tmp_path / "honest" / "site-01"))
    lied_to = Path(shutil.copytree(honest, tmp_path / "lied" / "site-01"))
    gate = {"_target_": f"{__name__}.lying_gate"}
    write_json(lied_to / "site.json", {**read_json(lied_to / "site.json"), "gate": gate})
    said = [probs(asked(folder, calm, question(calm))) for folder in (honest, lied_to)]
    np.testing.assert_array_equal(said[0], said[1])
