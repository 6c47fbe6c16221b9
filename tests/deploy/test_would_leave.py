"""What a paper says would leave is counted at the hospital: it is no claim of whoever asks."""

from dataclasses import replace

import pytest

from fedkd.audit import Log
from fedkd.wire import Considered, Ruling
from tests.deploy.federated import Federated
from tests.deploy.test_policy import propose


@pytest.mark.parametrize("name", ["messages", "rows", "classes", "bytes"])
@pytest.mark.parametrize("rehearsal", [False, True], ids=["a run", "a rehearsal"])
def test_a_run_whose_paper_says_other_numbers_is_declined(
    federated: Federated, name: str, rehearsal: bool
) -> None:
    true = federated.proposed(rehearsal=rehearsal).proposal()
    told = {**true.would_leave, name: true.would_leave[name] - 1}
    reply = propose(federated, replace(true, would_leave=told))
    assert isinstance(reply, Considered)
    assert reply.ruling is Ruling.DECLINED
    east = federated.hospitals["east"]
    with Log((east.rehearsal if rehearsal else east.site) / "log.sqlite", "east") as log:
        (refused,) = log.entries("release.refused")
    assert refused.body["reason"] == (
        f"{name} in would_leave: found {told[name]}, expected {true.would_leave[name]}"
    )
