"""The laws that every generator of queries keeps, as plain functions; see `fedkd.knowledge.laws`.

A part is what a yaml of conf/generator makes: a factory that takes a space and a schema.
"""

import ast
import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from fedkd.data import TableSchema
from fedkd.distill.generators.generator import Generator
from fedkd.knowledge import (
    BadInput,
    Consensus,
    Distributions,
    NotInSpace,
    QuerySet,
    Space,
    Synthetic,
)
from fedkd.knowledge.laws import LawBroken, expect

Factory: TypeAlias = Callable[..., Generator]

COUNT = 40
CLASSES = ("a", "b", "c")
IMAGES = (
    Space("image", (28, 28), "uint8", 0, 255, CLASSES),
    Space("image", (8, 8), "uint8", 0, 16, CLASSES),
    Space("image", (8, 8), "float32", 0, 16, CLASSES),
    Space("image", (12, 20, 3), "float32", -1, 1, CLASSES),
    Space("image", (1, 28, 28), "uint8", 0, 255, CLASSES),
)
TABLE = TableSchema.from_json(
    {
        "columns": {
            "age": {"kind": "numeric", "low": 18, "high": 95, "mean": 60, "sd": 12},
            "creatinine": {"kind": "numeric", "low": 10, "high": 2000, "log": True, "missing": 0.2},
            "sex": {"kind": "categorical", "categories": ["f", "m"]},
            "stage": {"kind": "categorical", "categories": ["1", "2", "3"], "shares": [6, 3, 1]},
        },
        "label": {"column": "outcome", "classes": list(CLASSES)},
    }
)
PRIVATE = ("fedkd.data.sources", "fedkd.data.partition", "fedkd.data.tables", "fedkd.federation")
OUTSIDE = ("sklearn.datasets", "torchvision", "urllib", "requests", "socket", "http")


def _posed(factory: Factory) -> Iterator[tuple[Generator, Space]]:
    """The part in every setting that it accepts; at least one."""
    accepted = 0
    settings: list[tuple[Space, TableSchema | None]] = [(space, None) for space in IMAGES]
    for space, schema in [*settings, (TABLE.space(), TABLE)]:
        try:
            generator = factory(space=space, schema=schema)
        except BadInput:
            continue
        except Exception as error:
            raise LawBroken(f"found {type(error).__name__} ({error}) for {space}") from error
        accepted += 1
        yield generator, space
    expect(accepted > 0, "found neither images nor a table accepted")


def _pose(generator: Generator, seed: int, count: int = COUNT) -> QuerySet:
    return generator.pose(generator.init(seed), None, count)[1]


def _in_space(factory: Factory) -> None:
    for generator, space in _posed(factory):
        for count in (1, 7, COUNT):
            queries = _pose(generator, 0, count)
            expect(len(queries) == count, f"found {len(queries)} queries, asked for {count}")
            try:
                space.check(queries.inputs)
            except NotInSpace as error:
                raise LawBroken(str(error)) from error


def _again(factory: Factory) -> None:
    for generator, _ in _posed(factory):
        memory = generator.init(3)
        before = copy.deepcopy(memory)
        one, two = (generator.pose(memory, None, COUNT)[1] for _ in range(2))
        expect(one.digest == two.digest, "found two query sets from one memory")
        expect(memory == before, "found a memory changed by posing, expected a new one")
    twins = zip(_posed(factory), _posed(factory), strict=True)
    for (one_of_two, _), (other, _) in twins:
        same = _pose(one_of_two, 3).digest == _pose(other, 3).digest
        expect(same, "found two query sets from two generators of one seed")


def _seeds(factory: Factory) -> None:
    for generator, _ in _posed(factory):
        posed = [_pose(generator, seed) for seed in (0, 1, 2, 2**32, 2**52)]
        expect(len({each.digest for each in posed}) == len(posed), "found a digest twice")
        contents = {each.inputs.tobytes() for each in posed}
        expect(len(contents) == len(posed), "found the same inputs from two seeds")


def _varied(factory: Factory) -> None:
    for generator, _ in _posed(factory):
        inputs = _pose(generator, 0).inputs
        distinct = len(np.unique(inputs.reshape(len(inputs), -1), axis=0))
        expect(distinct > 0.9 * COUNT, f"found {distinct} different queries among {COUNT}")


def _said(factory: Factory) -> None:
    for generator, _ in _posed(factory):
        origin = _pose(generator, 9).origin
        if not isinstance(origin, Synthetic):
            raise LawBroken(f"found an origin {origin}, expected a synthetic one")
        expect(origin.seed == 9, f"found seed {origin.seed} in the origin, expected 9")
        expect(origin.code.startswith("sha256:"), "found no digest of the generator's code")


def _independent(factory: Factory) -> None:
    """Queries that name no parent and no student depend on none."""
    for generator, space in _posed(factory):
        memory = generator.init(5)
        memory, queries = generator.pose(memory, None, COUNT)
        share = np.random.default_rng(7).dirichlet(np.ones(len(space.classes)), size=COUNT)
        consensus = Consensus(Distributions(share, queries.digest))
        learnt = generator.learn(memory, queries, consensus, None)
        memory, later = generator.pose(learnt, None, COUNT)
        if isinstance(later.origin, Synthetic) and not later.origin.parents:
            same = later.origin.round == 0 and later.digest == queries.digest
            expect(same, "found queries changed by a consensus that the origin does not name")


def _no_source(factory: Factory) -> None:
    for name in _imported(factory):
        inside = any(name == each or name.startswith(each + ".") for each in (*PRIVATE, *OUTSIDE))
        expect(not inside, f"found an import of {name}, expected no source of data")


def _imported(factory: Factory) -> set[str]:
    """What the part's module imports, and what the modules of generators behind it do."""
    while isinstance(factory, partial):
        factory = factory.func
    package = __name__.rpartition(".")[0]
    waiting, seen, found = [factory.__module__], set(), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in sys.modules:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(inspect.getsource(sys.modules[name]))):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                named = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            found.update(named)
            waiting += [each for each in named if each.startswith(package)]
    return found


GENERATOR_LAWS: dict[str, Callable[[Factory], None]] = {
    "queries have the space's shape, type and range, and the number asked for": _in_space,
    "the same seed poses the same queries": _again,
    "another seed poses other queries": _seeds,
    "queries differ from one another": _varied,
    "the origin names the seed and the code": _said,
    "queries without parents depend on no consensus": _independent,
    "no source of data is imported": _no_source,
}
