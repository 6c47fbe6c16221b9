"""What a killed coordinator leaves, its proxy's workers and Flower's, is ended by the next one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedkd.deploy.running import PROXY, SERVER, pid_of, stop
from fedkd.deploy.server_folder import ServerFolder
from tests.deploy.federations import coordinator, fedkd, needs_nginx
from tests.deploy.services import SECONDS, until

pytestmark = [pytest.mark.deploy, needs_nginx]


def started(server: ServerFolder) -> None:
    done = fedkd("server", "start", server.folder, "--detach")
    assert done.returncode == 0, done.stderr


def workers_of(master: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-s", str(master)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split() if int(pid) != master]


def state_of(pid: int) -> str:
    """One letter of proc(5): T is stopped, Z has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_what_a_killed_coordinator_left_is_ended_by_the_next(tmp_path: Path) -> None:
    server = coordinator(tmp_path)
    started(server)
    try:
        supervisor, master = pid_of(server, SERVER), pid_of(server, PROXY)
        assert supervisor is not None
        assert master is not None
        left = until(lambda: workers_of(master))
        os.kill(supervisor, signal.SIGSTOP)  # so that it cannot clean up after the proxy
        until(lambda: state_of(supervisor) == "T")
        os.kill(master, signal.SIGKILL)
        until(lambda: state_of(master) == "Z")
        assert set(left) <= set(workers_of(master))
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: pid_of(server, SERVER) is None)
        started(server)
        until(lambda: not set(left) & set(workers_of(master)))
        assert pid_of(server, PROXY) not in (None, master)
    finally:
        stop(server)


def conductor(home: Path) -> "subprocess.Popen[bytes]":
    """Like Flower's process that conducts a run, which waits for a SuperLink that was killed."""
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)", "flwr-serverapp"],
        env={**os.environ, "FLWR_HOME": str(home)}, start_new_session=True,
    )  # fmt: skip


def test_what_conducted_a_run_for_a_killed_coordinator_is_ended_by_the_next(tmp_path: Path) -> None:
    server = coordinator(tmp_path)
    left, elsewhere = conductor(server.folder / "home"), conductor(tmp_path / "home")
    try:
        started(server)
        assert left.wait(SECONDS) == -signal.SIGKILL
        assert elsewhere.poll() is None  # of another coordinator
    finally:
        stop(server)
        for process in (left, elsewhere):
            process.kill()
            process.wait()
