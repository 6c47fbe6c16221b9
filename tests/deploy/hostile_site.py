"""A hospital whose key is admitted and whose programs are an attacker's: run as two processes.

    python -m tests.deploy.hostile_site service HOSPITAL
    python -m tests.deploy.hostile_site letterbox LETTERBOX

The service is honest in everything but its answers, each round another lie; the letterbox checks
nothing that leaves.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedkd.audit import SERVER
from fedkd.deploy import letterbox
from fedkd.deploy.consent import Desk, Shelf
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.socket import listening
from fedkd.deploy.turns import Service
from fedkd.federation.building import Workshop
from fedkd.knowledge import Array
from fedkd.wire import Answer, Envelope, Malformed, cover, decode, encode, opened, pack, unpack

SITE = "mallory"
ENORMOUS = 48 << 20
"""Bytes of the enormous answer: over a thousand times what was asked for."""
OTHER = "alice"


def probs(answer: Answer, change: Callable[[Array], Array]) -> bytes:
    """The answer with other numbers."""
    changed = change(np.array(answer.coded["probs"])).astype(np.float32)
    return encode(replace(answer, coded={"probs": changed}))


def at(row: int, *values: float) -> Callable[[Array], Array]:
    """One row replaced."""

    def change(said: Array) -> Array:
        said[row] = values
        return said

    return change


def surely_wrong(said: Array) -> Array:
    """All mass on the class that the honest model says least: well formed, and poison."""
    wrong: Array = np.eye(said.shape[1])[said.argmin(axis=1)]
    return wrong


def announced(answer: Answer) -> bytes:
    """A header that announces four terabytes, and few bytes behind it."""
    header, arrays = unpack(encode(answer), 1 << 20)
    said = pack(header, arrays)
    shape = list(arrays["coded.probs"].shape)
    old = f'"shape":[{shape[0]},{shape[1]}]'.encode()
    new = f'"shape":[{1 << 39},{shape[1]}]'.encode()
    start = len(b"fedkd/1\n")
    size = int.from_bytes(said[start : start + 4], "little")
    head = said[start + 4 : start + 4 + size].replace(old, new)
    assert len(head) != size
    return said[:start] + len(head).to_bytes(4, "little") + head + said[start + 4 + size :]


LIES: dict[str, Callable[[Answer], bytes]] = {
    "nothing yet": encode,
    "a pickle": lambda it: b"\x80\x04\x95" + bytes(40),
    "cut short": lambda it: encode(it)[:-7],
    "announced, not sent": announced,
    "not a number": lambda it: probs(it, at(3, np.nan, 1.0)),
    "negative": lambda it: probs(it, at(3, 1.5, -0.5)),
    "off the simplex": lambda it: probs(it, at(3, 0.9, 0.9)),
    "one row more": lambda it: probs(it, lambda said: np.vstack([said, said[:1]])),
    "enormous": lambda it: probs(it, lambda said: np.full((ENORMOUS // 8, 2), 0.5)),
    "in another's name": lambda it: encode(replace(it, site=OTHER)),
    "the first round's": encode,  # see Liar
    "surely wrong": lambda it: probs(it, surely_wrong),
    "an envelope of junk": encode,  # see Liar
    "ahead of the server": encode,  # see Liar
}
"""By round, from the first on."""


class Liar:
    """Answers as its honest desk does, and then lies."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._first = desk, b""

    def _server(self) -> str:
        """What the server's log is called."""
        vkey: str = Shelf(self._desk.hospital).all()[-1].parties[SERVER]["vkey"]
        return vkey.split("+", maxsplit=1)[0]

    def handle(self, letter: bytes) -> bytes:
        reply = self._desk.handle(letter)
        envelope, body = opened(reply)
        try:
            answer = decode(body, 1 << 20)
        except Malformed:
            return reply
        if not isinstance(answer, Answer):
            return reply
        names = list(LIES)
        lie = names[answer.round - 1] if answer.round <= len(names) else names[0]
        self._first = self._first or body
        said = self._first if lie == "the first round's" else LIES[lie](answer)
        if lie == "an envelope of junk":
            junk = "mallory\n999999999\n" + "A" * 60 + "\n\n— mallory " + "B" * 90 + "\n"
            envelope = Envelope((junk,) * 64, (junk,) * 64, (2**53 - 1,) * 64, (("x", 9),) * 64)
        if lie == "ahead of the server":  # as if it had cosigned more than the server's log has
            envelope = Envelope(stands=((self._server(), 10**9),))
        return (cover(envelope) if envelope else b"") + said


def service(folder: Path) -> None:
    """The hostile program at the socket."""
    hospital = Hospital(folder)
    running = Service(Liar(Desk(folder, Workshop())), lambda told: None)
    with listening(hospital.socket, 0o660) as listener:
        running.listen(listener)
        running.work()


def main() -> int:
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "service":
        service(folder)
        return 0
    letterbox._may_leave = lambda reply: True
    return letterbox.main([os.fspath(folder)])


if __name__ == "__main__":
    sys.exit(main())
