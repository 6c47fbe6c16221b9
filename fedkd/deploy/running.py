"""Keeps a coordinator's SuperLink and proxy running in the foreground, and ends both cleanly."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from fedkd.deploy import proxy, superlink
from fedkd.deploy.authority import ending, expect_leaf
from fedkd.deploy.coordinator import reconcile
from fedkd.deploy.lines import Line
from fedkd.deploy.locked import opened_server, place_in_memory, plain_forms
from fedkd.deploy.memory import laid_out
from fedkd.deploy.metrics import expect_free
from fedkd.deploy.server_folder import ServerFolder
from fedkd.deploy.superlink import CannotTell, untold
from fedkd.deploy.supervising import (
    FIRST_WAIT,
    LONGEST_WAIT,
    STEADY_SECONDS,
    behind_a_pipe,
    end_with_parent,
    kill_group,
)
from fedkd.federation.durable import write_bytes
from fedkd.knowledge import BadInput

SERVER: Final = "server"
SUPERLINK: Final = "superlink"
PROXY: Final = "nginx"
METRICS: Final = "metrics"
READY: Final = "ready"
START_SECONDS: Final = 120.0
_ENDS: Final = {SUPERLINK: 15.0, PROXY: 5.0, METRICS: 3.0}
"""Seconds that each is given to end by itself."""
_OF_SUPERLINK: Final = (b"flower-superexec", b"flwr-serverapp")
_MOST_LOG: Final = 32 << 20
_LOOK_SECONDS: Final = 0.5


def start(
    server: ServerFolder, told: Callable[[str], None] = print, *, metrics: int | None = None
) -> int:
    """Runs the SuperLink and the proxy until SIGTERM or SIGINT; returns an exit status.

    0 where it was told to end, 1 where one of the two ended by itself: both are down then, and
    whoever supervises starts them again. SIGHUP gives the proxy its certificate anew. `BadInput`
    where something cannot be right, before anything is started. With `metrics`, a port, figures
    are served there on loopback; what serves them may end without ending the rest, and is
    started again.
    """
    settings = server.settings()
    proxy.nginx()
    server.federation()
    opened_server(server.folder)
    expect_leaf(server.keys, settings.host)
    server.write_home(settings)
    server.write_proxy(settings)
    for warning in ending(server.keys):
        told(Line(f"WARNING: {warning}", level="warning"))
    with (
        _Signals() as signals,  # before anybody can find this process
        _alone(server),
        _key_laid_out(server),
        _Processes(server) as processes,
    ):
        proxy.expect_valid(server.folder)
        if metrics is not None:
            expect_free(metrics)
        port = settings.superlink_port
        told(Line(f"starting the SuperLink on {superlink.HOST}:{port} ...", event="starting"))
        link = processes.begin(
            SUPERLINK, superlink.command(server, settings), superlink.environment(server)
        )
        superlink.wait_until_healthy(server, settings, link, START_SECONDS)
        for line in reconcile(server):
            told(line)
        proxy.forget(server.folder)
        front = processes.begin(PROXY, proxy.command(server.folder), untold())
        if not proxy.came_up(server.folder, front, START_SECONDS):
            raise CannotTell(f"the proxy did not listen within {START_SECONDS:g} seconds")
        if (gone := processes.gone()) is None:
            write_bytes(server.folder / "pids" / READY, b"")
            said = f"{settings.name} is reached at {settings.address}, by its fleet interface alone"
            told(Line(said, event="ready", address=settings.address))
            figures = None if metrics is None else _Figures(server, processes, metrics, told)
            gone = _watch(server, processes, signals, figures)
    if gone is None:
        told(Line("ended", event="ended"))
        return 0
    said = f"error: found {gone} ended, expected it running; see {_log(server, gone)}"
    told(Line(said, level="error", event="ended", program=gone))
    return 1


def _key_laid_out(server: ServerFolder) -> AbstractContextManager[None]:
    """The certificate's key in memory, where it is sealed: SuperLink and proxy read it there."""
    place = place_in_memory(server.folder)
    forms = plain_forms(server.folder, [server.keys / "server.key"])
    return nullcontext() if place is None else laid_out(place, forms)


def _metrics_command(server: ServerFolder, port: int) -> list[str]:
    program = [sys.executable, "-I", "-m", "fedkd.deploy.server_metrics"]
    return [*program, str(server.folder), str(port)]


def start_detached(server: ServerFolder, more: Sequence[str] = ()) -> int:
    """Starts the same in the background, with `more` words; its process id once it is ready."""
    running = pid_of(server, SERVER)
    if running is not None:
        raise _already(running)
    (server.folder / "pids" / READY).unlink(missing_ok=True)
    log, opened = _log(server, SERVER), opened_server(server.folder)
    said = None if opened is None else opened.passphrase
    with log.open("ab") as out, behind_a_pipe(said) as pipe:
        words = ["server", "start", str(server.folder), *more]
        words += [] if pipe is None else ["--passphrase-file", f"/dev/fd/{pipe}"]
        process = subprocess.Popen(  # noqa: S603 - our own words, no shell
            [sys.executable, "-m", "fedkd", *words],
            pass_fds=() if pipe is None else (pipe,),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + START_SECONDS + 30
    while not (server.folder / "pids" / READY).exists():
        if process.poll() is not None or time.monotonic() > until:
            with suppress(ProcessLookupError):
                process.terminate()
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise CannotTell(f"it did not start: {''.join(last)} (see {log})")
        time.sleep(0.2)
    return process.pid


def stop(server: ServerFolder, seconds: float = 40.0) -> bool:
    """Ends what runs, and waits until it has; False where nothing ran."""
    pid = pid_of(server, SERVER)
    left = [pid_of(server, name) for name in (PROXY, SUPERLINK)]
    if pid is None and not any(left):
        return False
    for one in (pid,) if pid is not None else left:
        _tell(one, signal.SIGTERM)
    until = time.monotonic() + seconds
    names = (SERVER, PROXY, SUPERLINK)
    while any(pid_of(server, name) for name in names) and time.monotonic() < until:
        time.sleep(0.1)
    for name in names:
        _tell(pid_of(server, name), signal.SIGKILL)
    return True


def pid_of(server: ServerFolder, name: str) -> int | None:
    """The process that runs here under this name; None where it does not, or is another one."""
    pid, started = _written(server, name)
    return pid if pid and _started(pid) == started else None


def _written(server: ServerFolder, name: str) -> tuple[int, str]:
    """The process started last under this name since the machine did, and when; (0, "") if none."""
    try:
        pid, started, *boot = (server.folder / "pids" / f"{name}.pid").read_text().split()
        return (int(pid), started) if boot in ([], [_boot()]) else (0, "")
    except (OSError, ValueError):
        return 0, ""


def tell_to_reload(server: ServerFolder) -> bool:
    """Has a running proxy take its certificate again; False where none runs."""
    pid = pid_of(server, PROXY)
    if pid is None:
        return False
    proxy.expect_valid(server.folder)
    proxy.reload(pid)
    return True


class _Processes:
    """The two processes; on leaving they are ended, the proxy first, whatever happened."""

    def __init__(self, server: ServerFolder) -> None:
        self._server = server
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "_Processes":
        for name in (METRICS, PROXY, SUPERLINK):  # of a coordinator that was killed
            _end_stray(self._server, name)
        for left in _orphans(self._server):
            _end(left, signal.SIGKILL)
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._running):
            process = self._running[name]
            process.terminate()
            try:
                process.wait(_ENDS[name])
            except subprocess.TimeoutExpired:
                kill_group(process.pid)
                process.wait()
            kill_group(process.pid)  # what it started
            (self._server.folder / "pids" / f"{name}.pid").unlink(missing_ok=True)

    def begin(
        self, name: str, command: Sequence[str], environment: dict[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Starts one; its output goes to its log. It ends when this process does."""
        with _log(self._server, name).open("ab") as out:
            process = subprocess.Popen(  # noqa: S603 - our own words, no shell
                list(command),
                env=environment,
                cwd=self._server.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - no threads here
            )
        self._running[name] = process
        _write_pid(self._server, name, process.pid)
        return process

    def gone(self) -> str | None:
        """The first that ended by itself, of those without which nothing works."""
        ended = (name for name, p in self._running.items() if p.poll() is not None)
        return next((name for name in ended if name != METRICS), None)

    def runs(self, name: str) -> bool:
        """Whether one was started, and has not ended."""
        return name in self._running and self._running[name].poll() is None

    def reload(self) -> None:
        """The proxy takes its certificate again."""
        proxy.reload(self._running[PROXY].pid)


class _Figures:
    """Has figures served; what serves them is started again after a while, should it end."""

    def __init__(
        self, server: ServerFolder, processes: _Processes, port: int, told: Callable[[str], None]
    ) -> None:
        self._server, self._processes, self._port, self._told = server, processes, port, told
        self._wait = FIRST_WAIT
        self._due: float | None = None
        self._begin()

    def look(self) -> None:
        """One look at it."""
        if self._processes.runs(METRICS):
            return
        if self._due is None:
            if time.monotonic() - self._began > STEADY_SECONDS:
                self._wait = FIRST_WAIT
            self._due = time.monotonic() + self._wait
            said = f"WARNING: {METRICS} ended, see {_log(self._server, METRICS)}; "
            said += f"it is started again in {self._wait:.0f} s"
            self._told(Line(said, level="warning", event="ended", program=METRICS))
            self._wait = min(self._wait * 2, LONGEST_WAIT)
        elif time.monotonic() >= self._due:
            self._begin()

    def _begin(self) -> None:
        self._began, self._due = time.monotonic(), None
        command = _metrics_command(self._server, self._port)
        self._processes.begin(METRICS, command, untold())


class _Signals:
    """What this process was told meanwhile; the handlers of before come back on leaving."""

    def __init__(self) -> None:
        self.ends = False
        self.reloads = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "_Signals":
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._before[each] = signal.signal(each, self._told)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() returned

    def _told(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reloads = True
            return
        if self.ends:
            raise KeyboardInterrupt
        self.ends = True


def _watch(
    server: ServerFolder, processes: _Processes, signals: _Signals, figures: _Figures | None
) -> str | None:
    """Waits until it is told to end (None), or one of the two has ended (its name)."""
    looked = time.monotonic()
    while not signals.ends:
        if (gone := processes.gone()) is not None:
            return gone
        if figures is not None:
            figures.look()
        if signals.reloads:
            signals.reloads = False
            processes.reload()
        if time.monotonic() - looked > 60:
            looked = time.monotonic()
            for name in (SUPERLINK, PROXY, METRICS):
                _keep_small(_log(server, name))
            _keep_small(server.folder / "nginx" / "logs" / "access.log")
        time.sleep(_LOOK_SECONDS)
    return None


@contextmanager
def _alone(server: ServerFolder) -> Iterator[None]:
    """`BadInput` where this folder's coordinator runs already, or is being started."""
    running = pid_of(server, SERVER)
    if running is not None and running != os.getpid():
        raise _already(running)
    with (server.folder / "pids" / "start.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _already(pid_of(server, SERVER)) from None
        _write_pid(server, SERVER, os.getpid())
        try:
            yield
        finally:
            (server.folder / "pids" / READY).unlink(missing_ok=True)
            (server.folder / "pids" / f"{SERVER}.pid").unlink(missing_ok=True)


def _already(pid: int | None) -> BadInput:
    as_which = "" if pid is None else f", as process {pid}"
    return BadInput(f"it running already{as_which}", "none", "fedkd server stop ends it")


def _end_stray(server: ServerFolder, name: str) -> None:
    """Ends what a killed coordinator left of a program: itself, and what it had started.

    A proxy whose master was killed, too, leaves workers that hold the port.
    """
    pid = pid_of(server, name)
    _end(pid, signal.SIGTERM)
    until = time.monotonic() + _ENDS[name]
    while pid_of(server, name) is not None and time.monotonic() < until:
        time.sleep(0.1)
    number, _ = _written(server, name)
    if pid_of(server, name) is not None or _started(number) is None:  # else it is somebody else's
        for left in _of_session(number):
            _end(left, signal.SIGKILL)


def _of_session(leader: int) -> list[int]:
    """The processes of a session, each of which this program starts with its own (setsid)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, PermissionError):
            if leader and os.getsid(int(path.name)) == leader:
                found.append(int(path.name))
    return found


def _orphans(server: ServerFolder) -> list[int]:
    """What Flower started for a SuperLink of this folder, in sessions of their own.

    What conducts a run outlives a SuperLink that ended early: it would hold the run, and say at
    last that it failed, while somebody goes on with it.
    """
    found, home = [], f"FLWR_HOME={server.folder / 'home'}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words, told = ((path / name).read_bytes() for name in ("cmdline", "environ"))
            if any(it in words for it in _OF_SUPERLINK) and home in told.split(b"\0"):
                found.append(int(path.name))
    return found


def _tell(pid: int | None, number: int) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _end(pid: int | None, number: int) -> None:
    """The same to what was left behind; what may not be ended is not of this folder."""
    with suppress(PermissionError):
        _tell(pid, number)


def _write_pid(server: ServerFolder, name: str, pid: int) -> None:
    """With the start of process and machine: a number is given to another process some day."""
    written = f"{pid} {_started(pid)} {_boot()}\n"
    write_bytes(server.folder / "pids" / f"{name}.pid", written.encode())


def _boot() -> str:
    """What this start of the machine is called (random(4)); "unknown" where it has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _started(pid: int) -> str | None:
    """When a process started, in words of the system's own; None where none runs."""
    if not pid:
        return None
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self").exists() else _runs(pid)
    state, *fields = said.rpartition(") ")[2].split()  # proc(5): the name may hold anything
    return None if state == "Z" else fields[18]  # field 22, starttime


def _runs(pid: int) -> str | None:
    """Where there is no /proc: that it runs is all that can be said."""
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "unknown"


def _log(server: ServerFolder, name: str) -> Path:
    return server.folder / "superlink" / f"{name}.log"


def _keep_small(path: Path) -> None:
    """Moves what a log holds aside once it is large; whoever writes to it goes on."""
    if path.exists() and path.stat().st_size > _MOST_LOG:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)  # opened for appending by its writer
