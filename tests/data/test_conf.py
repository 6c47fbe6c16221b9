"""The yamls of this room: every key is one that its target takes, and its value is in range."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf"
DATA = sorted((CONF / "data").glob("*.yaml"))
PARTITIONS = sorted((CONF / "partition").glob("*.yaml"))
NOT_THE_SOURCES = {"_target_", "records", "validation", "test_size", "reference_model"}
GLOBAL = {
    "data": None,
    "query": {"size"},
    "clients": {"count", "models"},
    "training": {"local_epochs", "lesson_epochs", "batch", "learning_rate", "weight_decay"},
    "student": {"model", "epochs", "batch", "learning_rate"},
    "rounds": None,
}


def target_of(declared):
    module, _, name = declared["_target_"].rpartition(".")
    return getattr(import_module(module), name)


def check(function, given):
    hints = get_type_hints(function, include_extras=True)
    assert set(given) == set(inspect.signature(function).parameters)
    for key, value in given.items():
        for limit in getattr(hints[key], "__metadata__", ()):
            assert value is None or value in limit, f"{key}={value} is not in {limit}"


@pytest.mark.parametrize("place", DATA, ids=lambda place: place.stem)
def test_a_data_yaml_gives_its_source_every_key_and_no_other(place):
    assert place.read_text().startswith("# @package _global_\n")
    declared = yaml.safe_load(place.read_text())
    data = declared["data"]
    assert set(data) >= NOT_THE_SOURCES
    check(target_of(data), {k: v for k, v in data.items() if k not in NOT_THE_SOURCES})
    assert set(declared) - {"defaults"} == set(GLOBAL)
    assert {key: set(declared[key]) for key in GLOBAL if GLOBAL[key]} == {
        key: keys for key, keys in GLOBAL.items() if keys
    }


@pytest.mark.parametrize("place", DATA, ids=lambda place: place.stem)
def test_a_data_yaml_names_models_that_there_are(place):
    declared = yaml.safe_load(place.read_text())
    named = {*declared["clients"]["models"], declared["student"]["model"]}
    for model in {*named, declared["data"]["reference_model"]}:
        assert (CONF / "model" / f"{model}.yaml").is_file()


@pytest.mark.parametrize("place", PARTITIONS, ids=lambda place: place.stem)
def test_a_partition_yaml_gives_its_target_every_key(place):
    declared = yaml.safe_load(place.read_text())
    function = target_of(declared)
    assert function.__name__ == place.stem
    check(function, {key: value for key, value in declared.items() if key != "_target_"})
