"""A hospital as its units run it: one user has the records, another one faces the network."""

import ctypes
import io
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

from fedkd.cli.app import run as fedkd
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.keeping import keeper
from fedkd.deploy.letterbox import Letterbox
from fedkd.deploy.preparing import HOME, LOGS, NODE_KEY, OUTBOX, Whose, prepare_letterbox
from fedkd.deploy.service import serve
from fedkd.deploy.starting import LETTERBOX as LETTERBOX_HALF
from fedkd.deploy.starting import NODE, service_of
from fedkd.deploy.supervising import Program, is_supervised, state_of, supervisor_of
from fedkd.wire import RollCall, encode
from tests.deploy.federations import coordinator, enrolled
from tests.deploy.services import until
from tests.deploy.test_offline import PR_SET_DUMPABLE, needs_user_namespaces
from tests.deploy.two_users import FEDKD, GROUP, LETTERBOX, as_user, become, is_known

NOBODY = 65534

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may become two others"),
    pytest.mark.skipif(not is_known(), reason="this processor's calls are not known here"),
]
PREPARED = Whose(group=GROUP)


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    """A hospital of the user fedkd's, in a folder that everybody may enter, as /var/lib is."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        enrolled(coordinator(folder), "north", folder / "hospital")
        found = Hospital(folder / "hospital")
        for path in (found.folder, *found.folder.rglob("*")):
            os.chown(path, FEDKD, GROUP)
        yield found


def test_what_the_unit_forbids_is_refused_here_too(hospital: Hospital) -> None:
    with pytest.raises(AssertionError, match="PermissionError"):
        as_user(FEDKD, lambda: hospital.folder.chmod(0o2770))
    as_user(FEDKD, lambda: hospital.folder.chmod(0o700))


def test_a_letterbox_is_prepared_by_whoever_may_set_no_group_by_a_mode(hospital: Hospital) -> None:
    """RestrictSUIDSGID=yes of the site's unit."""
    as_user(FEDKD, lambda: prepare_letterbox(hospital, PREPARED))
    as_user(FEDKD, lambda: prepare_letterbox(hospital, PREPARED))  # at every start
    for name in ("outbox", "home", "logs"):
        path = hospital.letterbox / name / "kept"
        as_user(LETTERBOX, lambda path=path: path.write_text("kept"))
        assert path.stat().st_gid == GROUP
        as_user(FEDKD, path.read_text)


@contextmanager
def running(hospital: Hospital) -> Iterator[int]:
    """A letterbox's half as its own user's, whose node says that it is connected."""
    as_user(FEDKD, lambda: prepare_letterbox(hospital, PREPARED))
    home, log = hospital.letterbox / HOME, hospital.letterbox / LOGS / "node.log"
    words = ["/bin/sh", "-c", "echo Connection successful; exec /bin/sleep 300"]
    program = Program(NODE, words, {}, home, log)
    pid = os.fork()
    if pid == 0:
        become(LETTERBOX, confined=False)
        with suppress(BaseException):
            keeper(hospital, [LETTERBOX_HALF], [program], lambda line: None).run()
        os._exit(0)
    try:
        until(lambda: log.exists() and "successful" in log.read_text())
        until(lambda: state_of(home).get(NODE, {}).get("pid"))  # written down after it began
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def typed(*words: str, expected: int = 0, user: int = FEDKD) -> str:
    """What a command prints to one of the users."""
    fedkd([*words[:2], "--help"])  # what it needs is read before, from wherever Python lies

    def call() -> str:
        shown = io.StringIO()
        with redirect_stdout(shown), redirect_stderr(shown):
            code = fedkd([*words])
        assert code == expected, f"{code}: {shown.getvalue()}"
        return shown.getvalue()

    said: str = as_user(user, call)
    return said


def test_the_other_user_sees_whether_the_letterbox_is_connected(hospital: Hospital) -> None:
    status = ["site", "status", str(hospital.folder), "--json"]
    fedkd(status)
    assert json.loads(typed(*status))["connected"] is None
    with running(hospital):
        said = json.loads(typed(*status))
        assert said["connected"] is True
        assert said["processes"][NODE]["pid"] is not None
    assert json.loads(typed(*status))["connected"] is None


def test_a_stop_says_what_it_may_not_end(hospital: Hospital) -> None:
    with running(hospital) as pid:
        said = typed("site", "stop", str(hospital.folder), expected=1)
        assert "systemctl stop fedkd-letterbox" in said
        assert is_supervised(hospital.letterbox / HOME)
        assert supervisor_of(hospital.letterbox / HOME) == pid
        assert fedkd(["site", "stop", str(hospital.folder)]) == 0  # as root
        assert not is_supervised(hospital.letterbox / HOME)
    assert typed("site", "stop", str(hospital.folder)) == "nothing was running\n"


def test_whoever_leaves_leaves_no_letterbox_that_starts_again(hospital: Hospital) -> None:
    with running(hospital):
        said = typed("site", "leave", str(hospital.folder), "--yes", expected=1)
        assert "NOT STOPPED: fedkd-letterbox" in said
    assert not (hospital.letterbox / NODE_KEY).exists()
    assert hospital.node_key.exists()
    expect_no_settings(hospital)


def expect_no_settings(hospital: Hospital) -> None:
    """The letterbox's user may start its half, and is told what is missing."""
    only = ("site", "start", str(hospital.folder), "--only", "letterbox")
    fedkd([*only[:2], str(hospital.keys), *only[3:]])
    assert "no letterbox.json" in typed(*only, expected=2, user=LETTERBOX)


def test_whoever_may_pass_through_the_folder_and_not_list_it_starts_a_letterbox(
    hospital: Hospital,
) -> None:
    """As the letterbox's unit does: 0710 of fedkd's."""
    as_user(FEDKD, lambda: prepare_letterbox(hospital, PREPARED))
    hospital.letterbox.joinpath("letterbox.json").unlink()
    expect_no_settings(hospital)


def test_what_left_is_read_by_the_other_user(hospital: Hospital) -> None:
    as_user(FEDKD, lambda: prepare_letterbox(hospital, PREPARED))
    question = encode(RollCall("run-1"))

    def post() -> int:
        os.umask(0o077)
        return len(Letterbox.at(hospital.letterbox).post(question, True))

    size = as_user(LETTERBOX, post)
    (letter,) = (hospital.letterbox / OUTBOX).iterdir()
    assert as_user(FEDKD, lambda: len(letter.read_bytes())) == size
    with pytest.raises(AssertionError, match="PermissionError"):
        as_user(NOBODY, lambda: len(letter.read_bytes()), group=NOBODY)


@needs_user_namespaces
def test_a_service_of_an_ordinary_users_has_no_network(hospital: Hospital) -> None:
    pid = os.fork()
    if pid == 0:
        become(FEDKD, confined=False)
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        with suppress(BaseException):
            os._exit(serve(hospital))
        os._exit(1)
    try:
        standing = until(lambda: service_of(hospital) or ended(pid))
        assert standing["network"] == "none"
        assert standing["pid"] == pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


def ended(pid: int) -> None:
    assert os.waitpid(pid, os.WNOHANG)[0] == 0, "it did not start"
