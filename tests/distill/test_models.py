"""Models of every kind: made, refused, reproducible."""

import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LinearRegression
from sklearn.svm import LinearSVC
from torch import nn

import fedkd
from fedkd.distill import TorchClassifier, as_classifier
from fedkd.distill.laws import MODEL_LAWS, LawBroken, Toy
from fedkd.distill.models.cnn import cnn
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.resnet import resnet
from fedkd.distill.models.scikit import scikit
from fedkd.distill.models.tabular import tabular
from fedkd.distill.models.torch_module import torch_module
from fedkd.knowledge import BadInput, NotInSpace, Space, normalised

YAMLS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))

LIGHT = {
    "resnet": {"width": 4},
    "random_forest": {"trees": 20},
    "extra_trees": {"n_estimators": 20},
    "gradient_boosting": {"rounds": 10},
}
"""Smaller than the yaml says: a law holds at any size, and these are tried often."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def factory_of(path: Path):
    keys = {**yaml.safe_load(path.read_text()), **LIGHT.get(path.stem, {})}
    module, _, name = keys.pop("_target_").rpartition(".")
    target = getattr(importlib.import_module(module), name)
    return lambda space, lot: as_classifier(functools.partial(target, **keys), space, lot)


@pytest.mark.parametrize("law", MODEL_LAWS)
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_model_keeps_the_laws(path: Path, law: str) -> None:
    MODEL_LAWS[law](factory_of(path))


class Faulty:
    """An honest perceptron with one planted fault."""

    def __init__(self, space: Space, lot: np.random.Generator, fault: str) -> None:
        self.space, self.lot, self.fault = space, lot, fault
        self.inner = mlp(space, lot)
        if fault == "seeds itself":
            torch.manual_seed(0)
            self.inner = mlp(space, rng(np.random.randint(1 << 30)))
        self.architecture, self.parameters = self.inner.architecture, self.inner.parameters

    def _with(self, inner):
        made = Faulty(self.space, rng(), "")
        made.inner, made.fault = inner, self.fault
        return made

    def fit(self, records, lesson, plan, lot):
        if self.fault == "never learns":
            return self
        lesson = None if self.fault == "skips lessons" and records is not None else lesson
        fitted = self.inner.fit(records, lesson, plan, lot)
        if self.fault == "learns in place":
            self.inner = fitted
            return self
        return self._with(fitted)

    def probs(self, inputs):
        said = self.inner.probs(inputs)
        if self.fault == "is not normalised":
            return said * np.float32(1.01)
        if self.fault == "forgets a class":
            seen = said[:, :2]
            return normalised(seen)
        return said

    def weights(self):
        return self.inner.weights()

    def with_weights(self, weights):
        if self.fault == "ignores weights":
            return self
        return self._with(self.inner.with_weights(weights))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("is not normalised", "a model answers with distributions"),
        ("forgets a class", "a model answers with distributions"),
        ("never learns", "a model learns from records"),
        ("skips lessons", "a model learns from a lesson"),
        ("learns in place", "a model leaves what it is given"),
        ("seeds itself", "a model gives the same bytes for the same seed"),
        ("ignores weights", "a model comes back from its weights"),
    ],
)
def test_a_law_notices_a_planted_fault(fault: str, law: str) -> None:
    MODEL_LAWS[law](lambda space, lot: Faulty(space, lot, ""))
    with pytest.raises(LawBroken):
        MODEL_LAWS[law](lambda space, lot: Faulty(space, lot, fault))


def run(*arguments: str | Path, **env: str) -> str:
    root = str(Path(fedkd.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": root, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_second_process_gives_the_same_bytes(capsys) -> None:
    script = Path(__file__).parent / "fingerprints.py"
    runpy.run_path(str(script), run_name="__main__")
    ours = json.loads(capsys.readouterr().out)
    theirs = json.loads(run(script, OMP_NUM_THREADS="3", MKL_NUM_THREADS="3", PYTHONHASHSEED="7"))
    assert ours == theirs
    assert len(set(ours.values())) == len(ours) == 4


def test_the_room_loads_torch_and_sklearn_only_when_a_model_of_theirs_is_made() -> None:
    models = ["random_forest", "mlp", "cnn", "torch_module", "scikit", "gradient_boosting"]
    lines = ["import sys, numpy, fedkd.distill, fedkd.distill.losses.kl, fedkd.distill.laws"]
    lines += [f"import fedkd.distill.models.{model}" for model in models]
    lines += ["print([name for name in ('torch', 'sklearn') if name in sys.modules])"]
    lines += [
        "space = fedkd.knowledge.Space('table', (2,), 'float32', 0, 1, ('a', 'b'))",
        "forest = fedkd.distill.models.random_forest.random_forest",
        "fedkd.distill.as_classifier(forest, space, numpy.random.default_rng(0), {'trees': 3})",
        "print([name for name in ('torch', 'sklearn') if name in sys.modules])",
    ]
    assert run("-c", "\n".join(lines)).splitlines() == ["[]", "['sklearn']"]


def images(*shape: int, classes: int = 10) -> Space:
    names = tuple(str(i) for i in range(classes))
    return Space("image", shape, "uint8", 0, 255, names, 0, 255)


def test_the_cnn_has_the_parameters_that_the_methods_were_measured_with() -> None:
    assert cnn(images(28, 28), rng()).parameters == 52_138


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (28, 28, 1), (3, 17, 12), (5, 5, 4), (2, 2)])
@pytest.mark.parametrize("factory", [cnn, resnet])
def test_an_image_model_takes_any_size_and_either_place_of_the_channels(factory, shape) -> None:
    model = factory(images(*shape, classes=4), rng())
    assert model.probs(np.zeros((2, *shape), np.uint8)).shape == (2, 4)


def test_a_residual_network_keeps_no_statistics_of_a_batch() -> None:
    assert not list(resnet(images(8, 8), rng()).module().buffers())


@pytest.mark.parametrize("factory", [cnn, resnet])
def test_an_image_model_refuses_a_table(factory, table: Toy) -> None:
    with pytest.raises(BadInput, match=r"found inputs of kind table.*expected images"):
        factory(table.space, rng())


def test_an_image_model_refuses_an_image_of_a_strange_shape() -> None:
    with pytest.raises(BadInput, match="expected images"):
        cnn(images(8, 8, 8), rng())


def test_a_tabular_model_refuses_images() -> None:
    with pytest.raises(BadInput, match=r"found inputs of kind image.*expected a table"):
        tabular(images(8, 8), rng())


class Net(nn.Module):
    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, classes)

    def forward(self, inputs):
        return self.last(self.first(inputs).tanh())


class Fitting(nn.Module):
    def __init__(self, space: Space) -> None:
        super().__init__()
        self.only = nn.Linear(space.shape[0], len(space.classes))

    def forward(self, inputs):
        return self.only(inputs)


def test_a_module_class_of_the_users_own_is_a_model(table: Toy) -> None:
    model = as_classifier(Net, table.space, rng(), {"width": 5})
    assert model.parameters == 6 * 5 + 5 + 5 * 3 + 3
    held = as_classifier(functools.partial(Net, width=5), table.space, rng())
    assert held.architecture == model.architecture
    assert held.architecture != as_classifier(Net, table.space, rng()).architecture


def test_a_module_class_that_asks_for_the_space_is_given_it(table: Toy) -> None:
    assert as_classifier(Fitting, table.space, rng()).parameters == 21


def test_a_module_in_a_key_is_a_model(table: Toy) -> None:
    model = as_classifier(torch_module, table.space, rng(), {"module": functools.partial(Net)})
    assert isinstance(model, TorchClassifier)


def test_a_module_that_is_already_built_is_refused(table: Toy) -> None:
    with pytest.raises(BadInput, match="_partial_: true"):
        torch_module(table.space, rng(), module=Net())


def test_a_module_that_does_not_fit_the_data_is_refused(table: Toy) -> None:
    with pytest.raises(BadInput, match=r"cannot read such inputs.*expected a module that turns"):
        as_classifier(Net, images(8, 8, classes=3), rng())
    with pytest.raises(BadInput, match=r"makes \(2, 7\) of 2 inputs"):
        as_classifier(Net, table.space, rng(), {"classes": 7})


def test_a_scikit_class_is_a_model(table: Toy) -> None:
    model = as_classifier(ExtraTreesClassifier, table.space, rng(), {"n_estimators": 3})
    assert "ExtraTreesClassifier" in model.architecture
    assert model.parameters is None
    assert model.weights() is None
    with pytest.raises(BadInput, match="fit it again"):
        model.with_weights({})


def test_an_estimator_without_probabilities_is_refused(table: Toy) -> None:
    with pytest.raises(BadInput, match="CalibratedClassifierCV"):
        as_classifier(LinearSVC, table.space, rng())


@pytest.mark.parametrize(
    "target", [LinearRegression, dict, "mlp", 7, lambda inputs: inputs, functools.partial(print, 1)]
)
def test_what_is_no_model_is_refused(target, table: Toy) -> None:
    with pytest.raises(BadInput, match="expected"):
        as_classifier(target, table.space, rng())


@pytest.mark.parametrize("target", [mlp, Net, ExtraTreesClassifier])
def test_a_key_that_does_not_exist_is_refused(target, table: Toy) -> None:
    with pytest.raises(BadInput, match=r"hiden.*expected keys out of"):
        as_classifier(target, table.space, rng(), {"hiden": 3})


def test_a_factory_that_returns_no_classifier_is_refused(table: Toy) -> None:
    def broken(space, rng):
        return Net()

    with pytest.raises(BadInput, match="it lacks fit, probs"):
        as_classifier(broken, table.space, rng())


def test_an_estimator_object_is_never_changed(table: Toy, plan) -> None:
    mine = ExtraTreesClassifier(n_estimators=3)
    scikit(table.space, rng(), estimator=mine).fit(table.records, None, plan(), rng())
    assert not hasattr(mine, "classes_")
    assert mine.random_state is None


@pytest.mark.parametrize(
    "factory", [mlp, lambda s, r: scikit(s, r, estimator=ExtraTreesClassifier)]
)
def test_inputs_of_another_space_are_refused(factory, table: Toy) -> None:
    model = factory(table.space, rng())
    with pytest.raises(NotInSpace):
        model.probs(np.zeros((2, 7), np.float32))
    with pytest.raises(NotInSpace):
        model.probs(np.zeros((2, 6), np.float64))
