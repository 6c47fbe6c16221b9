"""One party's signed statement, on its own (Dead Simple Signing Envelope, DSSE v1.0.2)."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedkd.audit.verify.canonical import canonical
from fedkd.audit.verify.refusals import Malformed, Refuted
from fedkd.audit.verify.spellings import base64_text, shown, utf8

MOST_ENVELOPE_BYTES: Final = 16_000_000

Sign = Callable[[bytes], bytes]
Check = Callable[[bytes, bytes], bool]
"""(signature, message) -> whether the signature is this key's."""


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: type and payload, each behind its length (protocol, PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def ed25519_sign(seed: bytes) -> Sign:
    """Signing with the Ed25519 key of 32 secret bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign


def ed25519_check(public: bytes) -> Check:
    """Checking against an Ed25519 public key of 32 bytes."""
    key = Ed25519PublicKey.from_public_bytes(public)

    def check(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return check


class EnvelopeSignature(NamedTuple):
    """A signature, with a hint whose it may be; the hint is not authenticated."""

    keyid: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload, its media type and its signatures; nothing of it is verified yet."""

    payload: bytes
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...]

    @classmethod
    def sign(cls, payload: bytes, payload_type: str, signers: Mapping[str, Sign]) -> Self:
        """The payload, signed by each of `signers`, which stand under their key ids."""
        if not signers:
            raise ValueError("found no signer, expected one or more")
        message = pre_authentication_encoding(payload_type, payload)
        made = (EnvelopeSignature(keyid, sign(message)) for keyid, sign in signers.items())
        return cls(payload, payload_type, tuple(made))

    def to_bytes(self) -> bytes:
        """The envelope as canonical JSON."""
        signatures = [
            {"keyid": one.keyid, "sig": base64_text(one.content)} for one in self.signatures
        ]
        return canonical(
            {
                "payload": base64_text(self.payload),
                "payloadType": self.payload_type,
                "signatures": signatures,
            },
            "envelope",
        )

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """An envelope that anybody wrote: JSON in any spelling, fields that are not known ignored.

        A key that comes twice is refused: readers would differ on what was signed.
        """
        if len(content) > MOST_ENVELOPE_BYTES:
            raise Malformed("envelope", f"{len(content)} bytes", f"at most {MOST_ENVELOPE_BYTES}")
        try:
            value = json.loads(utf8(content, "envelope"), object_pairs_hook=_once)
        except (json.JSONDecodeError, RecursionError):
            raise Malformed("envelope", "no JSON", "a JSON object") from None
        signatures = _field(value, "signatures", list)
        if not signatures:
            raise Malformed("envelope", "no signature", "one or more")
        return cls(
            _base64(_field(value, "payload", str)),
            _field(value, "payloadType", str),
            tuple(
                EnvelopeSignature(
                    _field({"keyid": "", **one}, "keyid", str) if isinstance(one, dict) else "",
                    _base64(_field(one, "sig", str)),
                )
                for one in signatures
            ),
        )

    def verify(
        self, keys: Mapping[str, Check], payload_type: str, threshold: int = 1
    ) -> tuple[str, ...]:
        """The ids of the `keys` that signed, at least `threshold` of them; raises `Refuted` else.

        `payload_type` is what the caller will read the payload as. A signature counts for the key
        that verifies it: its own key id only spares attempts, and one key counts once.
        """
        if self.payload_type != payload_type:
            raise Refuted("envelope", f"type {shown(self.payload_type)}", shown(payload_type))
        if not 1 <= threshold <= len(keys):
            raise Refuted("envelope", f"{len(keys)} known keys", f"at least {max(1, threshold)}")
        message = pre_authentication_encoding(self.payload_type, self.payload)
        signed = tuple(
            keyid
            for keyid, check in keys.items()
            if any(
                check(one.content, message)
                for one in self.signatures
                if one.keyid == keyid or one.keyid not in keys
            )
        )
        if len(signed) < threshold:
            found = f"signatures by {', '.join(signed) or 'none of the known keys'}"
            raise Refuted("envelope", found, f"{threshold} of {', '.join(keys)}")
        return signed


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(value := dict(pairs)) != len(pairs):
        raise Malformed("envelope", "a key that comes twice", "each once")
    return value


def _field(value: object, name: str, kind: type) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get(name), kind):
        raise Malformed(
            "envelope", f"no {name} of type {kind.__name__}", "payload, payloadType, sig"
        )
    return value[name]


def _base64(text: str) -> bytes:
    # protocol, Envelope: either standard or URL-safe base64, at the writer's choice.
    try:
        standard = text.encode("ascii").translate(bytes.maketrans(b"-_", b"+/"))
        content = base64.b64decode(standard, validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Malformed("envelope", shown(text), "base64") from None
    if base64.b64encode(content) != standard:  # RFC 4648, 3.5: one spelling of the pad bits
        raise Malformed("envelope", shown(text), "base64 whose pad bits are zero")
    return content
