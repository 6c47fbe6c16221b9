"""Ports of loopback for what a test starts, which nobody else takes until it listens there."""

import itertools
import os
import socket
from contextlib import suppress

FIRST, EACH, WORKERS = 20_000, 1_000, 12
"""Below the ports that the kernel gives away (from 32768 on); each worker has its own thousand."""
_worker = int("0" + os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")) % WORKERS
_numbers = itertools.count(os.getpid())


def free_port() -> int:
    """A port that nobody has, and that was not given out a while ago."""
    for number in _numbers:
        port = FIRST + EACH * _worker + number % EACH
        with suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the numbers have no end")
