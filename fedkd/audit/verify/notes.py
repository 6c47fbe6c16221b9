"""Text with signature lines (C2SP signed-note v1.0.0): keys as text, signing, verifying."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Self

from cryptography import __version__ as cryptography_version
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedkd.audit.verify.checkpoints import Checkpoint
from fedkd.audit.verify.refusals import CannotTell, Malformed, Refuted
from fedkd.audit.verify.spellings import MOST, base64_bytes, base64_text, shown, utf8

try:
    from cryptography.hazmat.primitives.asymmetric import mldsa
except ImportError:  # an older cryptography, which is enough for everything else
    mldsa = None  # type: ignore[assignment]  # every use asks first

DASH: Final = "\N{EM DASH} "
SEED_BYTES: Final = 32
MOST_NOTE_BYTES: Final = 1_000_000
MOST_SIGNATURES: Final = 100
"""Both as in golang.org/x/mod sumdb/note; the format asks that at least 16 are taken."""
_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_NOT_IN_NAMES: Final = re.compile(r"[\s+\x00-\x1f]")
_NOT_IN_NOTES: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_PRIVATE: Final = "PRIVATE+KEY+"
"""How golang.org/x/mod sumdb/note marks a signer's key."""


class Algorithm(IntEnum):
    """Signature type identifier bytes (signed-note, Signature types)."""

    ED25519 = 0x01
    """A log's signature over the text as it is."""
    COSIGNATURE = 0x04
    """A witness's Ed25519 signature over a checkpoint, with its time."""
    COSIGNATURE_MLDSA44 = 0x06
    """A cosignature that also stands against quantum computers; names its cosigner and log."""


PUBLIC_BYTES: Final[Mapping[Algorithm, int]] = {
    Algorithm.ED25519: 32,
    Algorithm.COSIGNATURE: 32,
    Algorithm.COSIGNATURE_MLDSA44: 1312,
}
SIGNATURE_BYTES: Final[Mapping[Algorithm, int]] = {
    Algorithm.ED25519: 64,
    Algorithm.COSIGNATURE: _TIME_BYTES + 64,
    Algorithm.COSIGNATURE_MLDSA44: _TIME_BYTES + 2420,
}


def checked_name(name: str) -> str:
    """`name`, if a key may have it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("key name", shown(name), "text that UTF-8 can write") from None
    # signed-note, Format: not empty, no Unicode spaces, no plus; no control characters in a note.
    if not name or _NOT_IN_NAMES.search(name):
        raise Malformed("key name", shown(name), "a name without spaces, plus and controls")
    return name


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name that signs with it; as text a `vkey`."""

    name: str
    algorithm: Algorithm
    public: bytes
    _id: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_name(self.name)
        expected = PUBLIC_BYTES[self.algorithm]
        if len(self.public) != expected:
            raise Malformed(f"key {self.name}", f"{len(self.public)} bytes", f"{expected} bytes")
        named = self.name.encode() + b"\n" + bytes([self.algorithm])
        object.__setattr__(self, "_id", hashlib.sha256(named + self.public).digest()[:_ID_BYTES])

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}"

    @property
    def id(self) -> bytes:
        """Four bytes that tell keys of one name apart; a collision only makes a check fail."""
        return self._id

    def text(self) -> str:
        """`<name>+<key id in hex>+<base64 of algorithm and public key>`."""
        return f"{self}+{base64_text(bytes([self.algorithm]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `text`."""
        parts = text.split("+", 2)  # base64 may hold a plus, a name may not
        if len(parts) != 3:
            raise Malformed("verifier key", shown(text), "name+id+key")
        name, key_id, written = parts
        algorithm, public = _algorithm(base64_bytes(written, f"key {shown(name)}"), name)
        key = cls(name, algorithm, public)
        if key.id.hex() != key_id:
            raise Malformed(f"key {shown(name)}", f"id {shown(key_id)}", f"id {key.id.hex()}")
        return key

    def verify(self, text: str, signature: bytes) -> int | None:
        """The time in a cosignature (seconds since 1970, UTC), or None for a log's signature.

        Raises `Refuted` unless this key signed `text`, and `CannotTell` if `cryptography` is too
        old for the algorithm.
        """
        what = f"signature by {self} over {shown(text)}"
        if len(signature) != SIGNATURE_BYTES[self.algorithm]:
            expected = f"{SIGNATURE_BYTES[self.algorithm]} bytes"
            raise Refuted(what, f"{len(signature)} bytes", expected)
        time, bare = None, signature
        if self.algorithm is not Algorithm.ED25519:
            time, bare = int.from_bytes(signature[:_TIME_BYTES], "big"), signature[_TIME_BYTES:]
            if time > MOST:  # tlog-cosignature, Format
                raise Refuted(what, f"time {time}", "a time of at most 2^63 - 1 seconds")
        message = signed_message(self.algorithm, self.name, text, time)
        try:
            _public(self).verify(bare, message)
        except InvalidSignature:
            raise Refuted(what, "bytes that this key did not make", "its signature") from None
        return time


def _algorithm(content: bytes, name: str) -> tuple[Algorithm, bytes]:
    try:
        return Algorithm(content[0]), content[1:]
    except (IndexError, ValueError):
        found = f"algorithm 0x{content[:1].hex()}"
        raise Malformed(f"key {shown(name)}", found, "0x01, 0x04 or 0x06") from None


def _public(key: VerifierKey) -> "Ed25519PublicKey | mldsa.MLDSA44PublicKey":
    if key.algorithm is not Algorithm.COSIGNATURE_MLDSA44:
        return Ed25519PublicKey.from_public_bytes(key.public)
    if mldsa is None:
        raise _no_mldsa()
    try:
        return mldsa.MLDSA44PublicKey.from_public_bytes(key.public)
    except UnsupportedAlgorithm:
        raise _no_mldsa() from None


def _private(algorithm: Algorithm, seed: bytes) -> "Ed25519PrivateKey | mldsa.MLDSA44PrivateKey":
    if algorithm is not Algorithm.COSIGNATURE_MLDSA44:
        return Ed25519PrivateKey.from_private_bytes(seed)
    if mldsa is None:
        raise _no_mldsa()
    try:
        return mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
    except UnsupportedAlgorithm:
        raise _no_mldsa() from None


def has_mldsa() -> bool:
    """Whether `cryptography`, as installed here, can sign and verify with ML-DSA-44."""
    try:
        _private(Algorithm.COSIGNATURE_MLDSA44, bytes(SEED_BYTES))
    except CannotTell:
        return False
    return True


def _no_mldsa() -> CannotTell:
    return CannotTell(
        f"found no ML-DSA-44 in cryptography {cryptography_version}, expected it for a key of type "
        "0x06; install a newer cryptography"
    )


def signed_message(algorithm: Algorithm, name: str, text: str, time: int | None) -> bytes:
    """The bytes that a signature by `name` over `text` is made of.

    A cosignature states something about a tree: over text that is no checkpoint it is refused.
    """
    if algorithm is Algorithm.ED25519:
        return text.encode()
    checkpoint = Checkpoint.parse(text)
    if algorithm is Algorithm.COSIGNATURE:  # tlog-cosignature, Ed25519 signed message
        return f"cosignature/v1\ntime {time}\n{text}".encode()
    # tlog-cosignature, ML-DSA-44 signed message: a whole tree starts at 0; extensions stay out.
    return b"".join(
        (
            b"subtree/v1\n\0",
            _vector(name, "cosigner name"),
            (time or 0).to_bytes(8, "big"),
            _vector(checkpoint.origin, "log origin"),
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def _vector(text: str, what: str) -> bytes:
    content = text.encode()
    if not 1 <= len(content) <= 255:  # RFC 8446, 3.4: opaque <1..2^8-1>
        raise Malformed(what, f"{len(content)} bytes", "1 to 255 bytes for ML-DSA-44")
    return bytes([len(content)]) + content


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, made of 32 secret random bytes; whoever reads `seed` can sign as `name`."""

    name: str
    algorithm: Algorithm
    seed: bytes = field(repr=False)
    _private: "Ed25519PrivateKey | mldsa.MLDSA44PrivateKey" = field(
        init=False, repr=False, compare=False
    )
    _verifier: VerifierKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise Malformed(f"key {self.name}", f"{len(self.seed)} bytes", f"{SEED_BYTES} bytes")
        private = _private(self.algorithm, self.seed)
        public = private.public_key().public_bytes_raw()
        object.__setattr__(self, "_private", private)
        object.__setattr__(self, "_verifier", VerifierKey(self.name, self.algorithm, public))

    def verifier(self) -> VerifierKey:
        """The public half."""
        return self._verifier

    def sign(self, text: str, time: int | None = None) -> "Signature":
        """The signature line over `text`; a cosignature needs `time`, seconds since 1970 (UTC)."""
        if self.algorithm is Algorithm.ED25519:
            if time is not None:
                raise ValueError("found a time, expected none: a log's signature carries no time")
            stamp = b""
        else:
            if time is None or not 1 <= time <= MOST:
                raise ValueError(
                    f"found time {time}, expected seconds since 1970 for a cosignature"
                )
            stamp = time.to_bytes(_TIME_BYTES, "big")
        Note(text)  # refuses what no note may hold, before it is signed
        message = signed_message(self.algorithm, self.name, text, time)
        return Signature(self.name, self._verifier.id, stamp + self._private.sign(message))

    def signed(self, text: str) -> bytes:
        """The note over `text` that this key alone signed, as it travels: for a log's own key."""
        if self.algorithm is not Algorithm.ED25519:
            raise ValueError(f"found key {self._verifier}, expected a log's")
        _checked_text(text)
        content = base64_text(self._verifier.id + self._private.sign(text.encode()))
        return f"{text}\n{DASH}{self.name} {content}\n".encode()

    def secret_text(self) -> str:
        """How its owner keeps the key; for Ed25519 the spelling of golang.org/x/mod."""
        written = base64_text(bytes([self.algorithm]) + self.seed)
        return f"{_PRIVATE}{self.verifier()}+{written}"

    @classmethod
    def parse(cls, secret_text: str) -> Self:
        """The inverse of `secret_text`; its errors repeat nothing of the secret."""
        parts = secret_text.removeprefix(_PRIVATE).split("+", 2)
        if not secret_text.startswith(_PRIVATE) or len(parts) != 3:
            raise Malformed("private key", "another text", "PRIVATE+KEY+name+id+key")
        name, key_id, written = parts
        try:
            content = base64_bytes(written, "private key")
        except Malformed:
            raise Malformed(f"private key {shown(name)}", "another text", "base64") from None
        algorithm, seed = _algorithm(content, name)
        key = cls(name, algorithm, seed)
        if key.verifier().id.hex() != key_id:
            raise Malformed(f"private key {shown(name)}", "another key's id", "its own id")
        return key


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who, with which key, and the bytes."""

    name: str
    key_id: bytes
    content: bytes

    def __post_init__(self) -> None:
        checked_name(self.name)
        if len(self.key_id) != _ID_BYTES or not self.content:
            raise Malformed(f"signature by {self.name}", "too few bytes", "a key id and more")

    def line(self) -> str:
        """The line as it stands in a note, with its newline."""
        return f"{DASH}{self.name} {base64_text(self.key_id + self.content)}\n"

    @classmethod
    def parse(cls, line: str) -> Self:
        """The inverse of `line`."""
        name, space, written = line.removeprefix(DASH).removesuffix("\n").partition(" ")
        if not line.startswith(DASH) or not line.endswith("\n") or not space:
            raise Malformed("signature line", shown(line), "em dash, space, name, space, base64")
        content = base64_bytes(written, f"signature by {shown(name)}")
        return cls(name, content[:_ID_BYTES], content[_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class VerifiedNote:
    """A text and the known keys that signed it, each with its cosignature's time or None."""

    text: str
    signers: Mapping[VerifierKey, int | None]


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends in a newline, with its signatures; nothing of it is verified yet."""

    text: str
    signatures: tuple[Signature, ...] = ()

    def __post_init__(self) -> None:
        _checked_text(self.text)
        if len(self.signatures) > MOST_SIGNATURES:
            found = f"{len(self.signatures)} signatures"
            raise Malformed("note", found, f"at most {MOST_SIGNATURES}")

    def to_bytes(self) -> bytes:
        """The note as it travels; one without signatures is not a note yet and is refused."""
        if not self.signatures:
            raise Malformed("note", "no signature", "at least one")
        lines = "".join(signature.line() for signature in self.signatures)
        return f"{self.text}\n{lines}".encode()

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """The inverse of `to_bytes`: a note has one spelling."""
        if len(content) > MOST_NOTE_BYTES:
            raise Malformed("note", f"{len(content)} bytes", f"at most {MOST_NOTE_BYTES}")
        whole = utf8(content, "note")
        # signed-note, Format: the last empty line parts text and signatures.
        head, blank, tail = whole.rpartition("\n\n")
        if not blank or not tail:
            raise Malformed("note", "no empty line before signatures", "text, empty line, lines")
        if not tail.endswith("\n"):
            raise Malformed("note", "a last line without newline", "a newline")
        lines = tail.removesuffix("\n").split("\n")
        return cls(head + "\n", tuple(Signature.parse(line + "\n") for line in lines))

    def with_signatures(self, more: Iterable[Signature]) -> "Note":
        """The note with `more` signatures behind its own; one that is there already stays once."""
        return Note(self.text, tuple(dict.fromkeys((*self.signatures, *more))))

    def checkpoint(self) -> Checkpoint:
        """The text read as a checkpoint; not verified by that."""
        return Checkpoint.parse(self.text)

    def verify(self, keys: Iterable[VerifierKey]) -> VerifiedNote:
        """The text, once one of `keys` or more signed it.

        Signatures by keys that are not given are passed over. A given key whose signature does
        not verify makes the whole note `Refuted` (signed-note, Signatures: clients SHOULD), and
        so does a note that none of them signed. Where a key cosigned twice, the newest time holds.
        """
        known: dict[tuple[str, bytes], VerifierKey] = {}
        for key in keys:
            if known.setdefault((key.name, key.id), key) != key:
                raise Malformed("keys", f"two keys {key}", "one key for a name and id")
        signers: dict[VerifierKey, int | None] = {}
        for signature in self.signatures:
            signer = known.get((signature.name, signature.key_id))
            if signer is None:
                continue
            time = signer.verify(self.text, signature.content)
            earlier = signers.get(signer)
            signers[signer] = time if earlier is None or time is None else max(time, earlier)
        if not signers:
            found = ", ".join(f"{s.name}+{s.key_id.hex()}" for s in self.signatures[:5])
            raise Refuted(
                f"note {shown(self.text)}",
                f"signatures by {found or 'nobody'}",
                "one by "
                + (" or ".join(map(str, known.values())) or "a known key, and none given"),
            )
        return VerifiedNote(self.text, signers)


def _checked_text(text: str) -> None:
    if not text.endswith("\n"):
        raise Malformed("note", "a text without newline at its end", "a newline")
    if bad := _NOT_IN_NOTES.search(text):
        raise Malformed("note", f"control character {bad[0]!a}", "no control but newline")
