"""What goes in wrongly under a mechanism: refused by the command itself, before anything is paid.

Each says what was found, what was expected and what to do, and leaves nothing behind.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.cli import main
from fedkd.cli.run import open_run
from fedkd.federation.durable import read_json
from fedkd.privacy import Ledger, PublicFacts
from fedkd.privacy.mechanisms.pate import pate as build_pate
from tests.federation.officers import officer, signed

SMALL = [
    "clients.count=2", "rounds=1", "query.size=10", "training.local_epochs=1",
    "training.lesson_epochs=1", "student.model=logistic", "student.epochs=1", "audit.cosigners=0",
]  # fmt: skip
DIGITS = ["data=digits", "data.records=80", "data.test_size=40", "clients.models=[logistic]"]
PRIVATE = ["mechanism=dp_training", "mechanism.steps=3"]

OWN = """
import numpy as np
import torch
from fedkd.data import Card, Dataset, Records
from fedkd.knowledge import Space

def source(path=None, bad="nan"):
    inputs = np.random.default_rng(0).random((80, 4), dtype=np.float32)
    inputs[7, 2] = {"nan": np.nan, "inf": np.inf, "none": 0.5}[bad]
    space = Space("table", (4,), "float32", 0.0, 1.0, ("no", "yes"))
    card = Card("own", "1", "tabular", "own", "consent", "here")
    return Dataset(card, space, Records(inputs, np.arange(80) % 2))

class Net(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        made = {
            "batch": torch.nn.BatchNorm1d(1),
            "batch_without_weights": torch.nn.BatchNorm1d(1, affine=False),
            "instance_with_statistics": torch.nn.InstanceNorm1d(1, track_running_stats=True),
        }[layer]
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Unflatten(1, (1, -1)), made,
            torch.nn.Flatten(), torch.nn.Linear(64, 10),
        )

    def forward(self, x):
        return self.layers(x)
"""
LAYERS = ("batch", "batch_without_weights", "instance_with_statistics")
SCHEMA = """
columns:
  age: {kind: numeric, low: 0, high: 120, unit: years}
label: {column: ill, classes: ["no", "yes"]}
patient: who
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hospital's own source and models, and its table, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    for group in ("data", "model"):
        (folder / group).mkdir(parents=True)
    (folder / "parts_with_holes.py").write_text(OWN)
    for bad in ("nan", "inf", "none"):
        (folder / "data" / f"with_{bad}.yaml").write_text(
            "# @package _global_\ndata:\n  _target_: parts_with_holes.source\n"
            f"  bad: {bad}\n  reference_model: logistic\n  test_size: 0.2\n"
        )
    for layer in LAYERS:
        body = f"_target_: parts_with_holes.Net\nlayer: {layer}\n"
        (folder / "model" / f"{layer}.yaml").write_text(body)
    table(tmp_path / "own.csv")
    (tmp_path / "own.csv.schema.yaml").write_text(SCHEMA)
    (tmp_path / "wrong.yaml").write_text(SCHEMA.replace("who", "whose"))
    return folder


def table(path: Path, more: Sequence[str] = ()) -> None:
    rows = [f"p{i // 2},{20 + i},{'yes' if i % 3 else 'no'}" for i in range(60)]
    path.write_text("\n".join(["who,age,ill", *rows, *more]) + "\n")


TABLE = ["data=table", "data.path=own.csv", "clients.models=[logistic]"]
WRONG: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "a record with NaN": (["data=with_nan", "budget.epsilon=1"], ("outside", "space")),
    "a record without bound": (["data=with_inf", "budget.epsilon=1"], ("outside", "space")),
    "a patient column that is named but absent": (
        [*TABLE, "data.schema=wrong.yaml", "budget.epsilon=1"],
        ("no patient column 'whose'", "who, age, ill", "did you mean 'who'"),
    ),
    "epsilon zero": ([*DIGITS, "budget.epsilon=0"], ("budget.epsilon=0", "at least")),
    "epsilon below zero": ([*DIGITS, "budget.epsilon=-1"], ("budget.epsilon=-1", "at least")),
    "epsilon NaN": ([*DIGITS, "budget.epsilon=nan"], ("budget.epsilon=nan", "a number")),
    "epsilon without bound": ([*DIGITS, "budget.epsilon=inf"], ("budget.epsilon=inf", "a number")),
    "no epsilon": (DIGITS, ("no budget", "budget.epsilon=4")),
    "a plan's epsilon zero": (
        [*DIGITS, "budget.epsilon=1", "mechanism.epsilon=0"],
        ("mechanism.epsilon=0", "at least"),
    ),
    "delta at one over the patients": (
        [*DIGITS, "budget.epsilon=1", "budget.delta=0.1"],
        ("delta 0.1 for", "below 1/", "take null"),
    ),
    "delta zero": ([*DIGITS, "budget.epsilon=1", "budget.delta=0"], ("budget.delta=0", "from")),
    "delta one": ([*DIGITS, "budget.epsilon=1", "budget.delta=1"], ("budget.delta=1", "from")),
    "delta NaN": ([*DIGITS, "budget.epsilon=1", "budget.delta=nan"], ("budget.delta=nan", "from")),
    "a clip of zero": (
        [*DIGITS, "budget.epsilon=1", "mechanism.clip=0"], ("mechanism.clip=0", "from"),
    ),
    "a clip of NaN": (
        [*DIGITS, "budget.epsilon=1", "mechanism.clip=nan"], ("mechanism.clip=nan", "from"),
    ),
    "a rate of zero": (
        [*DIGITS, "budget.epsilon=1", "mechanism.sampling_rate=0"],
        ("mechanism.sampling_rate=0", "from"),
    ),
    **{
        f"a model with batch statistics: {layer}": (
            ["data=digits", "data.records=80", f"clients.models=[{layer}]", "budget.epsilon=1"],
            ("layers.2", "keep nothing of a record", "nn.GroupNorm"),
        )
        for layer in LAYERS
    },
    "a model without gradients": (
        ["data=digits", "data.records=80", "clients.models=[random_forest]", "budget.epsilon=1"],
        ("RandomForestClassifier", "torch model", "pate"),
    ),
    "an engineer's budget where the officer's holds": (
        [*DIGITS, "budget.epsilon=1", "sites.dir=lasting", "sites.rehearsal=false"],
        ("sites.rehearsal", "signed paper"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_it_is_refused_with_what_would_be_right_and_leaves_nothing(
    what: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, told = WRONG[what]
    command = ["simulate", *SMALL, *PRIVATE, *words, "out=run", "--config-dir", str(own)]
    assert main(command) == 2
    said = capsys.readouterr().err
    for word in ("found", "expected", *told):
        assert word in said, said
    assert "Traceback" not in said
    assert not Path("run").exists()


def test_the_same_without_what_is_wrong_is_not_refused(own: Path) -> None:
    """So that nothing above is refused for another reason."""
    for words in (["data=with_none"], TABLE):
        out = f"out={words[0].replace('=', '-')}"
        command = ["simulate", *SMALL, *PRIVATE, *words, "clients.models=[logistic]"]
        assert main([*command, "budget.epsilon=1", out, "--config-dir", str(own)]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--noise", "0"], "noise_multiplier"),
        (["--noise", "nan"], "noise_multiplier"),
        (["--noise", "-1"], "noise_multiplier"),
        (["--noise", "inf"], "noise_multiplier"),
        (["--epsilon", "0"], "epsilon"),
        (["--epsilon", "nan"], "epsilon"),
        (["--epsilon", "-1"], "epsilon"),
        (["--epsilon", "1", "--delta", "0.5"], "delta 0.5 for 303 patients"),
        (["--epsilon", "1", "--delta", "nan"], "delta nan"),
        (["--epsilon", "1", "--delta", "0"], "delta 0"),
        (["--mechanism", "none"], "dp_training or pate"),
        (["--mechanism", "pate", "--rate", "0.5"], "--rate 0.5 with --mechanism pate"),
        (["--shards", "50"], "--shards 50 with --mechanism dp_training"),
        (["--mechanism", "pate", "--noise", "nan"], "noise_multiplier"),
        (["--mechanism", "pate", "--noise", "1e-200"], "noise 1e-200"),
        (["--mechanism", "pate", "--shards", "400"], "400 shards for 303 patients"),
    ],
)
def test_a_plan_of_nothing_that_protects_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["privacy", "plan", "--patients", "303", *words]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "expected" in said


def planned(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["privacy", "plan", "--patients", "303", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_patients_and_classes_are_enough_to_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """A deployed site starts at epsilon 1, and so does a plan of which nothing else is said."""
    told = planned(["--classes", "2"], capsys)
    assert told == planned(["--epsilon", "1"], capsys)
    assert main(["privacy", "plan", "--patients", "303", "--classes", "2"]) == 0
    assert "none was named: a deployed site starts with it" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_plan_of_pate_counts_its_batches_in_both_directions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pate = ["--mechanism", "pate", "--queries", "200"]
    once = planned([*pate, "--epsilon", "4"], capsys)
    four = planned([*pate, "--epsilon", "4", "--batches", "4"], capsys)
    # Four releases at one order cost four times the divergence: twice the noise.
    assert four["noise_multiplier"] == pytest.approx(2 * once["noise_multiplier"], rel=1e-6)
    assert four["noise_on_an_answer"] == pytest.approx(four["noise_multiplier"] * 20 / 50)
    noise = ["--noise", str(four["noise_multiplier"] * (1 + 1e-9))]
    back = planned([*pate, *noise, "--batches", "4"], capsys)
    assert back["epsilon"] == pytest.approx(4, rel=1e-3)
    assert planned([*pate, *noise, "--epsilon", "4"], capsys)["batches"] == 4
    # As the mechanism itself prices it, under the filter that it names.
    ledger = Ledger("ward", 4.0, four["delta"], "rdp", four["order"])
    mechanism = build_pate(shards=50, batches=4)
    planned_there = mechanism.plan(PublicFacts(303, 2), ledger, None)
    assert planned_there.noise_multiplier == pytest.approx(four["noise_multiplier"], rel=1e-9)


def test_a_table_that_names_no_patient_protects_records_alone_and_says_so(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing patient column is no error: many tables have a row a patient. It is said."""
    Path("own.csv.schema.yaml").write_text(SCHEMA.replace("patient: who\n", ""))
    assert main(["simulate", *SMALL, *PRIVATE, *TABLE, "budget.epsilon=1", "out=run"]) == 0
    claims = read_json(Path("run/summary.json"))["privacy"]["claims"]
    for claim in claims.values():
        assert "name no patient" in claim["records_per_unit"]
    capsys.readouterr()
    assert main(["privacy", "status", "run"]) == 0
    assert "name no patient" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def lasting(own: Path) -> list[str]:
    """The words of a run at two lasting sites whose officers' whole budget one run has spent."""
    small = [word for word in SMALL if word != "audit.cosigners=0"]
    words = ["simulate", *small, *PRIVATE, *TABLE, "sites.dir=sites", "sites.rehearsal=false"]
    assert main([*words, "out=first"]) == 2  # it asks for the officers' papers
    signed(open_run("first"), officer(Path("first")))
    assert main(["simulate", "--resume", "first"]) == 0
    return words


def budgets() -> dict[str, int]:
    found = {}
    for site in ("site-01", "site-02"):
        with Log(Path("sites") / site / "log.sqlite", site) as log:
            found[site] = len(list(log.entries("budget.opened")))
    return found


def test_a_spent_budget_stays_spent(lasting: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main([*lasting, "out=second"]) == 1  # nobody answers, so there is no quorum
    for site in ("site-01", "site-02"):
        with Log(Path("sites") / site / "log.sqlite", site) as log:
            refusals = [entry.body["rule"] for entry in log.entries("release.refused")]
        assert set(refusals) == {"budget_exhausted"}
    assert budgets() == {"site-01": 1, "site-02": 1}
    assert main(["privacy", "status", "second", "--json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert (row["paid"], row["charges"]) == (1, 2)
        assert row["spent"] <= row["epsilon"] == 1
        assert row["refusals"] >= 1
    # Without cosigners nobody would notice a copy from yesterday's backup, which would pay again.
    assert main([*lasting, "out=alone", "audit.cosigners=0"]) == 2
    said = capsys.readouterr().err
    assert "audit.cosigners=0 with a signed budget at site-01" in said
    assert "an old copy of its folder would spend the budget once more" in said


@pytest.mark.parametrize("export", ["under another name", "with another row"])
def test_the_same_patients_exported_again_open_no_fresh_budget(
    export: str, lasting: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    table(Path("again.csv"), ["p99,50,yes"] if export == "with another row" else [])
    Path("again.csv.schema.yaml").write_text(SCHEMA)
    words: list[Any] = [word.replace("own.csv", "again.csv") for word in lasting]
    assert main([*words, "out=second"]) == 2
    said = capsys.readouterr().err
    found = "founded with other records" if export == "with another row" else "registered as own"
    assert found in said
    assert "expected" in said
    assert "found" in said
    assert not Path("second").exists()
    assert budgets() == {"site-01": 1, "site-02": 1}
