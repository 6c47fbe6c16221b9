"""A private folder in memory, for keys that a program reads from a path while it runs."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedkd.deploy.hospital import PRIVATE_FOLDER, write_private
from fedkd.knowledge.bad_input import BadInput

RUNTIME: Final = "RUNTIME_DIRECTORY"
"""What systemd's RuntimeDirectory= made, in /run: memory, of one user, gone when a unit stops."""
SHARED: Final = Path("/dev/shm")  # noqa: S108 - a folder of its own in it, of mode 0700
"""Memory on any Linux; everybody may make a folder there."""
ON_DISK: Final = ".plain"


@dataclass(frozen=True, slots=True)
class Place:
    """The folder, and the file `mark` that says where it is while it is there."""

    folder: Path
    mark: Path


def place_for(root: Path) -> Path:
    """Where the folder of `root` is to be: in memory where there is any, else below `root`."""
    given = os.environ.get(RUNTIME, "").split(":")[0]
    base = Path(given) if given else SHARED
    if not (base.is_dir() and os.access(base, os.W_OK)):
        return root / ON_DISK
    return base / f"fedkd-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}"


@contextmanager
def laid_out(
    place: Place,
    bodies: Mapping[str, bytes],
    user: int | None = None,
    group: int | None = None,
) -> Iterator[None]:
    """Has these files in the folder, which is made anew, and nobody else's; then it is gone.

    They are the `user`'s, or may be read by the `group` beside the owner. `BadInput` where
    somebody else has a folder there.
    """
    try:
        _make(place)
        for name, body in bodies.items():
            write_private(place.folder / name, body)
            _give(place.folder / name, user, group, (0o400, 0o640))
        _give(place.folder, user, group, (0o500, 0o750))
        yield
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)
        place.mark.unlink(missing_ok=True)


def _make(place: Place) -> None:
    with suppress(FileNotFoundError):
        found = place.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or os.geteuid() not in (found.st_uid, 0):
            what = f"{place.folder}, which somebody else made"
            raise BadInput(what, "nothing there", f"as root: rm -r {place.folder}")
        shutil.rmtree(place.folder)
    place.folder.mkdir(mode=PRIVATE_FOLDER)
    write_private(place.mark, f"{place.folder}\n".encode())


def _give(path: Path, user: int | None, group: int | None, modes: tuple[int, int]) -> None:
    alone, shared = modes
    if user is not None:
        path.chmod(alone)
        os.chown(path, user, -1)
    elif group is not None:
        os.chown(path, -1, group)
        path.chmod(shared)
