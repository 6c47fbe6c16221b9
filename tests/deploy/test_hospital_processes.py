"""A hospital's real processes: its service, its letterbox, Flower's node, and a coordinator."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedkd.cli.app import run as fedkd_in_process
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.socket import Frame, Kind, request
from fedkd.deploy.starting import service_of
from fedkd.deploy.supervising import state_of, supervisor_of
from fedkd.wire import RollCall, decode, encode
from tests.deploy.federations import coordinator, enrolled, fedkd, needs_nginx, told
from tests.deploy.test_founding import AMERICAN, SCHEMA, Made

pytestmark = pytest.mark.deploy
HEAVY = ("libtorch", "/pandas/", "/sklearn/", "/scipy/")


def until(reached: Callable[[], Any], seconds: float = 90.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def process_of(hospital: Hospital, name: str) -> int | None:
    pid: int | None = state_of(hospital.run).get(name, {}).get("pid")
    return pid


def answers(hospital: Hospital) -> bool:
    return service_of(hospital) is not None


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    made = Made(tmp_path)
    made.found(made.typed(AMERICAN))
    yield made.hospital
    fedkd_in_process(["site", "stop", str(made.hospital.folder)])


def start(hospital: Hospital, *words: str) -> None:
    done = fedkd("site", "start", hospital.folder, "--detach", *words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_has_no_network_and_comes_back(hospital: Hospital) -> None:
    start(hospital, "--only", "service")
    until(lambda: answers(hospital))
    first = process_of(hospital, "service")
    standing = service_of(hospital)
    assert standing is not None
    if standing["network"] == "none":  # a system that forbids namespaces says so instead
        devices = Path(f"/proc/{first}/net/dev").read_text().splitlines()[2:]
        assert {line.split(":")[0].strip() for line in devices} == {"lo"}
    else:
        assert "could not be taken away" in (hospital.run / "service.log").read_text()

    reply = request(hospital.socket, Frame(Kind.ANSWER, encode(RollCall("run-1"))), 30)
    assert decode(reply.body, 1 << 20).run == "run-1"

    again = fedkd("site", "start", hospital.folder, "--only", "service")
    assert again.returncode == 2
    assert "running already" in again.stderr

    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: process_of(hospital, "service") not in {None, first})
    until(lambda: answers(hospital))
    assert told("site", "status", hospital.folder)["running"] is True

    assert fedkd("site", "stop", hospital.folder).stdout == "stopped\n"
    assert supervisor_of(hospital.run) is None
    assert not hospital.socket.exists()
    assert fedkd("site", "stop", hospital.folder).stdout == "nothing was running\n"


def test_nothing_outlives_a_supervisor_that_was_killed(hospital: Hospital) -> None:
    start(hospital, "--only", "service")
    until(lambda: answers(hospital))
    supervisor, service = supervisor_of(hospital.run), process_of(hospital, "service")
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{service}").exists(), 30)
    start(hospital, "--only", "service")
    until(lambda: answers(hospital))
    supervisor = supervisor_of(hospital.run)
    assert supervisor is not None
    os.kill(supervisor, signal.SIGHUP)  # its terminal was closed: it ends as it does by `site stop`
    until(lambda: supervisor_of(hospital.run) is None)
    assert process_of(hospital, "service") is None


@needs_nginx
def test_a_rehearsal_goes_through_the_letterbox(tmp_path: Path) -> None:
    server = coordinator(tmp_path, schema=SCHEMA)
    joined = enrolled(server, "north", tmp_path / "hospital")
    hospital = Hospital(tmp_path / "hospital")
    made = Made.__new__(Made)
    made.hospital = hospital
    made.found(made.typed(AMERICAN, mechanism="none"))
    try:
        begun = fedkd("server", "start", server.folder, "--detach", seconds=200)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        start(hospital)
        # Nobody admitted this node yet: it says so, and is tried again.
        until(lambda: "305" in state_of(hospital.run).get("node", {}).get("said", ""))
        assert told("site", "status", hospital.folder)["connected"] is not True
        admitted = fedkd("server", "admit", joined.path, "--dir", server.folder, "--yes")
        assert admitted.returncode == 0, admitted.stdout + admitted.stderr
        until(lambda: told("site", "status", hospital.folder)["connected"] is True, 120)

        out = tmp_path / "run"
        ran = fedkd(
            "run", "--federation", server.folder, "rehearsal=true", "query=synthetic",
            "generator=dictionary", "query.size=20", "rounds=2", "student.model=logistic",
            "training.local_epochs=1", "training.lesson_epochs=1", "student.epochs=1",
            "mechanism=none", f"out={out}", seconds=300,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        _expect_what_left_is_kept(hospital)
        _expect_light(hospital)
        status = told("site", "status", hospital.folder)
        rehearsal: Any = status["rehearsal"]
        assert rehearsal["last_question"]["type"] == "release.outputs"
        assert rehearsal["checkpoint"]["cosigned"]["by"] == ["server"]
        assert not list((hospital.letterbox / "home").glob("apps/*"))  # nothing was unpacked
    finally:
        fedkd("site", "stop", hospital.folder)
        fedkd("server", "stop", server.folder)


def _expect_what_left_is_kept(hospital: Hospital) -> None:
    """Every letter that went out is in the letterbox's outbox, and its body in the rehearsal's."""
    letters = [path.read_bytes() for path in (hospital.letterbox / "outbox").iterdir()]
    bodies = {path.read_bytes() for path in (hospital.rehearsal / "outbox").glob("*.bin")}
    answered = [body for body in bodies if any(letter.endswith(body) for letter in letters)]
    assert len(answered) >= 4  # considered, present, two answers
    assert not (hospital.letterbox / "refusals.log").read_text()


def _expect_light(hospital: Hospital) -> None:
    """In the memory of what faces the network lies no library that reads or learns records."""
    for name in ("letterbox", "node"):
        maps = Path(f"/proc/{process_of(hospital, name)}/maps").read_text()
        assert not [heavy for heavy in HEAVY if heavy in maps]
    service = Path(f"/proc/{process_of(hospital, 'service')}/maps").read_text()
    assert "libtorch" in service
