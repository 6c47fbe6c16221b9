"""Seals the keys of a hospital or a coordinator, opens them for good, changes the passphrase."""

import json
from collections.abc import Sequence
from pathlib import Path

from fedkd.audit.locking import GIVE, LOCK, change_passphrase, erase, given, lock, unlock
from fedkd.audit.passphrase import new_passphrase, read_passphrase
from fedkd.deploy.hospital import hospital_at
from fedkd.deploy.locked import (
    SERVER,
    SITE,
    in_words,
    keys_of_hospital,
    keys_of_server,
    standing_of_keys,
)
from fedkd.deploy.preparing import HOME, NODE_KEY
from fedkd.deploy.supervising import is_supervised
from fedkd.knowledge import BadInput

DONE = 0


def lock_hospital(
    folder: Path, *, new_passphrase_file: Path | None, undo: bool, as_json: bool
) -> int:
    """Seals every key of a hospital that does not run just now."""
    hospital = hospital_at(folder)
    if any(map(is_supervised, (hospital.run, hospital.letterbox / HOME))):
        raise _running(f"fedkd site stop {hospital.folder}")
    keys = keys_of_hospital(hospital)
    _lock(hospital.folder, keys, new_passphrase_file, undo)
    if not undo:
        erase(hospital.letterbox / NODE_KEY)  # a copy, which is made in memory from now on
    return _told(hospital.folder, keys, SITE, as_json)


def lock_server(
    folder: Path, *, new_passphrase_file: Path | None, undo: bool, as_json: bool
) -> int:
    """Seals every key of a coordinator that does not run just now."""
    from fedkd.deploy import running
    from fedkd.deploy.server_folder import ServerFolder

    server = ServerFolder.opened(folder)
    if any(running.pid_of(server, it) for it in (running.SERVER, running.SUPERLINK, running.PROXY)):
        raise _running(f"fedkd server stop {server.folder}")
    keys = keys_of_server(server.folder)
    _lock(server.folder, keys, new_passphrase_file, undo)
    return _told(server.folder, keys, SERVER, as_json)


def _lock(root: Path, keys: Sequence[Path], new_passphrase_file: Path | None, undo: bool) -> None:
    is_locked = (root / LOCK).exists()
    if undo and new_passphrase_file is not None:
        raise BadInput("--unlock with --new-passphrase-file", "one of them")
    if not is_locked and (undo or new_passphrase_file is not None):
        raise BadInput(f"{root}, which is not locked", "a locked folder", "leave that option out")
    if undo:
        unlock(root, keys)
        return
    said = new_passphrase(given(), str(root))
    if said is None:
        raise BadInput("no passphrase", "the one that is to open the keys", GIVE)
    lock(root, keys, said)
    if new_passphrase_file is not None:
        other = read_passphrase(new_passphrase_file)
        assert other is not None  # noqa: S101 - a file was given
        change_passphrase(root, other)


def _told(root: Path, keys: Sequence[Path], command: str, as_json: bool) -> int:
    told = standing_of_keys(root, keys)
    if as_json:
        print(json.dumps(told, indent=2))
        return DONE
    print(f"{root}: {in_words(told, f'{command} {root}')}")
    if told["locked"]:
        print("Keep the passphrase elsewhere, twice: without it nothing signs here ever again, and")
        print("nothing opens the keys. Copies that were made before hold them plain.")
    return DONE


def _running(stop: str) -> BadInput:
    return BadInput("running processes", "none: they read their keys as these lie now", stop)
