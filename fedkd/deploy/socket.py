"""What letterbox and site service say to each other: framed bytes over a Unix socket.

A frame is four bytes that name the protocol and its version, one byte for what it is, eight bytes
for the length of its body (big-endian), and the body. A request has one reply. Whoever sends
anything else is not answered any more on that connection.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Final, NamedTuple

MAGIC: Final = b"fks1"
HEAD_BYTES: Final = len(MAGIC) + 1 + 8
MOST_LETTER_BYTES: Final = 1 << 30
"""Of a question or an answer, with its envelope."""
MOST_OTHER_BYTES: Final = 1 << 16
"""Of everything else."""
LEAST_PACE: Final = 1 << 20
"""Bytes a second that whoever sends a large frame keeps up, on the whole."""
CONNECT_SECONDS: Final = 10.0
"""How long one waits for a place in the queue at a socket."""
_CHUNK: Final = 1 << 20
_QUEUED_SECONDS: Final = 0.05
_MOST_PATH: Final = 100
"""Bytes of a socket's path: sun_path has 108 of them on Linux, 104 elsewhere."""


class Kind(IntEnum):
    """What a frame is."""

    ANSWER = 1
    """A letter from the network; the reply is ANSWERED or REFUSED."""
    STATUS = 2
    """Asks how the service is; the reply is STANDING."""
    TELL = 3
    """Something was refused at the letterbox (one of `Told`), to be remembered; reply HEARD."""
    FIGURES = 4
    """Asks for numbers that may be watched: budget, round, length of the log; reply STANDING."""
    ANSWERED = 17
    STANDING = 18
    HEARD = 19
    REFUSED = 31
    """One of `Why`."""


class Told(StrEnum):
    """What a letterbox refuses by itself."""

    AGENTAPP = "task flwr-agentapp"
    SERVERAPP = "task flwr-serverapp"
    MODEL = "task flwr-model"
    CONNECTOR = "task flwr-connector"
    SIMULATION = "task flwr-simulation"
    BUNDLE = "bundle"
    MALFORMED = "malformed"
    VERSION = "version"


class Why(StrEnum):
    """Why the service does not do what a frame asks: all that it ever says."""

    UNKNOWN_REQUEST = "unknown_request"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    STOPPING = "stopping"
    FAILED = "failed"


class BadFrame(ValueError):
    """Bytes that are no frame; `why` is what the other side is told."""

    def __init__(self, why: Why) -> None:
        self.why = why
        super().__init__(f"found a frame that is {why}")


class Away(OSError):
    """Nobody is at the other end, or it went before it had answered."""


class Frame(NamedTuple):
    """One request or reply."""

    kind: Kind
    body: bytes = b""

    def to_bytes(self) -> bytes:
        """The frame as it is sent."""
        return MAGIC + bytes([self.kind]) + len(self.body).to_bytes(8, "big") + self.body


REQUESTS: Final = frozenset({Kind.ANSWER, Kind.STATUS, Kind.TELL, Kind.FIGURES})
_LARGE: Final = frozenset({Kind.ANSWER, Kind.ANSWERED})


def receive(
    connection: socket.socket,
    has_room: Callable[[int], bool] = lambda size: True,
    seconds: float | None = None,
) -> Frame | None:
    """The next frame; None where the other side ended the connection before one began.

    `BadFrame` for anything else than a frame of a known kind and an allowed size, for which there
    is room, before its body is read. Memory grows with what arrives, never with what was announced.

    With `seconds`, nothing is waited for longer than that; and once a frame has begun, its head and
    its body have as long each, and a second more for each `LEAST_PACE` bytes that came, before
    `TimeoutError` ends it: whoever trickles holds nobody up. It is the connection's timeout after.
    """
    if seconds is not None:
        connection.settimeout(seconds)
    first = connection.recv(1)
    if not first:
        return None
    head = first + _exactly(connection, HEAD_BYTES - 1, seconds)
    if not head.startswith(MAGIC):
        raise BadFrame(Why.MALFORMED)
    try:
        kind = Kind(head[len(MAGIC)])
    except ValueError:
        raise BadFrame(Why.UNKNOWN_REQUEST) from None
    size = int.from_bytes(head[-8:], "big")
    if size > (MOST_LETTER_BYTES if kind in _LARGE else MOST_OTHER_BYTES):
        raise BadFrame(Why.TOO_LARGE)
    if not has_room(size):
        raise BadFrame(Why.TOO_MANY)
    return Frame(kind, _exactly(connection, size, seconds))


def send(connection: socket.socket, frame: Frame) -> None:
    """Sends one frame whole; `OSError` where the other side is gone."""
    connection.sendall(frame.to_bytes())


def request(path: Path, frame: Frame, timeout_s: float | None = None) -> Frame:
    """The service's reply to one request; `Away` where there is no service, or it ends meanwhile.

    `timeout_s` bounds each step; None waits for a reply as long as a turn takes.
    """
    try:
        with connected(path, timeout_s) as connection:
            # Whoever refuses early may have said why; unix(7) has both of one that closed.
            with suppress(BrokenPipeError, ConnectionResetError):
                send(connection, frame)
            reply = receive(connection)
    except BadFrame:
        raise Away("found something else than the site service at the socket") from None
    except OSError as error:
        raise Away(f"found no site service at its socket ({error.strerror})") from None
    if reply is None:
        raise Away("found the connection closed before a reply")
    return reply


@contextmanager
def connected(path: Path, timeout_s: float | None = None) -> Iterator[socket.socket]:
    """A connection to the socket at `path`, however long that is; `timeout_s` bounds each step.

    `BlockingIOError` where nobody accepts it in time, for `CONNECT_SECONDS` at most.
    """
    with _reachable(path) as short, socket.socket(socket.AF_UNIX) as connection:
        _connect(connection, short, CONNECT_SECONDS if timeout_s is None else timeout_s)
        connection.settimeout(timeout_s)
        yield connection


@contextmanager
def listening(path: Path, mode: int, backlog: int = 16) -> Iterator[socket.socket]:
    """A socket that listens at `path` with file mode `mode`; one that is left over is replaced.

    Its name is taken away at the end, unless somebody else listens there by then.
    """
    path.unlink(missing_ok=True)
    with _reachable(path) as short, socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o777 & ~mode)  # never wider than `mode`, not even for a moment
        try:
            listener.bind(short)
        finally:
            os.umask(before)
        path.chmod(mode)
        made = path.lstat()
        listener.listen(backlog)
        try:
            yield listener
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(made, path.lstat()):  # the socket keeps its number taken
                    path.unlink()


def _connect(connection: socket.socket, address: str, seconds: float) -> None:
    """Waits `seconds` for a place in the queue: a `connect` that blocks has no end (unix(7))."""
    connection.setblocking(False)
    until = time.monotonic() + seconds
    while True:
        try:
            connection.connect(address)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(_QUEUED_SECONDS)
        else:
            return


@contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket's address."""
    if len(os.fsencode(path)) < _MOST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # proc(5), /proc/pid/fd
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _exactly(connection: socket.socket, size: int, seconds: float | None) -> bytes:
    parts, missing, began = [], size, time.monotonic()
    while missing:
        if seconds is not None:
            left = time_left(seconds, time.monotonic() - began, size - missing)
            if left <= 0:
                raise TimeoutError("found a frame that trickles")
            connection.settimeout(left)
        part = connection.recv(min(missing, _CHUNK))
        if not part:
            raise BadFrame(Why.MALFORMED)
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def time_left(seconds: float, waited: float, arrived: int) -> float:
    """Seconds that are left to whoever is sending, `arrived` bytes in `waited` seconds so far."""
    return min(seconds, seconds + arrived / LEAST_PACE - waited)
