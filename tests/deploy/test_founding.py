"""Founding a hospital from its own table, with its own names, units and codes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedkd.audit import Log
from fedkd.cli.hospital import part_of
from fedkd.data.sources.heart_disease import HOSPITALS, heart_disease
from fedkd.deploy.founding import Founded, dataset_of, found, is_founded, settings_of
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.site_file import SiteFile
from fedkd.federation.building import Workshop
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from tests.deploy.federations import coordinator, enrolled
from tests.deploy.test_site_file import CARD

SHARED = Path(__file__).parents[3] / "shared" / "data" / "heart-disease"
SCHEMA = """\
label: {column: outcome, classes: [well, ill], above: 0}
columns:
  age: {kind: numeric, low: 18, high: 100, unit: years}
  chol: {kind: numeric, low: 80, high: 620, unit: mg/dl, missing: 0.1}
  sex: {kind: categorical, categories: [0, 1]}
"""
AMERICAN = "age,chol,sex,outcome\n" + "".join(
    f"{30 + n},{150 + n},{n % 2},{n % 3}\n" for n in range(60)
)
GERMAN = "Nr;Alter;Cholesterin;Geschlecht;Befund\n" + "".join(
    f"P{n // 2};{30 + n};{f'{(150 + n) / 38.67:.6f}'.replace('.', ',')};{'wm'[n % 2]};"
    f"{'KHK' if n % 3 else 'o.B.'}\n"
    for n in range(60)
)
MAPPED: dict[str, Any] = {
    "age": {"column": "Alter", "unit": "years"},
    "chol": {"column": "Cholesterin", "unit": "mmol/l", "factor": 38.67},
    "sex": {"column": "Geschlecht", "codes": {"w": 0, "m": 1}},
}
LABEL = {"column": "Befund", "codes": {"KHK": "ill", "o.B.": "well"}}
PLAIN = {name: {"column": name} for name in ("age", "chol", "sex")}


class Made:
    """A hospital that joined, and what it typed into its site.yaml."""

    def __init__(self, folder: Path, schema: str = SCHEMA) -> None:
        server = coordinator(folder, schema=schema)
        enrolled(server, "north", folder / "hospital")
        self.hospital = Hospital(folder / "hospital")

    def typed(self, content: str | Path, **changes: Any) -> SiteFile:
        path = content
        if isinstance(content, str):
            path = self.hospital.folder / "records.csv"
            path.write_text(content)
        said = {"format": 1, "data": {"path": str(path)}, "columns": PLAIN, "card": CARD,
                "model": "logistic", "policy": {}, "retention": {}, **changes}  # fmt: skip
        said["data"] = {"path": str(path), **changes.get("data", {})}
        self.hospital.site_yaml.write_text(yaml.safe_dump(said, sort_keys=False))
        return SiteFile.read(self.hospital.site_yaml)

    def found(self, site_file: SiteFile) -> Founded:
        return found(self.hospital, site_file, part_of, Workshop())


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


GERMAN_DATA = {"separator": ";", "decimal": ","}


def german(made: Made, **changes: Any) -> SiteFile:
    data = {**GERMAN_DATA, **changes.pop("data", {})}
    return made.typed(GERMAN, **{"columns": MAPPED, "label": LABEL, "data": data, **changes})


def test_other_names_units_and_codes_give_the_same_records(made: Made) -> None:
    theirs = dataset_of(made.hospital, made.typed(AMERICAN))
    ours = dataset_of(made.hospital, german(made))
    np.testing.assert_allclose(ours.records.inputs, theirs.records.inputs, atol=1e-5)
    assert (ours.records.labels == theirs.records.labels).all()
    assert ours.space == theirs.space


def test_a_patients_column_makes_a_patient_of_several_rows(made: Made) -> None:
    founded = made.found(german(made, data={"patient": "Nr"}, policy={"smallest_training_set": 27}))
    assert founded.patients == 30
    with pytest.raises(BadInput, match="27 patients to learn from"):
        made.found(german(made, data={"patient": "Nr"}))


def changed(**column: Any) -> dict[str, Any]:
    return {"columns": {**MAPPED, **column}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (changed(chol={"column": "Cholesterin", "unit": "mmol/l"}), "multiply"),
        (changed(chol={"column": "Cholesterin"}), "another unit than mg/dl"),
        (changed(chol={"column": "Cholesterol"}), "Cholesterol"),
        (changed(age={"column": None}), "never missing"),
        (changed(sex={"column": "Geschlecht", "codes": {"w": 0}}), "'m'"),
        (changed(sex={"column": "Geschlecht", "codes": {"w": 0, "m": 2}}), "one of 0, 1"),
        (changed(weight={"column": "Gewicht"}), "the federation's columns"),
        ({"columns": {"age": MAPPED["age"]}}, "no column 'chol'"),
        ({"label": {"column": "Befund", "codes": {"KHK": "ill"}}}, "'o.B.'"),
        ({"label": {"column": None}}, "no column for the label"),
        ({"data": {"separator": ","}}, "separator"),
    ],
)
def test_an_error_says_what_does_not_fit(made: Made, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        dataset_of(made.hospital, german(made, **changes))
    assert says in str(caught.value)


def test_a_column_that_a_hospital_has_not_is_missing_everywhere(made: Made) -> None:
    dataset = dataset_of(made.hospital, german(made, **changed(chol={"column": None})))
    at = dataset.schema.features.index("chol") if dataset.schema else -1
    assert (dataset.records.inputs[:, at] == 0).all()


def test_founding_twice_changes_nothing(made: Made) -> None:
    site_file = made.typed(AMERICAN)
    first = made.found(site_file)
    assert is_founded(made.hospital)
    entries = len(made.hospital.site.joinpath("log.sqlite").read_bytes())
    assert made.found(site_file) == first
    assert len(made.hospital.site.joinpath("log.sqlite").read_bytes()) == entries
    made.typed(AMERICAN, model="mlp")
    assert not is_founded(made.hospital)


def test_other_records_are_another_hospital(made: Made) -> None:
    made.found(made.typed(AMERICAN))
    with pytest.raises(BadInput, match="other records"):
        made.found(made.typed(AMERICAN.replace("31,", "32,")))


def test_a_rehearsal_is_the_same_whatever_the_records_are(tmp_path: Path) -> None:
    drawn = []
    for name, content in (("one", AMERICAN), ("two", AMERICAN.replace("31,", "39,"))):
        made = Made(tmp_path / name)
        made.found(made.typed(content))
        drawn.append((made.hospital.rehearsal / "train.npz").read_bytes())
    assert drawn[0] == drawn[1]


def test_the_site_is_none_and_the_rehearsal_is_one(made: Made) -> None:
    site_file = made.typed(AMERICAN)
    made.found(site_file)
    real, rehearsal = (
        SiteFolder(folder) for folder in (made.hospital.site, made.hospital.rehearsal)
    )
    assert (real.settings().seed, real.settings().epsilon) == (None, None)
    assert rehearsal.settings().rehearsal
    with Log(real.folder / "log.sqlite", "north") as log:
        assert log.last("budget.opened") is None
        opened = log.last("log.opened")
        assert opened is not None
        assert opened.body["rehearsal"] is False
    expected = settings_of(made.hospital, site_file, part_of).to_json()
    assert real.settings().to_json() == json.loads(json.dumps(expected))


def test_a_federation_yaml_that_somebody_changed_is_not_read(made: Made) -> None:
    site_file = made.typed(AMERICAN)
    text = made.hospital.federation_yaml.read_text()
    made.hospital.federation_yaml.write_text(text.replace("620", "900"))
    with pytest.raises(BadInput, match="signature"):
        dataset_of(made.hospital, site_file)


def test_keys_of_a_part_are_checked(made: Made) -> None:
    mechanism = {"name": "dp_training", "epsilon": 0.5, "step": 3}
    with pytest.raises(BadInput, match="did you mean steps"):
        settings_of(made.hospital, made.typed(AMERICAN, mechanism=mechanism), part_of)
    del mechanism["step"]
    settings = settings_of(made.hospital, made.typed(AMERICAN, mechanism=mechanism), part_of)
    assert settings.plan_epsilon == 0.5


@pytest.mark.skipif(not SHARED.is_dir(), reason="the heart disease data are not on this machine")
def test_the_four_hospitals_have_the_records_of_a_simulation(tmp_path: Path) -> None:
    schema = Path(__file__).parents[2] / "fedkd" / "data" / "sources" / "heart_disease.yaml"
    made = Made(tmp_path, schema.read_text())
    whole = heart_disease(str(SHARED))
    declared = yaml.safe_load(schema.read_text())
    columns = {name: {"column": name} for name in declared["columns"]}
    data = {"header": declared["header"]}
    for hospital in HOSPITALS:
        site_file = made.typed(SHARED / f"processed.{hospital}.data", columns=columns, data=data)
        mine = dataset_of(made.hospital, site_file).records
        rows = whole.records.take(np.flatnonzero(whole.records.sites == hospital))
        assert mine.inputs.tobytes() == rows.inputs.tobytes()
        assert mine.labels.tobytes() == rows.labels.tobytes()
