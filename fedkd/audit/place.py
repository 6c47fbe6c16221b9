"""Where a log may lie: on a disk of this machine, not on one that other machines reach as well."""

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

NETWORK: Final = frozenset(
    {
        "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "gpfs", "lustre", "ncpfs", "nfs",
        "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs",
    }
)  # fmt: skip
"""File systems that several machines share. 9p and virtiofs are not among them: containers and
virtual machines see the disk of the machine that they run on through these."""
NETWORK_FUSE: Final = frozenset(
    {
        "blobfuse", "blobfuse2", "ceph-fuse", "curlftpfs", "davfs", "davfs2", "gcsfuse",
        "glusterfs", "goofys", "gvfsd-fuse", "juicefs", "mfs", "mount-s3", "mountpoint-s3",
        "rclone", "s3fs", "seaweedfs", "smbnetfs", "sshfs",
    }
)  # fmt: skip
"""The same, served by a program: the part behind `fuse.` in the type."""
ACCEPTED: Final = "FEDKD_ACCEPT_LOG_ON_NETWORK_DISK"
"""An environment variable; what it risks stands in the error that names it."""
_MOUNTS: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class UnsafePlace(ValueError):
    """A log on a network file system, where what was acknowledged could be lost."""


class Mount(NamedTuple):
    """A file system: where it is mounted, and of which type."""

    point: str
    type: str

    @property
    def is_network(self) -> bool:
        """Whether other machines can write to it, too; False where nobody here knows."""
        kind, _, served = self.type.partition(".")
        return self.type in NETWORK or (kind in ("fuse", "fuseblk") and served in NETWORK_FUSE)


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """The mount on which the absolute `path` lies, by the text of /proc/self/mountinfo (proc(5)).

    It is the longest mount point that `path` begins with, and of several mounts on one point the
    last, which hides the others. None where the text names none.
    """
    found: Mount | None = None
    for line in mountinfo.splitlines():
        before, mark, after = line.partition(" - ")
        fields, behind = before.split(" "), after.split(" ")
        if not mark or len(fields) < 5:
            continue
        point = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
        if not (path == point or path.startswith(point.rstrip("/") + "/")):
            continue
        if found is None or len(point) >= len(found.point):
            found = Mount(point, behind[0])
    return found


def expect_local(folder: Path) -> None:
    """Raises `UnsafePlace` where `folder` lies on a network file system; Linux alone can tell."""
    try:
        mountinfo = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    mount = mount_of(str(folder.resolve()), mountinfo)
    if mount is None or not mount.is_network or os.environ.get(ACCEPTED):
        return
    raise UnsafePlace(
        f"found {folder} on a network file system ({mount.type}, mounted at {mount.point}), "
        "expected a disk of this machine, because there alone SQLite keeps a log that was "
        "acknowledged; choose a folder on a local disk for the run and its sites (out, sites.dir). "
        f"If no other machine ever opens it and you accept that entries may be lost: {ACCEPTED}=1"
    )
