"""The closed list of messages that a server and a site exchange, each a frozen value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import rfc8785

from fedkd.knowledge import (
    Array,
    Digest,
    Distributions,
    Origin,
    QuerySet,
    WrongDigest,
    digest_of_bytes,
    origin_from_json,
    origin_to_json,
)
from fedkd.wire.frames import Malformed, pack, unpack

VERSION = 1


class Reason(StrEnum):
    """Why a site does not answer: the only words a refusal can carry."""

    MALFORMED = "malformed"
    VERSION = "version"
    UNKNOWN_QUERIES = "unknown_queries"
    OUT_OF_SPACE = "out_of_space"
    NOT_ACCEPTED = "not_accepted"
    BUDGET_EXHAUSTED = "budget_exhausted"
    NOT_CONFIGURED = "not_configured"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Room for what rides along: the sender's log checkpoint and its peers' cosignatures."""

    checkpoint: str | None = None
    cosignatures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RollCall:
    """The server asks who is there."""

    run: str
    envelope: Envelope = Envelope()


@dataclass(frozen=True, slots=True)
class Present:
    """A site says its name and its software, and nothing about its records."""

    site: str
    run: str
    software: str
    envelope: Envelope = Envelope()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a site is asked to learn; it may refuse. Loss by the name of an installed yaml."""

    local_epochs: int
    lesson_epochs: int
    batch: int
    loss: str
    loss_weight: float
    temperature: float


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What the server asks in one round.

    `queries` [Q, ...] are the inputs, or None where the site already has the set or can draw it
    again. `lesson` is the consensus of the round before. A closing question asks for no answer:
    it brings the last lesson.
    """

    run: str
    round: int
    closing: bool
    about: Digest
    origin: Origin
    size: int
    queries: Array | None
    lesson: Distributions | None
    plan: Plan
    codec: str
    envelope: Envelope = Envelope()

    @property
    def key(self) -> Digest:
        """Names the question: (run, round, query digest, lesson digest), as HOUSE.md says."""
        lesson = self.lesson.digest if self.lesson else None
        return digest_of_bytes(rfc8785.dumps([self.run, self.round, self.about, lesson]))

    def query_set(self) -> QuerySet:
        """The queries it brings, held against their digest."""
        if self.queries is None:
            raise WrongDigest("found no inputs in the question")
        return QuerySet(self.queries, self.origin).expect(self.about)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A site's output distributions, as its codec wrote them: the only numbers that leave it."""

    site: str
    run: str
    round: int
    question: Digest
    about: Digest
    codec: str
    coded: Mapping[str, Array]
    envelope: Envelope = Envelope()


@dataclass(frozen=True, slots=True)
class Closed:
    """A site has taken the last lesson; nothing is released with it."""

    site: str
    run: str
    round: int
    question: Digest
    envelope: Envelope = Envelope()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site does not answer, for a reason from the closed list."""

    site: str
    run: str
    round: int
    reason: Reason
    envelope: Envelope = Envelope()


Message = RollCall | Present | Question | Answer | Closed | Refusal


def encode(message: Message) -> bytes:
    """The canonical bytes of a message."""
    header: dict[str, Any] = {"v": VERSION, "kind": _KINDS[type(message)]}
    arrays: dict[str, Array] = {}
    for name in message.__dataclass_fields__:
        value = getattr(message, name)
        if name == "envelope":
            value = {"checkpoint": value.checkpoint, "cosignatures": list(value.cosignatures)}
        elif name == "origin":
            value = origin_to_json(value)
        elif name == "plan":
            value = {field: getattr(value, field) for field in Plan.__dataclass_fields__}
        elif name == "queries":
            arrays |= {} if value is None else {"queries": value}
            continue
        elif name == "lesson":
            arrays |= {} if value is None else {"lesson": value.probs}
            value = None if value is None else value.about
        elif name == "coded":
            arrays |= {f"coded.{part}": array for part, array in value.items()}
            continue
        header[name] = value
    return pack(header, arrays)


def decode(body: bytes, most_bytes: int) -> Message:
    """The message in `body`; `Malformed` for anything that is not exactly one."""
    header, arrays = unpack(body, most_bytes)
    if header.pop("v", None) != VERSION:
        raise Malformed("another version of the protocol")
    kind = header.pop("kind", None)
    kinds = {name: message for message, name in _KINDS.items()}
    if kind not in kinds:
        raise Malformed("a kind of message that is not in the list")
    try:
        message: Message = _READERS[kinds[kind]](header, arrays)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed(f"a {kind} with wrong fields") from None
    return message


def _only(header: dict[str, Any], names: Sequence[str]) -> None:
    if set(header) != set(names):
        raise Malformed("a message with missing or foreign fields")


def _text(value: Any, most: int = 256) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise Malformed("a text that is missing, too long or not printable")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Malformed("a count that is not a whole number")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value):
        raise Malformed("a number that is none")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Malformed("a flag that is none")
    return value


def _digest(value: Any) -> Digest:
    text = _text(value)
    prefix, _, digits = text.partition(":")
    if prefix != "sha256" or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise Malformed("a digest that is none")
    return Digest(text)


def _envelope(value: Any) -> Envelope:
    if not isinstance(value, dict) or set(value) != {"checkpoint", "cosignatures"}:
        raise Malformed("an envelope with missing or foreign fields")
    checkpoint, cosignatures = value["checkpoint"], value["cosignatures"]
    if not isinstance(cosignatures, list) or len(cosignatures) > 64:
        raise Malformed("an envelope with too many cosignatures")
    if not all(isinstance(text, str) and len(text) < 8192 for text in cosignatures):
        raise Malformed("a cosignature that is no text")
    if checkpoint is not None and (not isinstance(checkpoint, str) or len(checkpoint) > 8192):
        raise Malformed("a checkpoint that is no text")
    return Envelope(checkpoint, tuple(cosignatures))


def _plan(value: Any) -> Plan:
    if not isinstance(value, dict):
        raise Malformed("a plan that is none")
    _only(value, list(Plan.__dataclass_fields__))
    return Plan(
        _count(value["local_epochs"]),
        _count(value["lesson_epochs"]),
        _count(value["batch"]),
        _text(value["loss"]),
        _number(value["loss_weight"]),
        _number(value["temperature"]),
    )


def _no_arrays(arrays: Mapping[str, Array]) -> None:
    if arrays:
        raise Malformed("arrays in a message that carries none")


def _read_roll_call(header: dict[str, Any], arrays: dict[str, Array]) -> RollCall:
    _only(header, ["run", "envelope"])
    _no_arrays(arrays)
    return RollCall(_text(header["run"]), _envelope(header["envelope"]))


def _read_present(header: dict[str, Any], arrays: dict[str, Array]) -> Present:
    _only(header, ["site", "run", "software", "envelope"])
    _no_arrays(arrays)
    return Present(
        _text(header["site"]),
        _text(header["run"]),
        _text(header["software"]),
        _envelope(header["envelope"]),
    )


def _read_question(header: dict[str, Any], arrays: dict[str, Array]) -> Question:
    _only(header, [name for name in Question.__dataclass_fields__ if name != "queries"])
    if set(arrays) - {"queries", "lesson"}:
        raise Malformed("a question with foreign arrays")
    if ("lesson" in arrays) != (header["lesson"] is not None):
        raise Malformed("a lesson without its digest, or the other way round")
    lesson = None
    if "lesson" in arrays:
        lesson = Distributions(arrays["lesson"], _digest(header["lesson"]))
    queries = arrays.get("queries")
    size = _count(header["size"])
    if queries is not None and (not queries.ndim or len(queries) != size):
        raise Malformed("another number of queries than announced")
    return Question(
        run=_text(header["run"]),
        round=_count(header["round"]),
        closing=_flag(header["closing"]),
        about=_digest(header["about"]),
        origin=origin_from_json(header["origin"]),
        size=size,
        queries=queries,
        lesson=lesson,
        plan=_plan(header["plan"]),
        codec=_text(header["codec"]),
        envelope=_envelope(header["envelope"]),
    )


def _read_answer(header: dict[str, Any], arrays: dict[str, Array]) -> Answer:
    _only(header, [name for name in Answer.__dataclass_fields__ if name != "coded"])
    if not arrays or any(not name.startswith("coded.") for name in arrays):
        raise Malformed("an answer with missing or foreign arrays")
    return Answer(
        site=_text(header["site"]),
        run=_text(header["run"]),
        round=_count(header["round"]),
        question=_digest(header["question"]),
        about=_digest(header["about"]),
        codec=_text(header["codec"]),
        coded={name.removeprefix("coded."): array for name, array in arrays.items()},
        envelope=_envelope(header["envelope"]),
    )


def _read_closed(header: dict[str, Any], arrays: dict[str, Array]) -> Closed:
    _only(header, list(Closed.__dataclass_fields__))
    _no_arrays(arrays)
    return Closed(
        _text(header["site"]),
        _text(header["run"]),
        _count(header["round"]),
        _digest(header["question"]),
        _envelope(header["envelope"]),
    )


def _read_refusal(header: dict[str, Any], arrays: dict[str, Array]) -> Refusal:
    _only(header, list(Refusal.__dataclass_fields__))
    _no_arrays(arrays)
    return Refusal(
        _text(header["site"]),
        _text(header["run"]),
        _count(header["round"]),
        Reason(_text(header["reason"])),
        _envelope(header["envelope"]),
    )


_KINDS: dict[type, str] = {
    RollCall: "roll_call",
    Present: "present",
    Question: "question",
    Answer: "answer",
    Closed: "closed",
    Refusal: "refusal",
}
_READERS: dict[type, Any] = {
    RollCall: _read_roll_call,
    Present: _read_present,
    Question: _read_question,
    Answer: _read_answer,
    Closed: _read_closed,
    Refusal: _read_refusal,
}
