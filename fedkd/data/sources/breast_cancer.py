"""Reads the Wisconsin breast cancer table that scikit-learn carries: 30 measures of a tumour."""

from pathlib import Path

from fedkd.data.records import Dataset
from fedkd.data.sources.table import card_and_schema
from fedkd.data.tables import dataset_from_frame

DICTIONARY = Path(__file__).with_name("breast_cancer.yaml")


def breast_cancer() -> Dataset:
    """569 rows float32 [N, 30], malignant or benign, no test part.

    Scaled by the ranges in `breast_cancer.yaml`, on a log scale: they are the table of least and
    greatest values that the data set's published description prints, not computed from records.
    """
    import pandas as pd
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    frame = pd.DataFrame(bunch.data, columns=[str(name) for name in bunch.feature_names])
    frame["diagnosis"] = [str(bunch.target_names[code]) for code in bunch.target]
    card, schema = card_and_schema(DICTIONARY)
    return dataset_from_frame(frame, schema, card)
