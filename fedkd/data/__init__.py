"""Where records come from: sources, partitions, splits, cards."""

from fedkd.data.columns import CategoricalColumn, Column, NumericColumn
from fedkd.data.labels import Label
from fedkd.data.partition.deal import Partitioner, site_names
from fedkd.data.records import Card, Dataset, Records, no_records
from fedkd.data.schema import Frame, TableSchema
from fedkd.data.splits import Holdout, hold_out, public_inputs, validation

__all__ = [
    "Card",
    "CategoricalColumn",
    "Column",
    "Dataset",
    "Frame",
    "Holdout",
    "Label",
    "NumericColumn",
    "Partitioner",
    "Records",
    "TableSchema",
    "hold_out",
    "no_records",
    "public_inputs",
    "site_names",
    "validation",
]
