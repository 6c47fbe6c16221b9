"""fedkd: hospitals exchange output distributions, and nothing else."""

__version__ = "0.1.0"
