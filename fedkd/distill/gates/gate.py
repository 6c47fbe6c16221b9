"""Says what a gate is: it mixes a site's answer towards "I do not know"."""

from collections.abc import Callable
from typing import NamedTuple

from fedkd.data import Records
from fedkd.distill.models.classifier import Rng
from fedkd.knowledge import Array, BadInput, Memory, QuerySet, Space, normalised

# N inputs, C classes.


class Gate(NamedTuple):
    """A pair of pure functions, and whether they learn from records.

    `fit` makes what the gate remembers (JSON values and arrays) from the site's own records and
    the query set. `open` says for inputs [N, ...] how much each is the site's kind of case: [N]
    in [0, 1]. A gate that reads records must be paid for under a mechanism, or be refused.
    """

    fit: Callable[[Space, Records, QuerySet, Rng], Memory]
    open: Callable[[Space, Memory, Array], Array]
    reads_records: bool


def gated(probs: Array, opened: Array) -> Array:
    """`a p + (1 - a) / C` for answers `probs` [N, C] and gates `opened` [N]: nothing new is sent.

    Where the gate is wide open the answer is what it was, to the last bit.
    """
    if opened.shape != probs.shape[:1] or not bool(((opened >= 0) & (opened <= 1)).all()):
        raise BadInput(f"gates of shape {opened.shape}", "one number in [0, 1] for each answer")
    share = opened[:, None].astype(probs.dtype)
    mixed = normalised(share * probs + (1 - share) / probs.shape[1])
    said: Array = probs.copy()
    said[opened < 1] = mixed[opened < 1]
    return said
