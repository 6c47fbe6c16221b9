"""A supervisor asks no more than it has to, and is not kept out by who only looks at its lock."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedkd.deploy.socket import connected, listening
from fedkd.deploy.supervising import Program, Supervisor, is_supervised, state_of, supervisor_of
from tests.deploy.services import until

STAYS = "import time; time.sleep(600)"
ENDS = "pass"


def program(
    folder: Path, name: str, code: str, ready: Callable[[], bool] = lambda: True
) -> Program:
    words = [sys.executable, "-c", code]
    return Program(name, words, {}, folder, folder / f"{name}.log", ready=ready)


@contextmanager
def forked(folder: Path, *programs: Program) -> Iterator[int]:
    """A supervisor of these, in a process of its own."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            Supervisor(folder, programs, lambda line: None).run()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_a_program_that_stands_still_is_not_buried_under_looks(tmp_path: Path) -> None:
    """Its queue would be full of them, and a letter turned away that it would have answered."""
    path = tmp_path / "socket"
    with listening(path, 0o600, backlog=2):  # nobody accepts
        first = program(tmp_path, "stays", STAYS, ready=lambda: listens(path))
        with forked(tmp_path, first, program(tmp_path, "ends", ENDS)):
            # Started again a second later, and two after that: more looks than there is room for.
            until(lambda: state_of(tmp_path).get("ends", {}).get("restarts", 0) > 2)
            with connected(path, 1.0):
                pass


def listens(path: Path) -> bool:
    with connected(path, 1.0):
        return True


def test_who_looks_whether_a_supervisor_runs_keeps_none_from_starting(
    tmp_path: Path,
) -> None:
    """As `fedkd site status` does, at the very moment of a start."""
    lock = tmp_path / "start.lock"
    with lock.open("ab") as looks:
        fcntl.flock(looks, fcntl.LOCK_SH)
        with forked(tmp_path, program(tmp_path, "stays", STAYS)) as pid:
            until(lambda: lock in opened_by(pid))
            assert not state_of(tmp_path)
            fcntl.flock(looks, fcntl.LOCK_UN)
            until(lambda: state_of(tmp_path).get("stays", {}).get("pid"))
            assert supervisor_of(tmp_path) == pid
    assert not is_supervised(tmp_path)


def opened_by(pid: int) -> list[Path]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found.append(link.readlink())
    return found
