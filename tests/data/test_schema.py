"""What a schema promises: fixed public scaling, nothing fitted, and errors that teach."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.data import CategoricalColumn, Label, NumericColumn, TableSchema
from fedkd.knowledge import BadInput

DECLARED = {
    "site": "ward",
    "patient": "person",
    "label": {"column": "ill", "classes": {"no": ["N"], "yes": "*"}},
    "columns": {
        "age": {"kind": "numeric", "low": 0, "high": 120, "unit": "years", "mean": 50, "sd": 10},
        "crp": {"kind": "numeric", "low": 0, "high": 500, "unit": "mg/l", "log": True},
        "sugar": {"kind": "numeric", "low": 20, "high": 800, "zero_is_missing": True},
        "stage": {"kind": "categorical", "categories": [1, 2, "3b"], "shares": [2, 1, 1]},
    },
}
SCHEMA = TableSchema.from_json(DECLARED)


def rows(**columns):
    plain = {"age": [60.0], "crp": [5.0], "sugar": [100.0], "stage": ["1"]}
    return {**plain, **columns}


def changed(**keys):
    return {**DECLARED, **keys}


def column(**keys):
    return changed(columns={"age": {"kind": "numeric", "low": 0, "high": 120, **keys}})


def test_a_declared_mean_and_deviation_are_the_centre_and_the_scale():
    assert SCHEMA.encode(rows(age=[60.0]))[0, 0] == pytest.approx(1.0)


def test_a_declared_range_alone_is_two_and_a_half_deviations_to_each_side():
    plain = NumericColumn("x", 10, 60)
    assert plain.scaled(np.array([10, 35, 60])) == pytest.approx([-2.5, 0, 2.5])
    skewed = NumericColumn("x", 1, 10_000, log=True)
    assert skewed.scaled(np.array([1, 100, 10_000])) == pytest.approx([-2.5, 0, 2.5])


def test_a_mean_and_deviation_on_the_log_scale_are_those_of_a_log_normal():
    skewed = NumericColumn("x", 0, 1e9, mean=20, sd=30, log=True)
    drawn = skewed.unscaled(np.random.default_rng(0).standard_normal(200_000))
    assert drawn.mean() == pytest.approx(20, rel=0.03)
    assert drawn.std() == pytest.approx(30, rel=0.1)


def test_missing_is_zero_with_a_flag_and_zero_can_mean_missing():
    encoded = SCHEMA.encode(
        rows(age=[50.0] * 3, crp=[5.0] * 3, sugar=[np.nan, 0, 100.0], stage=["1", None, "?"])
    )
    at = SCHEMA.features.index("sugar")
    assert encoded[:, at + 1].tolist() == [1, 1, 0]
    assert encoded[:2, at].tolist() == [0, 0]
    assert encoded[:, -3:].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_a_category_is_the_same_however_its_number_is_written():
    encoded = SCHEMA.encode(
        rows(age=[50] * 4, crp=[5] * 4, sugar=[90] * 4, stage=[1, "1.0", 1.0, " 1 "])
    )
    assert encoded[:, -3].tolist() == [1, 1, 1, 1]


def test_a_data_frame_and_a_dict_of_arrays_encode_alike():
    columns = {"age": [1.5, 2], "crp": [3, np.nan], "sugar": [0, 30], "stage": ["3b", None]}
    frame = pd.DataFrame(columns)
    arrays = {name: np.array(values, dtype=object) for name, values in columns.items()}
    assert (SCHEMA.encode(frame) == SCHEMA.encode(arrays)).all()


def test_one_row_is_encoded_as_it_is_among_others():
    many = rows(age=[10, 90, 30], crp=[1, 400, 3], sugar=[30, 0, 700], stage=[1, 2, "3b"])
    together = SCHEMA.encode(many)
    for at in range(3):
        alone = SCHEMA.encode({name: values[at : at + 1] for name, values in many.items()})
        assert (alone[0] == together[at]).all()


numbers = st.floats(allow_nan=True, allow_infinity=False, width=32) | st.none()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers, st.sampled_from(["1", "2", "9", ""])),
                min_size=1, max_size=4))  # fmt: skip
def test_whatever_the_rows_they_lie_in_the_declared_space(drawn):
    frame = dict(
        zip(("age", "crp", "sugar", "stage"), map(list, zip(*drawn, strict=True)), strict=True)
    )
    SCHEMA.space().check(SCHEMA.encode(frame))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-1e3, 1e3), st.floats(0.1, 1e3), st.booleans(), st.booleans(), st.floats(-2.4, 2.4)
)
def test_unscaled_undoes_scaled_within_the_range(low, width, log, centred, seen):
    low = abs(low) + 0.1 if log else low
    known = {"mean": low + width / 2, "sd": width / 4} if centred else {}
    one = NumericColumn("x", low, low + width, log=log, **known)
    raw = one.unscaled(np.array([seen]))
    assert one.low <= raw[0] <= one.high
    assert one.unscaled(one.scaled(raw)) == pytest.approx(raw, rel=1e-6, abs=1e-6)


def test_values_out_of_range_are_clipped_and_counted():
    frame = rows(age=[300.0] + [50] * 9, crp=[5] * 10, sugar=[90] * 10, stage=["1"] * 10)
    encoded, notes = SCHEMA.encode_with_notes(frame)
    assert encoded[0, 0] == pytest.approx(7.0)
    assert any("1 of 10 values out of range" in note for note in notes)


def test_a_unit_that_is_wrong_in_bulk_is_refused_with_the_column_and_the_count():
    frame = rows(age=[6000.0] * 8 + [50] * 2, crp=[5] * 10, sugar=[90] * 10, stage=["1"] * 10)
    with pytest.raises(BadInput, match=r"8 of 10 values of column 'age'.*years.*unit"):
        SCHEMA.encode(frame)


def test_categories_that_are_unknown_in_bulk_are_refused():
    frame = rows(age=[50] * 9, crp=[5] * 9, sugar=[90] * 9, stage=["III"] * 9)
    with pytest.raises(BadInput, match=r"9 of 9 values of column 'stage'.*'III'"):
        SCHEMA.encode(frame)


def test_a_constant_column_goes_on_with_a_note():
    frame = rows(age=[50] * 3, crp=[5, 6, 7], sugar=[90, 91, 92], stage=["1", "2", "1"])
    encoded, notes = SCHEMA.encode_with_notes(frame)
    assert [note for note in notes if "constant" in note and "'age'" in note]
    assert np.isfinite(encoded).all()
    assert not [note for note in notes if "50" in note], "a note must not print a record's value"


def test_a_schema_survives_json_with_its_order_even_where_keys_are_sorted():
    kept = json.loads(json.dumps(SCHEMA.to_json(), sort_keys=True))
    assert TableSchema.from_json(kept) == SCHEMA
    assert TableSchema.from_json(kept).features == SCHEMA.features


def test_a_label_can_be_a_threshold():
    schema = TableSchema.from_json(
        changed(label={"column": "num", "classes": ["no", "yes"], "above": 0})
    )
    assert schema.labels({"num": ["0", "1.0", 4, "?"]}).tolist() == [0, 1, 1, -1]
    assert TableSchema.from_json(schema.to_json()) == schema


def test_a_label_can_be_everything_else():
    assert SCHEMA.labels({"ill": ["N", "<30", ">30", None]}).tolist() == [0, 1, 1, -1]


def test_a_declared_category_wins_over_a_spelling_of_missing():
    region = CategoricalColumn("region", ("NA", "EU"))
    schema = TableSchema((region,), Label("y", ("a", "b"), (("a",), ("b",))))
    assert schema.encode({"region": ["NA", "EU", "?"]}).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_thousands_and_decimal_marks_are_read_as_declared_and_never_guessed():
    german = TableSchema.from_json(changed(decimal=",", thousands="."))
    read = german.encode(rows(age=["60,5"], crp=["5"], sugar=["1.00"[:1] + "00"], stage=["1"]))
    assert read[0, 0] == pytest.approx(1.05)
    english = TableSchema.from_json(changed(thousands=","))
    assert english.number_format.parse("1,234.5") == 1234.5
    assert english.number_format.parse("1,23") is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [("5", 5.0), (" -3.5 ", -3.5), ("1e3", 1000.0), (".5", 0.5), ("0x10", None), ("1_000", None),
     ("inf", None), ("nan?", None), ("1e999", None), ("\u0663", None), ("", None), ("5 mg", None)],
)  # fmt: skip
def test_only_a_plain_number_is_a_number(said, meant):
    assert SCHEMA.number_format.parse(said) == meant


BAD_SCHEMAS = [
    ("a schema with a wrong key", changed(lable="x"), r"'lable'.*did you mean 'label'"),
    ("no columns", {"label": DECLARED["label"]}, "without columns"),
    ("no label", {"columns": DECLARED["columns"]}, "without label"),
    ("a wrong kind", changed(columns={"a": {"kind": "numerical"}}), r"did you mean 'numeric'"),
    ("a wrong key of a column", column(hihg=3), r"did you mean 'high'"),
    ("no range", changed(columns={"a": {"kind": "numeric", "low": 0}}), "no high"),
    ("a range upside down", column(low=200), "low < high"),
    ("a text as a number", column(low="1e3"), r"1\.0e\+3"),
    ("a truth value as a number", column(low=True), "True"),
    ("a mean alone", column(mean=3), "mean and sd"),
    ("a mean out of range", column(mean=300, sd=1), "within 0"),
    ("a logarithm of negatives", column(low=-1, log=True), "log: true"),
    ("zero both a value and missing", column(zero_is_missing=True), "holds 0"),
    ("a share above one", column(missing=1.5), "share from 0 to 1"),
    ("the label among the features", changed(label={"column": "age", "classes": ["a", "b"]}),
     "take 'age' out"),
    ("the patient among the features", changed(patient="age"), "take 'age' out"),
    ("one class", changed(label={"column": "y", "classes": ["a"]}), "two or more"),
    ("a value in two classes", changed(label={"column": "y", "classes": {"a": [1], "b": [1.0]}}),
     "each value in one class"),
    ("an unquoted Yes", changed(label={"column": "y", "classes": [True, False]}), "quotes"),
    ("categories that YAML read as truth",
     changed(columns={"a": {"kind": "categorical", "categories": [True, False]}}), "quotes"),
    ("a category twice",
     changed(columns={"a": {"kind": "categorical", "categories": [1, "1.0"]}}), "distinct"),
    ("too few shares",
     changed(columns={"a": {"kind": "categorical", "categories": [1, 2], "shares": [1]}}), "2 num"),
    ("an unknown encoding", changed(encoding="utf-9"), "'utf-9'"),
    ("one mark for two things", changed(thousands="."), "two different marks"),
    ("not a mapping", ["age"], "a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "says"), [bad[1:] for bad in BAD_SCHEMAS], ids=[bad[0] for bad in BAD_SCHEMAS]
)
def test_a_wrong_schema_is_refused_in_words(declared, says):
    with pytest.raises(BadInput, match=says):
        TableSchema.from_json(declared)


def test_a_key_twice_in_a_yaml_is_refused(tmp_path):
    place = tmp_path / "twice.yaml"
    place.write_text(
        "label: {column: y, classes: [a, b]}\ncolumns:\n  a: {kind: numeric}\n  a: {}\n"
    )
    with pytest.raises(BadInput, match="'a' twice"):
        TableSchema.from_yaml(place)


def test_an_unknown_label_is_refused_with_the_nearest_one():
    schema = TableSchema.from_json(
        changed(label={"column": "y", "classes": ["benign", "malignant"]})
    )
    with pytest.raises(BadInput, match=r"'malignent'.*did you mean 'malignant'"):
        schema.labels({"y": ["benign", "malignent"]})


def test_each_encoded_column_has_its_own_range():
    """A wide one is no measure of the others; all together they are the space's."""
    low, high = SCHEMA.ranges
    assert len(low) == len(high) == len(SCHEMA.features)
    at = {name: (low[place], high[place]) for place, name in enumerate(SCHEMA.features)}
    assert at["stage=3b"] == (0, 1)
    assert at["sugar"] == pytest.approx((-2.5, 2.5))
    assert at["sugar missing"] == (0, 1)
    space = SCHEMA.space()
    assert (space.low, space.high) == (np.float32(low.min()), np.float32(high.max()))
    told = SCHEMA.encode(rows(age=[0.0], crp=[1e9], sugar=[800.0]))[0]
    assert ((low - 1e-6 <= told) & (told <= high + 1e-6)).all()
