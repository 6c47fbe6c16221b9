"""Says a line to whoever watches a run, on standard error, unless it is to be quiet."""

import os
import sys

QUIET = "FEDKD_QUIET"
"""Set: no progress at all (for a program that runs a program)."""


def say(line: str) -> None:
    """Prints `line` at once."""
    if not os.environ.get(QUIET):
        print(line, file=sys.stderr, flush=True)
