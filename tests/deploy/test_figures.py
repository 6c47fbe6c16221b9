"""A deployed run's student is evaluated: hospitals say yes, count, charge, and are reported."""

from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.cli.deployed import DeployedRun
from fedkd.cli.evaluate_deployed import ProposedEvaluation, propose_evaluation
from fedkd.cli.questioned import question_of
from fedkd.federation.evaluating import Grouping, digest_of_model
from tests.deploy.federated import SITES, Federated, approve, table, taken_in

FIGURES = {"models": ["logistic"], "most_epsilon": 8.0, "floor": 5, "groups": ["sex"]}


def made(folder: Path, **keys: Any) -> Federated:
    rows = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
    policy, more = {"figures": ["counts"]}, {"evaluations": FIGURES, "validation": 0.4}
    return Federated.made(folder, rows, policy=policy, more=more, **keys)


def trained(federated: Federated, *overrides: str) -> DeployedRun:
    """A finished run of them all."""
    run = federated.proposed(*overrides)
    taken_in(federated, run)
    approve(federated, run)
    federated.conducted(run)
    return run


def proposed(
    run: DeployedRun, *, epsilon: float = 1.0, group: str | None = None, sites: str | None = None
) -> ProposedEvaluation:
    model = digest_of_model(run.folder / "student.safetensors")
    question = question_of(run, model, (0.5,), group, epsilon)
    return propose_evaluation(run, question, Grouping(run.dataset().schema, group), sites)


def entries(folder: Path, party: str, type: str) -> list[dict[str, Any]]:
    with Log(folder / "log.sqlite", party) as log:
        return [dict(entry.body) for entry in log.entries(type)]


@pytest.fixture(scope="module")
def founded_open(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federated, DeployedRun]:
    federated = made(tmp_path_factory.mktemp("open") / "all")
    return federated, trained(federated)


def test_first(founded_open: tuple[Federated, DeployedRun]) -> None:
    federated, run = founded_open
    evaluation = proposed(run)
    said = taken_in(federated, evaluation)
    print(said)
    approve(federated, evaluation)
    told = federated.evaluated(evaluation)
    print(told)
    assert all(row["answered"] for row in told["sites"])
