"""A letterbox whose user is an attacker's: what it puts into its folder, says, and may read."""

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fedkd.cli.app import run as fedkd
from fedkd.deploy.bundles import allow
from fedkd.deploy.consent import Desk
from fedkd.deploy.hospital import Hospital, write_private
from fedkd.deploy.knock import KNOCK
from fedkd.deploy.preparing import Whose, prepare_letterbox
from fedkd.deploy.socket import Away, Frame, Kind, listening, request
from fedkd.deploy.starting import programs, reached
from fedkd.deploy.supervising import Program, Supervisor, state_of, supervisor_of
from fedkd.federation.building import Workshop
from fedkd.knowledge import BadInput
from tests.deploy.federations import PATIENT, coordinator, enrolled
from tests.deploy.services import until
from tests.deploy.test_founding import AMERICAN, Made

NOBODY = 65534
KEPT = "records of patient 4711\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    enrolled(coordinator(tmp_path), "north", tmp_path / "hospital")
    made = Hospital(tmp_path / "hospital")
    prepare_letterbox(made, Whose())
    return made


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the owner's, outside of what the letterbox may touch."""
    path = tmp_path / "train.npz"
    path.write_text(KEPT)
    path.chmod(0o600)
    return path


def in_time(call: Callable[[], object], seconds: float = PATIENT) -> object:
    """What `call` says; fails where it waits, as at a pipe that nobody writes to."""
    said: list[object] = []
    asking = threading.Thread(target=lambda: said.append(call()), daemon=True)
    asking.start()
    asking.join(seconds)
    assert said, "it waits"
    return said[0]


def supervised(folder: Path, log: Path, *, user: int | None = None, mode: int = 0o640) -> None:
    """One start of a program whose output goes to `log`, by a supervisor in its own process."""
    pid = os.fork()
    if pid == 0:
        program = Program(
            "node", ["/bin/echo", "said"], {}, folder, log, user, user,
            explain=lambda tail: ("", 3600.0), log_mode=mode,  # not started again meanwhile
        )  # fmt: skip
        try:
            Supervisor(folder, [program], lambda line: None).run()
        finally:
            os._exit(0)
    try:
        until(lambda: state_of(folder).get("node", {}).get("restarts", 0) > 0)
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("kind", ["a link", "a second name", "a pipe", "a folder"])
def test_a_log_that_is_no_file_of_its_own_is_not_written_through(
    tmp_path: Path, secret: Path, kind: str
) -> None:
    log, run = tmp_path / "node.log", tmp_path / "run"
    run.mkdir()
    made: dict[str, Callable[[], None]] = {
        "a link": lambda: log.symlink_to(secret),
        "a second name": lambda: log.hardlink_to(secret),
        "a pipe": lambda: os.mkfifo(log),
        "a folder": log.mkdir,
    }
    made[kind]()
    before = secret.stat()
    supervised(run, log, user=65534 if os.geteuid() == 0 else None)
    assert secret.read_text() == KEPT
    assert (secret.stat().st_uid, secret.stat().st_mode) == (before.st_uid, before.st_mode)
    if kind != "a folder":
        assert log.read_text() == "said\n"
        assert not log.is_symlink()


def test_what_a_link_leads_to_is_not_read_back(tmp_path: Path, secret: Path) -> None:
    """Else its last line were what an engineer is told of the node."""
    run, log = tmp_path / "run", tmp_path / "node.log"
    run.mkdir()
    script = f"import os; os.unlink({str(log)!r}); os.symlink({str(secret)!r}, {str(log)!r})"
    pid = os.fork()
    if pid == 0:
        program = Program("node", [sys.executable, "-c", script], {}, run, log,
                          explain=lambda tail: (f"<{tail}>", 0.0))  # fmt: skip
        try:
            Supervisor(run, [program], lambda line: None).run()
        finally:
            os._exit(0)
    try:
        until(lambda: state_of(run).get("node", {}).get("restarts", 0) > 0)
        assert state_of(run)["node"]["said"] == "<>"
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_the_lock_and_what_is_kept_go_through_no_link(hospital: Hospital, secret: Path) -> None:
    home = hospital.letterbox / "home"
    (home / "start.lock").symlink_to(secret)
    with pytest.raises(BadInput, match="no plain file"):
        Supervisor(home, []).run()
    (home / f".state.json.{os.getpid()}").symlink_to(secret)
    write_private(home / "state.json", b"{}")
    assert secret.read_text() == KEPT


@pytest.mark.parametrize("name", ["home/start.lock", "home/state.json", "logs/node.log"])
def test_nobody_waits_at_a_pipe(hospital: Hospital, name: str) -> None:
    os.mkfifo(hospital.letterbox / name)
    assert in_time(lambda: supervisor_of(hospital.letterbox / "home")) is None
    assert in_time(lambda: state_of(hospital.letterbox / "home")) == {}
    assert in_time(lambda: reached(hospital.letterbox)) is None
    assert in_time(lambda: fedkd(["site", "status", str(hospital.folder)])) == 0


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that everybody may enter, as /srv is: pytest's own is closed."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("where", ["records.csv", "notes"])
def test_what_lies_loose_where_the_letterboxs_user_may_read_it_lets_nothing_start(
    outside: Path, where: str
) -> None:
    """A folder of a hospital is entered by its letterbox: what lies loose in it is closed."""
    hospital, group = entered(outside), NOBODY
    path = hospital.folder / where
    path.write_text(KEPT)
    path.chmod(0o644)
    hospital.expect_private()  # the same user: nobody else enters
    with pytest.raises(BadInput, match=f"letterbox's user may read it.*chmod 600 {path}"):
        hospital.expect_private(group)
    path.chmod(0o640)  # of the owner's own group
    hospital.expect_private(group)
    path.chmod(0o600)
    hospital.expect_private(group)


def test_records_elsewhere_that_the_letterboxs_user_may_read_are_warned_of(outside: Path) -> None:
    hospital, path = entered(outside), outside / "records" / "east.csv"
    path.parent.mkdir()
    path.write_text(KEPT)
    path.chmod(0o644)
    hospital.site_yaml.write_text(f"data: {{path: {path}}}\n")
    hospital.site_yaml.chmod(0o600)
    hospital.expect_private(NOBODY)
    (warned,) = hospital.records_in_reach(NOBODY)
    assert f"chmod 600 {path}" in warned
    path.parent.chmod(0o700)
    assert hospital.records_in_reach(NOBODY) == []


def entered(outside: Path) -> Hospital:
    enrolled(coordinator(outside), "north", outside / "hospital")
    return Hospital(outside / "hospital")


def seen_by(user: int, folder: Path, names: Sequence[str]) -> dict[str, set[str]]:
    """What of `names` in `folder` somebody may read and write, found out with that user's rights.

    A folder that cannot be listed hides nothing: its names can be guessed.
    """
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            ways = {"read": os.R_OK, "written": os.W_OK}
            found = {
                kind: [name for name in names if os.access(folder / name, way)]
                for kind, way in ways.items()
            }
            with os.fdopen(into, "w") as pipe:
                json.dump(found, pipe)
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as pipe:
        told = json.load(pipe)
    os.waitpid(pid, 0)
    return {kind: set(names) for kind, names in told.items()}


SHIMS = ("flower-superexec", "flwr-agentapp", "flwr-clientapp", "flwr-connector", "flwr-model",
         "flwr-serverapp", "flwr-simulation")  # fmt: skip
READ = {"letterbox/approved", "letterbox/ca.crt", "letterbox/letterbox.json", "letterbox/node.key",
        "letterbox/refusals.log", *(f"letterbox/shims/{name}" for name in SHIMS)}  # fmt: skip


@needs_root
def test_a_letterboxs_user_reads_and_writes_what_it_needs_and_nothing_else(outside: Path) -> None:
    """Seen with that user's rights, over every file of a founded hospital that was started once."""
    made = Made(outside)
    made.found(made.typed(AMERICAN, mechanism="none"))
    hospital = made.hospital
    for path in (hospital.site_yaml, hospital.folder / "records.csv"):
        path.chmod(0o600)
    (hospital.run / "state.json").unlink(missing_ok=True)
    prepare_letterbox(hospital, Whose(NOBODY, NOBODY))
    supervised(hospital.run, hospital.run / "service.log")
    Desk(hospital.folder, Workshop()).handle(b"no letter")
    allow(hospital.letterbox, "ab" * 32)
    hospital.expect_private(NOBODY)
    every = [str(it.relative_to(hospital.folder)) for it in hospital.folder.rglob("*")]
    assert {"site/train.npz", "site/log.sqlite", "records.csv", "run/state.json"} <= set(every)
    found = seen_by(NOBODY, hospital.folder, every)
    assert {it for it in found["read"] if not (hospital.folder / it).is_dir()} == READ
    writable = {"letterbox/home", "letterbox/logs", "letterbox/outbox", "letterbox/refusals.log"}
    assert found["written"] == writable


def test_what_went_wrong_is_readable_by_its_owner_alone(hospital: Hospital) -> None:
    Desk(hospital.folder, Workshop()).handle(b"no letter")
    hospital.invitation.unlink()
    Desk(hospital.folder, Workshop()).handle(b"no letter")
    assert stat.S_IMODE((hospital.folder / "errors.txt").stat().st_mode) == 0o600
    made = {it.name: it for it in programs(hospital, Whose())}
    assert {made["letterbox"].log_mode, made["node"].log_mode} == {0o640}
    log = made["service"].log
    log.touch(0o644)  # in a container both users have one group: its tracebacks lie in run/
    supervised(hospital.run, log, mode=made["service"].log_mode)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@contextmanager
def forged(lock: Path, told: str, *, user: int | None = None) -> Iterator[None]:
    """A lock of another process, with that number in it."""
    lock.write_text(f"{told}\n")
    if user is not None:
        os.chown(lock, user, -1)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("told", ["1", "-1", "0", "x", "9" * 30])
def test_a_stop_ends_no_process_that_a_forged_lock_names(hospital: Hospital, told: str) -> None:
    home = hospital.letterbox / "home"
    with forged(home / "start.lock", told):
        assert supervisor_of(home) is None


@needs_root
def test_a_stop_ends_no_process_of_somebody_elses(hospital: Hospital) -> None:
    home = hospital.letterbox / "home"
    victim = subprocess.Popen(["/bin/sleep", "60"])
    try:
        with forged(home / "start.lock", str(victim.pid)):
            assert supervisor_of(home) == victim.pid  # its own: the lock is the same user's
        with forged(home / "start.lock", str(victim.pid), user=65534):
            assert supervisor_of(home) is None
            assert fedkd(["site", "stop", str(hospital.folder)]) == 1  # somebody holds it
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


@pytest.mark.parametrize("told", ["[]", '{"node": 1}', "{" * 100_000, '{"node": {}}'])
def test_a_state_that_is_none_stops_no_status(hospital: Hospital, told: str) -> None:
    (hospital.letterbox / "home" / "state.json").write_text(told)
    with forged(hospital.letterbox / "home" / "start.lock", str(os.getpid())):
        assert fedkd(["site", "status", str(hospital.folder)]) == 0


def test_a_letterboxs_socket_that_takes_nobody_holds_no_supervisor_up(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor whoever asks for the standing: whoever listens there may leave its queue full."""
    knock = hospital.letterbox / KNOCK
    monkeypatch.chdir(knock.parent)  # a socket's path may be no longer than 107 bytes
    (box,) = (it for it in programs(hospital, Whose()) if it.name == "letterbox")
    with listening(knock, 0o600, backlog=0), ExitStack() as queued:
        full = False
        while not full:
            one = queued.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            full = one.connect_ex(knock.name) == errno.EAGAIN
        assert in_time(box.ready) is False
        assert in_time(lambda: is_away(knock)) is True


def is_away(path: Path) -> bool:
    with pytest.raises(Away):
        request(path, Frame(Kind.STATUS), 0.5)
    return True
