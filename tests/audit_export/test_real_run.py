"""A run of `fedkd simulate` is traced to exactly its sources, and every format takes its logs."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.verify import TrustPolicy, read_files
from fedkd.audit.verify.lineage import check_lineage
from fedkd.cli.provenance import export, trace
from fedkd.cli.simulate import simulate_one
from tests.audit_export.federation import checked
from tests.audit_export.test_formats import faults_of, read_croissant, read_prov

# One round in which one of four sites, drawn from the seed, does not answer.
TINY = [
    "data=digits", "data.records=80", "data.test_size=30", "query.size=16", "rounds=1",
    "clients.count=4", "clients.models=[logistic]", "training.local_epochs=1",
    "training.lesson_epochs=1", "student.model=logistic", "student.epochs=1",
    "faults=dropout", "faults.fraction=0.25", "report=false",
]  # fmt: skip
SITES = {"site-01", "site-02", "site-03", "site-04"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traced") / "run"
    simulate_one([*TINY, f"out={folder}"])
    return folder


@pytest.fixture
def told(run: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    assert trace(run, run=None, as_json=True) == 0
    return json.loads(capsys.readouterr().out)


def test_a_site_that_was_left_out_and_a_set_that_nothing_used_are_no_sources(
    run: Path, told: Any
) -> None:
    (admitted,) = checked(run)["server"].bodies("answers.admitted")
    (silent,) = admitted["left_out"]
    assert {source["id"] for source in told["sources"]} == {
        "digits",
        "digits, held out",
        *(f"{site}/digits" for site in SITES - {silent}),
    }
    registered = [body["id"] for body in checked(run)["server"].bodies("dataset.registered")]
    assert "digits, test" in registered  # it was there, and made nothing


def test_each_source_has_licence_legal_basis_origin_and_its_entry(run: Path, told: Any) -> None:
    logs = checked(run)
    for source in told["sources"]:
        assert source["licence"] == "CC BY 4.0"
        assert source["legal_basis"].startswith("No health data")
        assert source["origin"].startswith("UCI Machine Learning Repository")
        party, _, index = source["entry"].partition("#")
        leaf = logs[party].entries[int(index)]
        assert leaf.header.type == "dataset.registered"
        assert leaf.body is not None
        assert leaf.body["id"] == source["id"]
    assert {source["part_of"] for source in told["sources"]} == {None, "digits"}
    assert check_lineage(logs) == told["followed"]


def test_its_students_file_is_the_model_that_is_traced(
    run: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace(run / "student.safetensors", run=None, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["model"] == told["model"]


def test_every_format_takes_its_logs(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(run, out=out, only=None, as_json=False) == 0
    bill = json.loads((out / "student.cdx.json").read_text())
    assert faults_of(bill) == []
    figures = bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    measured = {metric["type"] for metric in figures["performanceMetrics"]}
    assert {"accuracy", "macro_f1"} <= measured
    read_prov(json.loads((out / "lineage.prov.json").read_text()))
    cards = list((out / "croissant").iterdir())
    assert len(cards) == 7
    for card in cards:
        assert read_croissant(json.loads(card.read_text())).ctx.issues.errors == set()


def test_its_tiles_satisfy_the_policy_that_lies_beside_them(run: Path, tmp_path: Path) -> None:
    assert export(run, out=tmp_path / "out", only="tiles", as_json=False) == 0
    for party, log in checked(run).items():
        folder = tmp_path / "out" / "tiles" / party
        leaves, note = read_files(lambda name, folder=folder: (folder / name).read_bytes())
        assert len(leaves) == len(log.entries)
        assert len(note.signatures) > 1
        TrustPolicy.parse((folder / "policy").read_bytes()).verify(log.tree, note)
