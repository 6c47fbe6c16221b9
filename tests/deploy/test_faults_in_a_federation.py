"""What a federation of real processes does when a part of it is killed, slow, cut off or wrong."""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme

from fedkd.federation.asking import SILENT
from tests.deploy.federated import SEED, SITES, students, table
from tests.deploy.federations import needs_nginx
from tests.deploy.listening import Address, is_loopback, listened_on, processes_of
from tests.deploy.live import Live, admitted, named
from tests.deploy.network_servers import federation as another_server
from tests.deploy.services import until
from tests.stories.hospitals import Hospitals, fedkd, logged, told

pytestmark = [pytest.mark.deploy, needs_nginx]
ROWS = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
OPEN = (f"seed={SEED}", "rounds=3")
PRIVATE = {"name": "dp_training", "epsilon": 0.5, "steps": 5}
TOO_LATE = 20.0
"""Seconds that a site has to answer, where one is to miss them; a busy machine takes a few."""
EAST, NORTH, WEST = SITES


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live(tmp_path_factory.mktemp("open") / "all", ROWS) as running:
        yield running


@pytest.fixture(scope="module")
def unbroken(live: Live) -> Path:
    return live.run(*OPEN)


def begun(live: Live, *overrides: str) -> "tuple[subprocess.Popen[bytes], Path]":
    """A run whose first round is posed."""
    process, out = live.begin(*overrides)
    live.say_yes(out)
    happened(process, out, "/1/posed")
    return process, out


def happened(process: "subprocess.Popen[bytes]", out: Path, ending: str) -> None:
    """Waits until the server's log of a run has an entry whose key ends like this."""

    def there() -> bool:
        assert process.poll() is None, (out.parent.parent.parent / f"{out.name}.out").read_text()
        return logged(out / "server" / "log.sqlite", ending)

    until(there, 300.0, every=0.02)


def open_round(out: Path) -> int:
    """The round whose answers are waited for."""
    number = 1
    while logged(out / "server" / "log.sqlite", f"/{number + 1}/posed"):
        number += 1
    return number


@contextmanager
def held(live: Live, site: str, out: Path) -> Iterator[int]:
    """The open round of a run, which waits for a site whose service stands still meanwhile."""
    while True:
        with live.frozen(site):
            number = open_round(out)
            if number not in read_of(live, site, named(out)):
                yield number
                return
        until(lambda number=number: open_round(out) > number, every=0.02)  # it was too quick


def read_of(live: Live, site: str, run: str) -> list[int]:
    """As `rounds_of`, of a log whose lock somebody may hold who stands still."""
    log = live.sites[site] / "site" / "log.sqlite"
    with closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as database:
        said = database.execute("SELECT body FROM entries WHERE type = 'release.outputs'")
        bodies = [json.loads(body) for (body,) in said]
    return [it["round"] for it in bodies if it["run"] == run]


def rounds_of(live: Live, site: str, run: str) -> list[int]:
    """The rounds of a run that a site gave an answer in, by its own log."""
    return [it["round"] for it in live.log(site).released(run)]


def consistent(live: Live, out: Path) -> None:
    """Every log of a run verifies, and the server's consensus follows from the answers."""
    assert "CONSISTENT" in fedkd("audit", "verify", out)
    for folder in live.sites.values():
        assert "CONSISTENT" in fedkd("audit", "verify", folder / "site" / "log.sqlite")


def test_a_server_killed_between_rounds_and_in_one_goes_on_to_the_same_student(
    live: Live, unbroken: Path
) -> None:
    process, out = begun(live, *OPEN)
    happened(process, out, "/1/combined")
    live.kill_server()
    process.wait(60)
    live.start_server()
    live.connected(*SITES)
    process, _ = live.begin(resume=out)
    happened(process, out, "/3/posed")
    live.kill_server()
    process.wait(60)
    assert not (out / "student.safetensors").exists()
    live.start_server()
    live.connected(*SITES)
    live.run(resume=out)
    assert students(out) == students(unbroken)
    assert admitted(out) == admitted(unbroken)
    for site in SITES:
        assert rounds_of(live, site, named(out)) == [1, 2, 3]
    consistent(live, out)


def test_a_site_slow_past_the_deadline_is_missed_and_heard_in_a_later_round(live: Live) -> None:
    process, out = begun(live, "rounds=4", f"deadline={TOO_LATE}")
    with held(live, NORTH, out) as missed:
        happened(process, out, f"/{missed + 1}/posed")
    live.ended(process, out)
    took, summary = admitted(out), json.loads((out / "summary.json").read_text())
    (north,) = (it for it in summary["clients"] if it["site"] == NORTH)
    assert {"round": missed, "reason": SILENT} in north["left_out"]
    assert set(took[missed]) == {EAST, WEST}
    assert NORTH in took[4]
    assert len(took) == 4


def test_a_site_cut_off_for_half_a_minute_is_back_in_the_same_run(live: Live) -> None:
    process, out = begun(live, "rounds=4")
    node = live.process(EAST)["pid"]
    with held(live, NORTH, out) as missed:  # so that there is a round to come back to
        live.lines[EAST].cut()
        until(lambda: not live.is_connected(EAST), every=0.2)
        time.sleep(30)
        assert process.poll() is None
        live.lines[EAST].mend()
        live.connected(EAST)
        Hospitals.connected(live, EAST)  # as the coordinator sees it: else it asks the others alone
    live.ended(process, out)
    took = admitted(out)
    assert {NORTH, WEST} <= set(took[missed])
    assert set(took[4]) == set(SITES)
    assert live.process(EAST)["pid"] == node
    consistent(live, out)


def test_nothing_listens_at_a_hospital_beyond_loopback_and_its_own_sockets(live: Live) -> None:
    """All through a run, in all of its processes, whichever network each has."""
    process, out = begun(live, "rounds=2")
    where = live.sites[EAST]
    by_address: set[Address] = set()
    by_name: set[str] = set()
    while process.poll() is None:
        for one in processes_of(where):
            addresses, names = listened_on(one)
            by_address |= addresses
            by_name |= names
        time.sleep(0.1)
    live.ended(process, out)
    assert by_address  # Flower's node has one for its own
    assert all(map(is_loopback, by_address)), by_address
    folder = str(where.resolve())
    assert any(name.startswith(folder) for name in by_name)  # the service's, and the letterbox's
    assert all(name.startswith(folder) for name in by_name), by_name


def test_a_listener_beyond_loopback_is_seen() -> None:
    here = Path(f"/proc/{os.getpid()}")
    with socket.socket(socket.AF_INET6) as six, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for one in (six, datagrams):
            one.bind(("", 0))
        six.listen()
        ports = {one.getsockname()[1] for one in (six, datagrams)}
        addresses, _ = listened_on(here)
        assert ports <= {port for host, port in addresses if not is_loopback((host, port))}


def test_a_handshake_that_was_cut_short_is_tried_again(live: Live) -> None:
    before = live.process(EAST)["pid"]
    live.lines[EAST].deaden()
    until(lambda: not live.is_connected(EAST), every=0.2)
    assert told("site", "status", live.sites[EAST])["connected"] is not True
    live.lines[EAST].mend()
    live.connected(EAST)
    assert live.process(EAST)["pid"] == before


def test_a_certificate_of_somebody_else_ends_the_node_and_is_told(live: Live) -> None:
    with (
        another_server(trustme.CA(), host="127.0.0.1") as port,
        live.lines[WEST].led_to(port),
    ):
        until(lambda: "certificate there is not trusted" in live.process(WEST)["said"])
        assert not live.is_connected(WEST)
        assert "certificate there" in fedkd("site", "status", live.sites[WEST])
    live.connected(WEST)
    assert live.process(WEST)["restarts"] > 0


def test_a_node_whose_executor_died_is_started_again(live: Live) -> None:
    node = live.process(WEST)["pid"]
    (executor,) = children(node)
    os.kill(executor, 9)
    until(lambda: live.process(WEST)["pid"] not in (node, None))
    assert "flower-superexec" in live.process(WEST)["said"]
    live.connected(WEST)


def children(parent: int) -> list[int]:
    return [int(it) for it in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


CLOCK = Path(__file__).with_name("clock.c")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to shift a clock with")
def test_a_wrong_clock_is_told_in_words_and_waited_for(live: Live, tmp_path: Path) -> None:
    shim, shift = tmp_path / "clock.so", tmp_path / "seconds"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, CLOCK, "-ldl"], check=True)
    shift.write_text("60\n")
    live.stop(EAST)
    live.start(EAST, node={"LD_PRELOAD": str(shim), "FEDKD_TEST_CLOCK": str(shift)})
    try:
        until(lambda: "clock is" in live.process(EAST).get("said", ""))
        said = live.process(EAST)["said"]
        # A second is cut off, and what a call took, which is seconds on a busy machine.
        assert re.search(r"clock is (5\d|60|61) s ahead of the coordinator's", said)
        assert "time server" in said
        status = fedkd("site", "status", live.sites[EAST])
        assert said in status
        assert not live.is_connected(EAST)
        shift.write_text("0\n")
        live.connected(EAST)
        shift.write_text("-900\n")  # while it is connected
        until(lambda: " s behind the coord" in live.process(EAST)["said"])
        assert not live.is_connected(EAST)
    finally:
        live.stop(EAST)
        live.start(EAST)
    live.connected(EAST)


def test_a_site_killed_in_a_round_comes_back_in_the_run_and_pays_once(tmp_path: Path) -> None:
    keys = {"epsilon": 1.0, "mechanisms": ["dp_training"]}
    with Live(tmp_path / "all", ROWS, mechanism=PRIVATE, **keys) as live:
        process, out = begun(live, "mechanism=dp_training", "rounds=4")
        run = named(out)
        with held(live, NORTH, out) as missed:
            until(lambda: missed in read_of(live, EAST, run), every=0.02)
            live.lines[EAST].cut()  # else half of its answer has come, which is waited for: minutes
            live.kill_site(EAST)
            # Else it may be back before anybody has seen it gone, and its answer is waited for.
            until(lambda: live.connections()[EAST] == "offline")
            live.lines[EAST].mend()
            live.start(EAST)
            live.connected(EAST)
            Hospitals.connected(live, EAST)
            assert open_round(out) == missed
        live.ended(process, out)
        took = admitted(out)
        assert {NORTH, WEST} <= set(took[missed])
        assert set(took[4]) == set(SITES)
        for site in SITES:
            assert live.log(site).charged(run) == [f"{run}/train/charge"]
            rounds = rounds_of(live, site, run)
            assert len(rounds) == len(set(rounds))
        consistent(live, out)
