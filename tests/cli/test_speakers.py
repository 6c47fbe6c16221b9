"""The table of speakers is what the code does: each yes trains or answers, each no is refused."""

import json
from pathlib import Path

import pytest

from fedkd.cli import main
from fedkd.cli.configuration import options

TREES = {"extra_trees", "gradient_boosting", "random_forest"}


def table(capsys: pytest.CaptureFixture[str], *words: str) -> dict[tuple[str, str], dict[str, str]]:
    assert main(["privacy", "speakers", "--json", *words]) == 0
    rows = json.loads(capsys.readouterr().out)
    return {(row["model"], row["mechanism"]): row for row in rows}


def test_every_bundled_model_stands_against_every_mechanism(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = table(capsys)
    models, mechanisms = set(options("model")), set(options("mechanism"))
    assert {pair for pair in found if pair[0] in models} == {
        (model, mechanism) for model in models for mechanism in mechanisms
    }
    for model in models:
        assert found[model, "none"]["may"]
        assert found[model, "pate"]["may"]
        row = found[model, "dp_training"]
        assert row["may"] == (model not in TREES)
        assert ("gradients" in row["reason"]) == (model in TREES)
        assert ("mechanism=pate" in row["remedy"]) == (model in TREES)


def test_layers_that_keep_something_of_a_record_never_train_privately(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = {name: row for name, row in table(capsys).items() if name[0].startswith("a module")}
    for layer in ("nn.BatchNorm1d", "nn.BatchNorm1d without weights", "running statistics"):
        assert any(layer in name for name, _ in found)
    for (_, mechanism), row in found.items():
        assert row["may"] == (mechanism != "dp_training")


def test_a_model_of_ones_own_is_asked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "neighbours.yaml").write_text(
        "# Nearest neighbours.\n_target_: sklearn.neighbors.KNeighborsClassifier\n"
    )
    found = table(capsys, "--config-dir", str(tmp_path))
    assert found["neighbours", "pate"]["may"]
    assert not found["neighbours", "dp_training"]["may"]


def test_the_table_says_why_not_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "speakers"]) == 0
    said = capsys.readouterr().out
    assert "random_forest under dp_training: found RandomForestClassifier as the model" in said
    assert "NOT PRIVATE" in said
    head, first = said.splitlines()[:2]
    assert head.split() == ["model", *sorted(options("mechanism"))]
    assert first.split() == ["cnn", "yes", "yes", "yes"]


def test_a_wrong_pair_is_refused_with_that_reason_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = table(capsys)["random_forest", "dp_training"]["reason"]
    words = ["data=digits", "mechanism=dp_training", "budget.epsilon=1"]
    out = tmp_path / "run"
    assert main(["simulate", *words, "clients.models=[random_forest]", f"out={out}"]) == 2
    assert reason in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
