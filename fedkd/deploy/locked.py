"""Which keys a hospital and a coordinator have, and how those of a locked one are opened to run."""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from fedkd.audit.locking import (
    LOCK,
    PLACE,
    Opened,
    expect_sealed,
    is_sealed,
    locked_folder,
    open_folder,
    place_of,
    plain_name,
    plain_ones,
    read_secret,
)
from fedkd.deploy.hospital import Hospital, write_private
from fedkd.deploy.keeping import Secret
from fedkd.deploy.memory import Place, place_for

SITE, SERVER = "fedkd site lock", "fedkd server lock"
_OF_SITE: Final = ("keys/*.key", "*.key")
_OF_SERVER: Final = ("keys/*.key", "**/server/keys/*.key")


def keys_of_hospital(hospital: Hospital) -> list[Path]:
    """Every secret key there is: the node's, both sites' logs', commitments' and shards'."""
    found = list(hospital.keys.glob("*.key"))
    for site in (hospital.site, hospital.rehearsal):
        found += [path for pattern in _OF_SITE for path in site.glob(pattern)]
    return sorted(found)


def keys_of_server(folder: Path) -> list[Path]:
    """The authority's, the proxy's and the federation's key, and those of each run's log."""
    return sorted(path for pattern in _OF_SERVER for path in folder.glob(pattern))


def expect_open(root: Path, keys: Sequence[Path], command: str) -> None:
    """`BadInput` where `root` is locked, and its passphrase is not here, or a key lies plain."""
    locked = locked_folder(root)
    if locked is not None:
        open_folder(locked)
        expect_sealed(locked, keys, f"{command} {root}")


def opened_hospital(hospital: Hospital) -> Opened | None:
    """What opens a locked hospital whose keys are all sealed; None for one that is not locked."""
    expect_open(hospital.folder, keys_of_hospital(hospital), SITE)
    root = locked_folder(hospital.folder)
    return None if root is None else open_folder(root)


def opened_server(folder: Path) -> Opened | None:
    """The same of a coordinator."""
    expect_open(folder, keys_of_server(folder), SERVER)
    root = locked_folder(folder)
    return None if root is None else open_folder(root)


def secret_of(hospital: Hospital, opened: Opened) -> Secret:
    """What those who run a locked hospital need."""
    root = locked_folder(hospital.folder) or hospital.folder
    body = read_secret(hospital.node_key)
    return Secret(opened.key, body, readable_path(hospital.node_key), root / PLACE)


def standing_of_keys(root: Path, keys: Sequence[Path]) -> dict[str, Any]:
    """How the keys lie on disk: `locked`, how many are `sealed`, and which ones are `plain`."""
    locked = (root / LOCK).exists()
    plain = plain_ones(root, keys) if locked else []
    return {
        "locked": locked,
        "sealed": sum(is_sealed(path) for path in keys),
        "keys": len(keys),
        "plain": plain,
    }


def in_words(told: Mapping[str, Any], command: str) -> str:
    """The same for a person."""
    if not told["locked"]:
        return f"{told['keys']} keys lie plain on this disk; {command} seals them"
    if told["plain"]:
        return f"{len(told['plain'])} of {told['keys']} keys are not sealed; {command} does it"
    return f"{told['sealed']} keys, sealed"


def place_in_memory(root: Path) -> Place | None:
    """Where keys of `root` are to lie plain while something runs; None where it is not locked."""
    locked = locked_folder(root)
    return None if locked is None else Place(place_for(locked), locked / PLACE)


def readable_path(key: Path) -> Path:
    """Where a program that is about to start finds `key`: in memory, where it is sealed."""
    root, place = locked_folder(key), place_in_memory(key.parent)
    if root is None or place is None:
        return key
    return place.folder / plain_name(root, key)


def plain_forms(root: Path, keys: Sequence[Path]) -> dict[str, bytes]:
    """These keys of a locked folder, opened, under their names in memory."""
    locked = locked_folder(root)
    if locked is None:
        return {}
    inside = (key for key in keys if locked_folder(key) == locked)  # a run may lie elsewhere
    return {plain_name(locked, key): read_secret(key) for key in inside}


def lay_anew(root: Path, keys: Sequence[Path]) -> None:
    """Lays keys into the folder in memory of what is running, if anything is."""
    place = _place_of_what_runs(root)
    if place is not None:
        for name, body in plain_forms(root, keys).items():
            write_private(place / name, body)


def _place_of_what_runs(root: Path) -> Path | None:
    locked = locked_folder(root)
    place = None if locked is None else place_of(locked)
    return place if place is not None and place.is_dir() else None


@contextmanager
def lent(root: Path, keys: Sequence[Path]) -> Iterator[None]:
    """Lays keys there for as long as their run is waited for, by whoever waits longest."""
    place = _place_of_what_runs(root)
    with ExitStack() as lenders:
        held = []
        if place is not None:
            forms = plain_forms(root, keys)
            held = [_held(place / name, body, lenders) for name, body in forms.items()]
        try:
            yield
        except KeyboardInterrupt:  # nobody waits any more, and it goes on
            held = []
            raise
        finally:
            for file in held:
                _give_back(file)


def _held(path: Path, body: bytes, lenders: ExitStack) -> BinaryIO:
    """The key's file, marked as one that is waited for; made where it is not there."""
    while True:
        with suppress(FileNotFoundError):
            file = lenders.enter_context(path.open("rb"))
            fcntl.flock(file, fcntl.LOCK_SH)
            if file.read() == body and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        write_private(path, body)


def _give_back(file: BinaryIO) -> None:
    """Removes the key, unless somebody else waits for its run."""
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(file.name).unlink(missing_ok=True)
