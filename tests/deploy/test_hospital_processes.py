"""A hospital's real processes: its service, its letterbox, Flower's node, and a coordinator."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedkd.cli.app import run as fedkd_in_process
from fedkd.deploy.apart import warnings_at_start, warnings_of
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.knock import KNOCK
from fedkd.deploy.preparing import Whose
from fedkd.deploy.socket import Frame, Kind, request
from fedkd.deploy.starting import HALVES, service_of
from fedkd.deploy.supervising import state_of, supervisor_of
from fedkd.wire import RollCall, decode, encode
from tests.deploy.federations import coordinator, enrolled, fedkd, needs_nginx, told
from tests.deploy.services import SECONDS, until
from tests.deploy.test_founding import AMERICAN, SCHEMA, Made

pytestmark = pytest.mark.deploy
HEAVY = ("libtorch", "/pandas/", "/sklearn/", "/scipy/")


def process_of(hospital: Hospital, name: str) -> int | None:
    pid: int | None = state_of(hospital.run).get(name, {}).get("pid")
    return pid


def answers(hospital: Hospital, *, but: int | None = None) -> int:
    """The service's process once it answers; another one than `but`.

    It may be quicker than its supervisor, which writes down what it has started.
    """
    until(lambda: process_of(hospital, "service") not in {None, but})
    until(lambda: service_of(hospital))
    pid = process_of(hospital, "service")
    assert pid is not None
    return pid


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
    first = answers(hospital)
    assert until(lambda: service_of(hospital))["network"] == "none"
    devices = Path(f"/proc/{first}/net/dev").read_text().splitlines()[2:]
    assert {line.split(":")[0].strip() for line in devices} == {"lo"}
    assert not warnings(hospital, "not cut off")

    reply = request(hospital.socket, Frame(Kind.ANSWER, encode(RollCall("run-1"))), SECONDS)
    assert decode(reply.body, 1 << 20).run == "run-1"

    again = fedkd("site", "start", hospital.folder, "--only", "service")
    assert again.returncode == 2
    assert "running already" in again.stderr

    os.kill(first, signal.SIGKILL)
    answers(hospital, but=first)
    assert told("site", "status", hospital.folder)["running"] is True

    assert fedkd("site", "stop", hospital.folder).stdout == "stopped\n"
    assert supervisor_of(hospital.run) is None
    assert not hospital.socket.exists()
    assert fedkd("site", "stop", hospital.folder).stdout == "nothing was running\n"


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can take the right to leave a network away from a process",
)
def test_a_service_that_cannot_be_cut_off_from_the_network_does_not_start(
    hospital: Hospital,
) -> None:
    done = tied("site", "start", hospital.folder, "--only", "service", "--detach")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot be cut off from the network" in done.stderr
    assert "--keep-network" in done.stderr
    served = tied(module="fedkd.deploy.service", words=(hospital.folder,))
    assert served.returncode == 2, "nor does it where it is started by itself"
    assert "cannot be cut off from the network" in served.stderr
    assert service_of(hospital) is None
    done = tied("site", "start", hospital.folder, "--only", "service", "--keep-network", "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING: the site service, which holds the records, is not cut off" in done.stdout
    answers(hospital)
    until(lambda: warnings(hospital, "not cut off"))
    said = "WARNING: the site service"
    until(lambda: said in fedkd("site", "status", hospital.folder).stdout)
    assert "not cut off" in (hospital.run / "service.log").read_text()


def tied(*words: object, module: str = "fedkd", **more: Any) -> "subprocess.CompletedProcess[str]":
    """A command of ours without the right to make a network of its own."""
    words = more.get("words", words)
    rights = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    return subprocess.run(
        [*rights, sys.executable, "-m", module, *map(str, words)],
        capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def warnings(hospital: Hospital, saying: str) -> list[str]:
    """The warnings of `fedkd site status --json` with these words."""
    found: Any = told("site", "status", hospital.folder)["warnings"]
    return [warning for warning in found if saying in warning]


def test_halves_that_run_as_one_user_are_warned_of(hospital: Hospital) -> None:
    done = fedkd("site", "start", hospital.folder, "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    said, log = "WARNING: both halves run as one user", hospital.run / "start.log"
    assert said in done.stdout
    until(lambda: log.exists() and said in log.read_text())
    until((hospital.letterbox / KNOCK).exists)
    until(lambda: warnings(hospital, "both halves run as one user"))
    assert fedkd("site", "stop", hospital.folder).returncode == 0
    assert not warnings(hospital, "both halves run as one user"), "nothing runs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a half as somebody else")
def test_halves_that_run_as_two_users_are_not_warned_of(hospital: Hospital) -> None:
    who = Whose(65534, 65534)
    assert warnings_at_start(hospital, who, HALVES, keep_network=False) == []
    (knock, listens) = hospital.letterbox / KNOCK, hospital.socket
    for path in (knock, listens):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.chown(knock, 65534, -1)
    assert warnings_of(hospital, {"network": "none"}) == []
    os.chown(knock, 0, -1)
    (warning,) = warnings_of(hospital, {"network": "none"})
    assert "as root fedkd site start HOSPITAL --letterbox-user USER" in warning
    listens.unlink()


def test_nothing_outlives_a_supervisor_that_was_killed(hospital: Hospital) -> None:
    start(hospital, "--only", "service")
    service, supervisor = answers(hospital), supervisor_of(hospital.run)
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{service}").exists())
    until(lambda: supervisor_of(hospital.run) is None)
    start(hospital, "--only", "service")
    answers(hospital, but=service)
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
        until(lambda: told("site", "status", hospital.folder)["connected"] is True)

        out = tmp_path / "run"
        ran = fedkd(
            "run", "--federation", server.folder, "rehearsal=true", "query=synthetic",
            "generator=dictionary", "query.size=20", "rounds=2", "student.model=logistic",
            "training.local_epochs=1", "training.lesson_epochs=1", "student.epochs=1",
            "mechanism=none", f"out={out}", seconds=600,
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
