"""A model that begins evenly says the same of every input, and learns as before."""

import numpy as np
import pytest
import torch
from torch import nn

from fedkd.distill.models.cnn import cnn
from fedkd.distill.models.logistic import logistic
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.torch_classifier import TorchClassifier
from fedkd.distill.private import even_start
from fedkd.knowledge import Space

TABLE = Space("table", (5,), "float32", -1.0, 1.0, ("a", "b", "c"))
IMAGE = Space("image", (8, 8), "uint8", 0, 255, ("a", "b"), divisor=255.0)


@pytest.mark.parametrize(
    ("factory", "space"),
    [(logistic, TABLE), (mlp, TABLE), (cnn, IMAGE)],
    ids=lambda it: str(it)[:14],
)
def test_it_says_the_same_of_every_input_and_only_the_last_layer_is_another(factory, space):
    drawn = factory(space, np.random.default_rng(3))
    even = even_start(drawn)
    inputs = np.random.default_rng(4).uniform(space.low, space.high, (20, *space.shape))
    inputs = inputs.astype(space.dtype)
    assert not np.allclose(drawn.probs(inputs), 1 / len(space.classes), atol=1e-3)
    assert np.allclose(even.probs(inputs), 1 / len(space.classes))
    names = list(even.state)
    changed = [name for name in names if not torch.equal(even.state[name], drawn.state[name])]
    assert changed == names[-2:]


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, inputs):
        return self.norm(self.first(inputs))


def test_a_model_that_ends_otherwise_is_left_as_it_is():
    odd = TorchClassifier.of(TABLE, "odd", Odd, np.random.default_rng(0))
    assert even_start(odd) is odd


def test_a_last_layer_without_a_bias_is_even_too():
    def build():
        return nn.Linear(5, 3, bias=False)

    bare = TorchClassifier.of(TABLE, "bare", build, np.random.default_rng(0))
    even = even_start(bare)
    assert set(even.state) == {"weight"}
    assert not even.state["weight"].any()
