"""Any torch module of the user's own as a hospital's model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedkd.distill.models.building import called
from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import BadInput, Space

if TYPE_CHECKING:
    from torch import nn


def torch_module(space: Space, rng: Rng, *, module: "Callable[[], nn.Module]") -> Classifier:
    """What `module` makes: a class, or a class with its keys (`_partial_: true` in a yaml).

    It must turn inputs [N, ...] of `space`, publicly scaled and float32, into logits [N, C].
    Batch normalisation works, but its statistics then mix records with queries, the model cannot
    be trained privately, and it is trained by itself where others are trained as a cohort.
    """
    from fedkd.distill.models.torch_classifier import TorchClassifier

    if hasattr(module, "state_dict") and not isinstance(module, type):
        raise BadInput(
            f"a {type(module).__name__} that is already built",
            "its class, so that the first weights come from the run's own seed",
            "add `_partial_: true` beside the module's `_target_`",
        )
    return TorchClassifier.of(space, called(module), module, rng)
