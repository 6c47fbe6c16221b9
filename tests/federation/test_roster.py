"""Who takes part is who was enrolled: strangers are asked nothing, the absent are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from clients.app import app as client_app
from fedkd.audit import Log
from fedkd.cli.simulate import simulate_one
from fedkd.federation.flower.inprocess import InProcessGrid
from fedkd.federation.rounds import NoQuorum
from fedkd.knowledge import BadInput
from tests.federation.small import finished, founded


def with_a_stranger(run: Any, stranger: Path) -> InProcessGrid:
    folders = [*run.sites.values(), stranger]
    return InProcessGrid(client_app, [{"site": str(folder)} for folder in folders])


def test_a_site_that_nobody_enrolled_is_logged_and_asked_nothing(tmp_path: Path) -> None:
    other = founded(tmp_path / "other", "clients.count=4")
    run = founded(tmp_path / "run")
    finished(run, with_a_stranger(run, other.sites["site-04"]))
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        told = [entry.body["name"] for entry in log.entries("error.raised")]
        asked = {
            site for entry in log.entries("answers.admitted") for site in entry.body["answers"]
        }
    assert told == ["site-04"]
    assert asked == {"site-01", "site-02", "site-03"}
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["bytes_up"] == sum(client["bytes_up"] for client in summary["clients"])


def test_absent_sites_count_against_the_quorum_and_are_named(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", "quorum=0.6", "deadline=1")
    grid = InProcessGrid(client_app, [{"site": str(run.sites["site-01"])}])
    with pytest.raises(NoQuorum, match="site-03: the client is not connected"):
        finished(run, grid)


def test_a_consensus_of_one_is_refused_whatever_the_quorum(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", "quorum=0.01", "deadline=1")
    grid = InProcessGrid(client_app, [{"site": str(run.sites["site-01"])}])
    with pytest.raises(NoQuorum, match="at least 2 of 3"):
        finished(run, grid)


TINY = [
    "data=digits", "data.records=60", "data.test_size=20", "query.size=12", "rounds=1",
    "clients.count=2", "clients.models=[logistic]", "training.local_epochs=1",
    "training.lesson_epochs=1", "student.model=logistic", "student.epochs=1", "report=false",
]  # fmt: skip


def test_a_lasting_hospital_is_never_written_over(tmp_path: Path) -> None:
    lasting = f"sites.dir={tmp_path / 'hospitals'}"
    simulate_one([*TINY, lasting, f"out={tmp_path / 'a'}"])
    train = tmp_path / "hospitals" / "site-01" / "train.npz"
    before = train.read_bytes()
    simulate_one([*TINY, lasting, "rounds=2", f"out={tmp_path / 'b'}"])
    with pytest.raises(BadInput, match="other records"):
        simulate_one([*TINY, lasting, "seed=1", f"out={tmp_path / 'c'}"])
    assert train.read_bytes() == before


@pytest.mark.parametrize("data", ["breast_cancer", "digits"])
def test_a_bundled_public_set_of_another_source_fits_or_is_refused(
    data: str, tmp_path: Path
) -> None:
    words = [*TINY, "query=mismatched", f"query.data={data}", f"out={tmp_path / 'run'}"]
    if data == "breast_cancer":
        with pytest.raises(BadInput, match="wrong shape"):
            simulate_one(words)
        return
    _, summary = simulate_one(words)
    assert summary["query_set"]["kind"] == "mismatched"


def test_fedavg_would_send_the_hospitals_own_model_to_those_asked(tmp_path: Path) -> None:
    words = [*TINY, "clients.count=4", "clients.fraction=0.5", f"out={tmp_path / 'run'}"]
    _, summary = simulate_one(words)
    one_way = 4 * (64 * 10 + 10)
    assert summary["fedavg_bytes"] == 2 * one_way * 2
