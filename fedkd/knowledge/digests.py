"""Names things by their content: one SHA-256 over a canonical header and raw arrays."""

import hashlib
from collections.abc import Mapping
from typing import Any, NewType, TypeAlias

import numpy as np
import rfc8785
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Digest = NewType("Digest", str)


def digest_of_bytes(body: bytes) -> Digest:
    """SHA-256 of `body`, written `sha256:<64 hexadecimal digits>`."""
    return Digest("sha256:" + hashlib.sha256(body).hexdigest())


def little_endian(array: Array) -> Array:
    """`array` in C order and little-endian, so that its bytes are the same on every machine."""
    if array.dtype.hasobject:
        raise TypeError(f"found an array of type {array.dtype}, whose bytes are only addresses")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def digest_of_arrays(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Digest:
    """Digest of a JSON header (RFC 8785) together with arrays: their names, types, shapes, bytes.

    The header's own length comes first, so that no header can be mistaken for an array's bytes.
    """
    described = {
        name: {"dtype": little_endian(array).dtype.str, "shape": list(array.shape)}
        for name, array in arrays.items()
    }
    head = rfc8785.dumps({"header": dict(header), "arrays": described})
    state = hashlib.sha256(len(head).to_bytes(8, "little") + head)
    for name in sorted(arrays):
        state.update(little_endian(arrays[name]).tobytes())
    return Digest("sha256:" + state.hexdigest())
