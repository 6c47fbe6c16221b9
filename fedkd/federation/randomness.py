"""The one table of randomness: (seed, site, round, purpose) names a stream."""

import hashlib
import json
from typing import Literal

import numpy as np

Purpose = Literal[
    "initialise", "local", "lesson", "release", "hold_out", "partition", "validation", "sample",
    "student", "faults", "gate", "alone", "pooled", "fedavg", "queries", "noise", "sampling",
    "shards", "speaker",
]  # fmt: skip
SERVER = "(server)"
"""Stands for the server in the table; no site can have this name."""


def stream(seed: int, site: str, round: int, purpose: Purpose) -> np.random.Generator:
    """The generator for one purpose: the same on every engine, independent of every other one.

    Node ids, the order of messages and global generators never enter.
    """
    name = json.dumps([seed, site, round, purpose]).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:16], "little"))
