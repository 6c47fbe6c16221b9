"""The closed list of messages that a server and a site exchange, each a frozen value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

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
from fedkd.wire.fields import check_digest, check_fields
from fedkd.wire.frames import MAGIC, Malformed, OtherVersion, pack, unpack

VERSION = 1
"""The newest version of messages that is read here, of the protocol that `frames.MAGIC` names."""
PROTOCOL = f"{MAGIC.decode().strip().removeprefix('fedkd/')}.{VERSION}"
"""Both, for people: who has another first number reads nothing of this one's."""
CODED = "coded."
WITHHELD = -1
"""In place of a count below the floor."""
MOST_CELLS = 1 << 16
UNKNOWN = "unknown"
"""Stands for a site or a run where nobody knows which; no site can be called so."""
MOST_PAPER_BYTES = 1 << 20


class Reason(StrEnum):
    """Why a site does not answer: the only words a refusal can carry."""

    MALFORMED = "malformed"
    VERSION = "version"
    UNKNOWN_QUERIES = "unknown_queries"
    OUT_OF_SPACE = "out_of_space"
    NOT_ACCEPTED = "not_accepted"
    BUDGET_EXHAUSTED = "budget_exhausted"
    NOT_CONFIGURED = "not_configured"
    NOT_SIGNED = "not_signed"
    """No valid paper of this site's data protection officer covers it: nothing may be paid."""
    UNKNOWN_MODEL = "unknown_model"
    """Nobody placed the model to be evaluated here, or of a kind that this site accepts."""
    ROLLED_BACK = "rolled_back"
    """Peers cosigned more of this site's log than it has: it was restored from an old copy."""
    NOT_FRESH = "not_fresh"
    """Too few peers said lately how far this site's log goes: it might be an old copy."""
    FORKED = "forked"
    """The server's log does not go on from what this site cosigned."""
    NOT_APPROVED = "not_approved"
    """Nobody at this site has approved the run."""
    PAUSED = "paused"
    """People at this site have paused it."""
    OUTSIDE_POLICY = "outside_policy"
    """The site's own policy does not allow it, whatever anybody approved."""
    FAILED = "failed"


class Ruling(StrEnum):
    """What a site has decided about a proposed run."""

    PENDING = "pending"
    APPROVED = "approved"
    DECLINED = "declined"
    REHEARSING = "rehearsing"


@dataclass(frozen=True, slots=True)
class RollCall:
    """The server asks who is there."""

    run: str

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class Present:
    """A site says its name and its software, and nothing about its records."""

    site: str
    run: str
    software: str

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a site is asked to learn; it may refuse. Loss by the name of an installed yaml."""

    local_epochs: int
    lesson_epochs: int
    batch: int
    loss: str
    loss_weight: float
    temperature: float

    def __post_init__(self) -> None:
        check_fields(self)


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

    def __post_init__(self) -> None:
        check_fields(self)
        if self.size < 1:
            raise Malformed("a question without a query")
        if self.queries is not None and self.queries.shape[:1] != (self.size,):
            raise Malformed("another number of queries than announced")
        if self.lesson is not None:
            check_digest(self.lesson.about)

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

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.coded or "" in self.coded:
            raise Malformed("an answer without numbers, or with numbers without a name")


@dataclass(frozen=True, slots=True)
class Closed:
    """A site has taken the last lesson; nothing is released with it."""

    site: str
    run: str
    round: int
    question: Digest

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The server asks how a model does on a site's own held-out records: for counts, no more.

    `model` is its digest: weights never travel in a message. With two classes `thresholds` (rising,
    in (0, 1)) are those of the second class; with more there are none. `group` names a column by
    whose categories the counts are to be apart, `epsilon` what the answer may cost.
    """

    run: str
    round: int
    model: Digest
    thresholds: tuple[float, ...]
    group: str | None
    epsilon: float

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def key(self) -> Digest:
        """Names the question: asked again in whatever round, it is the same one."""
        asked = [self.run, self.model, list(self.thresholds), self.group, self.epsilon]
        return digest_of_bytes(rfc8785.dumps(["evaluation", *asked]))


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """A site's answer to an evaluation: noised whole numbers, and the law of their noise.

    `counts` [G, B, C] int64: groups, what was said (one of T + 1 ranges between thresholds, or of
    C classes), and true class. Each is at least `floor`, or `WITHHELD`. `scale` is 1 / epsilon of
    geometric noise, the deviation of Gaussian noise, or 0.
    """

    site: str
    run: str
    round: int
    question: Digest
    model: Digest
    noise: str
    scale: float
    floor: int
    counts: Array

    def __post_init__(self) -> None:
        check_fields(self)
        counts = self.counts
        if counts.dtype.str != "<i8" or counts.ndim != 3 or not 0 < counts.size <= MOST_CELLS:
            raise Malformed("counts of another type or shape, or too many")
        if not bool(((counts == WITHHELD) | (counts >= self.floor)).all()):
            raise Malformed("a count below the floor")
        if (self.noise == "none") != (self.scale == 0):
            raise Malformed("noise without a scale, or the other way round")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site does not answer, for a reason from the closed list."""

    site: str
    run: str
    round: int
    reason: Reason

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.reason, Reason):
            raise Malformed("a reason that is not in the list")


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """The server proposes a run: `body` [n] uint8 is the paper, signed by the federation's key."""

    run: str
    body: Array
    signature: str

    def __post_init__(self) -> None:
        check_fields(self)
        body = self.body
        if body.dtype.str != "|u1" or body.ndim != 1 or not 0 < body.size <= MOST_PAPER_BYTES:
            raise Malformed("a paper of another type, or too long")


@dataclass(frozen=True, slots=True)
class Considered:
    """A site says how far it is with a proposal, which it names by its paper's digest."""

    site: str
    run: str
    proposal: Digest
    ruling: Ruling

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.ruling, Ruling):
            raise Malformed("a ruling that is not in the list")


Message = (
    RollCall
    | Present
    | Question
    | Answer
    | Closed
    | Evaluation
    | Counts
    | Refusal
    | Proposal
    | Considered
)

_MESSAGES: dict[str, type[Message]] = {
    "roll_call": RollCall,
    "present": Present,
    "question": Question,
    "answer": Answer,
    "closed": Closed,
    "evaluation": Evaluation,
    "counts": Counts,
    "refusal": Refusal,
    "proposal": Proposal,
    "considered": Considered,
}
_KINDS = {message: kind for kind, message in _MESSAGES.items()}
_SINCE: dict[str, int] = dict.fromkeys(_MESSAGES, 1)
"""The version that brought each kind. It is written as that, whatever version writes it: who is
one behind reads all that was there before, and each message keeps its one spelling."""
_AS_ARRAYS = {"queries", "coded", "counts", "body"}
"""Fields that travel as arrays alone; a lesson travels as an array and as a digest."""
_ALONE: dict[type[Message], str] = {Counts: "counts", Proposal: "body"}
"""Messages that carry one array, and its name."""


def encode(message: Message) -> bytes:
    """The canonical bytes of a message: `decode` gives back exactly this message."""
    kind = _KINDS[type(message)]
    header: dict[str, Any] = {"v": _SINCE[kind], "kind": kind}
    for name in message.__dataclass_fields__.keys() - _AS_ARRAYS:
        value = getattr(message, name)
        header[name] = _TO_PLAIN[name](value) if name in _TO_PLAIN else value
    arrays: dict[str, Array] = {}
    if isinstance(message, Answer):
        arrays = {CODED + part: array for part, array in message.coded.items()}
    elif (alone := _ALONE.get(type(message))) is not None:
        arrays = {alone: getattr(message, alone)}
    elif isinstance(message, Question):
        lesson = message.lesson.probs if message.lesson else None
        carried = {"queries": message.queries, "lesson": lesson}
        arrays = {name: array for name, array in carried.items() if array is not None}
    return pack(header, arrays)


def decode(body: bytes, most_bytes: int) -> Message:
    """The message in `body`; `Malformed` for anything that is not exactly one.

    `OtherVersion` where a newer version may know what it is.
    """
    header, arrays = unpack(body, most_bytes)
    version = header.pop("v", None)
    if type(version) is not int:  # a bool is an int too, and would be a second spelling of 1
        raise Malformed("no version")
    if not 0 < version <= VERSION:
        raise OtherVersion("another version of the protocol")
    kind = header.pop("kind", None)
    if not isinstance(kind, str) or kind not in _MESSAGES:
        raise Malformed("a kind of message that is not in the list")
    if version != _SINCE[kind]:
        raise Malformed("a kind of message in another version than its own")
    message = _MESSAGES[kind]
    if set(header) != message.__dataclass_fields__.keys() - _AS_ARRAYS:
        raise Malformed(f"a {kind} with missing or foreign fields")
    try:
        carried = _carried(message, header, arrays)
        plain = {
            name: _FROM_PLAIN[name](value) if name in _FROM_PLAIN else value
            for name, value in header.items()
            if name not in carried
        }
        return message(**plain, **carried)
    except Malformed:
        raise
    except (TypeError, ValueError):
        raise Malformed(f"a {kind} with wrong fields") from None


def _carried(
    message: type[Message], header: Mapping[str, Any], arrays: dict[str, Array]
) -> dict[str, Any]:
    """The fields that `arrays` fill; every array has to be one of them."""
    if message is Answer:
        if not all(name.startswith(CODED) for name in arrays):
            raise Malformed("an answer with foreign arrays")
        return {"coded": {name.removeprefix(CODED): array for name, array in arrays.items()}}
    if message in _ALONE:
        if arrays.keys() != {_ALONE[message]}:
            raise Malformed("missing or foreign arrays")
        return arrays
    if message is not Question:
        if arrays:
            raise Malformed("arrays in a message that carries none")
        return {}
    if not arrays.keys() <= {"queries", "lesson"}:
        raise Malformed("a question with foreign arrays")
    about = header["lesson"]
    if ("lesson" in arrays) != (about is not None):
        raise Malformed("a lesson without its digest, or the other way round")
    lesson = None
    if "lesson" in arrays:
        lesson = Distributions(arrays["lesson"], about)
    return {"queries": arrays.get("queries"), "lesson": lesson}


def _plan_to_plain(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__dataclass_fields__}


def _plan_from_plain(value: Any) -> Plan:
    if not isinstance(value, dict) or set(value) != set(Plan.__dataclass_fields__):
        raise Malformed("a plan with missing or foreign fields")
    plan = Plan(**value)
    # canonical JSON writes 1.0 as 1
    return replace(plan, loss_weight=float(plan.loss_weight), temperature=float(plan.temperature))


_TO_PLAIN: dict[str, Callable[[Any], Any]] = {
    "origin": origin_to_json,
    "plan": _plan_to_plain,
    "lesson": lambda lesson: lesson.about if lesson else None,
    "thresholds": list,
}
_FROM_PLAIN: dict[str, Callable[[Any], Any]] = {
    "origin": origin_from_json,
    "plan": _plan_from_plain,
    "reason": Reason,
    "ruling": Ruling,
    "thresholds": lambda value: tuple(value) if isinstance(value, list) else value,
    # canonical JSON writes 1.0 as 1
    "epsilon": lambda value: float(value) if type(value) is int else value,
    "scale": lambda value: float(value) if type(value) is int else value,
}
