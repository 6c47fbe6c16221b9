"""One file that shows, without any connection, that a leaf is in a log (C2SP tlog-proof v1)."""

import re
from dataclasses import dataclass
from typing import Final, Self

from fedkd.audit.verify.merkle import MOST_DIGESTS, Lookup, inclusion, leaf_hash, verify_inclusion
from fedkd.audit.verify.notes import MOST_NOTE_BYTES, Note
from fedkd.audit.verify.policies import TrustPolicy, Witnessed
from fedkd.audit.verify.refusals import CannotTell, Malformed
from fedkd.audit.verify.spellings import (
    base64_bytes,
    base64_text,
    checked_digest,
    checked_number,
    decimal,
    digest,
    shown,
    utf8,
)

NAME: Final = "c2sp.org/tlog-proof@"
VERSION: Final = "v1"
MOST_PROOF_BYTES: Final = 2 * MOST_NOTE_BYTES
_OTHER_VERSION: Final = re.compile(re.escape(NAME) + r"v[1-9]\d{0,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Proven:
    """A leaf's place, and the checkpoint that it was shown to be in."""

    index: int
    witnessed: Witnessed


@dataclass(frozen=True, slots=True)
class ProofFile:
    """Where the leaf is, the digests from its sibling to below the root, the signed checkpoint.

    `extra` is carried and not authenticated: nobody may trust it.
    """

    index: int
    digests: tuple[bytes, ...]
    note: Note
    extra: bytes | None = None

    def __post_init__(self) -> None:
        checked_number(self.index, "index in a proof file")
        if len(self.digests) > MOST_DIGESTS:
            found = f"{len(self.digests)} digests"
            raise Malformed("proof file", found, f"at most {MOST_DIGESTS}")
        for one in self.digests:
            checked_digest(one, "proof file")
        if self.extra == b"":
            raise Malformed("proof file", "empty extra data", "some, or no line for it")

    @classmethod
    def make(cls, index: int, note: Note, node: Lookup, extra: bytes | None = None) -> Self:
        """The proof that leaf `index` is in the tree of `note`, from stored nodes."""
        return cls(index, inclusion(index, note.checkpoint().size, node), note, extra)

    def to_bytes(self) -> bytes:
        """The file, by custom named `*.tlog-proof`."""
        extra = () if self.extra is None else (f"extra {base64_text(self.extra)}",)
        head = (NAME + VERSION, *extra, f"index {self.index}", *map(base64_text, self.digests))
        return "".join(f"{line}\n" for line in (*head, "")).encode() + self.note.to_bytes()

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """The inverse of `to_bytes`: a proof has one spelling."""
        if len(content) > MOST_PROOF_BYTES:
            raise Malformed("proof file", f"{len(content)} bytes", f"at most {MOST_PROOF_BYTES}")
        head, blank, note = content.partition(b"\n\n")
        first, *lines = utf8(head, "proof file").split("\n")
        if _OTHER_VERSION.fullmatch(first) and first != NAME + VERSION:
            raise CannotTell(f"proof file: found {shown(first)}, expected {NAME + VERSION}")
        if first != NAME + VERSION or not blank:
            raise Malformed("proof file", shown(first), f"{NAME + VERSION}, lines, an empty line")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = base64_bytes(lines.pop(0).removeprefix("extra "), "extra data")
        if not lines or not lines[0].startswith("index "):
            raise Malformed("proof file", shown(lines[0] if lines else ""), "index <number>")
        index = decimal(lines.pop(0).removeprefix("index "), "index in a proof file")
        if len(lines) > MOST_DIGESTS:
            raise Malformed("proof file", f"{len(lines)} digests", f"at most {MOST_DIGESTS}")
        digests = tuple(digest(line, "proof file") for line in lines)
        return cls(index, digests, Note.parse(note), extra)

    def verify(self, policy: TrustPolicy, leaf: bytes) -> Proven:
        """The leaf's place, once `policy` holds for the checkpoint and `leaf` is in its tree."""
        witnessed = policy.witnessed(self.note)
        checkpoint = witnessed.checkpoint
        verify_inclusion(
            self.index, checkpoint.size, leaf_hash(leaf), self.digests, checkpoint.root
        )
        return Proven(self.index, witnessed)
