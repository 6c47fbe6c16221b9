"""Makes and keeps a party's keys in its own folder: one signs its log, others cosign its peers'."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

from fedkd.audit.locking import read_secret, secret_form
from fedkd.audit.verify import SEED_BYTES, Algorithm, SigningKey

FOLDER = "keys"
LOG, WITNESS, WITNESS_MLDSA = "log.key", "witness.key", "witness-mldsa44.key"
_TELLS_APART = 4
"""Random bytes in an origin: a log that is begun anew is another log, also to its witnesses."""


def make_keys(folder: Path, party: str, *, rehearsal: bool = False, mldsa: bool = False) -> None:
    """Makes the keys that are not there yet; whoever comes second finds the first one's.

    A rehearsal's keys say so in their names, and with them every checkpoint and cosignature.
    `mldsa` adds a witness key that also stands against quantum computers.
    """
    (folder / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / FOLDER / LOG).exists():
        kind = ("rehearsal",) if rehearsal else ()
        parts = (*kind, quote(party, safe=""), secrets.token_hex(_TELLS_APART))
        _make(folder, LOG, "/".join(("fedkd.invalid", *parts)), Algorithm.ED25519)
    name = f"{log_key(folder).name}/witness"
    if not (folder / FOLDER / WITNESS).exists():
        _make(folder, WITNESS, name, Algorithm.COSIGNATURE)
    if mldsa and not (folder / FOLDER / WITNESS_MLDSA).exists():
        _make(folder, WITNESS_MLDSA, name, Algorithm.COSIGNATURE_MLDSA44)


def log_key(folder: Path) -> SigningKey:
    """The Ed25519 key that signs the log in `folder`; its name is the log's origin."""
    return _read(folder / FOLDER / LOG)


def witness_keys(folder: Path) -> tuple[SigningKey, ...]:
    """The keys by which the party in `folder` cosigns; none of them ever signs a log."""
    paths = [folder / FOLDER / name for name in (WITNESS, WITNESS_MLDSA)]
    return tuple(_read(path) for path in paths if path.exists())


def _read(path: Path) -> SigningKey:
    return SigningKey.parse(read_secret(path).decode().strip())


def _make(folder: Path, file: str, name: str, algorithm: Algorithm) -> None:
    made = SigningKey(name, algorithm, secrets.token_bytes(SEED_BYTES))
    _write_once(folder / FOLDER / file, made.secret_text() + "\n")


def _write_once(path: Path, text: str) -> None:
    """Writes a secret that nobody else can read; whoever comes second finds the first one's."""
    form = secret_form(path, text.encode())
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(form)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
