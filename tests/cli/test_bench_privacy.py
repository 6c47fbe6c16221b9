"""The comparison of privacy counts only runs within their budgets, and forgets no loss."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedkd.cli.bench import bench, private_speed
from fedkd.cli.bench.options import options_of
from fedkd.cli.bench.privacy import CELLS, LEAKY, _expect_kept, _given, _worst
from fedkd.cli.configuration import compose
from fedkd.knowledge import BadInput


def summary(**row: Any) -> dict[str, Any]:
    return {"clients": [{"site": "a", "left_out": False, "epsilon": None, **row}]}


def test_a_site_that_spent_more_or_nothing_or_was_left_out_spoils_the_figure() -> None:
    cell = CELLS[0]
    _expect_kept(cell, {1.0: [summary(epsilon=1.0)], None: [summary()]})
    for epsilon, row in (
        (1.0, {"epsilon": 1.01}),
        (1.0, {"epsilon": None}),
        (1.0, {"epsilon": 0.5, "left_out": True}),
        (None, {"left_out": True}),
    ):
        with pytest.raises(RuntimeError, match=cell.name):
            _expect_kept(cell, {epsilon: [summary(epsilon=1.0), summary(**row)]})


def test_the_worst_of_the_sites_is_shown() -> None:
    def site(**auc: float) -> dict[str, Any]:
        findings = [
            {"attack": name, "auc": area, "tpr": area / 10, "epsilon_at_least": None}
            for name, area in auc.items()
        ]
        return {"findings": findings}

    worst = _worst([site(loss=0.5, lira=0.9), site(loss=0.6, lira=0.7)])
    assert {name: found["auc"] for name, found in worst.items()} == {"loss": 0.6, "lira": 0.9}
    assert worst["lira"]["tpr"] == pytest.approx(0.09)


def test_a_cell_without_its_data_is_left_out_and_without_any_it_says_so() -> None:
    options = options_of("privacy", ["cells=1,2,4"])
    assert [cell.name for cell in _given(CELLS, options)] == ["Breast cancer, one site"]
    with pytest.raises(BadInput, match="heart_disease"):
        list(_given(LEAKY, options))


@pytest.mark.parametrize("cell", [*CELLS, *LEAKY], ids=lambda cell: str(cell.name))
def test_every_cell_is_a_right_configuration_private_and_plain(cell: Any) -> None:
    assert cell.epsilons[-1] is None
    path = ["data.path=somewhere"] if cell.needs else []
    compose([*cell.overrides, *path, *cell.plain])
    private = ["mechanism=dp_training", "budget.epsilon=1", *cell.private]
    made = compose([*cell.overrides, *path, *private])
    assert made["mechanism"]["learning_rate"] is None  # the default that is documented


def test_the_reported_seeds_are_not_those_that_the_recipe_was_chosen_on() -> None:
    assert not set(options_of("privacy", [])["seeds"]) & {0, 1, 2, *range(100, 120)}


def test_the_same_steps_are_timed_and_replaying_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_speed, "CHARGES", 40)
    case = private_speed.Case("small", "mlp", False, 30, 3, 0.5, 3.0)
    monkeypatch.setattr(private_speed, "CASES", (case,))
    found = private_speed.speed(2)
    (training,) = found["trainings"]
    assert training["plain_cpu_s"] > 0
    for side in ("private", "rehearsal"):
        assert 0 < training[side]["least"] <= training[side]["ratio"] <= training[side]["most"]
    assert set(found["replay"]["cpu_s"]) == {
        "gdp",
        *(f"rdp, order {it}" for it in (2, 8, 32, 128, 1024)),
    }
    assert min(found["replay"]["cpu_s"].values()) > 0


@pytest.mark.slow
def test_a_whole_cell_runs_once_and_is_then_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert bench("privacy", ["parts=utility", "cells=2", "seeds=0"]) == 0
        kept = json.loads(Path("runs/bench/privacy.json").read_text())
        cell = kept["results"]["utility"]["Breast cancer, one site"]
        assert cell["classes"] == 2
        assert cell["seeds"] == [0]
        assert list(cell["by_epsilon"]) == ["1", "4", "none"]
        assert cell["by_epsilon"]["1"]["mean"] > 0.9
        assert len(list(Path("runs/bench/cells").iterdir())) == 3
