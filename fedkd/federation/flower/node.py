"""Flower's SuperNode, which looks for messages more often than every three seconds.

    python -I -m fedkd.federation.flower.node [ARGUMENTS OF flower-supernode]...

The three seconds are written into Flower (1.41), whose names are private, and known here alone.
"""

import os
import time
from types import SimpleNamespace

POLL_VARIABLE = "FEDKD_NODE_POLL_SECONDS"
POLL_SECONDS = 0.5
FASTEST, SLOWEST = 0.05, 3.0
BESIDE_SECONDS = 0.05
"""Between two looks for what a process beside it is about to hand over: no network is asked."""


def poll_seconds() -> float:
    """How long the node rests between two looks: what the environment says, within bounds."""
    try:
        asked = float(os.environ.get(POLL_VARIABLE, POLL_SECONDS))
    except ValueError:
        asked = POLL_SECONDS
    return min(max(asked, FASTEST), SLOWEST)


def main() -> None:
    """The SuperNode as a process."""
    import flwr.supernode.start_client_internal as client
    from flwr.supernode.cli.flower_supernode import flower_supernode

    longest = poll_seconds()

    def sleep(seconds: float) -> None:
        time.sleep(longest if seconds > 1 else BESIDE_SECONDS)

    client.time = SimpleNamespace(sleep=sleep)
    flower_supernode()


if __name__ == "__main__":
    main()
