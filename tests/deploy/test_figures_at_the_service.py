"""Two hospitals' real service processes are asked for counts: charged, noised, killed, reported."""

from collections.abc import Iterator

import numpy as np
import pytest

from fedkd.cli import main
from fedkd.wire import Considered, Proposal, Refusal
from fedkd.wire import Reason as Why
from tests.deploy.conftest import PRIVATE
from tests.deploy.federated import Federated, approve, table
from tests.deploy.figured import FIGURES, entries, proposed
from tests.deploy.services import Service, SocketGrid, services
from tests.deploy.test_figures import rows_of, spent

pytestmark = pytest.mark.deploy
SITES = ("east", "north")
World = tuple[Federated, dict[str, Service]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rows = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
    federated = Federated.made(
        tmp_path_factory.mktemp("figures") / "all", rows, mechanism=PRIVATE,
        policy={"figures": ["counts"]}, more={"evaluations": FIGURES, "validation": 0.4},
        epsilon=6.0, mechanisms=["dp_training"], evaluation_groups=["sex"],
    )  # fmt: skip
    with services(federated) as running:
        yield federated, running


def test_counts_come_from_service_processes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    federated, running = world
    run = federated.proposed("mechanism=dp_training")
    _agreed(world, run)
    federated.conducted(run, SocketGrid(federated, running))
    before = {site: spent(federated, site) for site in SITES}
    evaluation = proposed(run, epsilon=3.0, group="sex")
    question = evaluation.proposal().question()
    refused = running["east"].said(question)
    assert isinstance(refused, Refusal)  # nobody approved it yet; and nobody was heard of lately
    assert refused.reason in (Why.NOT_APPROVED, Why.NOT_FRESH)
    _agreed(world, evaluation)
    told = federated.evaluated(evaluation, _Killing(federated, running))
    rows = rows_of(told)
    assert rows["north"]["answered"]
    assert not rows["east"]["answered"]  # killed when the question came
    running["east"].start()
    again = rows_of(federated.evaluated(evaluation, SocketGrid(federated, running)))
    assert all(row["answered"] and row["noise"] == "geometric" for row in again.values())
    assert again["north"] == rows["north"]  # asked twice, and paid for once
    for site in SITES:
        assert before[site] < spent(federated, site) <= before[site] + 3.0
        counts = [it for it in running[site].released(run.id) if it["kind"] == "confusion counts"]
        assert len(counts) == 1
    both = entries(run.folder / "server", "server", "evaluation.done")
    assert [set(one["answers"]) for one in both] == [{"north"}, {"east", "north"}]
    assert main(["audit", "verify", str(run.folder)]) == 0
    capsys.readouterr()


class _Killing(SocketGrid):
    """The service of east is killed, as by kill -9, before an evaluation reaches it."""

    def __init__(self, federated: Federated, running: dict[str, Service]) -> None:
        def between(site: str, letter: bytes) -> None:
            if site == "east" and b'"kind":"evaluation"' in letter:
                running["east"].kill()
                raise TimeoutError

        super().__init__(federated, running, between)


def _agreed(world: World, made: object) -> None:
    """The proposal comes in through the sockets, and people say yes."""
    federated, running = world
    body, signature = made.paper()  # type: ignore[attr-defined]
    letter = Proposal(made.proposal().run, np.frombuffer(body, np.uint8), signature)  # type: ignore[attr-defined]
    for site in SITES:
        assert isinstance(running[site].said(letter), Considered)
    approve(federated, made)  # type: ignore[arg-type]
