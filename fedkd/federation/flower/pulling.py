"""How long Flower waits for the rest of a reply that began to come and does not go on."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

SHARE: Final = 0.5
"""Of the time that is left, what one reply may take, so that those behind it are in time."""
LEAST_SECONDS: Final = 1.0


@contextmanager
def rest_until(over: float) -> Iterator[None]:
    """Meanwhile the grid gives up a reply whose bytes do not come in time, well before `over`.

    A node announces a reply before it sends its bytes. Flower's grid (1.41) then asks for them for
    up to 7,200 s, as long as something still comes, and hands over no other reply meanwhile: a node
    that was killed as it sent, or that trickles, would hold up a round far beyond its deadline.
    `over` is a time of `time.monotonic`.
    """
    grid: Any = sys.modules.get("flwr.superlink.grid.http_grid")
    if grid is None:  # a grid in one process, whose replies come whole
        yield
        return
    whole = grid.pull_objects

    def for_a_while(*args: Any, **words: Any) -> dict[str, bytes]:
        most = max((over - time.monotonic()) * SHARE, LEAST_SECONDS)
        pulled: dict[str, bytes] = whole(*args, **words, max_time=most, backoff_cap=LEAST_SECONDS)
        return pulled

    grid.pull_objects = for_a_while
    try:
        yield
    finally:
        grid.pull_objects = whole
