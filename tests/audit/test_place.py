"""A log lies on a disk of its own machine: network file systems are recognised, and refused."""

from pathlib import Path

import pytest

from fedkd.audit import Log, place
from fedkd.audit.place import ACCEPTED, Mount, UnsafePlace, mount_of

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:40 / /home rw,relatime shared:7 master:1 - nfs4 filer:/home rw,vers=4.2,hard
31 27 0:41 / /srv/hospital\040data rw - cifs //filer/data rw,vers=3.1.1
32 27 0:42 / /mnt/away rw,nosuid - fuse.sshfs me@away:/ rw,user_id=1000
33 27 0:43 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw
34 27 0:44 / /mnt/c rw - 9p C:\134 rw,trans=fd
35 27 0:45 / /auto rw - autofs systemd-1 rw,fd=29
36 35 0:46 / /auto rw - nfs filer:/auto rw
37 30 254:1 /home/me /home/me/local rw - xfs /dev/vdb rw
38 27 0:47 / /mnt/stick rw - fuseblk /dev/sdb1 rw
39 27 0:48 / /mnt/mounted rw - fuse.bindfs /home rw
41 42 0:50 / /outer/inner rw - smb3 //filer/inner rw
42 27 254:2 / /outer rw - ext4 /dev/vdc rw
a line that is none
40 27 0:49 /
"""


@pytest.mark.parametrize(
    ("path", "point", "type", "network"),
    [
        ("/", "/", "ext4", False),
        ("/var/fedkd", "/", "ext4", False),
        ("/home", "/home", "nfs4", True),
        ("/home/me/runs/x", "/home", "nfs4", True),
        ("/homes/me", "/", "ext4", False),
        ("/home/me/local/runs", "/home/me/local", "xfs", False),
        ("/srv/hospital data/site", "/srv/hospital data", "cifs", True),
        ("/mnt/away/x", "/mnt/away", "fuse.sshfs", True),
        ("/scratch/x", "/scratch", "lustre", True),
        ("/auto/x", "/auto", "nfs", True),
        ("/outer/inner/x", "/outer/inner", "smb3", True),
        ("/mnt/c/x", "/mnt/c", "9p", False),
        ("/mnt/stick/x", "/mnt/stick", "fuseblk", False),
        ("/mnt/mounted/x", "/mnt/mounted", "fuse.bindfs", False),
    ],
)
def test_a_path_lies_on_its_innermost_mount(
    path: str, point: str, type: str, network: bool
) -> None:
    found = mount_of(path, MOUNTS)
    assert found == Mount(point, type)
    assert found.is_network is network


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 3 / /elsewhere rw - nfs a rw\n"])
def test_where_nothing_is_known_nothing_is_said(text: str) -> None:
    assert mount_of("/home/me", text) is None


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of which the kernel says that it is mounted from elsewhere."""
    folder = tmp_path / "hôme of a site"
    folder.mkdir()
    named = str(folder.resolve()).replace(" ", r"\040")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"{MOUNTS}50 27 0:99 / {named} rw - nfs4 filer:/x rw\n", encoding="utf-8")
    monkeypatch.setattr(place, "_MOUNTS", mountinfo)
    monkeypatch.delenv(ACCEPTED, raising=False)
    return folder


def test_a_log_on_a_network_file_system_is_refused_before_anything_is_written(
    mounted: Path,
) -> None:
    with pytest.raises(UnsafePlace, match=r"nfs4, mounted at .*expected a disk of this machine"):
        Log(mounted / "log.sqlite", "party")
    assert list(mounted.iterdir()) == []
    within = mounted / "site"
    within.mkdir()
    (mounted.parent / "elsewhere").symlink_to(within)
    with pytest.raises(UnsafePlace):
        Log(mounted.parent / "elsewhere" / "log.sqlite", "party")


def test_who_accepts_the_risk_says_so(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCEPTED, "1")
    with Log(mounted / "log.sqlite", "party") as log:
        log.append("key", "run.started", {})


def test_where_the_kernel_does_not_tell_a_log_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_MOUNTS", tmp_path / "none")
    Log(tmp_path / "log.sqlite", "party").close()
