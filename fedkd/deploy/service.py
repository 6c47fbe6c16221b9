"""The site service: holds records, model, ledger, log and keys, and has no network.

    python -m fedkd.deploy.service HOSPITAL

It listens on a Unix socket, takes one turn at a time, and keeps what it needs in memory between
turns. Everything that it ever says is a frame of a closed list.
"""

import argparse
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from fedkd import __version__
from fedkd.deploy.apart import CONNECTED, still_connected
from fedkd.deploy.hospital import Hospital, private_folder
from fedkd.deploy.lines import FORMATS, TEXT, Line, log_to, utc
from fedkd.deploy.offline import StillConnected, drop_network, is_offline
from fedkd.deploy.socket import BadFrame, Frame, Kind, Told, Why, listening, receive, send
from fedkd.deploy.supervising import read_key
from fedkd.knowledge.bad_input import BadInput, OtherFormat

MOST_CONNECTIONS: Final = 8
SMALL_BYTES: Final = 16 << 20
"""Of larger letters one at a time is held in memory, however many connections there are."""
IDLE_SECONDS: Final = 60.0
"""How long a connection may say nothing before it has sent a whole request."""
SEND_SECONDS: Final = 10.0
"""How long a service that stops waits until what it answered has been taken."""
_LINGER_SECONDS: Final = 0.5
STOPPED, USED_WRONGLY = 0, 2
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
        mark: Callable[[bytes], str] = lambda letter: "",
    ) -> None:
        self._desk, self._mark = desk, mark
        self._tell = tell
        self._figures = figures
        self._turns: queue.SimpleQueue[_Turn | Told | None] = queue.SimpleQueue()
        self._pending = set[Told]()
        self._owed = set[int]()  # threads of connections that a turn's reply is due to
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._large = threading.Semaphore()
        self._stopping = threading.Event()
        self._standing: dict[str, Any] = {
            "pid": os.getpid(),
            "software": __version__,
            "since": utc(),
            "network": "none" if is_offline() else "not taken away",
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
        while (turn := self._turns.get()) is not None:
            if isinstance(turn, Told):
                self._remember(turn)
                continue
            if self._stopping.is_set():
                turn.done.set()
                break
            turn.reply = self._answered(turn.letter)
            turn.done.set()
            self._say(turn.letter)  # after the reply: papers are read for it, signatures checked
        self._let_go()

    def _let_go(self) -> None:
        """Tells whoever still waits, and sees that replies are sent before the process ends."""
        until = time.monotonic() + SEND_SECONDS
        while self._owed and time.monotonic() < until:
            with suppress(queue.Empty):
                turn = self._turns.get(timeout=0.01)
                if isinstance(turn, _Turn):
                    turn.done.set()

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

    def _say(self, letter: bytes) -> None:
        """A line about the turn that was taken; whatever the letter is, it ends nothing."""
        try:
            mark = self._mark(letter)  # now that a proposal, too, has been taken in
        except Exception:
            _LOG.error("a letter's run cannot be told\n%s", traceback.format_exc())
            mark = ""
        turns, seconds = self._standing["turns"], self._standing["last_seconds"]
        line = f"{mark}turn {turns} took {seconds:g} s"
        _LOG.info(Line(line, turn=turns, seconds=seconds, rehearsal=bool(mark)))

    def _stands(self, kind: Kind) -> Frame:
        try:
            told = self._standing if kind is Kind.STATUS else self._figures()
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
            except OSError:
                return
            if not self._free.acquire(blocking=False):
                with connection:
                    _refuse(connection, Frame(Kind.REFUSED, Why.TOO_MANY.encode()))
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(IDLE_SECONDS)
                while (reply := self._next(connection)) is not None:
                    if reply.kind is Kind.REFUSED:
                        _refuse(connection, reply)
                        return
                    send(connection, reply)
                    self._owed.discard(threading.get_ident())
        except OSError:
            pass  # the other side is gone: what it asked is on disk
        finally:
            self._owed.discard(threading.get_ident())
            self._free.release()

    def _next(self, connection: socket.socket) -> Frame | None:
        held = []

        def has_room(size: int) -> bool:
            if size <= SMALL_BYTES:
                return True
            if self._large.acquire(blocking=False):
                held.append(size)
            return bool(held)

        try:
            frame = receive(connection, has_room)
            return None if frame is None else self._reply(frame)
        except BadFrame as error:
            return Frame(Kind.REFUSED, error.why.encode())
        finally:
            if held:
                self._large.release()

    def _reply(self, frame: Frame) -> Frame:
        if frame.kind in (Kind.STATUS, Kind.FIGURES):
            return self._stands(frame.kind)
        if frame.kind is Kind.TELL:
            try:
                told = Told(frame.body.decode())
            except ValueError:
                return Frame(Kind.REFUSED, Why.MALFORMED.encode())
            if told not in self._pending:  # told a million times, it waits once
                self._pending.add(told)
                self._turns.put(told)
            return Frame(Kind.HEARD)
        if frame.kind is not Kind.ANSWER:
            return Frame(Kind.REFUSED, Why.UNKNOWN_REQUEST.encode())
        if self._stopping.is_set():
            return Frame(Kind.REFUSED, Why.STOPPING.encode())
        turn = _Turn(frame.body)
        self._owed.add(threading.get_ident())
        self._turns.put(turn)
        turn.done.wait()
        return turn.reply


def _refuse(connection: socket.socket, frame: Frame) -> None:
    """The last word on a connection: it is heard also by whoever was still sending."""
    with suppress(OSError):
        connection.settimeout(_LINGER_SECONDS)
        send(connection, frame)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


def remember(hospital: Hospital, told: Told) -> None:
    """Writes into the site's log what its letterbox refused: each kind once a day, at most."""
    from fedkd.federation.site import SiteFolder
    from fedkd.wire import UNKNOWN

    site = SiteFolder(hospital.site)
    if not (site.folder / "site.json").exists():
        return  # nothing to be remembered in yet; letterbox/refusals.log has it
    rule = f"letterbox: {told}"
    with site.turn(), site.log(site.settings().name) as log:
        log.append(
            f"refused/letterbox/{told}/{utc()[:10]}",
            "release.refused",
            {"run": UNKNOWN, "round": 0, "rule": rule},
        )


def desk_of(hospital: Hospital) -> Answers:
    """Who answers at `hospital`, with models and data kept in memory."""
    from fedkd.deploy.consent import Desk
    from fedkd.federation.building import Workshop

    desk: Answers = Desk(hospital.folder, Workshop())
    return desk


def expect_readable(hospital: Hospital) -> None:
    """`OtherFormat`, with what to do, where another version of fedkd wrote a site's folder or log.

    An older one is made into this one's where that is known how. Whatever else is wrong with a
    folder, each turn finds, and refuses.
    """
    from fedkd.federation.site import SiteFolder

    for folder in (hospital.site, hospital.rehearsal):
        if (folder / "site.json").exists():
            try:
                site = SiteFolder(folder)
                with site.log(site.settings().name):
                    pass
            except OtherFormat:
                raise
            except Exception:
                _LOG.error("%s cannot be opened\n%s", folder.name, traceback.format_exc())


def mark_of(hospital: Hospital, letter: bytes) -> str:
    """What lines about a letter begin with where it belongs to a rehearsal."""
    from fedkd.deploy.rehearsed import mark_of as found

    return found(hospital, letter)


def figures_of(hospital: Hospital) -> Mapping[str, Any]:
    """Numbers of this hospital's that may be watched."""
    from fedkd.deploy.hospital_standing import figures_of as found

    return found(hospital)


def serve(
    hospital: Hospital,
    *,
    group: int | None = None,
    offline: bool = True,
    key: bytes | None = None,
) -> int:
    """Answers at `hospital` until SIGTERM or SIGINT; the exit code.

    A locked one is opened by its `key`, or as a command opens it (`fedkd.audit.locking`).
    `group` may use the socket, beside the owner. Where `offline`, the network is taken away first,
    or nothing starts (`BadInput`); where not, whoever starts it took it away: units and containers.
    """
    if offline:
        try:
            drop_network()  # first: no thread is running yet, and no record was read
        except StillConnected as error:
            raise still_connected(error) from None
    elif not is_offline():
        _LOG.warning("%s", CONNECTED)
    hospital.expect_private(group)
    expect_readable(hospital)
    _open(hospital, key)
    service = Service(
        desk_of(hospital),
        lambda told: remember(hospital, told),
        lambda: figures_of(hospital),
        lambda letter: mark_of(hospital, letter),
    )

    def stop(number: int, frame: FrameType | None) -> None:
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    private_folder(hospital.run)
    _LOG.info("the site service of %s, network: %s", hospital.name, _network())
    with listening(hospital.socket, 0o660) as listener:
        if group is not None:
            os.chown(hospital.socket, -1, group)
        service.listen(listener)
        service.work()
    _LOG.info("stopped")
    return STOPPED


def _open(hospital: Hospital, key: bytes | None) -> None:
    from fedkd.audit.locking import locked_folder, open_by_key
    from fedkd.deploy.locked import SITE, expect_open, keys_of_hospital

    root = locked_folder(hospital.folder)
    if root is not None and key is not None:
        open_by_key(root, key)
    expect_open(hospital.folder, keys_of_hospital(hospital), SITE)


def _network() -> str:
    return "none" if is_offline() else "NOT taken away"


def main(arguments: Sequence[str] | None = None) -> int:
    """The service as a process; exit codes as everywhere: 0 stopped, 1 refused, 2 used wrongly."""
    parser = argparse.ArgumentParser(prog="python -m fedkd.deploy.service", description=__doc__)
    parser.add_argument("hospital", type=Path, help="the hospital's folder")
    parser.add_argument("--group", type=int, help="the letterbox's group, by number")
    parser.add_argument("--keep-network", action="store_true", help="it was taken away outside")
    parser.add_argument("--key-fd", type=int, help="a pipe with the key of a locked hospital")
    parser.add_argument("--log-format", choices=FORMATS, default=TEXT, help="of its lines")
    told = parser.parse_args(arguments)
    log_to(told.log_format, "service")
    try:
        return serve(
            Hospital(told.hospital.resolve()),
            group=told.group,
            offline=not told.keep_network,
            key=None if told.key_fd is None else read_key(told.key_fd),
        )
    except BadInput as error:
        print(error, file=sys.stderr)
        return USED_WRONGLY


if __name__ == "__main__":
    sys.exit(main())
