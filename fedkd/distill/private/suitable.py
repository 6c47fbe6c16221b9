"""Refuses models in which a record leaves more behind than a gradient that can be clipped."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedkd.distill.models.torch_classifier import TorchClassifier
from fedkd.distill.private.rows import Rows
from fedkd.distill.reproducible import one_thread, seeded
from fedkd.knowledge import BadInput, Space

INSTEAD = (
    "take nn.GroupNorm or nn.LayerNorm in its place: they keep nothing, and no row sees another"
)
CLOSE = 1e-4
"""How far two results of the same row may be apart; chance in the last bits stays far below."""


def check_suitable(model: object) -> None:
    """Raises `BadInput`, before any record is read, where `model` cannot be trained privately.

    Clipping bounds what one patient does to a gradient. It bounds nothing that passes beside it:
    a statistic of the batch (normalisation over it), a number that a training step writes down
    (a running mean, also in a layer without weights, where opacus 1.6 looks for none), or a row
    that shows in the answer to another. Each is looked for in the model's layers first, and then
    by a step on random rows.
    """
    if not isinstance(model, TorchClassifier):
        raise BadInput(
            f"a {type(model).__name__} to be trained privately",
            "a model that learns by gradient steps: logistic, mlp, cnn, resnet, tabular or a "
            "torch module",
            "trees answer privately under mechanism=pate",
        )
    for name, layer in model.skeleton.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise _refused(name, layer, "normalises over the batch, so that rows see each other")
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            raise _refused(name, layer, "keeps a running mean of the records, without noise")
    if not any(p.requires_grad for p in model.skeleton.parameters()):
        raise BadInput(f"{model.architecture}, which has no weight to train", "at least one")
    with one_thread(), seeded(0):
        _check_by_a_step(model)


def trial_rows(space: Space) -> Rows:
    """Random rows of three patients, in the range of `space`: what a model is tried on."""
    low, high = ((edge - space.offset) / space.divisor for edge in (space.low, space.high))
    lot = torch.Generator().manual_seed(0)
    inputs = low + (high - low) * torch.rand(6, *space.shape, generator=lot)
    labels = torch.randint(len(space.classes), (6,), generator=lot)
    return Rows.from_columns(
        inputs, labels, torch.tensor([0, 1, 1, 2, 2, 2]), torch.tensor([1, 2, 3])
    )


def _refused(name: str, layer: nn.Module, why: str) -> BadInput:
    return BadInput(
        f"the layer {name or '(the whole model)'}, {type(layer).__name__}, which {why}",
        "layers that keep nothing of a record and look at one row at a time",
        INSTEAD,
    )


def _check_by_a_step(model: TorchClassifier) -> None:
    module = model.module().train()
    rows = trial_rows(model.space)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    functional.cross_entropy(module(rows.inputs), rows.labels).backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
    for name, buffer in module.named_buffers():
        if name not in before or not torch.equal(buffer, before[name]):
            layer, _, own = name.rpartition(".")
            raise _refused(
                layer, module.get_submodule(layer), f"writes down {own} in each training step"
            )
    first = _seen(module, rows.inputs)
    other = rows.inputs.clone()
    other[1:] = rows.inputs[1:].flip(0).roll(1, 1)
    if _differ(_seen(module, other)[:1], first[:1]):
        raise _refused("", module, "answers one row by looking at others")
    if _differ(_seen(module, rows.inputs), first):
        raise _refused("", module, "remembers the rows it has seen")


def _seen(module: nn.Module, inputs: Tensor) -> Tensor:
    # The same dropout each time; the gradients' graph is not needed.
    with torch.no_grad(), seeded(1):
        logits: Tensor = module(inputs)
        return logits


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > CLOSE * (1 + other.abs().max()))
