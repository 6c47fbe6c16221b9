"""A hospital's own table against the federation's schema: what is said, and what is guessed."""

import numpy as np
import pandas as pd
import pytest

from fedkd.data import TableSchema
from fedkd.deploy.column_check import check_table
from fedkd.deploy.units import QUANTITIES, guess

SCHEMA = TableSchema.from_json(
    {
        "columns": {
            "age": {"kind": "numeric", "low": 18, "high": 100, "unit": "years"},
            "chol": {"kind": "numeric", "low": 80, "high": 620, "unit": "mg/dl",
                     "missing": 0.1, "zero_is_missing": True},
            "ward": {"kind": "categorical", "categories": ["A", "B"]},
        },
        "label": {"column": "ill", "classes": {"no": [0], "yes": [1]}},
        "patient": "id",
    }
)  # fmt: skip


def table(**columns):
    rows = 100
    rng = np.random.default_rng(0)
    made = {
        "age": rng.integers(30, 90, rows),
        "chol": rng.integers(150, 300, rows),
        "ward": ["A", "B"] * 50,
        "ill": [0] * 60 + [1] * 40,
        "id": [f"p{row // 2}" for row in range(rows)],
    }
    return pd.DataFrame({**made, **columns})


def said(**columns):
    return {verdict.check: verdict for verdict in check_table(table(**columns), SCHEMA)}


def test_a_table_as_declared_passes_with_its_counts():
    found = said()
    assert {verdict.outcome for verdict in found.values()} == {"passed"}
    assert found["columns"].found.startswith("3 of 3")
    assert found["label"].found == "no 60, yes 40"
    assert found["rows"].found == "100 used, 0 left out: no label"
    assert found["patients"].found == "50 patients in 100 rows"


def test_cholesterol_in_mmol_is_guessed_and_not_converted():
    values = np.random.default_rng(0).normal(5.3, 0.6, 97).round(1)
    found = said(chol=[*values, 210, 240, 199])
    assert found["chol"].outcome == "problem"
    assert found["chol"].found.startswith("97 % of chol below range: mmol/l?")
    assert "unit: mmol/l, factor: 38.67" in found["chol"].fix
    assert "a guess by known factors, and no more" in found["chol"].fix


def test_values_that_no_known_unit_explains_are_shown_without_a_guess():
    found = said(age=np.linspace(-40, 17, 100))
    assert found["age"].found.startswith("100 % of age below range 18 to 100 years")
    assert "?" not in found["age"].found


def test_a_few_values_out_of_range_pass_and_are_counted():
    found = said(chol=[*range(150, 248), 4000, 20])
    assert found["chol"].outcome == "passed"
    assert "2 values are clipped" in found["chol"].found


def test_words_among_numbers_and_unknown_codes_are_problems():
    found = said(chol=["see letter"] * 3 + ["200"] * 97, ward=["Station 1"] * 100)
    assert "'see letter'" in found["chol"].found
    assert "missing_values" in found["chol"].fix
    assert "100 % of ward in no declared category" in found["ward"].found
    assert found["columns"].found.startswith("1 of 3")


def test_of_what_is_left_of_a_table_all_is_said():
    frame = table(ward=["x"] * 100).drop(columns=["chol", "ill", "id"])
    found = {verdict.check: verdict for verdict in check_table(frame, SCHEMA)}
    assert found["ward"].outcome == "problem"
    assert found["columns"].found.startswith("1 of 3")


def test_missing_values_labels_and_classes_are_counted():
    found = said(chol=[0] * 100, ill=[None] * 10 + [0] * 90)
    assert "all values are missing" in found["chol"].found
    assert found["label"].found == "no 90, yes 0; no yes here"
    assert found["rows"].found == "90 used, 10 left out: no label"
    assert said(ill=["?"] * 100)["label"].outcome == "problem"
    assert "'perhaps'" in said(ill=["perhaps"] * 100)["label"].found


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: f"{q.names[0]} {q.si}")
def test_every_known_unit_is_recognised_both_ways(quantity):
    low, high = 100.0, 140.0
    there = [(low + step, 1) for step in range(1, 40)]  # in the conventional unit
    in_si = [(value * quantity.factor + quantity.offset, n) for value, n in there]
    bounds = (low * quantity.factor + quantity.offset, high * quantity.factor + quantity.offset)
    found = guess(quantity.names[0], quantity.conventional, low, high, in_si)
    assert found is not None
    assert found.share == 1
    back = guess(quantity.names[0], quantity.si, *sorted(bounds), there)
    assert back is not None
    assert back.share == 1


@pytest.mark.parametrize(
    ("name", "unit", "low", "high", "value", "expected"),
    [
        ("Cholesterin gesamt", "mg/dL", 80, 620, 5.2, "mmol/l"),  # 5.2 mmol/l is 201 mg/dl
        ("s_creatinine", "umol/L", 20, 1500, 1.1, "mg/dl"),  # 1.1 mg/dl is 97 µmol/l
        ("glucose", "mmol/l", 2, 40, 99, "mg/dl"),  # 99 mg/dl is 5.5 mmol/l
        ("hba1c", "%", 3, 20, 53, "mmol/mol"),  # 53 mmol/mol is 7.0 %
        ("temp", "°C", 30, 43, 98.6, "°F"),
        ("height", "cm", 50, 220, 1.71, "100 cm"),
    ],
)
def test_textbook_pairs(name, unit, low, high, value, expected):
    found = guess(name, unit, low, high, [(value, 20)])
    assert found is not None
    assert found.unit == expected


def test_nothing_is_guessed_where_nothing_fits_or_nothing_is_wrong():
    assert guess("chol", "mg/dl", 80, 620, [(200.0, 50)]) is None
    assert guess("score", "", 0, 3, [(7.5, 50), (-2.0, 50)]) is None
    assert guess("chol", "mg/dl", 80, 620, []) is None
