"""An answer that was announced and does not come holds up neither its round nor other answers."""

import time
from pathlib import Path

import pytest

from fedkd.federation.asking import CRASHED
from fedkd.federation.flower.pulling import rest_until
from tests.deploy.federated import SITES
from tests.deploy.federations import needs_nginx
from tests.deploy.live import Live, admitted, left_out
from tests.deploy.services import until
from tests.deploy.test_faults_in_a_federation import ROWS, begun, held
from tests.stories.hospitals import Hospitals, logged

EAST, NORTH, WEST = SITES
DEADLINE = 60.0
FLOWERS = 160.0
"""Seconds; less than Flower's server waits for the rest of a message that stops (180, 1.41)."""


def test_one_reply_may_take_half_of_the_time_that_is_left() -> None:
    from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
    from flwr.superlink.grid import http_grid

    whole, over = http_grid.pull_objects, time.monotonic() + 8.0

    def pull(named: str) -> bytes:
        if named == "never":
            assert time.monotonic() < over, "it is still asked for"
            raise ObjectUnavailableError(named)
        return named.encode()

    with rest_until(over):
        with pytest.raises(ObjectPullError):
            http_grid.pull_objects(object_ids=["never"], pull_object_fn=pull)
        pulled = http_grid.pull_objects(object_ids=["here"], pull_object_fn=pull)
    assert pulled == {"here": b"here"}
    assert http_grid.pull_objects is whole


@pytest.mark.long
@needs_nginx
def test_a_round_ends_without_an_answer_that_is_not_sent_whole(tmp_path: Path) -> None:
    with Live(tmp_path / "all", ROWS) as live:
        live.stop(EAST)
        live.start(EAST, holding=tmp_path)
        live.connected(*SITES)
        Hospitals.connected(live, *SITES)
        process, out = begun(live, "rounds=5", f"deadline={DEADLINE}")
        with held(live, EAST, out) as missed:
            (tmp_path / "hold").touch()
        until((tmp_path / "holds").exists)
        log = out / "server" / "log.sqlite"
        until(lambda: logged(log, f"/{missed + 1}/posed"), FLOWERS)
        (tmp_path / "hold").unlink()
        live.ended(process, out)
        took, without = admitted(out), left_out(out)
        assert set(took[missed]) == {NORTH, WEST}
        assert without[missed] == {EAST: CRASHED}
        assert all({NORTH, WEST} <= set(heard) for heard in took.values())
        assert EAST in took[5]
