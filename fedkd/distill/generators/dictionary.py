"""Poses table rows drawn column by column from what a schema declares, and from no record."""

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fedkd.data import TableSchema
from fedkd.data.columns import Column, NumericColumn
from fedkd.distill.generators import generator
from fedkd.distill.generators.generator import Generator, Rng, code_digest, stream
from fedkd.knowledge import Array, BadInput, Memory, QuerySet, Space, Synthetic

if TYPE_CHECKING:
    from fedkd.distill.generators.generator import Student

# N queries.

FAR = 9.0
"""Deviations from the centre beyond which a normal draw is not looked for."""
STEPS = 4096
"""Steps in which a truncated normal's distribution function is inverted."""


def dictionary(
    space: Space | None = None, schema: "TableSchema | Mapping[str, Any] | None" = None
) -> Generator:
    """Draws each column by itself: numbers from a normal, cut at the declared range; categories
    by their declared shares, else evenly; missing at the declared rate.

    Mean and deviation are the declared ones, or those for which the range is 2.5 deviations to
    each side; all on the log scale where the column says `log`. Rows are encoded by the schema,
    and the same set is posed each round: it depends on the code, the seed, the number and the
    schema alone. What columns say about each other is not in a dictionary, and not in the rows.
    `schema` is one, or the plain values of one.
    """
    if space is not None and space.kind != "table":
        raise BadInput(
            f"generator=dictionary with {space.kind} data",
            "a table: it draws rows",
            "use generator=procedural for images, and query=public for text",
        )
    if schema is None:
        raise BadInput(
            "generator=dictionary without a schema",
            "a table whose columns are declared",
            "write a schema yaml for the table, or use query=public",
        )
    declared = schema if isinstance(schema, TableSchema) else TableSchema.from_json(schema)
    width = (len(declared.features),)
    if space is not None and space.shape != width:
        raise BadInput(f"a schema of {width} encoded columns", f"the data's {space.shape}")
    # what a column's numbers come from is the schema's code as much as this one
    modules = (__name__, "fedkd.data.schema", "fedkd.data.columns")
    code = code_digest([generator, *(sys.modules[name] for name in modules)])

    @lru_cache(maxsize=1)
    def drawn(seed: int, n: int) -> QuerySet:
        frame = {column.name: _draw(column, seed, n) for column in declared.columns}
        return QuerySet(declared.encode(frame), Synthetic("dictionary", code, seed, 0))

    def pose(memory: Memory, _student: "Student | None", n: int) -> tuple[Memory, QuerySet]:
        return memory, drawn(memory["seed"], n)

    return Generator(lambda seed: {"seed": seed}, pose)


def _draw(column: Column, seed: int, n: int) -> Array:
    """Raw values [N] of one column, from a stream of its own: a smaller set begins a larger one."""
    rng = stream(seed, f"column {column.name}")
    gone = stream(seed, f"missing {column.name}").random(n) < column.missing
    if isinstance(column, NumericColumn):
        return np.where(gone, np.nan, column.unscaled(_typical(rng, n, column)))
    edges = np.cumsum(column.probabilities)[:-1]
    chosen = np.searchsorted(edges, rng.random(n), side="right")
    values = np.array(column.categories, dtype=object)[chosen]
    values[gone] = None
    return np.asarray(values)


def _typical(rng: Rng, n: int, column: NumericColumn) -> Array:
    """Standard normal draws [N] within the column's range as a model sees it.

    By its distribution function: one uniform number a draw, however little of the normal is left.
    """
    low, high = column.scaled(np.array([column.low, column.high]))
    grid = np.linspace(np.clip(-FAR, low, high), np.clip(FAR, low, high), STEPS + 1)
    density = np.exp((np.min(grid**2) - grid**2) / 2)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return np.asarray(np.interp(rng.random(n) * below[-1], below, grid))
