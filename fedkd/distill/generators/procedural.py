"""Poses pictures that code draws from a seed: no record, no answer and no model goes into them."""

import difflib
import importlib
import inspect
import math
import pkgutil
import sys
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from fedkd.distill.generators import generator, priors
from fedkd.distill.generators.generator import Generator, Student, code_digest, stream
from fedkd.distill.generators.priors.prior import Canvas, Prior
from fedkd.knowledge import Array, BadInput, Memory, QuerySet, Space, Synthetic

if TYPE_CHECKING:
    from fedkd.data.schema import TableSchema

# N queries, C channels, H rows, W columns.

CHUNK = 64
"""Pictures drawn from one stream: a smaller set is the beginning of a larger one."""
CHANNELS = (1, 3)
LEVELS = 255


def procedural(
    space: Space | None = None,
    schema: "TableSchema | None" = None,
    *,
    priors: Sequence[str] = ("shapes", "leaves"),
) -> Generator:
    """Draws queries in equal parts from `priors`, taking turns, and poses the same set each round.

    A prior is a name of `generators/priors/`, or the dotted name of an installed function of the
    same form: best one that a federation wrote for its own kind of picture. The set depends on
    the code, the seed, the number, the space and the priors alone, so a site can draw it again.
    `schema` is of no use here and is ignored.
    """
    if space is None or space.kind != "image":
        raise BadInput(
            f"generator=procedural with {space.kind if space else 'no'} data",
            "images: it draws pictures",
            "use generator=dictionary for tables, and query=public for text",
        )
    canvas, channels_last = _canvas(space)
    drawers = {name: _prior(name) for name in priors}
    if not drawers or len(drawers) != len(priors):
        raise BadInput(f"generator.priors={list(priors)}", "one or more names, none of them twice")
    code = code_digest(_sources(list(drawers.values())))

    @lru_cache(maxsize=1)
    def drawn(seed: int, n: int) -> QuerySet:
        inputs = np.empty((n, *canvas), dtype=space.dtype)
        for turn, (name, prior) in enumerate(drawers.items()):
            rows = range(turn, n, len(drawers))
            for part, first in enumerate(range(0, len(rows), CHUNK)):
                pictures = _drawn(prior, name, stream(seed, name, part), canvas)
                chosen = rows[first : first + CHUNK]
                inputs[chosen.start : chosen.stop : chosen.step] = _in_range(
                    pictures[: len(chosen)], space
                )
        if channels_last:
            inputs = np.moveaxis(inputs, 1, -1)
        return QuerySet(inputs.reshape(n, *space.shape), Synthetic("procedural", code, seed, 0))

    def pose(memory: Memory, _student: "Student | None", n: int) -> tuple[Memory, QuerySet]:
        return memory, drawn(memory["seed"], n)

    return Generator(lambda seed: {"seed": seed}, pose)


def _canvas(space: Space) -> tuple[Canvas, bool]:
    """The size of a picture, and whether the channels come last in the space's shape."""
    match space.shape:
        case (height, width):
            return Canvas(1, height, width), False
        case (channels, height, width) if channels in CHANNELS:
            return Canvas(channels, height, width), False
        case (height, width, channels) if channels in CHANNELS:
            return Canvas(channels, height, width), True
    raise BadInput(f"images of shape {space.shape}", "[H, W], [C, H, W] or [H, W, C], C of 1 or 3")


def _prior(name: str) -> Prior:
    """The function that `name` stands for."""
    bundled = sorted(
        found.name
        for found in pkgutil.iter_modules(priors.__path__)
        if callable(getattr(_module(found.name), found.name, None))
    )
    if "." not in name and name not in bundled:
        near = difflib.get_close_matches(name, bundled, n=1)
        raise BadInput(
            f"generator.priors=[{name}]",
            f"one of {', '.join(bundled)}, or the dotted name of an installed function",
            f"did you mean {near[0]}?" if near else "",
        )
    module, _, function = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else _module(name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"generator.priors=[{name}], which cannot be imported ({error})",
            "the dotted name of an installed function",
        ) from error
    if not inspect.isfunction(found):
        raise BadInput(f"generator.priors=[{name}], a {type(found).__name__}", "a function")
    return found


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{priors.__name__}.{name}")


def _sources(drawers: Sequence[Prior]) -> list[ModuleType]:
    """Every module whose code the pictures come from: this one, the priors, what they share."""
    bundled = [_module(found.name) for found in pkgutil.iter_modules(priors.__path__)]
    own = [sys.modules[drawer.__module__] for drawer in drawers]
    return [generator, sys.modules[__name__], *bundled, *own]


def _drawn(prior: Prior, name: str, rng: np.random.Generator, canvas: Canvas) -> Array:
    pictures = np.asarray(prior(rng, CHUNK, canvas))
    if pictures.shape != (CHUNK, *canvas):
        raise BadInput(
            f"pictures of shape {pictures.shape} from the prior {name}",
            f"[N, C, H, W] = {(CHUNK, *canvas)}",
        )
    if not (np.isfinite(pictures).all() and pictures.min() >= 0 and pictures.max() <= 1):
        raise BadInput(f"pictures of the prior {name} outside [0, 1]", "numbers from 0 to 1")
    return pictures


def _in_range(pictures: Array, space: Space) -> Array:
    """[0, 1] onto the whole numbers of the space's range, or onto 256 steps of it."""
    if space.dtype == "uint8":
        low, high = math.ceil(space.low), math.floor(space.high)
        whole: Array = np.rint(low + (high - low) * pictures).astype(np.uint8)
        return whole
    steps = space.low + (space.high - space.low) * np.rint(pictures * LEVELS) / LEVELS
    return np.asarray(np.clip(steps, space.low, space.high).astype(np.float32))
