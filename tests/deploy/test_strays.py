"""What a start ends of an earlier coordinator's: its own processes, and nobody else's."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fedkd.deploy.running import PROXY, _boot, _end_stray, _write_pid, pid_of
from fedkd.deploy.server_folder import ServerFolder
from tests.deploy.federations import coordinator
from tests.deploy.services import SECONDS
from tests.deploy.two_users import GROUP, LETTERBOX, as_user

LEADER = """
import subprocess, sys
nothing = subprocess.DEVNULL
left = subprocess.Popen(["/bin/sleep", "300"], stdin=nothing, stdout=nothing, stderr=nothing)
print(left.pid, flush=True)
sys.stdin.read()
"""
"""A session's first process, which leaves another one behind: as a proxy's master its workers."""
ANOTHER_BOOT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def server() -> Iterator[ServerFolder]:
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield coordinator(Path(made))


@contextmanager
def left_of_a_proxy(server: ServerFolder) -> Iterator[int]:
    """A worker, written down under its master's number, which has ended."""
    master = subprocess.Popen(
        [sys.executable, "-I", "-c", LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert master.stdout is not None
    worker = int(master.stdout.readline())
    try:
        _write_pid(server, PROXY, master.pid)
        assert pid_of(server, PROXY) == master.pid
        master.communicate()
        assert pid_of(server, PROXY) is None
        yield worker
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def ends(pid: int, seconds: float) -> bool:
    """Whether a process that nobody here waits for has ended by then."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], seconds)[0])
    finally:
        os.close(process)


def test_what_a_proxy_left_is_ended(server: ServerFolder) -> None:
    with left_of_a_proxy(server) as worker:
        _end_stray(server, PROXY)
        assert ends(worker, SECONDS)


def test_what_was_written_before_the_machine_started_names_nobody(server: ServerFolder) -> None:
    """After a power cut: the number is a stranger's by now."""
    with left_of_a_proxy(server) as stranger:
        written = server.folder / "pids" / f"{PROXY}.pid"
        written.write_text(written.read_text().replace(_boot(), ANOTHER_BOOT))
        _end_stray(server, PROXY)
        assert not ends(stranger, 0.5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become two others")
def test_what_may_not_be_ended_is_somebody_elses_and_ends_no_start(server: ServerFolder) -> None:
    with left_of_a_proxy(server) as stranger:
        for path in (server.folder, *server.folder.rglob("*")):
            os.chown(path, LETTERBOX, GROUP)
        as_user(LETTERBOX, lambda: _end_stray(server, PROXY))
        assert not ends(stranger, 0.5)
