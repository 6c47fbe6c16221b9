"""fedkd: hospitals exchange output distributions, and nothing else.

`simulate` and `load` do in Python what the commands do. Importing this loads nothing heavy.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedkd.report import Run

__version__ = "0.1.0"
__all__ = ["__version__", "load", "simulate"]


def simulate(*, config_dir: str | Path | None = None, **overrides: Any) -> "Run":
    """Runs a whole federation on this machine and returns its figures as data frames.

    `overrides` are the command's: `simulate(data="digits", rounds=5, clients={"count": 3})`, or
    with dots, `simulate(**{"clients.count": 3})`. `BadInput` (a `ValueError`) for what cannot be.
    Sets this process to one thread for training; the same call gives the same student.
    """
    from fedkd.cli.simulate import simulate_in_python

    return simulate_in_python(overrides, None if config_dir is None else Path(config_dir))


def load(run: str | Path) -> "Run":
    """The figures of the run in the folder `run`: `.summary`, `.config`, `.clients`, `.metrics`."""
    from fedkd.report import load as load_run

    return load_run(Path(run))
