"""Names the streams that attacks draw from: the same seed finds the same."""

import hashlib
import json

import numpy as np


def chance(seed: int, *what: str | int) -> np.random.Generator:
    """The generator for one purpose of one attack, independent of every other one."""
    name = json.dumps(["attack", seed, *what]).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:16], "little"))
