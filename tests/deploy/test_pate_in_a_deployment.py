"""A deployed run whose hospitals answer in shards: proposed, shown, cut off, and paid for once."""

from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.cli import main
from fedkd.cli.run import open_run
from fedkd.deploy.approving import shown
from fedkd.federation.paying import ledger_of
from fedkd.privacy.planning import epsilon_of_cost
from tests.deploy.federated import SITES, Federated, approve, table, taken_in
from tests.deploy.test_runs_in_process import Dying

pytestmark = pytest.mark.long
PATE = {"name": "pate", "shards": 8}
BUDGET, EPSILON = 4.0, 1.5
REPLIES = 13
"""After so many the server is killed: within the second round."""


def rows_of(site: str) -> list[dict[str, Any]]:
    """A hospital's rows, two of each patient."""
    rows = [row for row in table() if row["clinic"] == site]
    return [{**row, "patient": f"p{number // 2}"} for number, row in enumerate(rows)]


@pytest.fixture(params=["patient", "record"])
def federated(request: pytest.FixtureRequest, tmp_path: Path) -> Federated:
    """Hospitals whose file says whose row it is, or does not: then a paper is of records."""
    unit = request.param
    paper = {"epsilon": BUDGET, "mechanisms": ["pate"], "unit": unit}
    patient = "patient" if unit == "patient" else None
    rows = {site: rows_of(site) for site in SITES}
    return Federated.made(tmp_path / "all", rows, mechanism=PATE, patient=patient, **paper)


def expect_paid_once(log: Log, site: str, after: float) -> None:
    """One batch for both rounds, whose queries are the same, and no more than a person was shown.

    By itself it costs `EPSILON`; the budget counts at the order that suits all of it, and so says
    more of a plan that is less.
    """
    bodies = [entry.body for entry in log.entries("budget.charged")]
    (batch,) = (it for it in bodies if it["cost"]["event"] != "NoOp")
    ledger = ledger_of(log, site)
    assert (batch["queries"], ledger.delta is None) == (30, False)
    alone = epsilon_of_cost(ledger.filter, None, batch["cost"], ledger.delta or 0.0)
    assert EPSILON - 0.01 < alone <= EPSILON
    assert EPSILON < ledger.spent() <= BUDGET
    assert ledger.spent() == pytest.approx(after, abs=1e-9)


def test_answers_of_shards_are_paid_once_in_a_run_that_was_cut_off(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    federated.conducted(federated.proposed("mechanism=pate", rehearsal=True))
    run = federated.proposed("mechanism=pate", f"mechanism.epsilon={EPSILON}")
    taken_in(federated, run)
    after = {}
    for site, hospital in federated.hospitals.items():
        seen = shown(hospital, run.proposal(), federated.build)
        assert seen.objection is None
        assert (seen.price.mechanism, seen.price.plan) == ("pate", EPSILON)
        assert seen.price.after is not None
        after[site] = seen.price.after
    approve(federated, run)
    with pytest.raises(KeyboardInterrupt):
        federated.conducted(run, Dying(federated, REPLIES))
    again = open_run(str(run.folder))
    assert again.told()["round"] == 2
    folder = federated.conducted(again)
    for site, hospital in federated.hospitals.items():
        with Log(hospital.site / "log.sqlite", site) as log:
            expect_paid_once(log, site, after[site])
            rounds = [entry.body["round"] for entry in log.entries("release.outputs")]
            noise = {it.body["dp"]["noise"] for it in log.entries("train.local") if it.body["dp"]}
        assert rounds == [1, 2]
        assert noise == {"operating system"}
    assert main(["audit", "verify", str(folder)]) == 0
    for hospital in federated.hospitals.values():
        assert main(["audit", "verify", str(hospital.site / "log.sqlite")]) == 0
    capsys.readouterr()
