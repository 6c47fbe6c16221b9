"""Writes files that are there whole or not at all, and are on disk when the call returns."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedkd.knowledge import Array

ITS_OWNERS: Final = 0o600
READ_BY_GROUP: Final = 0o640
"""What a letterbox's user writes, and people at the hospital read as the other user."""


def write_bytes(path: Path, body: bytes, mode: int = ITS_OWNERS) -> None:
    """Replaces `path` by `body` in one step, of this mode, synchronised to disk."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as partial:
            partial.write(body)
            partial.flush()
            os.fchmod(partial.fileno(), mode)
            os.fsync(partial.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` by `value` as readable JSON."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text())


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Replaces `path` by an npz file of `arrays`; the same arrays give the same bytes."""
    import io

    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]  # numpy's stub: allow_pickle
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, Array]:
    """What `write_arrays` wrote; never a pickle."""
    with np.load(path, allow_pickle=False) as kept:
        return {name: kept[name] for name in kept.files}
