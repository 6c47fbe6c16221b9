"""Rows from a schema alone: declared marginals, and nothing that no schema says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedkd.data import TableSchema
from fedkd.distill.generators.dictionary import dictionary
from fedkd.knowledge import BadInput, Space

DECLARED = {
    "columns": {
        "age": {"kind": "numeric", "low": 18, "high": 95, "mean": 60, "sd": 12},
        "crp": {"kind": "numeric", "low": 1, "high": 400, "log": True},
        "weight": {"kind": "numeric", "low": 40, "high": 140},
        "old peak": {"kind": "numeric", "low": 0, "high": 6, "mean": 0.9, "sd": 1, "missing": 0.25},
        "sex": {"kind": "categorical", "categories": ["f", "m"]},
        "stage": {
            "kind": "categorical",
            "categories": ["1", "2", "3"],
            "shares": [6, 3, 1],
            "missing": 0.1,
        },
    },
    "label": {"column": "outcome", "classes": ["no", "yes"]},
}
SCHEMA = TableSchema.from_json(DECLARED)
COUNT = 20_000


def posed(count, seed=0, schema=SCHEMA, **keys):
    generator = dictionary(schema=schema, **keys)
    return generator.pose(generator.init(seed), None, count)[1]


@pytest.fixture(scope="module")
def columns():
    inputs = posed(COUNT, space=SCHEMA.space()).inputs
    return dict(zip(SCHEMA.features, inputs.T.astype(float), strict=True))


def test_rows_lie_in_the_space_of_the_schema():
    SCHEMA.space().check(posed(500).inputs)


def test_a_declared_mean_and_deviation_are_met(columns):
    assert columns["age"].mean() == pytest.approx(0, abs=0.03)
    assert columns["age"].std() == pytest.approx(1, abs=0.03)


def test_a_range_is_two_and_a_half_deviations_on_either_scale(columns):
    for name in ("weight", "crp"):
        assert abs(columns[name]).max() <= 2.5 + 1e-6
        assert columns[name].mean() == pytest.approx(0, abs=0.03)
        assert columns[name].std() == pytest.approx(0.955, abs=0.02)  # cut at 2.5 deviations
    raw = SCHEMA.column("crp").unscaled(columns["crp"])
    assert np.median(raw) == pytest.approx(20, rel=0.05)  # the geometric middle of 1 and 400


def test_a_normal_that_is_cut_keeps_its_form(columns):
    there = columns["old peak missing"] == 0
    seen = columns["old peak"][there]
    assert seen.min() == pytest.approx(-0.9, abs=0.01)
    # P(z < 0 | z > -0.9) of a standard normal
    assert (seen < 0).mean() == pytest.approx((0.5 - 0.18406) / (1 - 0.18406), abs=0.02)


def test_missing_values_come_at_the_declared_rate(columns):
    assert columns["old peak missing"].mean() == pytest.approx(0.25, abs=0.01)
    assert (columns["old peak"][columns["old peak missing"] == 1] == 0).all()
    stages = [columns[f"stage={stage}"] for stage in "123"]
    assert np.sum(stages, axis=0).mean() == pytest.approx(0.9, abs=0.01)


def test_categories_come_at_their_declared_shares_or_evenly(columns):
    for name, share in (("sex=f", 0.5), ("stage=1", 0.54), ("stage=2", 0.27), ("stage=3", 0.09)):
        assert columns[name].mean() == pytest.approx(share, abs=0.012)


def test_columns_are_drawn_apart(columns):
    corner = np.corrcoef([columns[name] for name in ("age", "crp", "weight", "sex=f")])
    assert abs(corner - np.eye(4)).max() < 0.03


def test_a_deviation_far_beyond_the_range_is_nearly_even_and_a_tiny_one_is_a_point():
    for sd, spread in ((1e6, 10 / np.sqrt(12)), (1e-6, 0)):
        column = {"kind": "numeric", "low": 0, "high": 10, "mean": 10, "sd": sd}
        schema = TableSchema.from_json({**DECLARED, "columns": {"x": column}})
        raw = schema.column("x").unscaled(posed(2000, schema=schema).inputs[:, 0])
        assert raw.std() == pytest.approx(spread, abs=0.15)


def test_the_same_set_each_round_and_a_smaller_one_begins_it():
    generator = dictionary(schema=SCHEMA)
    memory, one = generator.pose(generator.init(2), None, 50)
    _, two = generator.pose(memory, object(), 50)
    assert one.digest == two.digest
    np.testing.assert_array_equal(posed(20, 2).inputs, one.inputs[:20])
    assert len({posed(20, seed).digest for seed in range(10)}) == 10
    assert one.origin.generator == "dictionary"
    assert one.origin.parents == ()


def test_plain_values_of_a_schema_will_do():
    assert posed(10, schema=SCHEMA.to_json()).digest == posed(10).digest


def test_a_second_process_draws_the_same_bytes_and_loads_no_source_of_data():
    code = f"""
import sys
from fedkd.distill.generators.dictionary import dictionary
print(dictionary(schema={DECLARED!r}).pose({{"seed": 7}}, None, 30)[1].digest)
print([name for name in sys.modules if name.startswith(("fedkd.data.sources.", "torch"))])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == [posed(30, 7).digest, "[]"]


@pytest.mark.parametrize(
    ("keys", "remedy"),
    [
        ({}, "schema yaml"),
        ({"space": Space("image", (8, 8), "uint8", 0, 1, ("a", "b"))}, "procedural"),
        ({"space": Space("text", (8,), "float32", 0, 1, ("a", "b"))}, "query=public"),
        ({"space": Space("table", (3,), "float32", 0, 1, ("a", "b")), "schema": SCHEMA}, "10,"),
        ({"schema": {"columns": {}}}, "label"),
    ],
)
def test_what_it_cannot_draw_is_said_with_a_remedy(keys, remedy):
    with pytest.raises(BadInput, match=remedy):
        dictionary(**keys)
