"""How records are dealt to sites: one partition a file."""

from fedkd.data.partition.deal import Partitioner

__all__ = ["Partitioner"]
