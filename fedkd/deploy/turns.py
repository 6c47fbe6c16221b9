"""Takes letters from connections and hands them, one turn at a time, to whoever answers."""

import errno
import json
import logging
import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from fedkd import __version__
from fedkd.deploy.lines import Line, utc
from fedkd.deploy.offline import network
from fedkd.deploy.socket import BadFrame, Frame, Kind, Told, Why, receive, send

MOST_CONNECTIONS: Final = 8
SMALL_BYTES: Final = 16 << 20
"""Of larger letters one at a time is held in memory, however many connections there are."""
IDLE_SECONDS: Final = 60.0
"""How long a connection may say nothing before it has sent a whole request (`receive`)."""
SEND_SECONDS: Final = 10.0
"""How long a service that stops waits until what it answered has been taken."""
_LINGER_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 0.5
"""After what is over by itself: no file, no memory, no thread for one more connection."""
_CLOSED: Final = frozenset({errno.EBADF, errno.EINVAL})
_FRONT_BYTES: Final = 3 << 20
"""Of a letter, more than its envelope and its header: all that is kept for the line about it."""
_LOG = logging.getLogger("fedkd.service")


class Answers(Protocol):
    """Whoever answers letters: never raises, never lets an exception's text out."""

    def handle(self, letter: bytes) -> bytes:
        """The reply to a letter."""


class _Turn:
    """A letter that waits for its answer."""

    def __init__(self, letter: bytes) -> None:
        self.letter = letter
        self.reply = Frame(Kind.REFUSED, Why.STOPPING.encode())
        self.done = threading.Event()


class Service:
    """Takes letters from connections and hands them, one at a time, to `desk`.

    Turns are taken by whoever calls `work`, in one thread: models train there, and streams of
    random numbers and the number of threads stay what they are in a simulation. A connection that
    dies meanwhile loses nothing: the answer is on disk, and the same letter gets it again.
    """

    def __init__(
        self,
        desk: Answers,
        tell: Callable[[Told], None],
        figures: Callable[[], Mapping[str, Any]] = dict,
        mark: Callable[[bytes], str] = lambda front: "",
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._desk, self._mark = desk, mark
        self._tell = tell
        self._figures, self._idle_seconds = figures, idle_seconds
        self._turns: queue.SimpleQueue[_Turn | Told | None] = queue.SimpleQueue()
        self._pending = set[Told]()
        self._owed = set[int]()  # threads of connections that a reply is due to
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._large = threading.Semaphore()
        self._stopping = threading.Event()
        self._standing: dict[str, Any] = {
            "pid": os.getpid(),
            "software": __version__,
            "since": utc(),
            "turns": 0,
            "busy_since": None,
            "last_turn": None,
            "last_seconds": None,
        }

    def listen(self, listener: socket.socket) -> None:
        """Accepts connections until the service stops; returns at once."""
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Lets the turn in progress end; nothing new is begun."""
        self._stopping.set()
        self._turns.put(None)

    def work(self) -> None:
        """Takes turns, in this thread, until `stop`."""
        while self._took():
            pass
        self._let_go()

    def _took(self) -> bool:
        """Takes what comes next; False at the end. Nothing of it is held any more on returning."""
        taken = self._turns.get()
        if taken is None:
            return False
        if isinstance(taken, Told):
            self._remember(taken)
            return True
        if self._stopping.is_set():
            taken.done.set()
            return False
        taken.reply = self._answered(taken.letter)
        front = taken.letter[:_FRONT_BYTES]
        taken.done.set()
        del taken  # letter and reply may be of a gibibyte each
        self._say(front)  # after the reply: papers are read for it, signatures checked
        return True

    def _let_go(self) -> None:
        """Tells whoever still waits, and sees that replies are sent before the process ends.

        What was heard is remembered, however late it came.
        """
        until = time.monotonic() + SEND_SECONDS
        while True:
            all_sent = not self._owed  # looked at first: whoever was sent a reply has put all in
            try:
                left = self._turns.get(timeout=0.01)
            except queue.Empty:
                if all_sent or time.monotonic() > until:
                    return
                continue
            if isinstance(left, _Turn):
                left.done.set()
            elif left is not None:
                self._remember(left)

    def _answered(self, letter: bytes) -> Frame:
        began = time.monotonic()
        self._standing["busy_since"] = utc()
        try:
            return Frame(Kind.ANSWERED, self._desk.handle(letter))
        except Exception:
            _LOG.error("a turn failed\n%s", traceback.format_exc())
            return Frame(Kind.REFUSED, Why.FAILED.encode())
        finally:
            seconds, turns = round(time.monotonic() - began, 3), self._standing["turns"] + 1
            self._standing.update(
                busy_since=None, turns=turns, last_turn=utc(), last_seconds=seconds
            )

    def _say(self, front: bytes) -> None:
        """A line about the turn that was taken; whatever the letter is, it ends nothing."""
        try:
            mark = self._mark(front)  # now that a proposal, too, has been taken in
        except Exception:
            _LOG.error("a letter's run cannot be told\n%s", traceback.format_exc())
            mark = ""
        turns, seconds = self._standing["turns"], self._standing["last_seconds"]
        line = f"{mark}turn {turns} took {seconds:g} s"
        _LOG.info(Line(line, turn=turns, seconds=seconds, rehearsal=bool(mark)))

    def _stands(self, kind: Kind) -> Frame:
        try:
            if kind is Kind.STATUS:  # the network is looked at anew: it may have come back
                told = {**self._standing, "network": network()}
            else:
                told = dict(self._figures())
            return Frame(Kind.STANDING, json.dumps(told, sort_keys=True).encode())
        except Exception:
            _LOG.error("no figures\n%s", traceback.format_exc())
            return Frame(Kind.REFUSED, Why.FAILED.encode())

    def _remember(self, told: Told) -> None:
        self._pending.discard(told)
        _LOG.warning(Line(f"the letterbox refused: {told}", refused=str(told)))
        try:
            self._tell(told)
        except Exception:
            _LOG.error("what the letterbox refused is not in the log\n%s", traceback.format_exc())

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno in _CLOSED:
                    return
                self._cannot("no connection can be accepted", error)
                continue
            if not self._free.acquire(blocking=False):
                _turn_away(connection)
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError as error:
                self._free.release()
                _turn_away(connection)
                self._cannot("a connection was turned away", error)

    def _cannot(self, what: str, why: Exception) -> None:
        """A line about what is over by itself, and some rest, unless the service stops."""
        _LOG.error("%s: %s", what, why)
        self._stopping.wait(_AGAIN_SECONDS)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                while self._served(connection):
                    pass
        except OSError:
            pass  # the other side is gone: what it asked is on disk
        finally:
            self._owed.discard(threading.get_ident())
            self._free.release()

    def _served(self, connection: socket.socket) -> bool:
        """One request and its reply; False at the end. Nothing of either is held on returning."""
        reply = self._next(connection)
        if reply is None:
            return False
        if reply.kind is Kind.REFUSED:
            _refuse(connection, reply)
            return False
        connection.settimeout(self._idle_seconds)
        send(connection, reply)
        self._owed.discard(threading.get_ident())
        return True

    def _next(self, connection: socket.socket) -> Frame | None:
        held = []

        def has_room(size: int) -> bool:
            if size <= SMALL_BYTES:
                return True
            if self._large.acquire(blocking=False):
                held.append(size)
            return bool(held)

        try:
            frame = receive(connection, has_room, self._idle_seconds)
            return None if frame is None else self._reply(frame)
        except BadFrame as error:
            return Frame(Kind.REFUSED, error.why.encode())
        finally:
            if held:
                self._large.release()

    def _reply(self, frame: Frame) -> Frame:
        if frame.kind in (Kind.STATUS, Kind.FIGURES):
            return self._stands(frame.kind)
        if frame.kind not in (Kind.TELL, Kind.ANSWER):
            return Frame(Kind.REFUSED, Why.UNKNOWN_REQUEST.encode())
        self._owed.add(threading.get_ident())  # before the look: see `_let_go`
        if self._stopping.is_set():
            return Frame(Kind.REFUSED, Why.STOPPING.encode())
        if frame.kind is Kind.TELL:
            return self._heard(frame.body)
        turn = _Turn(frame.body)
        self._turns.put(turn)
        turn.done.wait()
        return turn.reply

    def _heard(self, body: bytes) -> Frame:
        try:
            told = Told(body.decode())
        except ValueError:
            return Frame(Kind.REFUSED, Why.MALFORMED.encode())
        if told not in self._pending:  # told a million times, it waits once
            self._pending.add(told)
            self._turns.put(told)
        return Frame(Kind.HEARD)


def _refuse(connection: socket.socket, frame: Frame) -> None:
    """The last word on a connection: it is heard also by whoever was still sending."""
    with suppress(OSError):
        connection.settimeout(_LINGER_SECONDS)
        send(connection, frame)
        connection.shutdown(socket.SHUT_WR)
        until = time.monotonic() + _LINGER_SECONDS
        while (left := until - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(1 << 16):
                return


def _turn_away(connection: socket.socket) -> None:
    """Says that there is no room, and waits for nothing: others are accepted by the same thread."""
    with connection, suppress(OSError):
        connection.setblocking(False)
        send(connection, Frame(Kind.REFUSED, Why.TOO_MANY.encode()))
