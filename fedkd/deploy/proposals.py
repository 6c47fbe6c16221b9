"""Spells the papers that propose something: what would be asked, of whom, and what would leave.

Canonical JSON (RFC 8785), signed by the federation's key. A person at each hospital reads it and
says yes or no; afterwards every question is held against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self

from fedkd.audit import SERVER, Federation, Peer
from fedkd.audit.officer import expect_signed, sign_paper
from fedkd.audit.verify import Malformed, SigningKey, VerifierKey, canonical, parsed
from fedkd.knowledge import BadInput, Digest, OtherFormat, digest_of_bytes
from fedkd.wire.fields import RUN

FORMAT: Final = 1
KIND: Final = "proposal"
MOST_BYTES: Final = 1 << 20
_MOST_TEXT: Final = 200
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_ASKED: Final = {
    "rounds": int,
    "size": int,
    "seed": int,
    "local_epochs": int,
    "lesson_epochs": int,
    "batch": int,
    "loss": str,
    "loss_weight": float,
    "temperature": float,
    "codec": str,
    "mechanism": str,
    "epsilon": (float, type(None)),
    "lesson": str,
    "aggregate": str,
    "filter": str,
    "student": str,
}
"""What `asked` says, each of its type: all that a site is asked for, and what is made of it."""
_QUERY: Final[Mapping[str, Mapping[str, type]]] = {
    "public": {"source": str, "licence": str, "digest": str},
    "synthetic": {"generator": str, "code": str, "seed": int},
}
_LEAVES: Final = {"messages": int, "rows": int, "classes": int, "bytes": int}
_AUDIT: Final = {"threshold": (int, type(None)), "most_age": int, "cosigners": int}


@dataclass(frozen=True, slots=True)
class Proposed:
    """What every proposal says, as everybody who is asked reads it.

    `asked` is what would be asked for, `parties` everybody's public keys by name, the server's
    among them, `audit` the terms of cosigning, `would_leave` what each site's answers add up to.
    """

    KIND: ClassVar[str]
    ASKED: ClassVar[Mapping[str, Any]]
    LEAVES: ClassVar[Mapping[str, Any]]

    federation: str
    run: str
    rehearsal: bool
    software: str
    bundle: str
    asked: Mapping[str, Any]
    parties: Mapping[str, Any]
    audit: Mapping[str, Any]
    would_leave: Mapping[str, int]
    expires: str

    def __post_init__(self) -> None:
        where = "the proposal"
        for name in ("federation", "run", "software", "bundle", "expires"):
            typed(getattr(self, name), str, name, where)
        typed(self.rehearsal, bool, "rehearsal", where)
        if not RUN.fullmatch(self.run):
            raise BadInput(f"the run {self.run!r} in {where}", "letters, digits and dashes")
        keys(self.asked, self.ASKED, f"asked in {where}")
        keys(self.audit, _AUDIT, f"audit in {where}")
        keys(self.would_leave, self.LEAVES, f"would_leave in {where}")
        self.expiry()
        self.federated()

    @property
    def digest(self) -> Digest:
        """What names the proposal: of its canonical bytes."""
        return digest_of_bytes(self.to_bytes())

    @property
    def about(self) -> str:
        """What a decision at a hospital is about."""
        return self.run

    @property
    def sites(self) -> tuple[str, ...]:
        """The hospitals that are asked, sorted."""
        return tuple(sorted(self.parties.keys() - {SERVER}))

    def to_bytes(self) -> bytes:
        """The canonical bytes, which are what is signed and what travels."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return canonical({"format": FORMAT, "kind": self.KIND, **plain}, self.KIND)

    def signed(self, key: SigningKey) -> str:
        """The federation's signature over it, as a note."""
        return sign_paper(key, self.KIND, self.to_bytes()).decode()

    def expiry(self) -> datetime:
        """Until when a person may say yes."""
        try:
            return datetime.strptime(self.expires, _TIME).replace(tzinfo=UTC)
        except ValueError:
            raise BadInput(f"{self.expires!r} as expires", "a time in UTC") from None

    def federated(self) -> Federation:
        """Everybody's keys and the terms of cosigning."""
        try:
            peers = {party: Peer.from_json(peer) for party, peer in self.parties.items()}
            terms = self.audit
            federation = Federation(
                peers, terms["threshold"], terms["most_age"], terms["cosigners"]
            )
            federation.rosters()
        except (Malformed, KeyError, TypeError, AttributeError, ValueError):
            raise BadInput(
                "parties in the proposal that cannot cosign each other",
                "a log's key and witnesses' keys for each, and a threshold that can be reached",
            ) from None
        if SERVER not in peers:
            raise BadInput("no server among the parties of the proposal", "its public keys, too")
        return federation

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The proposal that `body` spells; `BadInput` for anything else."""
        if len(body) > MOST_BYTES:
            raise BadInput(f"a proposal of {len(body)} bytes", f"at most {MOST_BYTES}")
        try:
            plain = parsed(body, cls.KIND)
        except Malformed as error:
            raise BadInput(f"a proposal that is none ({error})", "canonical JSON") from None
        if not isinstance(plain, dict) or plain.pop("kind", None) != cls.KIND:
            raise BadInput("a paper of another kind", f"a paper of the kind {cls.KIND}")
        found = plain.pop("format", None)
        if found != FORMAT:
            raise OtherFormat("a proposal", found, FORMAT)
        names = {each.name for each in fields(cls)}
        if set(plain) != names:
            odd = ", ".join(sorted(set(plain) ^ names))
            raise BadInput(f"a proposal with the keys {odd} wrong", "the keys of its kind")
        asked = plain["asked"]
        for name, kind in cls.ASKED.items():  # canonical JSON writes 1.0 as 1
            floats = kind is float or (isinstance(kind, tuple) and float in kind)
            if floats and isinstance(asked, dict) and type(asked.get(name)) is int:
                asked[name] = float(asked[name])
        return cls(**plain)

    @classmethod
    def read(cls, body: bytes, signature: str, key: VerifierKey) -> Self:
        """The proposal in `body`, signed by the federation's `key`; `BadInput` otherwise."""
        expect_signed(
            key,
            cls.KIND,
            body,
            signature.encode(),
            "the proposal",
            remedy="call the coordinator: after fedkd server rotate --key, fedkd site trust comes "
            "before anything that the new key signed",
        )
        return cls.parse(body)


@dataclass(frozen=True, slots=True)
class RunProposal(Proposed):
    """One proposed run: `asked` are its numbers, `query` says where its queries come from.

    `would_leave` are messages, rows of probabilities, classes and bytes.
    """

    KIND = KIND
    ASKED = _ASKED
    LEAVES = _LEAVES

    query: Mapping[str, Any]

    def __post_init__(self) -> None:
        # not super(): slots make another class of this one
        kind = str(self.query.get("kind")) if isinstance(self.query, Mapping) else ""
        if kind not in _QUERY:
            raise BadInput(f"queries of kind {kind!r} in the proposal", " or ".join(_QUERY))
        keys(self.query, {"kind": str, **_QUERY[kind]}, "query in the proposal")
        Proposed.__post_init__(self)


def keys(value: Any, types: Mapping[str, Any], where: str) -> None:
    """`BadInput` unless `value` has these keys, each of its type."""
    if not isinstance(value, Mapping) or set(value) != set(types):
        raise BadInput(f"{where} with other keys", f"{', '.join(types)}")
    for name, kind in types.items():
        typed(value[name], kind, name, where)


def typed(value: Any, kind: Any, name: str, where: str) -> None:
    """`BadInput` unless `value` is of a type; a truth is no number."""
    if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
        raise BadInput(f"{value!r} as {name} in {where}", f"a value of type {kind}")
    if isinstance(value, str) and not _is_plain(value):
        raise BadInput(f"{value[:_MOST_TEXT]!r} as {name} in {where}", "a text, short and plain")


def _is_plain(text: str) -> bool:
    """A person reads it in a line: single spaces, so that nothing of it looks like another line."""
    return 0 < len(text) <= _MOST_TEXT and text.isprintable() and text.split() == text.split(" ")
