"""What is said: output distributions, query sets, and the pure rules that combine them."""

from fedkd.knowledge.alike import most_alike
from fedkd.knowledge.answers import (
    Aggregator,
    Answers,
    Consensus,
    Filter,
    Kept,
    Lesson,
    Memory,
    remember_nothing,
)
from fedkd.knowledge.bad_input import BadInput, OtherFormat
from fedkd.knowledge.digests import Array, Digest, digest_of_arrays, digest_of_bytes
from fedkd.knowledge.distributions import (
    TOLERANCE,
    Distributions,
    NotDistributions,
    check_distributions,
    normalised,
    read_only,
)
from fedkd.knowledge.queries import (
    Origin,
    Public,
    QuerySet,
    Synthetic,
    WrongDigest,
    origin_from_json,
    origin_to_json,
)
from fedkd.knowledge.ranges import OneOf, Range
from fedkd.knowledge.space import NotInSpace, Space

__all__ = [
    "TOLERANCE",
    "Aggregator",
    "Answers",
    "Array",
    "BadInput",
    "Consensus",
    "Digest",
    "Distributions",
    "Filter",
    "Kept",
    "Lesson",
    "Memory",
    "NotDistributions",
    "NotInSpace",
    "OneOf",
    "Origin",
    "OtherFormat",
    "Public",
    "QuerySet",
    "Range",
    "Space",
    "Synthetic",
    "WrongDigest",
    "check_distributions",
    "digest_of_arrays",
    "digest_of_bytes",
    "most_alike",
    "normalised",
    "origin_from_json",
    "origin_to_json",
    "read_only",
    "remember_nothing",
]
