"""Runs a function in a forked process, which may be killed, or kill itself, at any moment."""

import os
import signal
import sys
import traceback
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """The exit code of a child that does `work`: 0 done, 1 raised, -9 killed.

    A fork has torch imported already, so that a killed run costs seconds less than a new process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            work()
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kill_oneself() -> None:
    """As an operator's kill -9, or a machine that loses its power, would."""
    os.kill(os.getpid(), signal.SIGKILL)
