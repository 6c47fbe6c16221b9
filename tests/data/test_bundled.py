"""The data sets that are carried along: rows under their names are theirs, or strangers."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedkd.data.bundled import BUNDLED, strangers
from fedkd.federation.building import Workshop

CONF = Path(__file__).parents[2] / "conf" / "data"


@pytest.mark.parametrize("name", BUNDLED)
def test_a_sets_own_rows_are_known_and_others_are_not(name: str) -> None:
    rows = BUNDLED[name]().records.inputs[:40]
    assert strangers(name, rows) == 0
    assert strangers(f"{name}, held out", rows[::-1]) == 0
    changed = rows.copy()
    changed[3].flat[0] += 1
    assert strangers(name, changed) == 1
    assert strangers(name, rows.astype(np.float64)) == len(rows)
    assert strangers(name, rows.reshape(len(rows), 1, *rows.shape[1:])) == len(rows)
    assert strangers("somebody's own", rows) is None


def test_a_bundled_set_is_known_by_the_name_on_its_card() -> None:
    assert {name: read().card.name for name, read in BUNDLED.items()} == {it: it for it in BUNDLED}


def test_every_source_without_a_path_is_known() -> None:
    specs = [yaml.safe_load(path.read_text())["data"] for path in CONF.glob("*.yaml")]
    made = [Workshop()({"_target_": it["_target_"], "_partial_": True}).func for it in specs]
    assert {it for it in made if not inspect.signature(it).parameters} == set(BUNDLED.values())
