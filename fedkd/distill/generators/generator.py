"""Says what a generator is: where queries come from when no public set exists."""

import hashlib
import inspect
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import rfc8785

from fedkd.knowledge import Consensus, Digest, Memory, QuerySet, digest_of_bytes

if TYPE_CHECKING:
    from fedkd.distill.models.classifier import Classifier

Rng: TypeAlias = np.random.Generator
Student: TypeAlias = "Classifier"


def keep_memory(
    memory: Memory, _queries: QuerySet, _consensus: Consensus, _student: "Student | None"
) -> Memory:
    """What a generator learns that learns nothing: its memory, unchanged."""
    return memory


class Generator(NamedTuple):
    """Poses queries; sees the consensus, never one site's answer.

    `init` takes the seed. `pose` (memory, student, number of queries) is pure: the same arguments
    give the same bytes, in any process. `learn` runs after a consensus is logged and is replayed
    from the log. A generator that ignores student and consensus says so in the origin (no
    parents, no student), and then a site that has its code can draw the set again.
    """

    init: Callable[[int], Memory]
    pose: "Callable[[Memory, Student | None, int], tuple[Memory, QuerySet]]"
    learn: "Callable[[Memory, QuerySet, Consensus, Student | None], Memory]" = keep_memory


def code_digest(modules: Iterable[ModuleType]) -> Digest:
    """Names the source of `modules`, whatever their order and the ends of their lines."""
    sources = {module.__name__: inspect.getsource(module) for module in modules}
    return digest_of_bytes(rfc8785.dumps(sources))


def stream(seed: int, purpose: str, part: int = 0) -> Rng:
    """Random numbers for one part of one purpose, independent of every other one's."""
    named = hashlib.sha256(rfc8785.dumps([seed, purpose, part])).digest()
    return np.random.default_rng(int.from_bytes(named, "big"))
