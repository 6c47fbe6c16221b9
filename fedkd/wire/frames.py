"""Turns a header and arrays into canonical bytes, and hostile bytes into one kind of error."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import rfc8785

from fedkd.knowledge import Array
from fedkd.knowledge.digests import little_endian

MAGIC = b"fedkd/1\n"
MOST_HEADER_BYTES = 1 << 20
MOST_ARRAYS = 16
MOST_DIMENSIONS = 6
MOST_NAME = 64
MOST_SIDE = 1 << 40
DTYPES = ("<f4", "<f8", "|u1", "<u2", "<i8")


class Malformed(ValueError):
    """Bytes that are no message of this protocol; the text holds nothing from the bytes."""


class OtherVersion(Malformed):
    """Bytes of another version of this protocol."""


def pack(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Magic, length of the header (4 bytes, little-endian), header (RFC 8785), arrays' bytes.

    `Malformed` for what `unpack` would refuse: nothing is sent that cannot be read.
    """
    listed = []
    blobs = []
    for name in sorted(arrays):
        array = little_endian(arrays[name])
        entry = {"name": name, "dtype": array.dtype.str, "shape": list(array.shape)}
        _described(entry)
        listed.append(entry)
        blobs.append(array.tobytes())
    if len(listed) > MOST_ARRAYS:
        raise Malformed("more arrays than a message may hold")
    head = _canonical({**header, "arrays": listed})
    return b"".join([MAGIC, len(head).to_bytes(4, "little"), head, *blobs])


def unpack(body: bytes, most_bytes: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the read-only arrays of `body`; `Malformed` for anything else.

    Nothing is allocated that the body does not already hold, every byte is accounted for, and
    only one spelling of each message is accepted, so that a digest of bytes names a content.
    """
    if len(body) > most_bytes:
        raise Malformed(f"{len(body)} bytes, at most {most_bytes} are accepted")
    header, place = header_of(body)
    arrays: dict[str, Array] = {}
    before = None
    for entry in header.pop("arrays"):
        name, dtype, shape, length = _described(entry)
        if before is not None and name <= before:
            raise Malformed("arrays are not in order")
        if length > len(body) - place:
            raise Malformed("an array is longer than the message")
        arrays[name] = np.frombuffer(body[place : place + length], dtype=dtype).reshape(shape)
        place, before = place + length, name
    if place != len(body):
        raise Malformed("bytes are left over behind the last array")
    return header, arrays


def header_of(body: bytes) -> tuple[dict[str, Any], int]:
    """The header of a message that begins so, and where its arrays begin: they are not looked at.

    `Malformed` for anything else.
    """
    if body[: len(MAGIC)] != MAGIC:
        raise OtherVersion("not a message of this protocol version")
    start = len(MAGIC) + 4
    if len(body) < start:
        raise Malformed("the message ends before its header")
    size = int.from_bytes(body[len(MAGIC) : start], "little")
    if size > MOST_HEADER_BYTES or start + size > len(body):
        raise Malformed("the header is longer than the message")
    return _header(body[start : start + size]), start + size


def _canonical(header: Mapping[str, Any]) -> bytes:
    try:
        head = rfc8785.dumps(dict(header))
    except (rfc8785.CanonicalizationError, RecursionError):
        raise Malformed("the header holds what JSON cannot say") from None
    if len(head) > MOST_HEADER_BYTES:
        raise Malformed("the header is too long")
    return head


def _header(head: bytes) -> dict[str, Any]:
    try:
        header = json.loads(head)
    except (ValueError, RecursionError):
        raise Malformed("the header is not JSON") from None
    if not isinstance(header, dict) or _canonical(header) != head:
        raise Malformed("the header is not canonical JSON")
    listed = header.get("arrays")
    if not isinstance(listed, list) or len(listed) > MOST_ARRAYS:
        raise Malformed("the header lists no arrays, or too many")
    return header


def _described(entry: Any) -> tuple[str, str, list[int], int]:
    """Name, type, shape and length in bytes of the array that `entry` announces."""
    if not isinstance(entry, dict) or set(entry) != {"name", "dtype", "shape"}:
        raise Malformed("an array is described wrongly")
    name, dtype, shape = entry["name"], entry["dtype"], entry["shape"]
    if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME:
        raise Malformed("an array has no proper name")
    if dtype not in DTYPES:
        raise Malformed("an array has a type that does not travel")
    # `type(...) is int`: a bool is an int too, and would be a second spelling of 0 and 1
    if not isinstance(shape, list) or not 0 < len(shape) <= MOST_DIMENSIONS:
        raise Malformed("an array has no proper shape")
    if not all(type(side) is int and 0 <= side <= MOST_SIDE for side in shape):
        raise Malformed("an array has no proper shape")
    if math.prod(max(side, 1) for side in shape) > MOST_SIDE:
        raise Malformed("an array is longer than any message")
    return name, dtype, shape, math.prod(shape) * np.dtype(dtype).itemsize
