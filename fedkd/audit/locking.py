"""Keeps the keys in a folder sealed on its disk, and opens them for whoever has its passphrase.

A locked folder has a `lock.json` at its top: the key by which everything below is sealed, itself
sealed by a passphrase or a key file. Whatever reads or writes a secret does it here, and so works
on a folder that is locked and on one that is not.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedkd.audit.passphrase import CREDENTIAL, PASSPHRASE_FILE, find_passphrase
from fedkd.audit.sealing import SEALED, DoesNotOpen, Wrapped, new_key, seal, unseal
from fedkd.knowledge import BadInput

LOCK: Final = "lock.json"
PLACE: Final = ".opened"
"""A file that says in which folder, in memory, keys lie plain while something runs."""
GIVE: Final = (
    f"give --passphrase-file FILE, set {PASSPHRASE_FILE}=FILE, or hand it to a service as "
    f"systemd's credential {CREDENTIAL}"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """What opens a folder: its key [32 bytes], and the passphrase where it was given here."""

    key: bytes = field(repr=False)
    passphrase: bytes | None = field(repr=False, default=None)


_OPEN: Final[dict[Path, Opened]] = {}
"""Folders that this process has opened: scrypt is slow on purpose, and a person types once."""
_GIVEN: Final[list[Path]] = []
"""The passphrase's file that this command was given."""


def take_passphrase_from(file: Path) -> None:
    """What this process has to open is opened by the passphrase in `file`."""
    _GIVEN[:] = [file]


def given() -> Path | None:
    """The passphrase's file that this process was given, if any."""
    return _GIVEN[-1] if _GIVEN else None


def locked_folder(path: Path) -> Path | None:
    """The nearest folder at or above `path` that is locked."""
    real = Path(os.path.realpath(path))
    return next((it for it in (real, *real.parents) if (it / LOCK).is_file()), None)


def is_sealed(path: Path) -> bool:
    """Whether the file is there, and sealed."""
    try:
        with path.open("rb") as file:
            return file.read(len(SEALED)) == SEALED
    except OSError:
        return False


def read_secret(path: Path) -> bytes:
    """What a secret's file holds, opened where it is sealed.

    `BadInput` without the passphrase, or with another one, and where the file was changed, or
    stood under another name when it was sealed.
    """
    body = path.read_bytes()
    if not body.startswith(SEALED):
        return body
    root = locked_folder(path)
    if root is None:
        raise BadInput(
            f"{path}, which is sealed, and no {LOCK} above it",
            f"the {LOCK} of the folder that it was sealed in",
            "take that from a backup: without it nothing opens the file",
        )
    if root not in _OPEN and (plain := _in_place(root, path)) is not None:
        return plain
    try:
        return unseal(open_folder(root).key, _name(root, path), body)
    except DoesNotOpen:
        raise BadInput(
            f"{path}, which was changed or moved since it was sealed",
            "the file as it was, in its own place",
            "take it from a backup; ask your security's people who changed it",
        ) from None


def secret_form(path: Path, body: bytes) -> bytes:
    """What is to lie on disk at `path` for the secret `body`: sealed, in a locked folder."""
    root = locked_folder(path.parent)
    return body if root is None else seal(open_folder(root).key, _name(root, path), body)


def write_secret(path: Path, body: bytes) -> None:
    """Replaces `path` by a secret, mode 0600, on disk when this returns."""
    _replace(path, secret_form(path, body))


def open_folder(root: Path) -> Opened:
    """What opens the locked folder `root`; asks for its passphrase, at most once a process.

    In this order: the file that was given, the one that the environment names, systemd's
    credential, a person at the terminal. `BadInput` where there is none, or another one.
    """
    if root in _OPEN:
        return _OPEN[root]
    said = find_passphrase(given(), str(root))
    if said is None:
        raise BadInput(f"{root}, whose keys are sealed, and no passphrase", "its passphrase", GIVE)
    try:
        _OPEN[root] = Opened(_wrapped(root).open(said), said)
    except DoesNotOpen:
        raise BadInput(
            f"{root}, which this passphrase does not open", "the one that it was locked with", GIVE
        ) from None
    return _OPEN[root]


def expect_opened(folder: Path) -> None:
    """`BadInput` where `folder` is in a locked one whose passphrase is not here."""
    root = locked_folder(folder)
    if root is not None:
        open_folder(root)


def open_by_key(root: Path, key: bytes) -> None:
    """Opens `root` by its key itself, as a process hands it to its child."""
    _OPEN[root] = Opened(key)


def forget(root: Path) -> None:
    """What opens `root` is no longer known in this process."""
    _OPEN.pop(root, None)


def lock(root: Path, files: Iterable[Path], passphrase: bytes) -> int:
    """Seals the secrets `files`, all below `root`, under a passphrase; how many were plain.

    Each file is there whole at any time, plain or sealed. What was interrupted is finished by the
    same again. The old blocks are written over, as far as a disk does that where one asks.
    """
    forget(root)
    if (root / LOCK).exists():
        opened = _opened_by(root, passphrase)
    else:
        opened = Opened(new_key(), passphrase)
        _write_lock(root, Wrapped.of(opened.key, passphrase))
    _OPEN[root] = opened
    plain = [path for path in files if not is_sealed(path)]
    for path in plain:
        _exchange(path, seal(opened.key, _name(root, path), path.read_bytes()))
    return len(plain)


def unlock(root: Path, files: Iterable[Path]) -> int:
    """Writes the secrets plain again, and forgets the lock; how many were sealed."""
    sealed = [path for path in files if is_sealed(path)]
    opened = open_folder(root)  # before anything is written, and also where nothing is sealed
    for path in sealed:
        _replace(path, unseal(opened.key, _name(root, path), path.read_bytes()))
    (root / LOCK).unlink()
    _synchronise(root)
    forget(root)
    return len(sealed)


def change_passphrase(root: Path, new: bytes) -> None:
    """Locks the folder's key under another passphrase; the old one opens old copies alone."""
    opened = open_folder(root)
    _write_lock(root, Wrapped.of(opened.key, new))
    _OPEN[root] = Opened(opened.key, new)


def plain_ones(root: Path, files: Iterable[Path]) -> list[str]:
    """Which secrets of a locked folder lie there plain, by name; none is what there should be."""
    if not (root / LOCK).exists():
        return []
    return [_name(root, path) for path in files if not is_sealed(path)]


def expect_sealed(root: Path, files: Iterable[Path], command: str) -> None:
    """`BadInput` where a locked folder has plain secrets: it was not locked to the end."""
    if plain := plain_ones(root, files):
        raise BadInput(
            f"{', '.join(plain[:3])} plain in {root}, which is locked",
            "every key sealed",
            f"{command} seals them",
        )


def erase(path: Path) -> None:
    """Removes a secret, its bytes written over as far as the disk does that; durable."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        path.unlink()
        _write_over(file.fileno())
        _synchronise(path.parent)


def place_of(root: Path) -> Path | None:
    """The folder in memory in which keys of `root` lie plain while something runs."""
    try:
        return Path((root / PLACE).read_text().strip())
    except OSError:
        return None


def plain_name(root: Path, path: Path) -> str:
    """What a secret is called in that folder."""
    return _name(root, path).replace("/", "~")


def _in_place(root: Path, path: Path) -> bytes | None:
    place = place_of(root)
    try:
        return None if place is None else (place / plain_name(root, path)).read_bytes()
    except OSError:
        return None


def _opened_by(root: Path, passphrase: bytes) -> Opened:
    try:
        return Opened(_wrapped(root).open(passphrase), passphrase)
    except DoesNotOpen:
        raise BadInput(
            f"{root}, which is locked by another passphrase", "the one that it was locked with"
        ) from None


def _wrapped(root: Path) -> Wrapped:
    try:
        told = json.loads((root / LOCK).read_bytes())
    except (OSError, ValueError):
        told = {}
    return Wrapped.from_json(told if isinstance(told, dict) else {}, str(root / LOCK))


def _write_lock(root: Path, wrapped: Wrapped) -> None:
    _replace(root / LOCK, (json.dumps(wrapped.to_json(), indent=2) + "\n").encode())


def _name(root: Path, path: Path) -> str:
    return Path(os.path.realpath(path.parent), path.name).relative_to(root).as_posix()


def _exchange(path: Path, form: bytes) -> None:
    """Puts `form` in the place of a plain secret, whose bytes are written over once it is there."""
    for left in path.parent.glob(f".{path.name}.*"):  # of a process that was killed
        erase(left)
    with path.open("r+b") as old:
        _replace(path, form)
        if os.fstat(old.fileno()).st_nlink == 0:  # else somebody's copy, which is theirs
            _write_over(old.fileno())


def _write_over(handle: int) -> None:
    os.pwrite(handle, bytes(os.fstat(handle).st_size), 0)
    os.fsync(handle)


def _replace(path: Path, body: bytes) -> None:
    """As one step, mode 0600; where root does it the owner stays who it was."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    owner = (path if path.exists() else path.parent).stat()
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _synchronise(path.parent)


def _synchronise(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
