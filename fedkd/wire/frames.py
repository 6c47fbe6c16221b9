"""Turns a header and arrays into canonical bytes, and hostile bytes into one kind of error."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import rfc8785

from fedkd.knowledge import Array
from fedkd.knowledge.digests import little_endian

MAGIC = b"fedkd/1\n"
MOST_HEADER_BYTES = 1 << 20
MOST_DIMENSIONS = 6
DTYPES = ("<f4", "<f8", "|u1", "<u2", "<i8")


class Malformed(ValueError):
    """Bytes that are no message of this protocol; the text holds nothing from the bytes."""


def pack(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Magic, length of the header (4 bytes, little-endian), header (RFC 8785), arrays' bytes."""
    listed = []
    blobs = []
    for name in sorted(arrays):
        array = little_endian(arrays[name])
        listed.append({"name": name, "dtype": array.dtype.str, "shape": list(array.shape)})
        blobs.append(array.tobytes())
    head = rfc8785.dumps({**header, "arrays": listed})
    return b"".join([MAGIC, len(head).to_bytes(4, "little"), head, *blobs])


def unpack(body: bytes, most_bytes: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the read-only arrays of `body`; `Malformed` for anything else.

    Nothing is allocated that the body does not already hold, every byte is accounted for, and
    only one spelling of each message is accepted, so that a digest of bytes names a content.
    """
    if len(body) > most_bytes:
        raise Malformed(f"{len(body)} bytes, at most {most_bytes} are accepted")
    if body[: len(MAGIC)] != MAGIC:
        raise Malformed("not a message of this protocol version")
    start = len(MAGIC) + 4
    size = int.from_bytes(body[len(MAGIC) : start], "little")
    if size > MOST_HEADER_BYTES or start + size > len(body):
        raise Malformed("the header is longer than the message")
    header = _header(body[start : start + size])
    arrays: dict[str, Array] = {}
    place = start + size
    for entry in header.pop("arrays"):
        name, array, place = _array(entry, body, place)
        if arrays and name <= max(arrays):
            raise Malformed("arrays are not in order")
        arrays[name] = array
    if place != len(body):
        raise Malformed("bytes are left over behind the last array")
    return header, arrays


def _header(head: bytes) -> dict[str, Any]:
    try:
        header = json.loads(head)
        canonical = rfc8785.dumps(header)
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        raise Malformed("the header is not JSON") from None
    if canonical != head or not isinstance(header, dict):
        raise Malformed("the header is not canonical JSON")
    if not isinstance(header.get("arrays"), list):
        raise Malformed("the header lists no arrays")
    return header


def _array(entry: Any, body: bytes, place: int) -> tuple[str, Array, int]:
    if not isinstance(entry, dict) or set(entry) != {"name", "dtype", "shape"}:
        raise Malformed("an array is described wrongly")
    name, dtype, shape = entry["name"], entry["dtype"], entry["shape"]
    if not isinstance(name, str) or dtype not in DTYPES or not isinstance(shape, list):
        raise Malformed("an array is described wrongly")
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in shape)
    if len(shape) > MOST_DIMENSIONS or not whole or any(side < 0 for side in shape):
        raise Malformed("an array has no proper shape")
    count = 1
    for side in shape:
        count *= side
    end = place + count * np.dtype(dtype).itemsize
    if end > len(body):
        raise Malformed("an array is longer than the message")
    return name, np.frombuffer(body[place:end], dtype=dtype).reshape(shape), end
