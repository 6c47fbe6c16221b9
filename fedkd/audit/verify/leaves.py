"""A leaf of the log: an open header that commits, under a salt, to a body that may stay closed.

The header is canonical JSON and is the leaf of the tree, to the byte. The body lies beside it with
32 random bytes of salt, and the header holds base64(SHA-256(salt + canonical body)). So a whole log
can be handed over while bodies are opened one by one, and a body can be erased, with its salt,
while every proof goes on to hold. Without the salt a short body could be guessed from its digest.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Final, Self

from fedkd.audit.verify.canonical import canonical, parsed
from fedkd.audit.verify.refusals import CannotTell, Malformed, Refuted
from fedkd.audit.verify.spellings import base64_text, checked_digest, digest, shown

VERSION: Final = 1
SALT_BYTES: Final = 32
MOST_LEAF_BYTES: Final = 65_535
"""tlog-tiles, Log entries: a length in 16 bits."""
_TIME: Final = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?Z",
    re.ASCII,
)
_NEEDED: Final = frozenset({"v", "type", "seq", "ts", "actor", "refs", "body"})
_OPTIONAL: Final = frozenset({"run", "key"})
_TEXTS: Final = ("type", "ts", "actor", "body", "run", "key")
_quoted: Final = json.JSONEncoder(ensure_ascii=False).encode
_MOST_SEQUENCE: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Reference:
    """An entry of a log: `origin#index`."""

    origin: str
    index: int

    def __str__(self) -> str:
        return f"{self.origin}#{self.index}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`."""
        origin, mark, index = text.rpartition("#")
        plain = index.isascii() and index.isdigit() and len(index) <= len(str(_MOST_SEQUENCE))
        if not origin or not mark or not plain or str(int(index)) != index:
            raise Malformed("reference", shown(text), "origin#index")
        return cls(origin, int(index))


@dataclass(frozen=True, slots=True)
class Header:
    """What everybody may read of an entry; nothing in it may tell of a patient.

    `sequence` is the entry's index in its log, `time` RFC 3339 in UTC, `actor` the party that
    acted, `references` the entries that this one rests on, `key` the name under which appending
    is idempotent, `commitment` the digest that binds the body.
    """

    type: str
    sequence: int
    time: str
    actor: str
    commitment: bytes
    references: tuple[Reference, ...] = ()
    run: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        what = f"header of entry {self.sequence}"
        if not 0 <= self.sequence <= _MOST_SEQUENCE:
            raise Malformed(what, str(self.sequence), "a sequence from 0 to 2^53 - 1")
        if not self.type or not self.actor:
            raise Malformed(what, f"an empty {'actor' if self.type else 'type'}", "a name")
        if _TIME.fullmatch(self.time) is None:
            raise Malformed(what, f"time {shown(self.time)}", "RFC 3339 in UTC, as ...T12:00:00Z")
        checked_digest(self.commitment, what)

    def to_bytes(self) -> bytes:
        """The leaf."""
        # Canonical as it is written: the names are ours and in order, and no number is a fraction.
        key = "" if self.key is None else f'"key":{_quoted(self.key)},'
        run = "" if self.run is None else f'"run":{_quoted(self.run)},'
        references = ",".join(_quoted(str(reference)) for reference in self.references)
        text = (
            f'{{"actor":{_quoted(self.actor)},"body":"{base64_text(self.commitment)}",{key}'
            f'"refs":[{references}],{run}"seq":{self.sequence:d},"ts":"{self.time}",'
            f'"type":{_quoted(self.type)},"v":{VERSION}}}'
        )
        try:
            return _checked_size(text.encode())
        except UnicodeEncodeError:
            what = f"header of entry {self.sequence}"
            raise Malformed(what, "a lone surrogate", "text that UTF-8 can write") from None

    @classmethod
    def parse(cls, leaf: bytes) -> Self:
        """The inverse of `to_bytes`; `CannotTell` if the leaf is of another version."""
        fields = parsed(_checked_size(leaf), "leaf")
        if not isinstance(fields, dict):
            raise Malformed("leaf", type(fields).__name__, "a JSON object")
        version = fields.get("v")
        if type(version) is int and version > VERSION:
            raise CannotTell(
                f"leaf: found version {version}, expected {VERSION}; a newer fedkd reads it"
            )
        if type(version) is not int or version != VERSION:
            raise Malformed("leaf", f"version {version!a}", str(VERSION))
        _checked_fields(fields)
        return cls(
            type=fields["type"],
            sequence=fields["seq"],
            time=fields["ts"],
            actor=fields["actor"],
            commitment=digest(fields["body"], "commitment in a leaf"),
            references=tuple(map(Reference.parse, fields["refs"])),
            run=fields.get("run"),
            key=fields.get("key"),
        )


def _checked_size(leaf: bytes) -> bytes:
    if len(leaf) > MOST_LEAF_BYTES:
        raise Malformed("leaf", f"{len(leaf)} bytes", f"at most {MOST_LEAF_BYTES}")
    return leaf


def _checked_fields(fields: Mapping[str, Any]) -> None:
    if fields.keys() - _OPTIONAL != _NEEDED:
        raise _other_fields(fields.keys())
    for name in _TEXTS:
        if type(fields.get(name, "")) is not str:
            raise Malformed("leaf", f"{name} {type(fields[name]).__name__}", "text")
    if type(fields["seq"]) is not int:
        raise Malformed("leaf", f"seq {type(fields['seq']).__name__}", "an integer")
    references = fields["refs"]
    if type(references) is not list or any(type(one) is not str for one in references):
        raise Malformed("leaf", "refs of another kind", "a list of texts")


def _other_fields(names: Set[str]) -> Malformed:
    if missing := _NEEDED - names:
        found = f"no {', '.join(sorted(missing))}"
    else:
        found = f"field {shown(min(names - _NEEDED - _OPTIONAL))}"
    return Malformed("leaf", found, f"fields of version {VERSION}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """An entry as it was read: its header, and its body unless that is closed or erased."""

    header: Header
    body: Mapping[str, Any] | None


def commitment(body: bytes, salt: bytes) -> bytes:
    """SHA-256(salt + body); the salt has a fixed length, so no other pair gives the same bytes."""
    if len(salt) != SALT_BYTES:
        raise Malformed("salt", f"{len(salt)} bytes", f"{SALT_BYTES} bytes")
    return hashlib.sha256(salt + body).digest()


def body_bytes(body: Mapping[str, Any]) -> bytes:
    """A body's canonical bytes, which are kept and committed to."""
    return canonical(dict(body), "body")


def make_leaf(
    body: Mapping[str, Any],
    salt: bytes,
    *,
    type: str,
    sequence: int,
    time: str,
    actor: str,
    references: tuple[Reference, ...] = (),
    run: str | None = None,
    key: str | None = None,
) -> tuple[bytes, bytes]:
    """The leaf, and the body's bytes to be kept beside it with `salt`.

    `salt` is 32 bytes from the operating system's source of randomness, never used twice.
    """
    written = body_bytes(body)
    bound = commitment(written, salt)
    header = Header(type, sequence, time, actor, bound, references, run, key)
    return header.to_bytes(), written


def open_leaf(leaf: bytes, body: bytes | None = None, salt: bytes | None = None) -> Leaf:
    """The entry, its body included where `body` and `salt` are given and are what it commits to.

    Where both are absent the body is closed or erased, and the header alone is read.
    """
    header = Header.parse(leaf)
    what = f"body of entry {header.sequence}"
    if (body is None) != (salt is None):
        found = "a salt without body" if body is None else "a body without salt"
        raise Refuted(what, found, "both, or neither once erased")
    if body is None or salt is None:
        return Leaf(header, None)
    found_commitment = commitment(body, salt)
    if found_commitment != header.commitment:
        raise Refuted(
            what, f"commitment {found_commitment.hex()}", f"{header.commitment.hex()} of its leaf"
        )
    value = parsed(body, what)
    if not isinstance(value, dict):
        raise Malformed(what, type(value).__name__, "a JSON object")
    return Leaf(header, value)
