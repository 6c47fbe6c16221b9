"""Where records come from: sources, partitions, splits, cards."""

from fedkd.data.records import Card, Dataset, Records
from fedkd.data.schema import TableSchema

__all__ = ["Card", "Dataset", "Records", "TableSchema"]
