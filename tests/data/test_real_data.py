"""What the sources read from the real files, held against the counts in their READMEs."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from fedkd.data import hold_out
from fedkd.data.partition.site import site
from fedkd.data.sources.heart_disease import heart_disease
from fedkd.data.sources.idx_images import idx_images
from fedkd.data.sources.medmnist import medmnist
from fedkd.data.sources.table import table
from fedkd.data.sources.text import text

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CONF = Path(__file__).parents[2] / "conf" / "data"


def folder(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"the data set {name} is not beside this checkout")
    return str(SHARED / name)


def test_fashion_mnist_has_its_70000_balanced_images():
    read = idx_images(folder("fashion-mnist"))
    assert np.bincount(read.records.labels).tolist() == [6000] * 10
    assert np.bincount(read.test.labels).tolist() == [1000] * 10
    assert read.records.inputs.shape == (60000, 1, 28, 28)


def test_kmnist_has_its_test_part():
    read = idx_images(folder("kmnist-test"), "kmnist")
    assert np.bincount(read.records.labels).tolist() == [1000] * 10


def test_pneumoniamnist_has_its_three_parts():
    read = medmnist(folder("pneumoniamnist"), "pneumoniamnist")
    assert np.bincount(read.records.labels).tolist() == [1214 + 135, 3494 + 389]
    assert np.bincount(read.test.labels).tolist() == [234, 390]


def test_heart_disease_has_its_four_hospitals():
    read = heart_disease(folder("heart-disease"))
    dealt = site()(read.records, None, np.random.default_rng(0))
    assert {name: len(rows) for name, rows in dealt.items()} == {
        "cleveland": 303,
        "hungarian": 294,
        "switzerland": 123,
        "va": 200,
    }
    ill = {name: round(100 * read.records.labels[rows].mean(), 1) for name, rows in dealt.items()}
    assert ill == {"cleveland": 45.9, "hungarian": 36.1, "switzerland": 93.5, "va": 74.5}
    chol = read.schema.features.index("chol missing")
    assert read.records.inputs[dealt["switzerland"], chol].mean() == 1
    assert not read.notes


def test_diabetes_130_is_held_out_by_patient():
    read = table(folder("diabetes-130"), "diabetic_data.csv.gz", "diabetes_130")
    assert np.bincount(read.records.labels).tolist() == [54864, 35545 + 11357]
    assert len(np.unique(read.records.patients)) == 71518
    held = hold_out(read, queries=1000, test_size=4000, records=8000, rng=np.random.default_rng(0))
    assert not set(held.private.patients.tolist()) & set(held.test.patients.tolist())


def test_sms_spam_loses_its_403_duplicates():
    keys = OmegaConf.load(CONF / "sms_spam.yaml").data
    named = {key: keys[key] for key in ("file", "label", "text", "header", "separator", "quoted")}
    read = text(folder("sms-spam"), classes=list(keys.classes), **named)
    assert len(read.records) == 5574 - 403
    assert read.notes == ("403 texts that occur again were dropped",)


def test_medical_abstracts_read_as_a_text_table():
    read = text(
        folder("medical-abstracts"), "medical_tc_test.csv", "condition_label", "medical_abstract"
    )
    assert read.space.classes == ("1", "2", "3", "4", "5")
    assert len(read.records) == 2888 - 118
