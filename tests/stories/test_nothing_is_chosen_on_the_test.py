"""Nothing is chosen on the test: turn its labels round, and nothing but its figures turns."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli import main
from fedkd.cli.run import Run, open_run
from fedkd.federation.examination import SiteExaminer

SOURCE = '''"""Digits, even or odd, with a test part whose labels may be turned round."""

import numpy as np

from fedkd.data import Dataset, Records
from fedkd.data.sources.digits import digits
from fedkd.knowledge import Space

TEST = 200


def source(turned: bool = False) -> Dataset:
    whole = digits()
    inputs, labels = whole.records.inputs, whole.records.labels % 2
    kind = whole.space
    space = Space(
        kind.kind, kind.shape, kind.dtype, kind.low, kind.high, ("even", "odd"),
        offset=kind.offset, divisor=kind.divisor,
    )
    test = 1 - labels[-TEST:] if turned else labels[-TEST:]
    return Dataset(
        whole.card, space, Records(inputs[:-TEST], labels[:-TEST]), Records(inputs[-TEST:], test)
    )
'''
DATA = """# @package _global_
data:
  _target_: even_or_odd_digits.source
  turned: false
  records: 150
  validation: 0.2
  test_size: null
  reference_model: logistic
"""
FEW_TREES = "_target_: sklearn.ensemble.RandomForestClassifier\nn_estimators: 5\n"
WORDS = [
    "data=even_or_odd", "query.size=40", "clients.count=3", "rounds=2",
    "clients.models=[logistic,mlp,few_trees]",
    "training.local_epochs=2", "training.lesson_epochs=1",
    "student.model=logistic", "student.epochs=2",
    "baselines=true", "baselines.fedavg_rounds=3", "baselines.fedavg_local_epochs=[1,2]",
    "baselines.fedavg_learning_rates=[0.002,0.02]",
]  # fmt: skip

ACCURACIES = ("accuracy", "balanced_accuracy", "local_accuracy", "local_balanced_accuracy",
              "pooled_accuracy", "fedavg_accuracy")  # fmt: skip
ON_THE_TEST = {*ACCURACIES, "macro_f1", "auroc", "ece", "own_mix", "local_own_mix", "local_auroc"}
OF_THE_CLOCK = {"seconds", "wall_s", "train_s"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The same federation with the test as it is, and with every label of the test turned."""
    own = tmp_path_factory.mktemp("own")
    (own / "data").mkdir()
    (own / "model").mkdir()
    (own / "even_or_odd_digits.py").write_text(SOURCE)
    (own / "data" / "even_or_odd.yaml").write_text(DATA)
    (own / "model" / "few_trees.yaml").write_text(FEW_TREES)
    opened = []
    for turned in ("false", "true"):
        out = own / f"turned-{turned}"
        words = [*WORDS, f"data.turned={turned}", f"out={out}", "--config-dir", str(own)]
        assert main(["simulate", *words]) == 0
        opened.append(open_run(str(out)))
    return opened[0], opened[1]


def without(kept: Any, keys: set[str]) -> Any:
    """`kept` without `keys`, at any depth."""
    if isinstance(kept, Mapping):
        return {key: without(value, keys) for key, value in kept.items() if key not in keys}
    return [without(it, keys) for it in kept] if isinstance(kept, list) else kept


def entries(path: Path, party: str, types: set[str], keys: set[str]) -> list[tuple[str, Any]]:
    """What a log says under `types`, without `keys` and without the name of the run."""
    with Log(path, party) as log:
        told = [it for it in log.entries() if it.type in types]
    return [(it.type, without(dict(it.body), {"run", *keys})) for it in told]


def summary(run: Run) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run.folder / "summary.json").read_text())
    return read


def test_only_the_labels_of_the_test_differ(runs: tuple[Run, Run]) -> None:
    was, turned = (run.cut() for run in runs)
    np.testing.assert_array_equal(was.test.labels, 1 - turned.test.labels)
    np.testing.assert_array_equal(was.test.inputs, turned.test.inputs)
    np.testing.assert_array_equal(was.private.inputs, turned.private.inputs)
    np.testing.assert_array_equal(was.private.labels, turned.private.labels)


def test_the_student_is_the_same_to_the_byte(runs: tuple[Run, Run]) -> None:
    was, turned = ((run.folder / "student.safetensors").read_bytes() for run in runs)
    assert was == turned


def test_the_curves_are_the_same(runs: tuple[Run, Run]) -> None:
    was, turned = (
        [without(json.loads(row), OF_THE_CLOCK) for row in text.splitlines()]
        for text in ((run.folder / "metrics.jsonl").read_text() for run in runs)
    )
    assert len(was) == 2
    assert all(row["student_accuracy"] is not None for row in was)
    assert was == turned


def test_every_answer_and_consensus_is_the_same(runs: tuple[Run, Run]) -> None:
    was, turned = (sorted(it.name for it in (run.folder / "exchange").iterdir()) for run in runs)
    assert len(was) >= 1 + 2 * 3 + 2  # the queries; in each round three answers and a consensus
    assert was == turned
    types = {"queries.posed", "answers.admitted", "aggregate.computed", "student.updated"}
    logs = [
        entries(run.folder / "server" / "log.sqlite", "server", types, {"question", "checkpoints"})
        for run in runs
    ]
    assert {type for type, _ in logs[0]} == types
    assert logs[0] == logs[1]


def test_the_hospitals_leave_with_the_same_models(runs: tuple[Run, Run]) -> None:
    was, turned = runs
    assert sorted(was.sites) == sorted(turned.sites)
    inputs = was.cut().test.inputs
    for site in was.sites:
        examiners = [SiteExaminer(run.sites[site], run.id, run.build) for run in runs]
        probs = [it.resident().probs(inputs) for it in examiners]
        np.testing.assert_array_equal(*probs)
        learnt = [it.learner.newest(run.id) for it, run in zip(examiners, runs, strict=True)]
        assert learnt[0] is not None
        assert learnt[1] is not None
        assert learnt[0].hits == learnt[1].hits
        assert learnt[0].leave_with == learnt[1].leave_with
        weights = [
            {it.name: it.read_bytes() for it in (run.sites[site] / "models").rglob("*.safetensors")}
            for run in runs
        ]
        assert weights[0] == weights[1]


def test_everything_in_the_summary_but_the_test_is_the_same(runs: tuple[Run, Run]) -> None:
    # Not the root of the log: it stands over the run's name, the time of day and the figures.
    # Not the bytes of FedAvg: Flower's own messages carry the time of day.
    unlike = {*ON_THE_TEST, *OF_THE_CLOCK, "root", "bytes"}
    was, turned = (without(summary(run), unlike) for run in runs)
    assert was["fedavg_best"]["round"] in (1, 2, 3)
    assert was == turned


def accuracies(kept: Any, where: str = "") -> dict[str, float]:
    """Every accuracy on the test, by its place in the summary."""
    if isinstance(kept, list):
        kept = {str(place): value for place, value in enumerate(kept)}
    if not isinstance(kept, Mapping):
        return {}
    found = {f"{where}{key}": kept[key] for key in ACCURACIES if kept.get(key) is not None}
    for key, value in kept.items():
        found |= accuracies(value, f"{where}{key}.")
    return found


def test_what_is_right_of_one_test_is_wrong_of_the_other(runs: tuple[Run, Run]) -> None:
    # Of two classes: the same model is right on one test exactly where it is wrong on the other.
    # A model that was chosen on the test is the better one of each, and the sum is above one.
    was, turned = (accuracies(summary(run)) for run in runs)
    assert {"student.accuracy", "pooled_accuracy", "fedavg_accuracy", "fedavg_best.accuracy",
            "clients.0.accuracy", "clients.2.local_accuracy"} <= set(was)  # fmt: skip
    sums = {place: was[place] + turned[place] for place in was}
    assert sums == pytest.approx(dict.fromkeys(was, 1.0))
