"""Opens files in folders where the letterbox's user may put anything: links, pipes, other files.

The letterbox faces the network, so its user is taken to be somebody else's. Whoever has more
rights than it has follows none of its links, waits at none of its pipes, and writes into no file
that has a second name elsewhere (open(2), link(2)).
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MOST_READ_BYTES: Final = 1 << 20


class NotPlain(OSError):
    """Something else than a file of one name: a link, a pipe, a folder."""


def opened(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of the plain file at `path`; `NotPlain`, an `OSError`, where it is none."""
    handle = os.open(path, flags | _SAFELY, mode)
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return handle
    os.close(handle)
    raise NotPlain(f"{path} is no plain file")


def opened_to_append(path: Path, mode: int = 0o640) -> int:
    """A descriptor that appends to `path`; whatever else lay there is taken away first.

    Where even that fails, what is written goes nowhere: nobody's link or folder is worth a stop.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        return opened(path, flags, mode)
    except OSError:
        with suppress(OSError):
            path.unlink()
    try:
        return opened(path, flags | os.O_EXCL, mode)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def read_end(path: Path, most_bytes: int = MOST_READ_BYTES, begun_at: int = 0) -> bytes:
    """The last `most_bytes` of the plain file at `path`, from `begun_at` on; `OSError` for none."""
    with os.fdopen(opened(path, os.O_RDONLY), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begun_at, size - most_bytes))
        return file.read(most_bytes)
