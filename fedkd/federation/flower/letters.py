"""Puts canonical bytes into a Flower message and takes them out: one uint8 array, nothing else."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict

RECORD, ARRAY = "fedkd", "body"
MESSAGE_TYPE = "query.answer"


class NoLetter(ValueError):
    """A Flower message that holds something else than one body of bytes."""


def content_of(body: bytes) -> RecordDict:
    """The content of a Flower message that carries `body` (Flower sends arrays in chunks)."""
    array = Array(np.frombuffer(body, dtype=np.uint8))
    return RecordDict({RECORD: ArrayRecord({ARRAY: array})})


def body_of(message: Message, most_bytes: int) -> bytes:
    """The bytes that `message` carries; `NoLetter` if it carries anything else, or too much."""
    content = message.content
    if set(content) != {RECORD} or not isinstance(content[RECORD], ArrayRecord):
        raise NoLetter("found other records than the one expected")
    record = content[RECORD]
    if set(record) != {ARRAY}:
        raise NoLetter("found other arrays than the one expected")
    array = record[ARRAY]
    if array.dtype != "uint8" or len(array.shape) != 1 or array.stype != "numpy.ndarray":
        raise NoLetter("found an array that is no string of bytes")
    if array.shape[0] > most_bytes or len(array.data) > most_bytes + 256:
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
