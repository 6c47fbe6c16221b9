"""A hospital's own model, which is fedkd's: its training begins once nobody holds it."""

import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path

from torch import nn

from fedkd.distill.models.logistic import logistic as of_fedkd
from fedkd.distill.models.torch_classifier import TorchClassifier
from fedkd.knowledge import Space

HELD = "held"
"""The file, in the service's home, that names the log of a hospital and a run held there."""


class Held(TorchClassifier):
    """What is trained, or asked, after a run was paid for waits while that run is held."""

    def module(self) -> nn.Module:
        while held(Path.home() / HELD):
            time.sleep(0.02)
        return super().module()


def logistic(space: Space, rng: object) -> TorchClassifier:
    made = of_fedkd(space, rng)
    return Held(**{field.name: getattr(made, field.name) for field in fields(made)})


def held(path: Path) -> bool:
    with suppress(OSError, ValueError):  # it is not there, or not yet whole
        log, run = path.read_text().splitlines()
        return is_paid(Path(log), run)
    return False


def is_paid(log: Path, run: str) -> bool:
    """Whether a run is paid for, looked up without the log's own locks."""
    key = f"{run}/train/charge"
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as read:
        return read.execute("SELECT 1 FROM entries WHERE key = ?", (key,)).fetchone() is not None
    return False
