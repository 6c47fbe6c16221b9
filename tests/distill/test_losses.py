"""Losses, as equations."""

import importlib
import math
from pathlib import Path

import pytest
import torch
import yaml

from fedkd.distill.laws import LOSS_LAWS, LawBroken
from fedkd.distill.losses.jensen_shannon import jensen_shannon
from fedkd.distill.losses.kl import kl

YAMLS = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))


def loss_of(path: Path, temperature: float):
    keys = yaml.safe_load(path.read_text())
    module, _, name = keys.pop("_target_").rpartition(".")
    keys.pop("weight")
    return getattr(importlib.import_module(module), name)(**{**keys, "temperature": temperature})


@pytest.mark.parametrize("temperature", [0.05, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("law", LOSS_LAWS)
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_loss_keeps_the_laws(path: Path, law: str, temperature: float) -> None:
    LOSS_LAWS[law](loss_of(path, temperature))


def of_a_sum(logits, target):
    return kl()(logits, target) * len(logits)


def that_falls_below_zero(logits, target):
    return kl()(logits, target) - 0.1


def without_care_for_zeros(logits, target):
    return (target * (target.log() - logits.log_softmax(1))).sum(1).mean()


def with_a_detached_part(logits, target):
    return kl()(logits, target) * logits.detach().square().mean()


def that_writes_to_its_target(logits, target):
    target.mul_(0.5).add_(0.125)
    return kl()(logits, target)


def reversed_target(logits, target):
    return kl()(logits, target.flip(1))


@pytest.mark.parametrize(
    ("faulty", "law"),
    [
        (of_a_sum, "a loss is the mean of its rows' losses"),
        (that_falls_below_zero, "a loss is never negative"),
        (reversed_target, "a loss is least where the model agrees"),
        (without_care_for_zeros, "a loss is finite at the corners of the simplex"),
        (with_a_detached_part, "a loss has the gradient of its value"),
        (that_writes_to_its_target, "a loss leaves what it is given"),
    ],
)
def test_a_law_notices_a_planted_fault(faulty, law: str) -> None:
    with pytest.raises(LawBroken):
        LOSS_LAWS[law](faulty)


def test_kl_against_a_certain_consensus_is_cross_entropy() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 1, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert torch.allclose(kl()(logits, torch.eye(3)[labels]), expected)


def test_kl_has_the_value_of_its_definition() -> None:
    # 0.75 ln(0.75 / 0.5) + 0.25 ln(0.25 / 0.5)
    found = kl()(torch.zeros(1, 2), torch.tensor([[0.75, 0.25]]))
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_a_hot_temperature_compares_logits() -> None:
    # Hinton et al., 2015, equation 4: for zero-mean logits and T -> infinity the loss tends to
    # half the mean squared difference of the logits over the classes (times T squared, over T^2).
    z, v = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[0.25, -0.25]]).double()
    found = kl(temperature=100.0)(z, v.softmax(1))
    assert found.item() == pytest.approx(((z - v) ** 2).mean().item() / 2, rel=1e-3)


def test_jensen_shannon_never_exceeds_log_2() -> None:
    logits = 1000 * torch.eye(3)
    found = jensen_shannon()(logits, torch.eye(3)[[1, 2, 0]])
    assert found.item() == pytest.approx(math.log(2))
