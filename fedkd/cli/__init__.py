"""How a person asks: the command `fedkd`, its configuration, and what it prints."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `fedkd` with `arguments` (by default the process's), and returns its exit code."""
    import sys

    from fedkd.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)


__all__ = ["main"]
