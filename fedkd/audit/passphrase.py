"""Finds the passphrase that opens a key: in a file that is named, or from a person."""

import getpass
import os
import stat
import sys
from pathlib import Path
from typing import Final

from fedkd.knowledge import BadInput

PASSPHRASE_FILE: Final = "FEDKD_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
"""The environment variable that names a passphrase's file, where no option does."""
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
CREDENTIAL: Final = "fedkd-passphrase"
"""What systemd's LoadCredential= and LoadCredentialEncrypted= hand over, by this name."""
SHORTEST_PASSPHRASE: Final = 12
"""Bytes. Whoever has the key's file may try passphrases for as long as he likes."""
SHORTEST_KEY_FILE: Final = 32
"""Bytes, drawn at random."""


def read_passphrase(file: Path | None = None) -> bytes | None:
    """The passphrase in `file`, or in the one that the environment names; None where neither is.

    One line is a passphrase, and its line end no part of it; random bytes in which there are line
    ends are a key file, of which every byte counts. `BadInput` where it is short, or others may
    read the file.
    """
    named = os.environ.get(PASSPHRASE_FILE)
    if file is None and not named:
        return None
    return _read(Path(named or "") if file is None else file)


def find_passphrase(file: Path | None, opens: str) -> bytes | None:
    """As `read_passphrase`; after those systemd's credential, then whoever sits at the terminal.

    `opens` says what it is for. None where nobody has one.
    """
    said = read_passphrase(file)
    credentials = os.environ.get(CREDENTIALS)
    if said is None and credentials and (Path(credentials) / CREDENTIAL).exists():
        said = _read(Path(credentials) / CREDENTIAL)
    if said is None and sys.stdin is not None and sys.stdin.isatty():
        said = _expect_long(getpass.getpass(f"Passphrase of {opens}: ").encode(), "what was typed")
    return said


def new_passphrase(file: Path | None, opens: str) -> bytes | None:
    """As `find_passphrase`, for one that opens nothing yet: who types it types it twice."""
    said = read_passphrase(file)
    credentials = os.environ.get(CREDENTIALS)
    if said is not None or credentials or sys.stdin is None or not sys.stdin.isatty():
        return said if said is not None else find_passphrase(None, opens)
    first = find_passphrase(None, f"{opens}, a new one")
    if first != find_passphrase(None, f"{opens}, again"):
        raise BadInput("two passphrases", "the same one twice")
    return first


def expect_ones_own(path: Path, mode: int, why: str, remedy: str) -> None:
    """`BadInput` where others than a file's owner may do something with it."""
    if mode & 0o077:
        raise BadInput(
            f"{path} with mode {mode & 0o777:04o}",
            f"0600: {why}",
            f"chmod 600 {path}, and {remedy} if somebody may have read this one",
        )


def _read(path: Path) -> bytes:
    try:
        said, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise BadInput(
            f"no passphrase in {path} ({error.strerror})",
            "a file whose first line is one, or a key file",
        ) from None
    if stat.S_ISREG(mode) and not _is_a_credential(path):  # not what comes through a pipe
        expect_ones_own(path, mode, "it opens a key", "take another passphrase")
    return _expect_long(said, str(path))


def _is_a_credential(path: Path) -> bool:
    """Whether systemd laid it there: for one user alone, in modes of its own."""
    credentials = os.environ.get(CREDENTIALS)
    return bool(credentials) and path.parent == Path(credentials or "")


def _expect_long(said: bytes, where: str) -> bytes:
    line = said.rstrip(b"\r\n")
    if b"\n" not in line and len(line) >= SHORTEST_PASSPHRASE:
        return line
    if len(said) >= SHORTEST_KEY_FILE and not _is_text(said):
        return said
    raise BadInput(
        f"a passphrase of {len(line)} bytes in {where}",
        f"one line of at least {SHORTEST_PASSPHRASE}, or a key file of at least "
        f"{SHORTEST_KEY_FILE} random bytes",
        "take several words by chance: whoever has the key's file can try them all",
    )


def _is_text(said: bytes) -> bool:
    try:
        said.decode()
    except UnicodeDecodeError:
        return False
    return True
