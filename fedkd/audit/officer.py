"""Makes a person's key, and signs papers with it: which kind of paper, and its exact bytes."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedkd.audit.locking import read_secret
from fedkd.audit.passphrase import PASSPHRASE_FILE, expect_ones_own, read_passphrase
from fedkd.audit.verify import (
    SEED_BYTES,
    Algorithm,
    CannotTell,
    Malformed,
    Note,
    Refuted,
    SigningKey,
    VerifierKey,
)
from fedkd.knowledge import BadInput, Digest, digest_of_bytes

BUDGET: Final = "privacy budget"
"""The kind of paper that a budget is: a signature over one kind says nothing about another."""
PRINTED: Final = "verifier key:"
"""What stands before a public key where it is shown."""
_HEAD: Final = "fedkd signed paper v1"
_NAMED: Final = "fedkd.invalid/person/"
_LOCKED: Final = "PRIVATE+LOCKED+"
_GROUPS, _DIGITS = 6, 5
_Key = TypeVar("_Key", SigningKey, VerifierKey)


def fresh_key(name: str) -> SigningKey:
    """A fresh Ed25519 key of the person `name`, in no file."""
    if not name.strip():
        raise BadInput(f"the name {name!r}", "a person's name, or that of an office")
    return SigningKey(
        _NAMED + quote(name.strip(), safe=""), Algorithm.ED25519, secrets.token_bytes(SEED_BYTES)
    )


def new_key(path: Path, name: str, passphrase: bytes | None = None) -> SigningKey:
    """A fresh Ed25519 key of the person `name`, in a file that nobody else can read.

    With a `passphrase` the file holds it encrypted: PKCS #8 (RFC 5958), as cryptography's
    `BestAvailableEncryption` makes it. `BadInput` where there is a file already: a key that was
    written over can sign nothing more. It is its person's also in a folder that is locked.
    """
    key = fresh_key(name)
    text = key.secret_text() + "\n" if passphrase is None else _locked(key, passphrase)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, path)
    except FileExistsError:
        raise BadInput(
            f"{path}, which is there already",
            "a new file",
            "choose another name; a key is never written over",
        ) from None
    except OSError as error:
        raise BadInput(f"{path}, which cannot be made ({error.strerror})", "a file") from None
    finally:
        fresh.unlink(missing_ok=True)
    return key


def read_key(path: Path, passphrase_file: Path | None = None) -> SigningKey:
    """The person's key in a file; `BadInput` where it is none, or others may read it.

    One with a passphrase is opened by that of `passphrase_file`, or of the file that the
    environment names (`PASSPHRASE_FILE`).
    """
    try:
        text, mode = read_secret(path).decode().strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError):
        raise BadInput(f"no key in {path}", "a file that fedkd keys new made") from None
    try:
        if text.startswith(_LOCKED):
            key = _unlocked(text, path, read_passphrase(passphrase_file))
        else:
            key = SigningKey.parse(text)
        _expect_ed25519(key)
    except Malformed:  # says nothing of what the file holds
        raise BadInput(f"no key in {path}", "a file that fedkd keys new made") from None
    expect_ones_own(path, mode, "whoever reads a key signs as its person", "make a new key")
    return key


def _locked(key: SigningKey, passphrase: bytes) -> str:
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    kept = BestAvailableEncryption(passphrase)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept).decode()
    return f"{_LOCKED}{key.name}\n{pem}"


def _unlocked(text: str, path: Path, passphrase: bytes | None) -> SigningKey:
    if passphrase is None:
        raise BadInput(
            f"{path}, a key with a passphrase, and no passphrase",
            "the file that holds it",
            f"set {PASSPHRASE_FILE}=FILE, or give it: with fedkd keys --passphrase-file FILE, with "
            "fedkd report --key-passphrase-file FILE",
        )
    head, _, pem = text.partition("\n")
    try:
        private = load_pem_private_key(pem.encode(), passphrase)
    except (ValueError, TypeError):  # another passphrase, or bytes that are no key
        raise BadInput(
            f"{path}, which this passphrase does not open", "the one that it was made with"
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise Malformed(f"key in {path}", "a key of another kind", "Ed25519")
    seed = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return SigningKey(head.removeprefix(_LOCKED), Algorithm.ED25519, seed)


def verifier_of(text: str) -> VerifierKey:
    """The public key that `text` spells, or the file of this name holds; `BadInput` if neither.

    What `fedkd keys show` prints is taken whole, too: a person writes it to a file.
    """
    written = _line_of(text)
    try:
        if Path(text).is_file():
            written = _line_of(Path(text).read_text())
    except (OSError, UnicodeDecodeError):
        pass
    if written.startswith("PRIVATE"):
        raise BadInput(
            "the private half of a key",
            "the line that fedkd keys show prints",
            "it belongs to its person alone: make a new one if others saw it",
        )
    try:
        return _expect_ed25519(VerifierKey.parse(written))
    except Malformed as error:
        raise BadInput(
            f"a verifier key that is none ({error})",
            "the line that fedkd keys show prints: name+id+key",
        ) from None


def _line_of(shown: str) -> str:
    """The key itself, without the words around it where it was shown."""
    said = (line.strip() for line in shown.splitlines())
    after = [line.removeprefix(PRINTED).strip() for line in said if line.startswith(PRINTED)]
    return after[0] if after else shown.strip()


def person_of(key: VerifierKey) -> str:
    """The name of the person whose key this is, as it was typed."""
    return unquote(key.name.removeprefix(_NAMED))


def fingerprint(key: VerifierKey) -> str:
    """The key in 30 decimal digits, to be compared by telephone: six groups of five.

    Of SHA-256 over the whole line; another key with the same digits takes about 2^99 tries.
    """
    number = int.from_bytes(hashlib.sha256(key.text().encode()).digest(), "big")
    digits = f"{number % 10 ** (_GROUPS * _DIGITS):0{_GROUPS * _DIGITS}d}"
    return " ".join(digits[i : i + _DIGITS] for i in range(0, len(digits), _DIGITS))


def signed_text(kind: str, digest: Digest) -> str:
    """What is signed: that it is a paper, of which kind, and what its bytes hash to.

    The second line of a checkpoint is a number, so that no signature over a log passes for one.
    """
    return f"{_HEAD}\n{kind}\n{digest}\n"


def sign_paper(key: SigningKey, kind: str, paper: bytes) -> bytes:
    """The signed note (C2SP signed-note) over `paper`, to lie beside it."""
    return key.signed(signed_text(kind, digest_of_bytes(paper)))


def expect_signed(
    key: VerifierKey,
    kind: str,
    paper: bytes,
    signature: bytes,
    where: str = "the paper",
    *,
    remedy: str | None = None,
) -> None:
    """`BadInput` unless `signature` is a note over exactly these bytes, as this kind, by `key`.

    `remedy` is what to do otherwise, where the key is not an officer's.
    """
    try:
        note = Note.parse(signature)
    except Malformed as error:
        raise BadInput(
            f"no signature over {where} ({error})", "a .sig file as fedkd keys sign writes it"
        ) from None
    expected = signed_text(kind, digest_of_bytes(paper))
    if note.text != expected:
        head, said, of = (*note.text.splitlines(), "", "", "")[:3]
        if head == _HEAD and said == kind:
            found = f"a signature over another text: it signs {of}, {where} is {expected[-72:-1]}"
        else:
            found = f"a signature over {said or 'something else'!r} beside {where}"
        raise BadInput(
            found,
            f"one over these bytes, as a {kind}",
            remedy or "a paper that was changed has to be signed again, by the officer",
        )
    try:
        note.verify([key])
    except (Refuted, CannotTell):
        signers = ", ".join(sorted({unquote(one.name) for one in note.signatures}))
        raise BadInput(
            f"a signature over {where} by {signers.replace(_NAMED, '')} that another key made",
            f"one by {person_of(key)}, whose key has the fingerprint {fingerprint(key)}",
            remedy or "ask the officer whose key is known here to sign it",
        ) from None


def _expect_ed25519(key: _Key) -> _Key:
    if key.algorithm is not Algorithm.ED25519:
        raise Malformed(f"key {key.name}", f"a key of type {key.algorithm:#04x}", "Ed25519, 0x01")
    return key
