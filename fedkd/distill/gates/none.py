"""No gate: every case is the site's kind of case."""

import numpy as np

from fedkd.data import Records
from fedkd.distill.gates.gate import Gate
from fedkd.distill.models.classifier import Rng
from fedkd.knowledge import Array, Memory, QuerySet, Space


def none() -> Gate:
    """Says 1 of everything: answers go out as the model gives them. Costs nothing."""

    def fit(space: Space, records: Records, queries: QuerySet, rng: Rng) -> Memory:
        return {}

    def open_(space: Space, memory: Memory, inputs: Array) -> Array:
        return np.ones(len(inputs), dtype=np.float32)

    return Gate(fit, open_, reads_records=False)
