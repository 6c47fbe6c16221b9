"""Keeps a hospital's processes running: starts them in order, again after a while, ends them."""

import ctypes
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, TextIO

from fedkd.deploy.hospital import PRIVATE_FILE, write_private
from fedkd.deploy.lines import Line, utc
from fedkd.deploy.lone_lock import taken
from fedkd.deploy.others_files import opened, opened_to_append, read_end
from fedkd.knowledge.bad_input import BadInput

STOPPED: Final = 0
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a process that ended is started again: twice as long each time, up to a minute."""
STEADY_SECONDS: Final = 60.0
"""A process that ran as long as this begins with the shortest wait again."""
TURN_SECONDS: Final = 600.0
"""A turn that trains is let end for as long as this, by the units and containers that ship too."""
STOP_SECONDS: Final = TURN_SECONDS + 60.0
_PATIENT_SECONDS: Final = 3.0
_TICK: Final = 0.2
_MOST_LOG_BYTES: Final = 8 << 20
_TAIL_BYTES: Final = 1 << 14
_MOST_PID: Final = 20
_NOTHING: Final = {"pid": None, "since": None, "restarts": 0, "last_exit": None, "said": ""}
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Program:
    """One process to be kept running.

    `ready` is waited for before the next one starts, and not asked again for as long as it runs:
    one that stands still would find nothing but these questions. `explain` reads the end of its
    log once it has ended: what to say of it, and the least seconds to wait. A `secret` waits for it
    behind the pipe whose number `--key-fd` tells it. `more` are words chosen anew at each start.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    user: int | None = None
    group: int | None = None
    ready: Callable[[], bool] = lambda: True
    explain: Callable[[str], tuple[str, float]] = lambda tail: ("", 0.0)
    end_seconds: float = 10.0
    secret: bytes | None = field(default=None, repr=False)
    log_mode: int = 0o640
    more: Callable[[], Sequence[str]] = tuple


@dataclass(slots=True)
class _Running:
    """A program's process, and what came of the earlier ones."""

    program: Program
    process: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0
    since: str = ""
    restarts: int = 0
    wait: float = FIRST_WAIT
    due: float = 0.0
    is_ready: bool = False
    begun_at: int = 0
    last_exit: int | None = None
    said: str = field(default="")


class Supervisor:
    """Runs programs until SIGTERM, SIGINT, or SIGHUP, as when its terminal is closed.

    One at a time a folder: whoever comes second is told. Each program is let end by itself for its
    `end_seconds`; a second signal ends all at once, but SIGHUP, of which terminals send several.
    `folder` gets `start.lock` with the supervisor's process id, and `state.json`, of this `mode`.
    """

    def __init__(
        self,
        folder: Path,
        programs: Sequence[Program],
        tell: Callable[[str], None] = print,
        mode: int = PRIVATE_FILE,
    ) -> None:
        self._folder, self._mode = folder, mode
        self._all = [_Running(program) for program in programs]
        self._tell = tell
        self._stop = self._at_once = False

    def run(self, meanwhile: AbstractContextManager[None] | None = None) -> int:
        """Starts the programs in order, keeps them, ends them in the opposite order.

        `meanwhile` holds for as long as they run, and is entered by the one who runs them alone.
        """
        alone = _locked(self._folder, self._mode)
        with self._hearing(), alone, meanwhile or nullcontext():
            try:
                while not self._stop:
                    self._look()
                    time.sleep(_TICK)
            finally:
                self._end()
        return STOPPED

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """From before anybody can find this process, by the lock; where it ran, to its very end."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._told) for number in numbers}
        try:
            yield
        except BaseException:
            for number, handler in before.items():
                signal.signal(number, handler)
            raise

    def _told(self, number: int, frame: FrameType | None) -> None:
        self._at_once = self._at_once or (self._stop and number != signal.SIGHUP)
        self._stop = True

    def _look(self) -> None:
        """One look at each: a later program is not started before the earlier ones are ready."""
        changed = False
        for each in self._all:
            if each.process is not None and each.process.poll() is not None:
                self._ended(each)
                changed = True
            if each.process is None and time.monotonic() >= each.due:
                self._begin(each)
                changed = True
            each.is_ready = each.process is not None and (each.is_ready or each.program.ready())
            if not each.is_ready:
                break
        if changed:
            self._write_state()

    def _begin(self, each: _Running) -> None:
        program = each.program
        with suppress(OSError):
            if program.log.lstat().st_size > _MOST_LOG_BYTES:
                program.log.replace(program.log.with_suffix(".log.1"))
        handle = opened_to_append(program.log, program.log_mode)
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode):
            if found.st_uid == os.geteuid():
                os.fchmod(handle, program.log_mode)
            if program.user is not None:
                os.fchown(handle, program.user, -1 if program.group is None else program.group)
        each.begun_at = os.fstat(handle).st_size
        try:
            with behind_a_pipe(program.secret) as pipe:
                key = [] if pipe is None else ["--key-fd", str(pipe)]
                each.process = subprocess.Popen(  # noqa: S603  # a command of ours, no shell
                    [*program.command, *program.more(), *key],
                    stdin=subprocess.DEVNULL,
                    stdout=handle,
                    stderr=handle,
                    env=dict(program.environment),
                    cwd=program.folder,
                    pass_fds=() if pipe is None else (pipe,),
                    start_new_session=True,
                    user=program.user,
                    group=program.group,
                    extra_groups=None if program.user is None else [],
                    preexec_fn=end_with_parent,  # noqa: PLW1509  # no thread is running here
                )
        finally:
            os.close(handle)
        each.began, each.since = time.monotonic(), utc()
        pid = each.process.pid
        said = f"{program.name} started, process {pid}"
        self._tell(Line(said, event="started", program=program.name, pid=pid))

    def _ended(self, each: _Running) -> None:
        process = each.process
        if process is None:
            return
        kill_group(process.pid)  # what it may have left behind
        each.process, each.last_exit, each.is_ready = None, process.returncode, False
        each.restarts += 1
        if time.monotonic() - each.began > STEADY_SECONDS:
            each.wait = FIRST_WAIT
        said, least = each.program.explain(_tail(each.program.log, each.begun_at))
        said = "".join(it if it.isprintable() else " " for it in said)  # the network's words
        wait = max(each.wait, least)
        each.said, each.due = said, time.monotonic() + wait
        each.wait = min(each.wait * 2, LONGEST_WAIT)
        reason = f": {said}" if said else f", see {each.program.log}"
        line = (
            f"{each.program.name} ended with status {process.returncode}{reason}; "
            f"it is started again in {wait:.0f} s"
        )
        self._tell(
            Line(
                line,
                level="warning",
                event="ended",
                program=each.program.name,
                status=process.returncode,
                again_in_s=wait,
            )
        )

    def _end(self) -> None:
        for each in reversed(self._all):
            if each.process is None:
                continue
            each.process.terminate()
            if not self._ended_itself(each.process, each.program.end_seconds):
                self._tell(f"{each.program.name} did not end by itself; it is ended")
            kill_group(each.process.pid)
            each.process.wait()
            each.last_exit, each.process = each.process.returncode, None
        self._write_state()
        self._tell("stopped")

    def _ended_itself(self, process: "subprocess.Popen[bytes]", seconds: float) -> bool:
        until = time.monotonic() + seconds
        while process.poll() is None:
            if self._at_once or time.monotonic() > until:
                return False
            time.sleep(_TICK)
        return True

    def _write_state(self) -> None:
        told = {
            each.program.name: {
                "pid": None if each.process is None else each.process.pid,
                "since": each.since or None,
                "restarts": each.restarts,
                "last_exit": each.last_exit,
                "said": each.said,
                "log_from": each.begun_at,
            }
            for each in self._all
        }
        with suppress(OSError):  # a full disk stops no process
            content = json.dumps(told, indent=2, sort_keys=True).encode()
            write_private(self._folder / "state.json", content, self._mode)


def supervisor_of(folder: Path) -> int | None:
    """The process id of the supervisor that runs in `folder`, or None.

    The letterbox's user writes such a file itself: it can name no process but its own.
    """
    said, owner = _held_by(folder) or ("", 0)
    try:
        pid = int(said.strip() or 0)
        return pid if pid > 1 and _is_of(pid, owner) else None
    except (OSError, ValueError):
        return None


def is_supervised(folder: Path) -> bool:
    """Whether a supervisor runs in `folder`, be it in another container, where no number holds."""
    return _held_by(folder) is not None


def _held_by(folder: Path) -> tuple[str, int] | None:
    """What stands in the lock in `folder`, and whose it is; None where nobody holds it."""
    try:
        with os.fdopen(opened(folder / "start.lock", os.O_RDONLY)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(_MOST_PID), os.fstat(file.fileno()).st_uid
    except (OSError, ValueError):
        pass
    return None


def _is_of(pid: int, user: int) -> bool:
    """Whether a process is a user's own (proc(5)); without /proc, whether that is who asks."""
    if not Path("/proc/self").exists():
        return user == os.geteuid()
    return Path(f"/proc/{pid}").stat().st_uid == user


def expect_alone(folder: Path) -> None:
    """`BadInput` where a supervisor runs in `folder`, whose settings are not to change under it."""
    if supervisor_of(folder) is not None:
        raise _already(folder)


def _already(folder: Path) -> BadInput:
    return BadInput(
        f"{folder}, which is running already",
        "one start at a time",
        "fedkd site stop HOSPITAL, or fedkd site status HOSPITAL",
    )


def state_of(folder: Path) -> dict[str, Any]:
    """What the supervisor last wrote of its processes, by name; empty where it never ran."""
    try:
        told = json.loads(read_end(folder / "state.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(told, dict) or not all(isinstance(it, dict) for it in told.values()):
        return {}
    return {name: {**_NOTHING, **it} for name, it in told.items()}


def stop(folder: Path, seconds: float = STOP_SECONDS) -> bool:
    """Ends the supervisor in `folder` and with it all its processes.

    A turn that trains is let end; Ctrl-C meanwhile ends it at once. False where none ran that this
    user may end: `is_supervised` says whether another one does.
    """
    pid = supervisor_of(folder)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        return False
    try:
        _until_gone(folder, pid, seconds)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        _until_gone(folder, pid, STOP_SECONDS - TURN_SECONDS)
    return True


def _until_gone(folder: Path, pid: int, seconds: float) -> None:
    began, told = time.monotonic(), False
    while supervisor_of(folder) is not None:
        waited = time.monotonic() - began
        if waited > seconds:
            os.kill(pid, signal.SIGKILL)
            return
        if waited > _PATIENT_SECONDS and not told:
            said = f"what runs is let end, a turn for at most {TURN_SECONDS:.0f} s; "
            print(f"{said}Ctrl-C ends it at once", file=sys.stderr)
            told = True
        time.sleep(0.1)


class _locked:  # noqa: N801  # reads as `with _locked(folder)`
    """Holds the lock of a folder's supervisor, with its process id in it."""

    def __init__(self, folder: Path, mode: int) -> None:
        self._path, self._mode = folder / "start.lock", mode
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        try:
            self._file = os.fdopen(opened(self._path, os.O_RDWR | os.O_CREAT), "r+")
        except OSError:
            raise BadInput(
                f"{self._path}, which is no plain file of this user",
                "one that the supervisor made",
                f"rm {self._path}",
            ) from None
        os.fchmod(self._file.fileno(), self._mode)
        if not taken(self._file):
            self._file.close()
            raise _already(self._path.parent)
        with suppress(OSError):  # of whom was killed before: it says nothing of what runs now
            self._path.with_name("state.json").unlink()
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def __exit__(self, *others: object) -> None:
        if self._file is not None:
            self._file.close()


@contextmanager
def behind_a_pipe(secret: bytes | None) -> Iterator[int | None]:
    """The number of a pipe out of which a child that is given it reads `secret`; None for none."""
    if secret is None:
        yield None
        return
    out, into = os.pipe()
    try:
        os.write(into, secret)  # far less than a pipe holds
        os.close(into)
        yield out
    finally:
        os.close(out)


def read_key(pipe: int) -> bytes:
    """What the process that started this one wrote for it; the pipe is closed."""
    with os.fdopen(pipe, "rb") as file:
        return file.read()


def end_with_parent() -> None:
    """In a new process: SIGTERM once the one that started it is gone, were it killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def kill_group(group: int) -> None:
    """SIGKILL to a process group, where there is one."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _tail(log: Path, begun_at: int) -> str:
    try:
        return read_end(log, _TAIL_BYTES, begun_at).decode(errors="replace")
    except OSError:
        return ""
