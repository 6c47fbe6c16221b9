"""Ports of loopback for what a test starts, which nobody else takes until it listens there."""

import secrets
import socket
from pathlib import Path


def free_port() -> int:
    """A port of loopback that nobody else is given for as long as this process lives.

    It is none of those that the kernel picks from by itself: a connection that goes out takes no
    port that was chosen and is not listened on yet. A name of the abstract kind (unix(7)) keeps it
    from other tests, which run in other processes.
    """
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    by_hand = [port for port in range(10_000, 65_536) if not low <= port <= high]
    while True:
        port = secrets.choice(by_hand or range(10_000, 65_536))
        with socket.socket(socket.AF_UNIX) as kept, socket.socket() as tried:
            try:
                kept.bind(f"\0fedkd-test-port-{port}")
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            kept.detach()
        return port
