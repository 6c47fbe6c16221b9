"""Puts canonical bytes into a Flower message and takes them out: uint8 arrays, nothing else."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict

RECORD, BODY, COVER = "fedkd", "body", "cover"
MESSAGE_TYPE = "query.answer"
NUMPY_HEADER = 256
"""Bytes in front of an array's own, at most."""


class NoLetter(ValueError):
    """A Flower message that holds something else than one letter of bytes."""


def content_of(body: bytes, cover: bytes = b"") -> RecordDict:
    """The content of a Flower message that carries `body` (Flower sends arrays in chunks).

    `cover` is what stands in front of it, apart: many sites' messages share one body in memory.
    """
    parts = {COVER: cover, BODY: body} if cover else {BODY: body}
    arrays = {name: Array(np.frombuffer(part, dtype=np.uint8)) for name, part in parts.items()}
    return RecordDict({RECORD: ArrayRecord(arrays)})


def letter_of(message: Message, most_bytes: int) -> bytes:
    """The bytes that `message` carries; `NoLetter` if it carries anything else, or too much."""
    content = message.content
    if set(content) != {RECORD} or not isinstance(content[RECORD], ArrayRecord):
        raise NoLetter("found other records than the one expected")
    record = content[RECORD]
    if set(record) not in ({BODY}, {BODY, COVER}):
        raise NoLetter("found other arrays than the one expected")
    parts = [record[name] for name in (COVER, BODY) if name in record]
    if sum(len(part.data) for part in parts) > most_bytes + 2 * NUMPY_HEADER:
        raise NoLetter(f"found more than the {most_bytes} bytes that are accepted")
    letter = b"".join(_bytes_of(part, most_bytes) for part in parts)
    if len(letter) > most_bytes:
        raise NoLetter(f"found {len(letter)} bytes, at most {most_bytes} are accepted")
    return letter


def _bytes_of(array: Array, most_bytes: int) -> bytes:
    if array.dtype != "uint8" or len(array.shape) != 1 or array.stype != "numpy.ndarray":
        raise NoLetter("found an array that is no string of bytes")
    if array.shape[0] > most_bytes or len(array.data) > most_bytes + NUMPY_HEADER:
        raise NoLetter(f"found {array.shape[0]} bytes, at most {most_bytes} are accepted")
    try:
        bits: object = array.numpy()  # never a pickle: Flower loads with allow_pickle=False
    except Exception:  # numpy's reader raises of many kinds, with what it read in the text
        raise NoLetter("found an array that cannot be read") from None
    if not isinstance(bits, np.ndarray) or bits.dtype != np.uint8:
        raise NoLetter("found an array that is not what it says")
    if bits.shape != tuple(array.shape):
        raise NoLetter("found an array that is not what it says")
    return bytes(bits.tobytes())
