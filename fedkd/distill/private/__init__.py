"""Private training: noised sums of clipped gradients, one a patient.

Importing this loads no torch: it comes with the first training.
"""

from typing import TYPE_CHECKING, Any

from fedkd.distill.private.plan import PrivateTraining

if TYPE_CHECKING:
    from fedkd.distill.private.start import even_start
    from fedkd.distill.private.suitable import check_suitable
    from fedkd.distill.private.training import train_privately

__all__ = ["PrivateTraining", "check_suitable", "even_start", "train_privately"]

_WITH_TORCH = {
    "check_suitable": "fedkd.distill.private.suitable",
    "even_start": "fedkd.distill.private.start",
    "train_privately": "fedkd.distill.private.training",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WITH_TORCH[name]), name)
