"""A deployed run whose student is to be evaluated, for the tests of what hospitals count."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedkd.audit import Log
from fedkd.cli.deployed import DeployedRun
from fedkd.cli.evaluate_deployed import ProposedEvaluation, propose_evaluation
from fedkd.cli.questioned import question_of
from fedkd.cli.run import open_run
from fedkd.deploy.consent import Desk
from fedkd.deploy.roster import read_roster, write_roster
from fedkd.federation.evaluating import Grouping, digest_of_model
from fedkd.wire import (
    Evaluation,
    Proposal,
    decode,
    encode,
)
from tests.deploy.federated import SITES, Federated, approve, table, taken_in

FIGURES = {"models": ["logistic"], "most_epsilon": 8.0, "floor": 5, "groups": ["sex"]}
World = tuple[Federated, DeployedRun]


def made(folder: Path, *, policy: Mapping[str, Any] | None = None, **keys: Any) -> Federated:
    """Hospitals whose policy lets figures out, exact ones where nothing is private."""
    rows = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
    figures = ["counts"] if "mechanism" in keys else ["counts", "exact_counts"]
    policy = {"figures": figures, **(policy or {})}
    more = {"evaluations": FIGURES, "validation": 0.4}
    return Federated.made(folder, rows, policy=policy, more=more, **keys)


def trained(federated: Federated, *overrides: str, without: str = "") -> DeployedRun:
    """A finished run; a hospital `without` whom it was proposed was admitted afterwards."""
    path = federated.server.folder / "roster.json"
    roster = read_roster(path)
    before = tuple(member for member in roster.members if member.site != without)
    write_roster(path, replace(roster, members=before))
    run = federated.proposed(*overrides)
    taken_in(federated, run)
    approve(federated, run, *(site for site in SITES if site != without))
    federated.conducted(run)
    write_roster(path, roster)
    return run


def open_world(folder: Path) -> World:
    """East and north trained, west was admitted afterwards; nothing is private."""
    federated = made(folder)
    return federated, trained(federated, without="west")


def private_world(folder: Path, mechanism: Mapping[str, Any]) -> World:
    """All three trained privately."""
    federated = made(
        folder, mechanism=mechanism, epsilon=6.0,
        mechanisms=["dp_training"], evaluation_groups=["sex"], policy={"fewest_cosigners": 0},
    )  # fmt: skip
    # Without cosigners a question by itself is answered: that is not what is tested by it here.
    return federated, trained(federated, "mechanism=dp_training", "audit.cosigners=0")


def copied(world: World, folder: Path) -> World:
    federated = world[0].copied(folder)
    run = open_run(str(federated.server.folder / "runs" / world[1].folder.name))
    assert isinstance(run, DeployedRun)
    run.coordinator = federated.server.folder
    run.keep(founded=True)
    return federated, run


def proposed(
    run: DeployedRun, *, epsilon: float = 3.0, group: str | None = None, sites: str | None = None
) -> ProposedEvaluation:
    model = digest_of_model(run.folder / "student.safetensors")
    question = question_of(run, model, (0.5,), group, epsilon)
    return propose_evaluation(run, question, Grouping(run.dataset().schema, group), sites)


def agreed(federated: Federated, evaluation: ProposedEvaluation, *sites: str) -> None:
    taken_in(federated, evaluation)
    approve(federated, evaluation, *sites)


def entries(folder: Path, party: str, type: str) -> list[dict[str, Any]]:
    with Log(folder / "log.sqlite", party) as log:
        return [dict(entry.body) for entry in log.entries(type)]


def said(federated: Federated, site: str, message: Evaluation | Proposal) -> Any:
    desk = Desk(federated.hospitals[site].folder, federated.build)
    return decode(desk.handle(encode(message)), 1 << 20)
