"""The letterbox: takes letters from Flower to the site service, and its answers back.

    python -m fedkd.deploy.letterbox LETTERBOX

It faces the network, so it has no record, no model and no key but the node's. It checks the size
and form of everything both ways, and keeps every letter that goes out. Flower wants a new process
for each message: this one has everything loaded and forks, which spares an interpreter's start.
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from fedkd.deploy.bundles import allowed
from fedkd.deploy.knock import KNOCK, MOST_KNOCK_BYTES, SETTINGS
from fedkd.deploy.lines import utc
from fedkd.deploy.socket import MOST_LETTER_BYTES, Away, Frame, Kind, Told, listening, request
from fedkd.federation.durable import READ_BY_GROUP, write_bytes
from fedkd.knowledge import digest_of_bytes
from fedkd.wire import (
    UNKNOWN,
    Answer,
    Closed,
    Considered,
    Counts,
    Evaluation,
    Malformed,
    Message,
    OtherVersion,
    Present,
    Proposal,
    Question,
    Reason,
    Refusal,
    RollCall,
    decode,
    encode,
    opened,
)

COMES_IN: Final = {RollCall, Proposal, Question, Evaluation}
NEEDS_NO_TICKET: Final = {Proposal}
"""Signed papers, which may come in an unknown bundle: how else could people hear of a new one?"""
GOES_OUT: Final = {Present, Considered, Answer, Closed, Counts, Refusal}
_TELL_SECONDS: Final = 5.0
_KNOCK_SECONDS: Final = 30.0
"""As long as whoever knocks may stand still on a machine under load; less than it waits itself."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A letterbox's own folder, and the socket of the service behind it."""

    folder: Path
    site: str
    service: Path

    @classmethod
    def at(cls, folder: Path) -> "Letterbox":
        """The letterbox whose settings are in `folder`."""
        told = json.loads((folder / SETTINGS).read_text())
        return cls(folder, told["site"], Path(told["service"]))

    def post(self, letter: bytes | None, allowed: bool) -> bytes:
        """What goes back for a letter; kept in outbox/ before it does. Never raises."""
        try:
            reply = self._reply(letter, allowed)
            self._keep(reply)
        except Exception as error:  # a full disk, above all: what was not kept does not leave
            # This refusal alone is not kept: there may be no room, and it is the same for whatever
            # came, so that it tells nothing but that this failed. refusals.log says when.
            self._note(f"failed: {type(error).__name__}")
            return self._refusal(Reason.FAILED, UNKNOWN, 0)
        return reply

    def allows(self, bundle: str) -> bool:
        """Whether a person here allowed the bundle with this SHA-256 (hex)."""
        return bundle in allowed(self.folder)

    def _reply(self, letter: bytes | None, allowed: bool) -> bytes:
        run, round = UNKNOWN, 0
        try:
            message = _read(letter)
            run, round = message.run, getattr(message, "round", 0)
            if type(message) not in COMES_IN:
                raise Malformed("a message that no server sends")
        except OtherVersion:
            return self._refuse(Told.VERSION, Reason.VERSION, run, round)
        except Malformed:
            return self._refuse(Told.MALFORMED, Reason.MALFORMED, run, round)
        if not allowed and type(message) not in NEEDS_NO_TICKET:
            return self._refuse(Told.BUNDLE, Reason.NOT_APPROVED, run, round)
        # Without a ticket the message alone goes on: nothing that rides along is looked at.
        answered = self._asked((letter or b"") if allowed else encode(message))
        return answered or self._refusal(Reason.FAILED, run, round)

    def _asked(self, letter: bytes) -> bytes | None:
        """What the site service answers; None where it does not, or nothing that may leave."""
        try:
            answered = request(self.service, Frame(Kind.ANSWER, letter))
        except Away:
            self._note("the site service is away")
            return None
        if answered.kind is Kind.ANSWERED and _may_leave(answered.body):
            return answered.body
        self._note(f"the site service said {answered.kind.name}")
        return None

    def _refuse(self, told: Told, reason: Reason, run: str, round: int) -> bytes:
        """Refuses without asking the service, which is told so."""
        self._note(str(told))
        with suppress(Away):
            request(self.service, Frame(Kind.TELL, told.encode()), _TELL_SECONDS)
        return self._refusal(reason, run, round)

    def _refusal(self, reason: Reason, run: str, round: int) -> bytes:
        return encode(Refusal(self.site, run, round, reason))

    def _keep(self, reply: bytes) -> None:
        path = self.folder / "outbox" / f"{digest_of_bytes(reply).removeprefix('sha256:')}.bin"
        if not path.exists():
            write_bytes(path, reply, READ_BY_GROUP)

    def _note(self, what: str) -> None:
        note(self.folder, what)


def _read(letter: bytes | None) -> Message:
    if letter is None:
        raise Malformed("a Flower message that holds no letter")
    return decode(opened(letter)[1], MOST_LETTER_BYTES)


def _may_leave(reply: bytes) -> bool:
    """Whether `reply` is a message that a site may send, and nothing else."""
    try:
        return type(decode(opened(reply)[1], MOST_LETTER_BYTES)) in GOES_OUT
    except (Malformed, OtherVersion):
        return False


def note(folder: Path, what: str) -> None:
    """A line in refusals.log: when, and what, in words of a closed list."""
    try:
        with (folder / "refusals.log").open("a") as file:
            file.write(f"{utc()} {what}\n")
    except OSError:
        pass


def serve(letterbox: Letterbox) -> int:
    """Forks a process for each task that Flower has, until SIGTERM."""
    from fedkd.federation.flower import pinned

    ends, ended = os.pipe()

    def stop(number: int, frame: FrameType | None) -> None:
        os.write(ended, b".")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave nothing to be waited for
    with listening(letterbox.folder / KNOCK, 0o600) as listener:
        while True:
            ready, _, _ = select.select([listener.fileno(), ends], [], [])
            if ends in ready:
                return 0
            connection, _ = listener.accept()
            with connection:
                arguments = _knocked(connection)
                if arguments is None:
                    continue
                if os.fork() == 0:
                    listener.close()
                    _task(letterbox, pinned, arguments)
                with suppress(OSError):  # who knocked has gone meanwhile
                    connection.sendall(b"ok")


def _knocked(connection: socket.socket) -> list[str] | None:
    """The arguments of a task; None for anything else."""
    connection.settimeout(_KNOCK_SECONDS)
    try:
        body = b""
        while not body.endswith(b"\n") and len(body) < MOST_KNOCK_BYTES:
            part = connection.recv(MOST_KNOCK_BYTES)
            if not part:
                return None
            body += part
        told = json.loads(body)
    except (OSError, ValueError):
        return None
    if not isinstance(told, list) or not all(isinstance(each, str) for each in told):
        return None
    return told


def _task(letterbox: Letterbox, pinned: Any, arguments: list[str]) -> None:
    """One task, in a process of its own, which ends here."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        pinned.take_task(arguments, letterbox.allows, letterbox.post, MOST_LETTER_BYTES)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        note(letterbox.folder, "a task ended early")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """The letterbox as a process; with more arguments, one task in this process."""
    folder, *task = list(sys.argv[1:] if arguments is None else arguments)
    letterbox = Letterbox.at(Path(folder))
    if task:
        from fedkd.federation.flower import pinned

        _task(letterbox, pinned, task)
    return serve(letterbox)


if __name__ == "__main__":
    sys.exit(main())
