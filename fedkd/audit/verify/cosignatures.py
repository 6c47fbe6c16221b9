"""A party that remembers a log's newest head and signs only what continues it.

C2SP tlog-cosignature v1.0.1 and tlog-witness v1.0.0, without their HTTP: a request and its answer
are bytes that ride in other messages. Nothing here is written to disk: whoever calls `add` keeps
the new heads durably, in one step with having read the old ones, before the answer leaves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, Self

from fedkd.audit.verify.canonical import canonical, parsed
from fedkd.audit.verify.checkpoints import Checkpoint
from fedkd.audit.verify.merkle import EMPTY_ROOT, MOST_DIGESTS, verify_consistency
from fedkd.audit.verify.notes import Algorithm, Note, Signature, SigningKey, VerifierKey
from fedkd.audit.verify.refusals import CannotTell, Malformed, Refuted
from fedkd.audit.verify.spellings import (
    base64_text,
    checked_digest,
    checked_number,
    decimal,
    digest,
    shown,
    utf8,
)

_FORMAT: Final = 1


class Refusal(Refuted):
    """Why a witness does not cosign; `status` is tlog-witness's HTTP status for it."""

    status: ClassVar[int]


class BadRequest(Refusal):
    """The request contradicts itself, or cannot be read."""

    status = 400


class UnknownKey(Refusal):
    """No signature by a key that the witness trusts for this log, or a bad one."""

    status = 403


class UnknownLog(Refusal):
    """The witness does not follow this log."""

    status = 404


class Stale(Refusal):
    """The request starts from another size than the newest that was cosigned, which is `size`.

    The log's owner proves from there; an owner whose own log is shorter has rolled back.
    """

    status = 409

    def __init__(self, what: str, found: int, size: int) -> None:
        super().__init__(what, f"old size {found}", f"old size {size}, the newest cosigned")
        self.size = size

    def __reduce__(self) -> tuple[Any, ...]:
        return Stale, (self.what, int(self.found.rsplit(" ", 1)[1]), self.size)

    def body(self) -> bytes:
        """The size as tlog-witness sends it, media type text/x.tlog.size."""
        return f"{self.size}\n".encode()


class Forked(Refusal):
    """The log's key signed two roots of one size: a split view, and the two heads prove it."""

    status = 409


class Inconsistent(Refusal):
    """The new tree does not begin with the old one, or nothing shows that it does."""

    status = 422


class Head(NamedTuple):
    """The newest size of a log that was cosigned, and its root."""

    size: int
    root: bytes


NOTHING_SEEN: Final = Head(0, EMPTY_ROOT)


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The request: a signed checkpoint, and the proof that it continues a size already seen."""

    old_size: int
    proof: tuple[bytes, ...]
    note: Note

    def __post_init__(self) -> None:
        checked_number(self.old_size, "old size")
        if len(self.proof) > MOST_DIGESTS:  # tlog-witness, add-checkpoint
            found = f"{len(self.proof)} digests"
            raise Malformed("add-checkpoint", found, f"at most {MOST_DIGESTS}")
        for one in self.proof:
            checked_digest(one, "consistency proof")

    def to_bytes(self) -> bytes:
        """The body of tlog-witness's add-checkpoint."""
        lines = [f"old {self.old_size}", *map(base64_text, self.proof), "", ""]
        return "\n".join(lines).encode() + self.note.to_bytes()

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """The inverse of `to_bytes`; raises `BadRequest` for everything else."""
        try:
            head, blank, note = content.partition(b"\n\n")
            first, *lines = utf8(head, "add-checkpoint").split("\n")
            if not blank or not first.startswith("old "):
                raise Malformed("add-checkpoint", shown(first), "old <size>, proof, empty line")
            size = decimal(first.removeprefix("old "), "old size")
            if len(lines) > MOST_DIGESTS:
                raise Malformed("add-checkpoint", f"{len(lines)} lines", f"at most {MOST_DIGESTS}")
            proof = tuple(digest(line, "consistency proof") for line in lines)
            return cls(size, proof, Note.parse(note))
        except Malformed as error:
            raise BadRequest(error.what, error.found, error.expected) from None


def cosign(key: SigningKey, checkpoint: Checkpoint, time: int) -> Signature:
    """A cosignature: at `time` (seconds since 1970, UTC) this was the newest head that `key` knew.

    It is true only behind `Witness.add`, which alone should call it.
    """
    if key.algorithm is Algorithm.ED25519:
        raise ValueError(f"found {key.name}, a log's key; expected a witness's key, 0x04 or 0x06")
    return key.sign(checkpoint.text(), time)


def cosignature_lines(signatures: Iterable[Signature]) -> bytes:
    """The answer of tlog-witness's add-checkpoint: one line or more."""
    return "".join(signature.line() for signature in signatures).encode()


def read_cosignature_lines(content: bytes) -> tuple[Signature, ...]:
    """The inverse of `cosignature_lines`; what they sign is for `Note.verify` to say."""
    *lines, end = utf8(content, "cosignatures").split("\n")
    if end or not lines:
        raise Malformed("cosignatures", shown(end), "signature lines, each with its newline")
    return tuple(Signature.parse(line + "\n") for line in lines)


@dataclass(frozen=True, slots=True)
class Witness:
    """A cosigner as a value: the logs it follows, by origin their keys, and the heads it has seen.

    A witness key signs nothing but cosignatures and is no log's key: an Ed25519 cosignature does
    not bind its cosigner's name (tlog-cosignature, Ed25519 signed message).
    """

    keys: tuple[SigningKey, ...] = field(repr=False)
    logs: Mapping[str, tuple[VerifierKey, ...]]
    heads: Mapping[str, Head] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("found a witness without key, expected one or more")
        publics = {key.verifier().public for key in self.keys}
        for key in self.keys:
            if key.algorithm is Algorithm.ED25519:
                raise ValueError(f"found {key.name}, a log's key; expected a witness's key")
        for origin, keys in self.logs.items():
            if not keys:
                raise ValueError(f"found no key for log {origin}, expected one or more")
            if publics & {key.public for key in keys}:
                raise ValueError(
                    f"found one key as witness and as log {origin}, expected two different keys"
                )

    def add(self, request: AddCheckpoint, time: int) -> tuple["Witness", tuple[Signature, ...]]:
        """The witness that has seen the new head, and its cosignatures; or a `Refusal`.

        The first result's `heads` must be durable before the second leaves.
        """
        try:
            checkpoint = request.note.checkpoint()
        except Refuted as error:
            raise BadRequest(error.what, error.found, error.expected) from None
        self._check(request, checkpoint)
        heads = {**self.heads, checkpoint.origin: Head(checkpoint.size, checkpoint.root)}
        cosignatures = tuple(cosign(key, checkpoint, time) for key in self.keys)
        return Witness(self.keys, self.logs, heads), cosignatures

    def _check(self, request: AddCheckpoint, checkpoint: Checkpoint) -> None:
        # The order is that of tlog-witness, add-checkpoint.
        what, old = str(checkpoint), request.old_size
        keys = self.logs.get(checkpoint.origin)
        if keys is None:
            known = ", ".join(sorted(self.logs)) or "none"
            raise UnknownLog(
                what, f"log {shown(checkpoint.origin)}", f"one that is followed: {known}"
            )
        try:
            request.note.verify(keys)
        except Refuted as error:
            raise UnknownKey(error.what, error.found, error.expected) from None
        if old > checkpoint.size:
            raise BadRequest(what, f"old size {old}", f"at most {checkpoint.size}")
        head = self.heads.get(checkpoint.origin, NOTHING_SEEN)
        if old != head.size:
            raise Stale(what, old, head.size)
        if old == checkpoint.size and checkpoint.root != head.root:
            raise Forked(what, f"root {checkpoint.root.hex()}", f"root {head.root.hex()}")
        if old == 0:  # nothing was seen: the first head is taken on trust, and proves nothing
            if request.proof:
                raise Inconsistent(what, f"a proof of {len(request.proof)} digests", "none from 0")
            return
        try:
            verify_consistency(old, checkpoint.size, request.proof, head.root, checkpoint.root)
        except Refuted as error:
            raise Inconsistent(error.what, error.found, error.expected) from None

    def heads_bytes(self) -> bytes:
        """The heads as canonical JSON, to be kept."""
        heads = {origin: [head.size, head.root.hex()] for origin, head in self.heads.items()}
        return canonical({"v": _FORMAT, "heads": heads}, "heads of a witness")


def read_heads(content: bytes) -> dict[str, Head]:
    """The inverse of `Witness.heads_bytes`.

    A witness whose heads are lost is retired with its key, never started anew: it would cosign a
    second history.
    """
    what = "heads of a witness"
    value = parsed(content, what)
    if not isinstance(value, dict):
        raise Malformed(what, type(value).__name__, "a JSON object")
    if value.get("v") != _FORMAT:
        raise CannotTell(f"{what}: found version {value.get('v')!a}, expected {_FORMAT}")
    try:
        if any(type(size) is not int for size, _ in value["heads"].values()):
            raise TypeError
        return {
            str(origin): Head(checked_number(size, what), checked_digest(bytes.fromhex(root), what))
            for origin, (size, root) in value["heads"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed(what, "another shape", "a size and a root by origin") from None
