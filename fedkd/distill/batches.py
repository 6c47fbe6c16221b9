"""Deals rows out in batches: a fresh random order for each pass, as many passes as it takes."""

from collections.abc import Iterator

import torch
from torch import Tensor

# N rows, S steps, B rows a batch.


def batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of indices below `count`, without end; the last one of a pass may be short."""
    while True:
        yield from torch.split(torch.randperm(count, generator=generator), batch)


def timetable(count: int, batch: int, steps: int, generator: torch.Generator) -> Tensor:
    """The first `steps` of what `batches` deals out, as one table [S, B]; -1 fills a short batch.

    It draws what `batches` draws, so that a site sees the same batches alone and in a cohort.
    """
    width = min(batch, count)
    a_pass = -(-count // batch)
    passes = -(-steps // a_pass)
    table = torch.full((passes, a_pass * width), -1, dtype=torch.int64)
    for row in table:
        row[:count] = torch.randperm(count, generator=generator)
    return table.view(passes * a_pass, width)[:steps]
