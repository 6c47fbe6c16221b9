"""Says which processes a hospital runs, as whom, with which environment, and how they are doing."""

import json
import os
import re
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.knock import KNOCK, SETTINGS
from fedkd.deploy.lines import TEXT
from fedkd.deploy.node_words import ANYWHERE, untrusted, without_tunnel
from fedkd.deploy.others_files import opened_to_append, read_end
from fedkd.deploy.preparing import AUTHORITY, HOME, LOGS, NODE_KEY, Whose
from fedkd.deploy.shims import SHARED, SHIMS
from fedkd.deploy.socket import Away, Frame, Kind, connected, request
from fedkd.deploy.supervising import (
    TURN_SECONDS,
    Program,
    behind_a_pipe,
    is_supervised,
    state_of,
    supervisor_of,
)
from fedkd.federation.flower import QUIET
from fedkd.federation.flower.guarded import SHARED_VARIABLE
from fedkd.federation.flower.node import LAST_WORDS, PROXY, REFUSED, VARIABLES
from fedkd.knowledge.bad_input import BadInput

SERVICE, LETTERBOX, NODE, METRICS = "service", "letterbox", "node", "metrics"
HALVES: Final = (SERVICE, LETTERBOX)
STATUS_SECONDS: Final = 5.0
_LISTENS_SECONDS: Final = 1.0
NODE_RETRY_SECONDS: Final = 15.0
"""Flower lets a node that ended without a word in again once its heartbeat has lapsed."""
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
_PASSED_ON: Final = ("LANG", "LC_ALL", "TZ", "TMPDIR", "HTTPS_PROXY", "https_proxy",
                     "FLWR_SUPEREXEC_TASK_POLL_INTERVAL", *VARIABLES)  # fmt: skip
_SERVICE_ALSO: Final = ("FEDKD_ACCEPT_LOG_ON_NETWORK_DISK",)
_LOOPBACK: Final = "127.0.0.1,localhost,::1"
_CONNECTED: Final = ("SuperNode ID:", "Connection successful")
_NOT_CONNECTED: Final = (
    PROXY,
    "Connection attempt failed",
    "Starting Flower SuperNode",
    "Exit Code:",
)
_EXIT: Final = re.compile(r"Exit Code: (\d+)")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_TAIL_BYTES: Final = 1 << 16


def programs(
    hospital: Hospital,
    who: Whose,
    halves: Sequence[str] = HALVES,
    *,
    keep_network: bool = False,
    log_format: str = TEXT,
    metrics: int | None = None,
    key: bytes | None = None,
) -> list[Program]:
    """What runs at `hospital`: the site service, and the letterbox with Flower's node.

    For the letterbox nothing but its own folder is read here. With `metrics`, a port, its half
    serves figures on loopback. `key` opens a locked hospital, and is the service's alone.
    """
    made = []
    if SERVICE in halves:
        made.append(_service(hospital, who, keep_network, log_format, key))
    if LETTERBOX in halves:
        made += _letterbox(hospital, who)
        if metrics is not None:
            made.append(_metrics(hospital, who, metrics))
    return made


def letterbox_environment(letterbox: Path) -> dict[str, str]:
    """All that the letterbox's processes are told: nothing of whoever started them."""
    home = str(letterbox / HOME)
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    around = [os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    no_proxy = ",".join([*dict.fromkeys(filter(None, around)), _LOOPBACK])
    return {
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        **passed,
        **QUIET,
        **_ONE_THREAD,
        "PATH": os.pathsep.join([str(letterbox / SHIMS), "/usr/bin", "/bin"]),
        "HOME": home,
        "FLWR_HOME": home,
        SHARED_VARIABLE: str(letterbox / SHARED),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "PYTHONUNBUFFERED": "1",
    }


def _service(
    hospital: Hospital, who: Whose, keep_network: bool, log_format: str, key: bytes | None
) -> Program:
    passed = {n: os.environ[n] for n in (*_PASSED_ON[:4], *_SERVICE_ALSO) if n in os.environ}
    more = [] if who.group is None else ["--group", str(who.group)]
    more += ["--keep-network"] if keep_network else []
    more += ["--log-format", log_format] if log_format != TEXT else []
    return Program(
        SERVICE,
        [sys.executable, "-I", "-m", "fedkd.deploy.service", str(hospital.folder), *more],
        {
            **passed,
            **_ONE_THREAD,
            "PATH": "/usr/bin:/bin",
            "HOME": str(hospital.folder),
            "PYTHONUNBUFFERED": "1",
        },
        hospital.folder,
        hospital.run / "service.log",
        ready=lambda: _listens(hospital.socket),
        explain=_last_line,
        end_seconds=TURN_SECONDS,
        secret=key,
        log_mode=0o600,  # what went wrong with records is none of the letterbox's business
    )


def _letterbox(hospital: Hospital, who: Whose) -> list[Program]:
    folder = hospital.letterbox
    told = letterbox_settings(folder)
    environment = letterbox_environment(folder)
    logs = folder / LOGS
    box = Program(
        LETTERBOX,
        [sys.executable, "-I", "-m", "fedkd.deploy.letterbox", str(folder)],
        environment,
        folder,
        logs / "letterbox.log",
        who.user,
        who.group,
        # Before the node asks for messages somebody must be there to answer them.
        ready=lambda: _listens(folder / KNOCK) and _listens(Path(told["service"])),
        explain=_last_line,
    )
    node = Program(
        NODE,
        [
            sys.executable, "-I", "-m", "fedkd.federation.flower.node",
            "--superlink", told["address"],
            "--root-certificates", str(folder / AUTHORITY),
            "--auth-supernode-private-key", told.get("node_key", str(folder / NODE_KEY)),
            "--host", "127.0.0.1",
        ],
        environment,
        folder,
        logs / "node.log",
        who.user,
        who.group,
        explain=lambda tail: explain_node(tail, told["address"]),
        more=lambda: ("--port", str(free_port())),  # somebody may take one before it is used
    )  # fmt: skip
    return [box, node]


def _metrics(hospital: Hospital, who: Whose, port: int) -> Program:
    folder = hospital.letterbox
    return Program(
        METRICS,
        [sys.executable, "-I", "-m", "fedkd.deploy.site_metrics", str(folder), str(port)],
        letterbox_environment(folder),
        folder,
        folder / LOGS / "metrics.log",
        who.user,
        who.group,
        explain=_last_line,
    )


def letterbox_settings(letterbox: Path) -> dict[str, str]:
    """What the letterbox was told; `BadInput` where nobody prepared it."""
    try:
        told: dict[str, str] = json.loads((letterbox / SETTINGS).read_text())
    except (OSError, ValueError):
        raise BadInput(
            f"no {SETTINGS} in {letterbox}",
            "a letterbox that the site service prepared",
            "start that first: fedkd site start HOSPITAL --only service",
        ) from None
    return told


def explain_node(tail: str, place: str = ANYWHERE) -> tuple[str, float]:
    """Why Flower's node ended, from the end of its log, and how long to wait at least.

    `place` is the host and port that it asks.
    """
    if (why := untrusted(tail, place)) is not None:
        return why, NODE_RETRY_SECONDS
    if words := LAST_WORDS.findall(tail):
        kind, said = words[-1]
        return said, NODE_RETRY_SECONDS if kind == REFUSED else 0.0
    codes = _EXIT.findall(tail)
    if not codes:
        return _last_line(tail)
    if codes[-1] == "305":
        return (
            "the coordinator does not let this node in (305): it is not admitted yet, was "
            "revoked, or the time since it last ended is too short",
            NODE_RETRY_SECONDS,
        )
    return f"Flower's exit code {codes[-1]}", 0.0


def connection_of(letterbox: Path) -> bool | None:
    """Whether the node reached the coordinator, by its log since its start; None: not running."""
    where = running_in(letterbox)
    node = (state_of(where).get(NODE) or {}) if where is not None else {}
    if node.get("pid") is None:
        return None
    begun_at = node.get("log_from")  # its user's word, which may be anything
    return reached(letterbox, begun_at if isinstance(begun_at, int) and begun_at > 0 else 0)


def reached(letterbox: Path, begun_at: int = 0) -> bool | None:
    """Whether the node's log says that it reached the coordinator; None: there is no such log.

    What stands before `begun_at` bytes is of an earlier start, and says nothing of this one.
    """
    said = _said_by_node(letterbox, begun_at)
    return None if said is None else _reached(said.splitlines())


def refused_by_proxy(letterbox: Path, address: str) -> str:
    """What the hospital's proxy says to a node on its way to `address`; "" where it is not that."""
    return without_tunnel(_said_by_node(letterbox) or "", address)


def _said_by_node(letterbox: Path, begun_at: int = 0) -> str | None:
    try:
        end = read_end(letterbox / LOGS / "node.log", _TAIL_BYTES, begun_at)
    except OSError:
        return None
    return end.decode(errors="replace")


def _reached(lines: Sequence[str]) -> bool:
    for line in reversed(lines):
        if any(mark in line for mark in _CONNECTED):
            return True
        if LAST_WORDS.match(line) or any(mark in line for mark in _NOT_CONNECTED):
            return False
    # A log so long that its beginning is out of sight is one of messages that came and went.
    return len(lines) > 100


def running_in(letterbox: Path) -> Path | None:
    """The folder of the supervisor that runs the letterbox: the hospital's run/, or its own."""
    for folder in (letterbox.parent / "run", letterbox / HOME):
        if is_supervised(folder) and NODE in state_of(folder):
            return folder
    return None


def service_of(hospital: Hospital) -> dict[str, Any] | None:
    """What the site service says of itself; None where it is not there."""
    try:
        reply = request(hospital.socket, Frame(Kind.STATUS), STATUS_SECONDS)
        told: dict[str, Any] = json.loads(reply.body) if reply.kind is Kind.STANDING else {}
    except (Away, ValueError):
        return None
    return told or None


def detach(
    command: Sequence[str],
    log: Path,
    folder: Path,
    seconds: float = 180.0,
    passphrase: bytes | None = None,
) -> int:
    """Starts `command` in the background, in a session of its own; returns its process id.

    It finds a `passphrase` behind a pipe. Waits until it holds the lock in `folder`; `BadInput`
    with the end of `log` where it ended.
    """
    environment: Mapping[str, str] = os.environ
    with os.fdopen(opened_to_append(log, 0o600), "ab") as out, behind_a_pipe(passphrase) as pipe:
        begun_at = os.fstat(out.fileno()).st_size
        more = [] if pipe is None else ["--passphrase-file", f"/dev/fd/{pipe}"]
        started = subprocess.Popen(  # noqa: S603  # our own command
            [*command, *more],
            pass_fds=() if pipe is None else (pipe,),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(environment),
            start_new_session=True,
        )
    until = time.monotonic() + seconds
    while supervisor_of(folder) != started.pid:
        if started.poll() is not None or time.monotonic() > until:
            said = read_end(log, _TAIL_BYTES, begun_at).decode(errors="replace").strip()
            raise BadInput(f"a start that failed ({said[-500:]})", "running processes")
        time.sleep(0.1)
    return started.pid


def _listens(path: Path) -> bool:
    try:
        with connected(path, _LISTENS_SECONDS):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A port of loopback that nobody listens on just now."""
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _last_line(tail: str) -> tuple[str, float]:
    lines = [line for line in _COLOUR.sub("", tail).splitlines() if line.strip()]
    return (lines[-1].strip()[-300:] if lines else "", 0.0)
