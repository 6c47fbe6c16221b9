"""Clips by formula, for networks of known layers: no gradient of one row is ever written out whole.

A linear layer's gradient on one row is an outer product, so its norm is a product of two norms
(Goodfellow, 2015, 1510.01799); the clipped sum then is one matrix product of what the backward pass
left behind, and no second backward pass is needed (Bu, Wang, Zha and Karypis, 2023, 2210.00038,
"book-keeping"). Small layers (convolutions, normalisations) are cheaper written out, a row at a
time (Bu, Mao and Xu, 2022, 2205.10683, "mixed ghost clipping").
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedkd.distill.networks import Images, Residual
from fedkd.distill.private.rows import Alike, Gradients, NoSuchWay, Rows, Way
from fedkd.distill.private.sums import BLOCK, pairs, products, squares, summed_products, weighted

# B rows, P patients, M rows of one patient, C outputs, F inputs, T places of an image.

ROW_BY_ROW = (
    nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Softplus, nn.Hardswish, nn.Hardtanh, nn.ReLU6, nn.Dropout, nn.Dropout2d,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
    nn.Sequential, Images, Residual,
)  # fmt: skip
"""Layers without weights that treat each row by itself, and what only puts layers together."""

CANCELLED = 1e-4
"""Rows of one patient that cancel each other below this share of their size count as this share.

In float64 what is left of a larger cancellation would no longer be exact to a millionth.
"""


class _Part(Protocol):
    # What one layer adds: squared norms [P] of the patients' gradients, and their weighted sums,
    # each flat, in the order weight, bias.
    def norms(self, rows: Rows) -> Tensor: ...
    def total(self, rows: Rows, factors: Tensor) -> list[Tensor]: ...


def closed(module: nn.Module) -> Way:
    """The way of `module`, all of whose layers must be known; `NoSuchWay` otherwise.

    It reads the module's weights anew at each call, and asks them for no gradient of their own.
    """
    layers = _trained(module)
    seen: list[tuple[str, Tensor, Tensor]] = []

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            seen.append((name, given[0].detach(), made.requires_grad_()))

        return hook

    for name, layer in layers.items():
        layer.layer.register_forward_hook(remember(name))
    module.requires_grad_(False)

    def gradients(rows: Rows) -> Gradients:
        seen.clear()
        logits = module(rows.inputs)
        slope = _slope(logits.detach(), rows.labels)
        if rows.several:
            slope *= rows.shares.unsqueeze(1)
        made = [output for _, _, output in seen]
        slopes: Sequence[Tensor | None] = (slope,)
        if len(made) != 1 or made[0] is not logits:
            slopes = torch.autograd.grad(logits, made, slope, allow_unused=True)
        parts: dict[str, _Part] = {}
        for (name, given, _), of_output in zip(seen, slopes, strict=True):
            if name in parts:
                raise NoSuchWay(f"{name} is used twice")
            if of_output is not None:
                parts[name] = _part(layers[name], given, of_output, rows)
        return _gathered(layers, parts, rows)

    count = sum(layer.weight + layer.bias for layer in layers.values())
    return Way("closed", gradients, count, sum(_written(layer) for layer in layers.values()))


def _slope(logits: Tensor, labels: Tensor) -> Tensor:
    # [B, C], of the cross-entropy: probabilities - label. Over so few classes torch's softmax is
    # an eighth as fast along the rows as along the columns.
    chances = logits.t().softmax(0)
    chances.scatter_add_(0, labels.unsqueeze(0), torch.full((1, len(labels)), -1.0))
    return chances.t()


class _Layer(NamedTuple):
    layer: nn.Module
    weight: int  # how many numbers of it are trained: all, or none
    bias: int


def _trained(module: nn.Module) -> dict[str, _Layer]:
    shared = len(list(module.named_parameters(remove_duplicate=False)))
    if shared != len(list(module.parameters())):
        raise NoSuchWay("two layers share a weight")
    layers = {}
    for name, layer in module.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks or getattr(layer, "inplace", False):
            raise NoSuchWay(f"{name or 'the module'} has hooks of its own, or works in place")
        if not (type(layer) in ROW_BY_ROW or _is_known(layer)):
            raise NoSuchWay(f"{name or 'the module'} is a {type(layer).__name__}")
        weight, bias = (_trained_numbers(layer, part) for part in ("weight", "bias"))
        if weight or bias:
            layers[name] = _Layer(layer, weight, bias)
    return layers


def _trained_numbers(layer: nn.Module, part: str) -> int:
    tensor = getattr(layer, part, None)
    trained = isinstance(tensor, nn.Parameter) and tensor.requires_grad
    return tensor.numel() if trained and tensor is not None else 0


def _is_known(layer: nn.Module) -> bool:
    if type(layer) is nn.Flatten:
        return layer.start_dim == 1
    if type(layer) is nn.Unflatten:
        return layer.dim == 1
    if type(layer) is nn.Conv2d:
        plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return plain and layer.groups == 1
    return type(layer) in (nn.Linear, nn.GroupNorm, nn.LayerNorm)


def _written(trained: _Layer) -> int:
    # Numbers that `_part` writes out for a row.
    return 0 if isinstance(trained.layer, nn.Linear) else trained.weight + trained.bias


def _part(trained: _Layer, given: Tensor, slope: Tensor, rows: Rows) -> _Part:
    layer, weight, bias = trained
    if isinstance(layer, nn.Linear) and given.dim() == 2:
        # Few numbers are written out sooner than patients are told apart by their rows.
        few = len(given) * given.shape[1] * slope.shape[1] <= BLOCK
        if not (rows.several and few):
            return _Outer(given, slope, bool(weight), bool(bias))
    of_weight, of_bias = _of_each_row(layer, given, slope)
    written = ([of_weight] if weight else []) + ([of_bias] if bias else [])
    return _Written([_by_patient(one.flatten(1), rows) for one in written])


def _of_each_row(layer: nn.Module, given: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    # The gradients [B, ...] of weight and bias.
    count = len(given)
    if isinstance(layer, nn.Linear):
        given, slope = _places(given), _places(slope)  # [B, T, F], [B, T, C]
        return slope.transpose(1, 2) @ given, slope.sum(1)
    if isinstance(layer, nn.Conv2d):
        slope = slope.flatten(2)  # [B, C, T]
        return slope @ _windows(layer, given).transpose(1, 2), slope.sum(2)
    if isinstance(layer, nn.GroupNorm):
        normed = functional.group_norm(given, layer.num_groups, eps=layer.eps)
        scaled = (slope * normed).reshape(count, layer.num_channels, -1)
        return scaled.sum(2), slope.reshape(count, layer.num_channels, -1).sum(2)
    assert isinstance(layer, nn.LayerNorm)  # noqa: S101 - `_is_known` has seen to it
    shape = list(layer.normalized_shape)
    normed = functional.layer_norm(given, shape, eps=layer.eps)
    size = math.prod(shape)
    return (slope * normed).reshape(count, -1, size).sum(1), slope.reshape(count, -1, size).sum(1)


def _places(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(1) if tensor.dim() == 2 else tensor.flatten(1, -2)


def _windows(layer: nn.Conv2d, given: Tensor) -> Tensor:
    # [B, F, T]: what each place of the output is made of. Copying it out of strides takes half
    # the time of functional.unfold, on a CPU.
    assert not isinstance(layer.padding, str)  # noqa: S101 - `_is_known` has seen to it
    down, across = layer.padding
    if layer.dilation != (1, 1):
        return functional.unfold(
            given, layer.kernel_size, layer.dilation, (down, across), layer.stride
        )
    padded = functional.pad(given, (across, across, down, down))
    windows = padded.unfold(2, layer.kernel_size[0], layer.stride[0])
    windows = windows.unfold(3, layer.kernel_size[1], layer.stride[1])  # [B, F', H, W, k, k]
    windows = windows.permute(0, 1, 4, 5, 2, 3)
    return windows.reshape(len(given), -1, windows.shape[4] * windows.shape[5])


def _by_patient(each: Tensor, rows: Rows) -> Tensor:
    # [B, K] -> [P, K]
    if not rows.several:
        return each
    return each.new_zeros(len(rows.counts), each.shape[1]).index_add_(0, rows.patient, each)


class _Written:
    """Gradients written out, [P, K] each: what is summed is exactly what was measured."""

    def __init__(self, written: Sequence[Tensor]) -> None:
        self.written = written

    def norms(self, rows: Rows) -> Tensor:
        return torch.stack([squares(one) for one in self.written]).sum(0)

    def total(self, rows: Rows, factors: Tensor) -> list[Tensor]:
        return [weighted(factors, one) for one in self.written]


class _Outer:
    """A linear layer: the gradient of row b is the outer product of slope [B, C] and input [B, F].

    The bias is one more input, which is always one.
    """

    def __init__(self, given: Tensor, slope: Tensor, weight: bool, bias: bool) -> None:
        self.given, self.slope, self.weight, self.bias = given, slope, weight, bias

    def norms(self, rows: Rows) -> Tensor:
        sizes: Tensor | float = 0.0
        if self.weight:
            sizes = rows.sizes if rows.are_inputs(self.given) else squares(self.given)
        each = squares(self.slope) * (sizes + float(self.bias))
        if not rows.several:
            return each
        total = each.new_zeros(len(rows.counts))
        for group, alike in enumerate(rows.alike):
            of_group = each[alike.places[:, 0]]
            if alike.places.shape[1] > 1:
                of_group = self._of_patients(rows, group, alike)
            total[alike.patients] = of_group
        size = torch.zeros_like(total).index_add_(0, rows.patient, each.sqrt())
        return torch.maximum(total, (CANCELLED * size).square())

    def _of_patients(self, rows: Rows, group: int, alike: Alike) -> Tensor:
        # |sum_i s_i x_i^T|^2 of each patient: the sum written out, or the products of its terms
        # with one another, whichever are fewer numbers.
        places, there = alike.places, alike.there
        count, outputs, inputs = places.shape[1], self.slope.shape[1], self.given.shape[1]
        ones = float(self.bias)
        if not self.weight or count * (outputs + inputs) >= outputs * inputs:
            constant = torch.ones(len(self.slope), 1)
            of_bias = summed_products(self.slope, constant, places, there) * ones
            if not self.weight:
                return of_bias
            return of_bias + summed_products(self.slope, self.given, places, there)
        slopes = pairs(self.slope, places) * there.unsqueeze(1) * there.unsqueeze(2)
        known = rows.are_inputs(self.given)
        of_inputs = rows.input_pairs[group] if known else pairs(self.given, places)
        return (slopes * (of_inputs + ones)).sum((1, 2)).clamp_(min=0.0)

    def total(self, rows: Rows, factors: Tensor) -> list[Tensor]:
        slope = self.slope.double() * rows.of_rows(factors).unsqueeze(1)
        summed = [products(slope, self.given).flatten()] if self.weight else []
        return [*summed, slope.sum(0)] if self.bias else summed


def _gathered(layers: dict[str, _Layer], parts: dict[str, _Part], rows: Rows) -> Gradients:
    norms = torch.zeros(len(rows.counts), dtype=torch.float64)
    for part in parts.values():
        norms += part.norms(rows)

    def total(factors: Tensor) -> Tensor:
        summed: list[Tensor] = []
        for name, layer in layers.items():
            if name in parts:
                summed += parts[name].total(rows, factors)
            else:  # nothing of this layer reaches the logits
                summed.append(torch.zeros(layer.weight + layer.bias, dtype=torch.float64))
        return torch.cat(summed)

    return Gradients(norms, total)
