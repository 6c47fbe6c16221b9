"""Knows the data sets that this installation carries: whether rows under their names are theirs."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from fedkd.data.records import Dataset
from fedkd.data.sources.breast_cancer import breast_cancer
from fedkd.data.sources.digits import digits
from fedkd.knowledge import Array

HELD_OUT: Final = ", held out"
"""What the name of a public query set ends with where it was cut from a data set."""
BUNDLED: Final[Mapping[str, Callable[[], Dataset]]] = {
    "breast-cancer": breast_cancer,
    "digits": digits,
}
"""By the name on its card, each data set that is read without a path and without a network."""


def strangers(source: str, inputs: Array) -> int | None:
    """How many rows of `inputs` [N, ...] are not of the bundled set called `source`.

    None where this installation carries no set of that name: nobody can tell here. A row of another
    type or shape than the set's is a stranger.
    """
    name = source.removesuffix(HELD_OUT)
    if name not in BUNDLED:
        return None
    known = _rows(name)
    form = str(inputs.dtype), inputs.shape[1:]
    return sum((*form, row.tobytes()) not in known for row in inputs)


@lru_cache(maxsize=len(BUNDLED))
def _rows(name: str) -> frozenset[tuple[str, tuple[int, ...], bytes]]:
    inputs = BUNDLED[name]().records.inputs
    return frozenset((str(inputs.dtype), inputs.shape[1:], row.tobytes()) for row in inputs)
