"""What rides along with a message so that parties can cosign each other's logs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rfc8785

from fedkd.wire.fields import MOST_COUNT
from fedkd.wire.frames import Malformed

MAGIC = b"fedkd-envelope/1\n"
MOST_ENVELOPE_BYTES = 1 << 20
MOST_ITEMS = 64
MOST_ITEM = 1 << 16
MOST_ORIGIN = 256


@dataclass(frozen=True, slots=True)
class Envelope:
    """Signed checkpoints, proofs and sizes of logs: nothing in it says what an entry holds.

    `asks` are C2SP add-checkpoint bodies, the logs that the receiver is asked to cosign. `notes`
    are signed checkpoints with cosignatures: upwards those that the sender gives, downwards those
    over the receiver's own log. `prove_from` are the sizes from which the receiver should prove
    its newest checkpoint in its reply. `stands` say for each log that the sender follows which
    size it cosigned last.
    """

    asks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prove_from: tuple[int, ...] = ()
    stands: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for name, fits in _FITS.items():
            items = getattr(self, name)
            if not isinstance(items, tuple) or len(items) > MOST_ITEMS:
                raise Malformed(f"{name} of an envelope that are no list, or too many")
            if not all(map(fits, items)):
                raise Malformed(f"{name} of an envelope of another kind, or too long")

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in _FITS)


def _text(item: Any) -> bool:
    return isinstance(item, str) and 0 < len(item) <= MOST_ITEM


def _size(item: Any) -> bool:
    return type(item) is int and 0 <= item <= MOST_COUNT


def _stand(item: Any) -> bool:
    if not isinstance(item, tuple) or len(item) != 2:
        return False
    origin, size = item
    return isinstance(origin, str) and 0 < len(origin) <= MOST_ORIGIN and _size(size)


_FITS: dict[str, Callable[[Any], bool]] = {
    "asks": _text,
    "notes": _text,
    "prove_from": _size,
    "stands": _stand,
}


def cover(envelope: Envelope) -> bytes:
    """The bytes of an envelope, which go in front of a message's: a letter is both in a row."""
    plain = {name: list(getattr(envelope, name)) for name in _FITS}
    plain["stands"] = [list(stand) for stand in envelope.stands]
    try:
        head = rfc8785.dumps(plain)
    except rfc8785.CanonicalizationError:
        raise Malformed("an envelope that JSON cannot say") from None
    if len(head) > MOST_ENVELOPE_BYTES:
        raise Malformed("an envelope that is too long")
    return b"".join([MAGIC, len(head).to_bytes(4, "little"), head])


def opened(letter: bytes) -> tuple[Envelope | None, bytes]:
    """The envelope, None where there is none, and the message's bytes, which are not looked at.

    `Malformed` for an envelope that is cut, too long, or not in its one spelling.
    """
    if letter[: len(MAGIC)] != MAGIC:
        return None, letter
    start = len(MAGIC) + 4
    end = start + int.from_bytes(letter[len(MAGIC) : start], "little")
    if end - start > MOST_ENVELOPE_BYTES or not start <= end <= len(letter):
        raise Malformed("an envelope that is longer than the letter")
    try:
        plain = json.loads(letter[start:end])
    except (ValueError, RecursionError):
        raise Malformed("an envelope that is not JSON") from None
    if not isinstance(plain, dict) or plain.keys() != _FITS.keys():
        raise Malformed("an envelope with missing or foreign fields")
    if not all(isinstance(items, list) for items in plain.values()):
        raise Malformed("an envelope whose fields are no lists")
    stands = tuple(tuple(it) if isinstance(it, list) else it for it in plain.pop("stands"))
    envelope = Envelope(**{name: tuple(items) for name, items in plain.items()}, stands=stands)
    if cover(envelope) != letter[:end]:
        raise Malformed("an envelope that is not canonical JSON")
    return envelope, letter[end:]
