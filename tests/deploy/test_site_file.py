"""A hospital's site.yaml: what it says, and what an error says of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedkd.deploy.federation_file import FederationFile
from fedkd.deploy.policy import NoPolicy, Policy
from fedkd.deploy.site_file import SiteFile
from fedkd.deploy.site_template import template
from fedkd.knowledge import BadInput

FEDERATION = FederationFile.read(
    b"""\
format: 1
name: heart
schema:
  label: {column: outcome, classes: [well, ill], above: 0}
  columns:
    age: {kind: numeric, low: 18, high: 100, unit: years}
    chol: {kind: numeric, low: 80, high: 620, unit: mg/dl, missing: 0.1}
    sex: {kind: categorical, categories: [0, 1]}
"""
)
CARD = dict.fromkeys(("name", "version", "modality", "licence", "legal_basis", "origin"), "said")
TYPED: dict[str, Any] = {
    "format": 1,
    "data": {"path": "records.csv"},
    "columns": {"age": {"column": "Alter"}, "chol": {"column": None}, "sex": {"column": "m/w"}},
    "card": CARD,
    "policy": {},
    "retention": {},
}


def read(folder: Path, **changes: Any) -> SiteFile:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({**TYPED, **changes}, sort_keys=False))
    return SiteFile.read(path)


def test_what_is_left_out_is_private_by_default(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found.mechanism.name == "dp_training"
    assert found.data.path == tmp_path / "records.csv"
    assert found.columns["chol"].column is None
    assert found.seed is None
    assert found.policy.smallest_training_set == 50


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format 2"),
        ({"colums": {}}, "did you mean 'columns'"),
        ({"data": {}}, "no path of data"),
        ({"data": {"path": "???"}}, "no path of data"),
        ({"data": {"path": "x", "seperator": ";"}}, "did you mean 'separator'"),
        ({"columns": {"age": {"column": "???"}}}, "no column of the file for column 'age'"),
        ({"columns": {"age": {"factor": 2}}}, "no column of the file"),
        ({"columns": {"age": {"column": "a", "factor": 0}}}, "factor 0"),
        ({"columns": {"age": {"column": "a", "factor": "2,5"}}}, "a number"),
        ({"columns": ["age"]}, "a mapping of names"),
        ({"columns": {"sex": {"column": "s", "codes": {True: "1"}}}}, "quotes"),
        ({"card": {**CARD, "legal_basis": "???"}}, "no legal_basis in the card"),
        ({"card": {}}, "no name in the card"),
        ({"model": {"name": "mlp", "_target_": "os.system"}}, "_target_"),
        ({"model": 3}, "a mapping"),
        ({"training": {"learning_rate": -1}}, "learning_rate -1"),
        ({"training": {"steps": "record"}}, "did you mean 'records'"),
        ({"validation": 1.0}, "validation 1.0"),
        ({"seed": 3}, "whoever knows one could take noise off"),
        ({"seed": -1, "mechanism": "none"}, "a whole number from 0"),
        ({"policy": {"hours": "9-5"}}, "08:00-18:00"),
        ({"policy": {"most_query": 3}}, "did you mean 'most_queries'"),
        ({"rehearsal": {"records": 2}}, "a whole number from 10"),
        ({"evaluations": {"floor": 0}}, "a whole number from 1"),
        ({"retention": {"budget.charged": 365}}, "the ledger is replayed from it"),
        ({"retention": {"train.locally": 365}}, "did you mean 'train.local'"),
        ({"retention": {True: 365}}, "access.performed, aggregate.computed"),
        ({"retention": {"train.local": 0}}, "whole days, from 1"),
        ({"retention": {"train.local": True}}, "write train.local: 365"),
        ({"retention": {"train.local": "365"}}, "'365' as retention of train.local"),
        ({"retention": {"train.local": 1.5}}, "1.5 as retention"),
        ({"retention": {"train.local": 10**9}}, "from 1 to 36500"),
        ({"retention": 365}, "365 as retention"),
        ({"retention": []}, "[] as retention"),
    ],
)
def test_an_error_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as found:
        read(tmp_path, **changes)
    assert says in str(found.value)


def test_a_seed_is_for_hospitals_that_protect_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, seed=3, mechanism="none").seed == 3


def test_by_default_nothing_is_erased(tmp_path: Path) -> None:
    assert read(tmp_path).retention == {}
    assert read(tmp_path, retention=None).retention == {}
    assert read(tmp_path, retention={"train.local": 1}).retention == {"train.local": 1}


def test_the_templates_example_of_a_rule_is_one(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    text = filled(template("north", tmp_path, FEDERATION, None, None))
    text = text.replace("path: said", "path: x.csv").replace("\nretention: {}\n", "\n")
    path.write_text(text.replace("# retention: {", "retention: {"))
    assert SiteFile.read(path).retention == {"train.local": 365, "release.refused": 200}


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as found:
        SiteFile.read(tmp_path / "site.yaml")
    assert "fedkd site init" in str(found.value)


def filled(text: str) -> str:
    return text.replace("column: ???", "column: null").replace("???", "said")


@pytest.mark.parametrize(
    ("first_line", "columns", "also"),
    [
        ("Age,chol,sex,outcome", ["Age", "chol", "sex"], {}),
        ("age;CHOL;other;outcome", ["age", "CHOL", None], {"separator": ";"}),
        ("63,233,1,0", ["age", "chol", "sex"], {"header": ("age", "chol", "sex", "outcome")}),
    ],
    ids=["names", "another separator", "no names"],
)
def test_the_template_reads_back_as_far_as_the_file_tells(
    tmp_path: Path, first_line: str, columns: list[str | None], also: dict[str, Any]
) -> None:
    data = tmp_path / "records.csv"
    data.write_text(first_line + "\n63,233,1,0\n")
    text = template("north", tmp_path, FEDERATION, data, None)
    assert str(data) in text
    path = tmp_path / "site.yaml"
    path.write_text(filled(text))
    found = SiteFile.read(path)
    assert [found.columns[name].column for name in ("age", "chol", "sex")] == columns
    assert found.data.spelt() == also
    assert found.policy.generators == ("dictionary",)


def test_the_templates_seed_is_read_once_it_is_no_comment(tmp_path: Path) -> None:
    """Without it no deployed student is the simulation's, whatever seed the run names."""
    text = filled(template("north", tmp_path, FEDERATION, None, None))
    assert "\n# seed: 11 " in text
    path = tmp_path / "site.yaml"
    typed = text.replace("\n# seed: 11 ", "\nseed: 11 ").replace(
        "\nmechanism: dp_training\n", "\nmechanism: none\n"
    )
    path.write_text(typed)
    assert SiteFile.read(path).seed == 11


def test_a_template_that_nobody_filled_in_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(template("north", tmp_path, FEDERATION, None, "Patient No"))
    assert "patient: Patient No" in path.read_text()
    with pytest.raises(BadInput):
        SiteFile.read(path)


def test_a_template_for_pictures_reads_back(tmp_path: Path) -> None:
    federation = FederationFile.read(
        b"format: 1\nname: x\nspace: {kind: image, shape: [1, 28, 28], dtype: uint8, low: 0, "
        b"high: 255, classes: [a, b]}\n"
    )
    path = tmp_path / "site.yaml"
    path.write_text(filled(template("north", tmp_path, federation, tmp_path, None)))
    found = SiteFile.read(path)
    assert (found.model.name, found.policy.generators) == ("cnn", ("procedural",))


def test_a_file_that_was_cut_off_before_any_line_says_no_policy(tmp_path: Path) -> None:
    """Lost lines would be looser defaults; and so would the whole section as a comment."""
    path = tmp_path / "site.yaml"
    whole = filled(template("north", tmp_path, FEDERATION, None, None))
    lines = whole.splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_text("".join(lines[:kept]))
        with pytest.raises(NoPolicy):
            Policy.read(path)
    path.write_text(whole)
    assert Policy.read(path) == Policy()
