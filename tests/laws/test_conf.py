"""Walks conf/: a yaml names what exists, and a part keeps the laws of its kind."""

import importlib
import importlib.util
from functools import partial
from pathlib import Path

import pytest
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from fedkd.distill.generators.laws import GENERATOR_LAWS
from fedkd.federation.mechanism_laws import MECHANISM_LAWS
from fedkd.knowledge.laws import AGGREGATE_LAWS, FILTER_LAWS
from fedkd.wire.laws import CODEC_LAWS

CONF = Path(__file__).parents[2] / "conf"
YAMLS = sorted(CONF.glob("*/*.yaml"))
WITHOUT_TARGET = {"query", "lesson", "faults", "mechanism"}
"""Groups whose yaml may be a choice of plain values."""


def laws_of_learning(name):
    """Laws of another room, where they are already written down."""
    if importlib.util.find_spec("fedkd.distill.laws") is None:
        return {}
    return getattr(importlib.import_module("fedkd.distill.laws"), name, {})


LAWS = {
    "aggregate": AGGREGATE_LAWS,
    "filter": FILTER_LAWS,
    "codec": CODEC_LAWS,
    "generator": GENERATOR_LAWS,
    "mechanism": MECHANISM_LAWS,
    "loss": laws_of_learning("LOSS_LAWS"),
    "model": laws_of_learning("MODEL_LAWS"),
    "gate": laws_of_learning("GATE_LAWS"),
}
CASES = [
    pytest.param(
        path,
        law,
        id=f"{path.parent.name}/{path.stem}: {sentence}",
        # models train: tests/distill runs the same laws on them
        marks=[pytest.mark.slow] if path.parent.name == "model" else [],
    )
    for path in YAMLS
    for sentence, law in LAWS.get(path.parent.name, {}).items()
]


def part_of(path):
    """What the yaml makes, by Hydra alone."""
    content, kind = content_of(path), path.parent.name
    if kind in ("loss", "mechanism"):  # beside the part's own keys stands how it is used
        content = without_extras(content, kind)
    if kind == "model":  # may name a class of torch or scikit-learn
        from fedkd.distill import as_classifier

        keys = OmegaConf.to_container(content)
        return partial(as_classifier, get_object(keys.pop("_target_")), keys=keys)
    # a generator gets its space later: its laws take the target with the yaml's keys filled in
    return instantiate(content, _convert_="all", _partial_=kind == "generator")


def content_of(path):
    """What the yaml puts under its group: a global one says where."""
    content = OmegaConf.load(path)
    return content[path.parent.name] if "@package _global_" in path.read_text() else content


def without_extras(content, kind):
    from fedkd.cli.validation import parameters_of_target, target_of

    own = {"_target_", *parameters_of_target(target_of(content, kind))}
    return OmegaConf.masked_copy(content, [key for key in content if key in own])


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_yaml_opens_with_a_comment_and_names_what_exists(path):
    text = path.read_text()
    assert text.startswith("# "), "expected a first line that says what a reader has to know"
    assert "import pickle" not in text
    content = content_of(path)
    if "_target_" in content:
        assert callable(get_object(content._target_))
    else:
        assert path.parent.name in WITHOUT_TARGET or content.get("kind") == "none"


@pytest.mark.parametrize(("path", "law"), CASES)
def test_a_part_keeps_the_laws_of_its_kind(path, law):
    law(part_of(path))


@pytest.mark.parametrize("kind", ["aggregate", "filter", "codec", "generator", "mechanism"])
def test_a_kind_has_parts_and_laws(kind):
    assert LAWS[kind]
    assert [path for path in YAMLS if path.parent.name == kind]
