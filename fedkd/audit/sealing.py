"""Seals a small secret under a key, and that key under a passphrase: bytes in, bytes out.

AES-256-GCM (NIST SP 800-38D) seals, scrypt (Percival and Josefsson, 2016, RFC 7914) makes a key of
a passphrase or a key file.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedkd.knowledge.bad_input import BadInput

SEALED: Final = b"fedkd sealed v1\n"
"""What a sealed file begins with."""
FORMAT: Final = "fedkd lock v1"
KEY_BYTES: Final = 32
COST, BLOCK, PARALLEL = 1 << 17, 8, 1
"""scrypt's N, r and p: 128 MiB of memory, about half a second."""
_MOST_COST, _MOST_BLOCK, _MOST_PARALLEL = 1 << 20, 16, 4
_SALT_BYTES, _NONCE_BYTES = 16, 12


class DoesNotOpen(ValueError):
    """Another key, or bytes that somebody changed; it says nothing of either."""


def new_key() -> bytes:
    """A fresh key [32 bytes] for everything in a folder."""
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, name: str, body: bytes) -> bytes:
    """`body`, so that it opens with `key`, under this `name` alone."""
    return SEALED + _encrypted(key, SEALED + name.encode(), body)


def unseal(key: bytes, name: str, sealed: bytes) -> bytes:
    """The inverse of `seal`; `DoesNotOpen` for another key or name, and where a byte differs."""
    return _decrypted(key, SEALED + name.encode(), sealed.removeprefix(SEALED))


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A folder's key, as only its passphrase opens it.

    `salt` and the three costs are scrypt's; they are bound to the `sealed` key, like the format.
    """

    salt: bytes
    sealed: bytes
    cost: int
    block: int
    parallel: int

    @classmethod
    def of(cls, key: bytes, passphrase: bytes) -> Self:
        """The folder's `key` under a passphrase, or a key file's bytes."""
        empty = cls(secrets.token_bytes(_SALT_BYTES), b"", COST, BLOCK, PARALLEL)
        return replace(empty, sealed=_encrypted(empty._made_of(passphrase), empty._header(), key))

    def open(self, passphrase: bytes) -> bytes:
        """The folder's key; `DoesNotOpen` for another passphrase."""
        key = _decrypted(self._made_of(passphrase), self._header(), self.sealed)
        if len(key) != KEY_BYTES:
            raise DoesNotOpen("a key of another length")
        return key

    def to_json(self) -> dict[str, Any]:
        """Plain values, as lock.json holds them."""
        return {
            "format": FORMAT,
            "kdf": "scrypt",
            "n": self.cost,
            "r": self.block,
            "p": self.parallel,
            "salt": self.salt.hex(),
            "key": self.sealed.hex(),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str) -> Self:
        """The inverse of `to_json`; `BadInput` for another format, or costs out of bounds."""
        try:
            told = (plain["format"], plain["kdf"])
            costs = (plain["n"], plain["r"], plain["p"])
            made = cls(bytes.fromhex(plain["salt"]), bytes.fromhex(plain["key"]), *costs)
            most = (_MOST_COST, _MOST_BLOCK, _MOST_PARALLEL)
            fits = all(
                type(it) is int and 1 <= it <= top for it, top in zip(costs, most, strict=True)
            )
        except (KeyError, TypeError, ValueError):
            told, fits = ("", ""), False
        if told != (FORMAT, "scrypt") or not fits:
            raise BadInput(
                f"{where}, which locks nothing that is known here",
                FORMAT,
                "update fedkd, or take the file from a backup: without it no key here opens",
            )
        return made

    def _made_of(self, passphrase: bytes) -> bytes:
        made = Scrypt(self.salt, KEY_BYTES, n=self.cost, r=self.block, p=self.parallel)
        return made.derive(passphrase)

    def _header(self) -> bytes:
        costs = f"scrypt {self.cost} {self.block} {self.parallel} {self.salt.hex()}"
        return f"{FORMAT}\n{costs}\n".encode()


def _encrypted(key: bytes, about: bytes, body: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)  # at random: a folder holds far less than 2^32 files
    return nonce + AESGCM(key).encrypt(nonce, body, about)


def _decrypted(key: bytes, about: bytes, sealed: bytes) -> bytes:
    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, rest, about)
    except (InvalidTag, ValueError):
        raise DoesNotOpen("another key or name, or bytes that were changed") from None
