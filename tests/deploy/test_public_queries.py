"""A deployed run whose queries are records that nobody's patients are in, allowed by the policy."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedkd.audit import Log
from fedkd.cli.deployed import DeployedRun
from fedkd.federation.rounds import NoQuorum
from fedkd.wire import Considered, Ruling
from tests.deploy.federated import Federated, approve, table, taken_in, write_csv

SOURCE = "own.csv, held out"


def proposed(federated: Federated, **query_sets: Any) -> DeployedRun:
    """A run on a coordinator's own file, at hospitals that allow these query sets."""
    for hospital in federated.hospitals.values():
        typed = yaml.safe_load(hospital.site_yaml.read_text())
        typed["policy"]["query_sets"] = {"generators": [], **query_sets}
        hospital.site_yaml.write_text(yaml.safe_dump(typed, sort_keys=False))
    own = own_records(federated.server.folder.parent)
    return federated.proposed("query=public", f"data.path={own}")


def own_records(folder: Path) -> Path:
    rows = [{**row, "pulse": row["pulse"] + 0.005} for row in table(90)]
    return write_csv(
        folder / "own.csv", [{k: v for k, v in r.items() if k != "clinic"} for r in rows]
    )


def test_a_public_source_that_the_policy_names_is_answered(federated: Federated) -> None:
    run = proposed(federated, sources=[SOURCE])
    assert run.proposal().query["source"] == SOURCE
    taken_in(federated, run)
    approve(federated, run)
    folder = federated.conducted(run)
    with Log(folder / "server" / "log.sqlite", "server") as log:
        posed = [entry.body for entry in log.entries("queries.posed")]
        admitted = [set(entry.body["answers"]) for entry in log.entries("answers.admitted")]
    assert {one["digest"] for one in posed} == {run.proposal().query["digest"]}
    assert admitted == [set(federated.hospitals)] * 2


def test_a_public_set_may_be_allowed_by_its_digest_alone(federated: Federated) -> None:
    digest = proposed(federated).proposal().query["digest"]
    run = proposed(federated, digests=[digest])
    assert run.proposal().query["digest"] == digest
    taken_in(federated, run)
    approve(federated, run)
    federated.conducted(run)


def test_a_public_set_that_nobody_listed_is_declined(federated: Federated) -> None:
    run = proposed(federated, sources=["another"])
    ruled = taken_in(federated, run)
    assert all(
        isinstance(one, Considered) and one.ruling is Ruling.DECLINED for one in ruled.values()
    )
    with pytest.raises(NoQuorum, match="declined"):
        federated.conducted(run)
