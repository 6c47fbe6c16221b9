"""What a researcher does on a laptop: sweeps, comparisons, baselines, parts of one's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedkd
from fedkd.cli import main
from fedkd.cli import simulate as command
from fedkd.federation.rounds import NoQuorum
from fedkd.knowledge import BadInput

TINY = [
    "data=digits", "data.records=150", "data.test_size=100", "query.size=40",
    "data.reference_model=logistic", "clients.count=3", "clients.models=[logistic]", "rounds=1",
    "training.local_epochs=2", "training.lesson_epochs=1", "student.model=logistic",
    "student.epochs=2",
]  # fmt: skip


def test_python_gives_what_the_command_gives(tmp_path: Path) -> None:
    by_command, by_python = tmp_path / "command", tmp_path / "a folder, with 'signs'"
    assert main(["simulate", *TINY, f"out={by_command}"]) == 0
    run = fedkd.simulate(
        data={"records": 150, "test_size": 100}, query={"size": 40}, rounds=1,
        clients={"count": 3, "models": ["logistic"]},
        training={"local_epochs": 2, "lesson_epochs": 1},
        student={"model": "logistic", "epochs": 2}, out=str(by_python),
    )  # fmt: skip
    again = fedkd.load(by_command)
    assert run.summary["student"] == again.summary["student"]
    assert (by_command / "student.safetensors").read_bytes() == (
        by_python / "student.safetensors"
    ).read_bytes()
    assert list(run.clients["site"]) == ["site-01", "site-02", "site-03"]
    assert list(run.metrics["round"]) == [1]
    assert run.config["data"]["records"] == 150


def test_python_takes_numbers_of_numpy_and_any_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"records": 150, "test_size": 100, "reference_model": "logistic"}
    run = fedkd.simulate(
        seed=np.int64(3), rounds=1, quorum=np.float64(0.5), out="null", data=few,
        query={"size": np.int32(40)}, clients={"count": 3, "models": np.array(["logistic"])},
        training={"local_epochs": 2, "lesson_epochs": 1},
        student={"model": "logistic", "epochs": 2},
    )  # fmt: skip
    assert run.folder == tmp_path / "null"
    assert (run.config["seed"], run.config["out"], run.config["quorum"]) == (3, "null", 0.5)


def test_python_refuses_what_the_command_refuses(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="rounds"):
        fedkd.simulate(round=3, out=str(tmp_path / "run"))
    with pytest.raises(BadInput, match="no folder"):
        fedkd.load(tmp_path / "nothing")


def test_a_sweep_ends_in_one_table_and_one_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "sweep"
    code = main(["simulate", "-m", *TINY, f"out={base}", "seed=0,1", "aggregate=mean,median"])
    assert code == 0
    assert len(list(base.glob("*/summary.json"))) == 4
    assert "aggregate" in capsys.readouterr().out
    assert list(base.glob("*.svg"))
    differences = tmp_path / "differences.csv"
    assert main(["compare", str(base), "--csv", str(differences)]) == 0
    assert differences.read_text().count("\n") > 1


def test_a_sweep_that_was_killed_is_finished_by_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "a sweep"
    words = ["simulate", "-m", *TINY, f"out='{base}'", "seed=0,1,2,3"]
    assert main(words) == 0
    first = json.loads((base / "001" / "summary.json").read_text())
    done = (base / "001" / "summary.json").stat().st_mtime_ns
    run = (base / "002" / "run.json").read_bytes()
    (base / "002" / "summary.json").unlink()
    (base / "003" / "summary.json").unlink()
    for path in (base / "003").iterdir():  # cut off before its first step
        if path.name != "config.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(base / "004")
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [summary["seed"] for summary in told] == [0, 1, 2, 3]
    assert told[0] == first
    assert (base / "001" / "summary.json").stat().st_mtime_ns == done
    assert (base / "002" / "run.json").read_bytes() == run
    other = [word.replace("rounds=1", "rounds=2") for word in words]
    assert main(other) == 2
    assert "another configuration" in capsys.readouterr().err


def test_a_point_without_a_quorum_does_not_end_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "sweep"
    engine = command._run_engine

    def second_fails(run: Any) -> None:
        if run.config["seed"] == 1:
            raise NoQuorum("round 1: found 1 answers, expected at least 2 of 3")
        engine(run)

    words = ["simulate", "-m", *TINY, f"out={base}", "seed=0,1,2"]
    with monkeypatch.context() as broken:
        broken.setattr(command, "_run_engine", second_fails)
        assert main(words) == 1
    said = capsys.readouterr()
    assert "run 2 ended without a quorum: round 1: found 1 answers" in said.err
    assert "student" in said.out
    assert [path.parent.name for path in sorted(base.glob("*/summary.json"))] == ["001", "003"]
    assert main(words) == 0


@pytest.mark.parametrize("what", ["a run", "a file", "something else", "two names"])
def test_a_sweep_is_refused_where_its_runs_cannot_lie(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = tmp_path / "sweep", f"out={tmp_path / 'sweep'}"
    if what == "a file":
        base.write_text("")
    if what == "a run":
        base.mkdir()
        (base / "config.yaml").write_text("seed: 0\n")
    if what == "something else":
        (base / "002").mkdir(parents=True)
        (base / "002" / "notes.txt").write_text("")
    if what == "two names":
        out = f"out={base},{tmp_path / 'other'}"
    before = sorted(tmp_path.rglob("*"))
    assert main(["simulate", "-m", *TINY, out, "seed=0,1"]) == 2
    assert "expected" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_wrong_point_of_a_sweep_is_found_before_the_first_run(tmp_path: Path) -> None:
    base = tmp_path / "sweep"
    assert main(["simulate", "-m", *TINY, f"out={base}", "aggregate=mean,nothing"]) == 2
    assert not base.exists()


def test_baselines_stand_beside_the_federation(tmp_path: Path) -> None:
    extra = ["baselines=true", "baselines.fedavg_rounds=2", "baselines.fedavg_local_epochs=[1]"]
    assert main(["simulate", *TINY, *extra, f"out={tmp_path / 'run'}"]) == 0
    summary = fedkd.load(tmp_path / "run").summary
    assert 0 < summary["pooled_accuracy"] <= 1
    assert 0 < summary["fedavg_accuracy"] <= 1
    assert summary["fedavg_best"]["round"] in (1, 2)
    one_way = 4 * summary["student"]["parameters"]
    assert summary["fedavg_bytes"] == 2 * one_way * 3 * 1
    assert summary["fedavg_best"]["bytes"] == 2 * one_way * 3 * summary["fedavg_best"]["round"]


OWN_RULE = '''"""A rule of one's own."""

from fedkd.knowledge import Aggregator, Answers, Consensus, Memory, remember_nothing
from fedkd.knowledge.aggregate.mean import consensus_of


def first() -> Aggregator:
    """Believes whoever comes first by name."""

    def combine(memory: Memory, answers: Answers) -> tuple[Memory, Consensus]:
        return memory, consensus_of(answers.probs[0], answers)

    return Aggregator(remember_nothing, combine)
'''
OWN_MODEL = '''"""A model of one's own."""

import torch


class TwoLayers(torch.nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU(),
            torch.nn.Linear(width, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of one's own yaml files, with the code beside it."""
    folder = tmp_path / "mine"
    for group in ("aggregate", "model"):
        (folder / group).mkdir(parents=True)
    (folder / "a_rule_of_mine.py").write_text(OWN_RULE)
    (folder / "a_model_of_mine.py").write_text(OWN_MODEL)
    (folder / "aggregate" / "first.yaml").write_text("_target_: a_rule_of_mine.first\n")
    (folder / "model" / "two.yaml").write_text("_target_: a_model_of_mine.TwoLayers\nwidth: 6\n")
    (folder / "model" / "neighbours.yaml").write_text(
        "_target_: sklearn.ensemble.ExtraTreesClassifier\nn_estimators: 5\n"
    )
    return folder


def test_parts_of_ones_own_run_without_a_fork(own: Path, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("clients.models")]
    code = main(
        ["simulate", *words, "aggregate=first", "clients.models=[two,neighbours,mlp]",
         f"out={tmp_path / 'run'}", "--config-dir", str(own)]
    )  # fmt: skip
    assert code == 0
    assert list(fedkd.load(tmp_path / "run").clients["model"]) == ["two", "neighbours", "mlp"]


def test_the_laws_judge_a_part_of_ones_own(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "aggregate/first", "--config-dir", str(own), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert "order" in json.dumps(told)
    assert main(["laws", "aggregate/mean"]) == 0
