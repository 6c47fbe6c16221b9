"""A lock that one process holds for as long as it works, and that others only look at."""

import fcntl
import time
from typing import IO, Any, Final

_PAUSE_SECONDS: Final = 0.02
_LOOKED_SECONDS: Final = 30.0
"""Longer than somebody who looks whether a lock is held shares it, on a machine that is busy."""


def taken(file: IO[Any]) -> bool:
    """Whether the lock on `file` is ours from now on; False at once where another one holds it.

    Who looks whether it is held shares it for a moment (flock(2)), and is waited for.
    """
    until = time.monotonic() + _LOOKED_SECONDS
    while not _locked(file, fcntl.LOCK_EX):
        if not _locked(file, fcntl.LOCK_SH) or time.monotonic() > until:
            return False
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(_PAUSE_SECONDS)
    return True


def _locked(file: IO[Any], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
