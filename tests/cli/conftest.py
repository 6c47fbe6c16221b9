"""A hospital's own folder of yaml files, with a source that it wrote itself."""

import sys
from pathlib import Path

import pytest

SOURCE = """
from typing import Annotated, Literal
from fedkd.knowledge import Aggregator, OneOf, Range
from fedkd.knowledge.aggregate.mean import mean

def ward(path: str | None = None, ages: tuple[int, int] = (0, 120), bins: list[int] = [4],
         unit: Literal["mg", "mmol"] = "mg", table: Annotated[str, OneOf(("csv", "npz"))] = "csv"):
    return path, ages, bins, unit

def half_blind() -> Aggregator:
    def combine(memory, answers):
        return mean().combine(memory, answers.only([i == 0 for i in range(len(answers.sites))]))
    return Aggregator(mean().init, combine)

A_NUMBER = 3
"""

YAMLS = {
    "partition/iid": "_target_: parts_of_the_ward.ward\n",
    "aggregate/mean": "_target_: fedkd.knowledge.aggregate.mean.mean\n",
    "aggregate/median": "_target_: fedkd.knowledge.aggregate.median.median\n",
    "aggregate/entropy_reduced": (
        "_target_: fedkd.knowledge.aggregate.entropy_reduced.entropy_reduced\ntemperature: 0.1\n"
    ),
    "aggregate/half_blind": "_target_: parts_of_the_ward.half_blind\n",
    "filter/none": "_target_: fedkd.knowledge.filter.none.none\n",
    "gate/none": "_target_: fedkd.distill.gates.none.none\n",
    "codec/float32": "_target_: fedkd.wire.codecs.float32.float32\n",
    "loss/kl": "_target_: fedkd.distill.losses.kl.kl\ntemperature: 1.0\nweight: 1.0\n",
    "model/mlp": "_target_: fedkd.distill.models.mlp.mlp\nhidden: 64\n",
    "data/digits": (
        "# @package _global_\nclients:\n  count: 4\nquery:\n  size: 300\n"
        "data:\n  _target_: parts_of_the_ward.ward\n  reference_model: mlp\n"
        "  validation: 0.1\n  test_size: 0.2\n  records: null\n"
    ),
    "data/ward": (
        "# @package _global_\ndefaults:\n  - override /aggregate: entropy_reduced\n"
        "query:\n  size: 77\nrounds: 2\nbaselines: true\n"
        "data:\n  _target_: parts_of_the_ward.ward\n  path: ward.csv\n  reference_model: mlp\n"
    ),
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `--config-dir` points at; its code lies beside it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "parts_of_the_ward", raising=False)
    (tmp_path / "parts_of_the_ward.py").write_text(SOURCE)
    folder = tmp_path / "own"
    for name, text in YAMLS.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder
