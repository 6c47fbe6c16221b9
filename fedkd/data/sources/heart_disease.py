"""Reads the four hospitals of the UCI heart disease data: a federation that nature made."""

from dataclasses import replace
from pathlib import Path

from fedkd.data.files import folder_of
from fedkd.data.records import Dataset
from fedkd.data.sources.table import card_and_schema
from fedkd.data.tables import dataset_from_frame, read_table
from fedkd.knowledge import BadInput

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
DICTIONARY = Path(__file__).with_name("heart_disease.yaml")


def heart_disease(path: str | None = None) -> Dataset:
    """920 patients of four hospitals, float32 [N, D], disease or none, sites given, no test part.

    Reads `processed.<hospital>.data` in the folder `path`. The schema in `heart_disease.yaml` is
    typed from heart-disease.names and clinical common knowledge.
    """
    import pandas as pd

    expected = ", ".join(f"processed.{hospital}.data" for hospital in HOSPITALS)
    folder = folder_of(path, expected)
    card, schema = card_and_schema(DICTIONARY)
    parts = []
    for hospital in HOSPITALS:
        place = folder / f"processed.{hospital}.data"
        if not place.is_file():
            raise BadInput(f"no file {place}", expected, "set data.path=PATH to where they lie")
        parts.append(read_table(place, schema).assign(hospital=hospital))
    return dataset_from_frame(
        pd.concat(parts, ignore_index=True), replace(schema, site="hospital"), card
    )
