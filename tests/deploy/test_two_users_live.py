"""A rehearsal over the real network by two users: who is who, and what each has in its memory."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.starting import LETTERBOX, NODE, SERVICE
from fedkd.deploy.supervising import state_of
from tests.deploy.federations import coordinator, enrolled, fedkd, needs_nginx, needs_offline, told
from tests.deploy.services import can_mount, until
from tests.deploy.test_founding import AMERICAN, SCHEMA, Made

USER, NUMBER = "nobody", 65534
HEAVY = ("libtorch", "/torch/", "/pandas/", "/sklearn/", "/scipy/", "/opacus/")
CHECKOUT = Path(__file__).resolve().parents[2]


def may_look() -> bool:
    """Whether this user may start a process as somebody else, and look into it afterwards.

    Root of a container may not always do either.
    """
    try:
        with subprocess.Popen(
            ["sleep", "60"], user=NUMBER, group=NUMBER, extra_groups=[], env={"TOLD": "here"}
        ) as other:
            try:
                Path(f"/proc/{other.pid}/maps").read_bytes()
                return b"TOLD=here" in Path(f"/proc/{other.pid}/environ").read_bytes()
            finally:
                other.kill()
    except OSError:
        return False


pytestmark = [
    pytest.mark.long,
    needs_nginx,
    needs_offline,
    pytest.mark.skipif(
        os.geteuid() != 0 or not may_look(),
        reason="only root may start a half as somebody else, and look into it",
    ),
]


def in_reach(folder: Path) -> list[str]:
    """Words before a command whose processes may, whoever they are, read Python and this checkout.

    What no other user may enter on the way to them (a home, say) is covered in a mount namespace of
    that command's own, and what is needed is laid in there again, by way of `folder`.
    """
    named = [Path(each) for each in (sys.base_prefix, sys.prefix, CHECKOUT)]
    needed = dict.fromkeys([*named, *(each.resolve() for each in named)])
    shut = {each: found for each in needed if (found := first_shut(each)) is not None}
    if not shut:
        return []
    if not can_mount():
        pytest.skip(f"no other user may enter {', '.join(map(str, shut.values()))}")
    lines = ["set -e", "umask 022"]
    for number, path in enumerate(shut):
        kept = folder / f"kept{number}"
        lines += [f"mkdir -p {shlex.quote(str(kept))}", f"mount --bind {quoted(path, kept)}"]
    for path in dict.fromkeys(shut.values()):
        lines.append(f"mount -t tmpfs -o mode=0755 tmpfs {quoted(path)}")
    for number, path in enumerate(shut):
        kept = folder / f"kept{number}"
        lines += [f"mkdir -p {quoted(path)}", f"mount --bind {quoted(kept, path)}"]
    return ["unshare", "-m", "bash", "-c", "\n".join([*lines, 'exec "$0" "$@"'])]


def may_import(words: list[str]) -> bool:
    """Whether the other user may read what is installed here, behind these words."""
    become = f"import os, sys; os.setgroups([]); os.setgid({NUMBER}); os.setuid({NUMBER}); "
    tried = "os.execv(sys.executable, [sys.executable, '-I', '-c', 'import fedkd, flwr'])"
    done = subprocess.run(
        [*words, sys.executable, "-c", become + tried], capture_output=True, check=False
    )
    return done.returncode == 0


def quoted(*paths: Path) -> str:
    return shlex.join(map(str, paths))


def first_shut(path: Path) -> Path | None:
    """The outermost folder on the way to `path` that others may not enter."""
    return next(
        (it for it in reversed([path, *path.parents]) if not it.stat().st_mode & 0o001), None
    )


@dataclass
class Watch:
    """Looks at every process of a letterbox's half while something runs."""

    letterbox: Path
    pids: dict[str, set[int]] = field(default_factory=dict)
    """By program; the letterbox forks a process for each message."""
    heavy: set[tuple[str, str]] = field(default_factory=set)
    users: set[int] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *how: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.is_set():
            for process in processes_of(self.letterbox):
                with suppress(OSError):
                    words = (process / "cmdline").read_bytes().decode().split("\0")
                    named = [it for it in words if "fedkd." in it or "superexec" in it]
                    program = Path([*named, *words][0]).name
                    maps = (process / "maps").read_text()
                    self.users.add(process.stat().st_uid)
                    self.pids.setdefault(program, set()).add(int(process.name))
                    self.heavy |= {(program, it) for it in HEAVY if it in maps}
            time.sleep(0.01)


def processes_of(letterbox: Path) -> Iterator[Path]:
    """All whose environment is that of a letterbox's half, whoever started them, as whomever."""
    told = f"FLWR_HOME={letterbox / 'home'}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if told in (process / "environ").read_bytes():
                yield process


def identity(pid: int) -> dict[str, list[int]]:
    """A process's parent, its users and groups (real, effective, saved, of files), more groups."""
    said = Path(f"/proc/{pid}/status").read_text()
    found = re.findall(r"^(PPid|Uid|Gid|Groups):[ \t]*(.*)$", said, re.MULTILINE)
    return {name: [int(number) for number in numbers.split()] for name, numbers in found}


def users_of(pid: int) -> dict[str, list[int]]:
    return {name: numbers for name, numbers in identity(pid).items() if name != "PPid"}


NOBODYS = {"Uid": [NUMBER] * 4, "Gid": [NUMBER] * 4, "Groups": []}


def test_a_rehearsal_by_two_users_shows_the_network_nothing_that_reads_records() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        if (shut := first_shut(folder)) is not None:
            pytest.skip(f"no other user may enter {shut}, where temporary files are")
        rehearsed(folder)


def rehearsed(folder: Path) -> None:
    reach = in_reach(folder)
    if not may_import(reach):
        pytest.skip("no other user may read Python, what is installed, or this checkout")
    server = coordinator(folder / "there", schema=SCHEMA)
    joined = enrolled(server, "north", folder / "hospital")
    hospital = Hospital(folder / "hospital")
    made = Made.__new__(Made)
    made.hospital = hospital
    made.found(made.typed(AMERICAN, mechanism="none"))
    for path in filter(Path.is_file, hospital.folder.iterdir()):
        path.chmod(0o600)
    begun = fedkd("server", "start", server.folder, "--detach", seconds=400)
    try:
        assert begun.returncode == 0, begun.stdout + begun.stderr
        admitted = fedkd("server", "admit", joined.path, "--dir", server.folder, "--yes")
        assert admitted.returncode == 0, admitted.stdout + admitted.stderr
        words = ["site", "start", str(hospital.folder), "--letterbox-user", USER, "--detach"]
        started = subprocess.run(
            [*reach, sys.executable, "-m", "fedkd", *words],
            capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False,
            extra_groups=[0],  # as a login has them: they are not handed on
        )  # fmt: skip
        assert started.returncode == 0, started.stdout + started.stderr
        assert "both halves run as one user" not in started.stdout
        with Watch(hospital.letterbox) as watch:
            until(lambda: told("site", "status", hospital.folder)["connected"] is True, 300)
            expect_apart(hospital)
            ran = fedkd(
                "run", "--federation", server.folder, "rehearsal=true", "query=synthetic",
                "generator=dictionary", "query.size=20", "rounds=2", "student.model=logistic",
                "training.local_epochs=1", "training.lesson_epochs=1", "student.epochs=1",
                "mechanism=none", f"out={folder}/run", seconds=900,
            )  # fmt: skip
            assert ran.returncode == 0, ran.stdout + ran.stderr
    finally:
        said = logs(hospital)
        fedkd("site", "stop", hospital.folder)
        fedkd("server", "stop", server.folder)
        print(said)
    seen = {"fedkd.deploy.letterbox", "fedkd.federation.flower.node", "flower-superexec"}
    assert seen <= watch.pids.keys()
    # The proposal, who is there, two questions, a closing one: a task each.
    assert len(watch.pids["fedkd.deploy.letterbox"]) >= 1 + 5
    assert watch.users == {NUMBER}
    assert watch.heavy == set()
    letters = list((hospital.letterbox / "outbox").iterdir())
    assert len(letters) >= 4
    assert {it.stat().st_uid for it in letters} == {NUMBER}
    assert (hospital.letterbox / "refusals.log").read_text() == ""
    assert state_of(hospital.run)[NODE]["restarts"] == 0


def expect_apart(hospital: Hospital) -> None:
    """The service is its owner's, all that faces the network is the other user's, in no group."""
    running = {name: it["pid"] for name, it in state_of(hospital.run).items()}
    assert identity(running[SERVICE])["Uid"] == [0] * 4
    maps = Path(f"/proc/{running[SERVICE]}/maps").read_text()
    assert "libtorch" in maps  # what is looked for below is found where it is
    for name in (LETTERBOX, NODE):
        assert users_of(running[name]) == NOBODYS, name
    children = [int(it.name) for it in processes_of(hospital.letterbox)
                if identity(int(it.name))["PPid"] == [running[NODE]]]  # fmt: skip
    executors = [it for it in children if "superexec" in Path(f"/proc/{it}/cmdline").read_text()]
    assert len(executors) == 1
    assert users_of(executors[0]) == NOBODYS


def logs(hospital: Hospital) -> str:
    """What the processes wrote: for the message of a failing test."""
    places = [*hospital.run.glob("*.log"), *(hospital.letterbox / "logs").glob("*.log")]
    return "\n".join(f"== {it.name}\n{it.read_text(errors='replace')[-4000:]}" for it in places)
