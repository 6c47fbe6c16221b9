"""Keys at rest of a hospital and a coordinator: what is on the disk, in memory, and in a child."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from fedkd.audit import Log, locking
from fedkd.audit.keys import log_key
from fedkd.audit.locking import LOCK, is_sealed, read_secret, take_passphrase_from
from fedkd.audit.officer import fingerprint
from fedkd.audit.passphrase import PASSPHRASE_FILE
from fedkd.audit.verify import Malformed, SigningKey
from fedkd.cli.app import run as fedkd_in_process
from fedkd.deploy import superlink
from fedkd.deploy.authority import read_key
from fedkd.deploy.coordinator import invite, revoke, rotate_certificate, rotate_key
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.joining import join, node_key_of
from fedkd.deploy.keeping import Secret
from fedkd.deploy.locked import keys_of_hospital, keys_of_server, lent, place_in_memory
from fedkd.deploy.memory import ON_DISK, RUNTIME, Place, laid_out, place_for
from fedkd.deploy.preparing import Whose, prepare_letterbox
from fedkd.deploy.running import SERVER, SUPERLINK, pid_of
from fedkd.deploy.socket import Frame, Kind, request
from fedkd.deploy.starting import service_of
from fedkd.deploy.supervising import state_of, supervisor_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.wire import RollCall, encode
from tests.deploy.federated import Federated
from tests.deploy.federations import coordinator, enrolled, fedkd, needs_nginx, told
from tests.deploy.services import SECONDS, until
from tests.deploy.test_founding import AMERICAN, Made
from tests.deploy.test_founding import SCHEMA as RECORDS

SAID = "seven words that nobody says"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PASSPHRASE_FILE, RUNTIME, "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(locking, "_OPEN", {})
    monkeypatch.setattr(locking, "_GIVEN", [])


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(SAID + "\n")
    path.chmod(0o600)
    return path


def forms(path: Path) -> set[bytes]:
    """Every way in which the bytes of a plain private key could lie in a file."""
    body = read_secret(path)
    found = {body.strip()}
    with suppress(Malformed, UnicodeDecodeError):
        found.add(SigningKey.parse(body.decode().strip()).seed)
    for load in (serialization.load_pem_private_key, serialization.load_ssh_private_key):
        with suppress(ValueError):
            key: Any = load(body, None)
            found.add(key.private_numbers().private_value.to_bytes(48, "big"))
            found.add(body.splitlines()[1])
    return found | {base64.b64encode(each) for each in found if len(each) <= 48}


def secrets_of(paths: list[Path]) -> set[bytes]:
    return {form for path in paths for form in forms(path)}


def expect_nowhere(folder: Path, secrets: set[bytes]) -> None:
    """No file below the folder holds any of these bytes."""
    assert len(secrets) > 4
    for parent, _, names in os.walk(folder):
        for path in (Path(parent) / name for name in names):
            with suppress(FileNotFoundError):  # what runs there takes files away
                body = path.read_bytes() if path.is_file() else b""
                assert not any(secret in body for secret in secrets), path


def here(*words: object) -> "subprocess.CompletedProcess[str]":
    """A command in this process, which has opened nothing before, and has nothing open after."""
    out, errors = io.StringIO(), io.StringIO()
    known, given = dict(locking._OPEN), list(locking._GIVEN)
    locking._OPEN.clear()
    locking._GIVEN.clear()
    with redirect_stdout(out), redirect_stderr(errors):
        code = fedkd_in_process([*map(str, words)])
    locking._OPEN.clear()
    locking._OPEN.update(known)
    locking._GIVEN[:] = given
    return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())


def here_told(*words: object) -> dict[str, Any]:
    done = here(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_every_key_of_a_hospital_and_a_coordinator_is_found_and_sealed(
    federated: Federated, passphrase: Path
) -> None:
    deep = federated.server.folder / "runs" / "by" / "year" / "and" / "month" / "run"
    run = federated.proposed(f"out={deep}", rehearsal=True)
    hospital, server = federated.hospitals["north"], federated.server
    (hospital.site / "shards.key").write_bytes(os.urandom(32))
    prepare_letterbox(hospital, Whose())
    copy = hospital.letterbox / "node.key"
    for folder, command in ((hospital.folder, "site"), (server.folder, "server")):
        keys = keys_of_hospital(hospital) if command == "site" else keys_of_server(folder)
        assert {*keys, copy} == {*folder.rglob("*.key"), copy}, "none is forgotten"
        secrets = secrets_of(keys)
        said = here_told(command, "status", folder)["keys"]
        assert said == {"locked": False, "sealed": 0, "keys": len(keys), "plain": []}
        with pytest.raises(AssertionError):
            expect_nowhere(folder, secrets)
        said = here_told(command, "lock", folder, "--passphrase-file", passphrase)
        assert said == {"locked": True, "sealed": len(keys), "keys": len(keys), "plain": []}
        expect_nowhere(folder, secrets)
        assert here_told(command, "status", folder)["keys"] == said
    assert run.folder / "server/keys/log.key" in keys_of_server(server.folder)
    checked = here("site", "check", hospital.folder)
    assert f"{len(keys_of_hospital(hospital))} keys, sealed" in checked.stdout


def test_an_outsider_and_an_insider_without_the_passphrase_sign_nothing(
    federated: Federated, passphrase: Path, tmp_path: Path
) -> None:
    hospital, server = federated.hospitals["north"], federated.server
    for command, folder in (("site", hospital.folder), ("server", server.folder)):
        here_told(command, "lock", folder, "--passphrase-file", passphrase)
    wrong = tmp_path / "wrong"
    wrong.write_text("words of another folder\n")
    wrong.chmod(0o600)
    entries = (hospital.site / "log.sqlite").read_bytes()
    for words in (
        ("site", "start", hospital.folder),
        ("site", "start", hospital.folder, "--passphrase-file", wrong),
        ("site", "lock", hospital.folder, "--unlock"),
        ("privacy", "exclude", "--site", hospital.site, "1", "--reason", "wish"),
        ("server", "invite", "south", "--dir", server.folder),
        ("server", "rotate", "--dir", server.folder),
        ("server", "rotate", "--dir", server.folder, "--key"),
        ("server", "start", server.folder, "--passphrase-file", wrong),
    ):
        done = (fedkd if "start" in words else here)(*words)  # one that starts would stay
        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert "no passphrase" in done.stderr or "does not open" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert "words of another" not in done.stderr
    assert supervisor_of(hospital.run) is None
    assert (hospital.site / "log.sqlite").read_bytes() == entries
    with pytest.raises(BadInput, match="no passphrase"), SiteFolder(hospital.site).turn():
        pytest.fail("a turn began that could not end")

    done = here(
        "privacy", "exclude", "--site", hospital.site, "1", "--reason", "wish",
        "--passphrase-file", passphrase,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert here_told("server", "invite", "south", "--dir", server.folder,
                "--passphrase-file", passphrase)["site"] == "south"  # fmt: skip


def test_what_is_made_in_a_locked_folder_is_sealed(federated: Federated, passphrase: Path) -> None:
    server, hospital = federated.server, federated.hospitals["north"]
    here_told("server", "lock", server.folder, "--passphrase-file", passphrase)
    take_passphrase_from(passphrase)
    before = server.vkey().text(), (server.keys / "server.key").read_bytes()
    rotate_key(server)
    rotate_certificate(server)
    assert (server.vkey().text(), (server.keys / "server.key").read_bytes()) != before
    assert server.key().verifier().text() == server.vkey().text()
    assert read_key(server.keys / "server.key")
    assert federated.proposed(rehearsal=True).folder.is_dir()
    assert all(map(is_sealed, keys_of_server(server.folder)))
    with pytest.raises(BadInput, match=r"outside of .*coordinator.*leave out away"):
        federated.proposed(f"out={server.folder.parent}/elsewhere", rehearsal=True)

    here_told("site", "lock", hospital.folder, "--passphrase-file", passphrase)
    node = node_key_of(hospital)
    _, paper = invite(federated.server, "west2")
    joined = join(paper, hospital.folder.parent / "west2")  # beside it, and not locked
    assert not (joined.path.parent / LOCK).exists()
    hospital.node_key.unlink()
    assert node_key_of(hospital) != node
    assert is_sealed(hospital.node_key)


def test_a_locked_federation_runs_with_the_runs_keys_in_memory(
    federated: Federated, passphrase: Path
) -> None:
    """As `fedkd run` does it: whoever conducts the run has no passphrase, and no other key."""
    server = federated.server
    here_told("server", "lock", server.folder, "--passphrase-file", passphrase)
    for hospital in federated.hospitals.values():
        here_told("site", "lock", hospital.folder, "--passphrase-file", passphrase)
    take_passphrase_from(passphrase)
    run = federated.proposed(rehearsal=True)
    keys = sorted((run.folder / "server/keys").glob("*.key"))
    place = place_in_memory(server.folder)
    assert place is not None
    with laid_out(place, {}):
        with lent(server.folder, keys):
            locking.forget(server.folder)
            locking.take_passphrase_from(server.folder / "none")  # the hospitals' are open
            for hospital in federated.hospitals.values():
                locking.open_by_key(hospital.folder, opened_by(hospital, passphrase))
            federated.conducted(run)
            with pytest.raises(BadInput, match="no passphrase"):
                server.key()
        assert not list(place.folder.iterdir())
    assert not place.folder.exists()
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        note = log.checkpoint()
        assert note is not None
        note.verify([log.verifier()])
        with pytest.raises(BadInput, match="no passphrase"):
            log.append("more", "run.started", {"run": run.id})
    assert all(map(is_sealed, keys_of_server(server.folder)))
    report = ("report", "build", run.folder)  # the run's log remembers what was exported
    assert "no passphrase" in here(*report).stderr
    assert not (run.folder / "report").exists()
    done = here(*report, "--passphrase-file", passphrase)
    assert (run.folder / "report/index.html").exists(), done.stderr


def opened_by(hospital: Hospital, passphrase: Path) -> bytes:
    take_passphrase_from(passphrase)
    key = locking.open_folder(hospital.folder).key
    take_passphrase_from(hospital.folder / "none")
    return key


@pytest.mark.parametrize("first", [0, 1])
def test_a_runs_keys_stay_in_memory_while_anybody_waits_for_it(
    federated: Federated, passphrase: Path, first: int
) -> None:
    """Whoever waited for a coordinator that was killed leaves the keys to what goes on."""
    server = federated.server
    here_told("server", "lock", server.folder, "--passphrase-file", passphrase)
    take_passphrase_from(passphrase)
    run = federated.proposed(rehearsal=True)
    keys = sorted((run.folder / "server/keys").glob("*.key"))
    place = place_in_memory(server.folder)
    assert place is not None
    with laid_out(place, {}):
        waiting = [ExitStack(), ExitStack()]
        for one in waiting:
            one.enter_context(lent(server.folder, keys))
        waiting.pop(first).close()
        assert [path.read_bytes() for path in sorted(place.folder.iterdir())] == [
            read_secret(key) for key in keys
        ]
        waiting.pop().close()
        assert not list(place.folder.iterdir())


def test_a_run_that_lies_elsewhere_from_before_goes_on(
    federated: Federated, passphrase: Path
) -> None:
    """Its keys were never sealed, and are left where they are."""
    server = federated.server
    run = federated.proposed(f"out={server.folder.parent}/elsewhere", rehearsal=True)
    here_told("server", "lock", server.folder, "--passphrase-file", passphrase)
    take_passphrase_from(passphrase)
    place = place_in_memory(server.folder)
    assert place is not None
    with (
        laid_out(place, {}),
        lent(server.folder, sorted((run.folder / "server/keys").glob("*.key"))),
    ):
        assert not list(place.folder.iterdir())
    assert log_key(run.folder / "server")


def test_a_locked_hospital_that_joins_anew_loses_no_key_where_nobody_opens_it(
    federated: Federated, passphrase: Path
) -> None:
    hospital = federated.hospitals["north"]
    here_told("site", "lock", hospital.folder, "--passphrase-file", passphrase)
    before = {path: path.read_bytes() for path in keys_of_hospital(hospital)}
    revoke(federated.server, "north")
    _, paper = invite(federated.server, "north")
    words = ("site", "join", paper, "--dir", hospital.folder)
    assert "no passphrase" in here(*words).stderr
    assert {path: path.read_bytes() for path in keys_of_hospital(hospital)} == before
    assert here(*words, "--passphrase-file", passphrase).returncode == 0
    assert hospital.node_key.read_bytes() != before[hospital.node_key]
    assert all(map(is_sealed, keys_of_hospital(hospital)))


def test_a_locked_hospital_trusts_the_federations_next_key(
    federated: Federated, passphrase: Path
) -> None:
    hospital, paper = federated.hospitals["north"], rotate_key(federated.server)
    here_told("site", "lock", hospital.folder, "--passphrase-file", passphrase)
    digits = fingerprint(federated.server.vkey())
    words = ("site", "trust", hospital.folder, paper, "--by", "Ada", "--fingerprint", digits)
    assert "no passphrase" in here(*words).stderr
    assert here(*words, "--passphrase-file", passphrase).returncode == 0
    assert hospital.invited()["federation_vkey"] == federated.server.vkey().text()


def test_a_folder_that_was_half_locked_starts_nothing(
    federated: Federated, passphrase: Path
) -> None:
    hospital = federated.hospitals["north"]
    plain = (hospital.site / "keys/log.key").read_bytes()
    here_told("site", "lock", hospital.folder, "--passphrase-file", passphrase)
    (hospital.site / "keys/log.key").write_bytes(plain)
    done = fedkd("site", "start", hospital.folder, "--passphrase-file", passphrase)
    assert done.returncode == 2
    assert "site/keys/log.key plain" in done.stderr
    assert f"fedkd site lock {hospital.folder}" in done.stderr
    assert "1 of 7 keys are not sealed" in here("site", "status", hospital.folder).stdout
    here_told("site", "lock", hospital.folder, "--passphrase-file", passphrase)
    assert is_sealed(hospital.site / "keys/log.key")


def test_a_passphrase_is_changed_and_keys_are_laid_plain_again(
    federated: Federated, passphrase: Path, tmp_path: Path
) -> None:
    hospital = federated.hospitals["north"]
    before = {path: path.read_bytes() for path in keys_of_hospital(hospital)}
    key_file = tmp_path / "key-file"
    key_file.write_bytes(b"\n" + os.urandom(64))
    key_file.chmod(0o600)
    lock = ("site", "lock", hospital.folder)
    here_told(*lock, "--passphrase-file", passphrase)
    here_told(*lock, "--passphrase-file", passphrase, "--new-passphrase-file", key_file)
    assert here(*lock, "--unlock", "--passphrase-file", passphrase).returncode == 2
    said = here_told(*lock, "--unlock", "--passphrase-file", key_file)
    assert said["locked"] is False
    assert {path: path.read_bytes() for path in keys_of_hospital(hospital)} == before
    for words in (("--unlock",), ("--new-passphrase-file", key_file)):
        assert "not locked" in here(*lock, "--passphrase-file", passphrase, *words).stderr


def test_the_place_in_memory_is_ones_own_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "run"
    base.mkdir()
    monkeypatch.setenv(RUNTIME, f"{base}:/elsewhere")
    place = Place(place_for(tmp_path), tmp_path / ".opened")
    assert place.folder.parent == base
    place.folder.mkdir()
    (place.folder / "left").touch()
    with suppress(RuntimeError), laid_out(place, {"a.key": b"secret"}):
        assert [it.name for it in place.folder.iterdir()] == ["a.key"]
        assert place.folder.stat().st_mode & 0o777 == 0o700
        assert (place.folder / "a.key").stat().st_mode & 0o777 == 0o600
        assert place.mark.read_text() == f"{place.folder}\n"
        raise RuntimeError
    assert not place.folder.exists()
    assert not place.mark.exists()
    (tmp_path / "other").mkdir()
    place.folder.symlink_to(tmp_path / "other")
    with pytest.raises(BadInput, match="somebody else made"), laid_out(place, {"a": b"secret"}):
        pass
    assert not list((tmp_path / "other").iterdir())
    monkeypatch.setenv(RUNTIME, str(tmp_path / "nowhere"))
    assert place_for(tmp_path) == tmp_path / ON_DISK, "where there is no memory to be had"


@pytest.fixture
def entered() -> Iterator[Path]:
    """A folder that everybody may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize(("user", "group"), [(65_534, None), (None, 65_533)])
def test_the_letterboxs_user_or_group_reads_its_key_and_nobody_else(
    entered: Path, tmp_path: Path, user: int | None, group: int | None
) -> None:
    place = Place(entered / "place", tmp_path / ".opened")

    def reads(as_user: int, as_group: int) -> bool:
        done = subprocess.run(
            ["/bin/cat", place.folder / "node.key"],
            user=as_user, group=as_group, extra_groups=[], capture_output=True, check=False,
        )  # fmt: skip
        return done.stdout == b"secret"

    for _ in range(2):  # also where a killed supervisor left it
        with laid_out(place, {"node.key": b"secret"}, user, group):
            assert reads(65_534, 65_533)
            assert not reads(65_532, 65_532)
            place.mark.write_text("left")
            kept = shutil.copytree(place.folder, entered / "kept", dirs_exist_ok=True)
        assert not place.folder.exists()
        kept.rename(place.folder)
        os.chown(place.folder, 65_534, -1)


def test_what_is_secret_is_not_shown() -> None:
    shown = repr(Secret(b"k" * 32, b"n" * 8, Path("a"), Path("b"))) + repr(
        locking.Opened(b"k" * 32)
    )
    assert "kkk" not in shown
    assert "nnn" not in shown


def environment_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode()


def start(hospital: Hospital, *words: object) -> None:
    done = fedkd("site", "start", hospital.folder, "--detach", *words)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    made = Made(tmp_path)
    made.found(made.typed(AMERICAN))
    yield made.hospital
    fedkd_in_process(["site", "stop", str(made.hospital.folder)])


@pytest.mark.deploy
def test_a_locked_hospital_answers_and_comes_back(
    hospital: Hospital, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told("site", "lock", hospital.folder, "--passphrase-file", passphrase)
    take_passphrase_from(passphrase)
    secrets = secrets_of(keys_of_hospital(hospital))
    start(hospital, "--only", "service", "--passphrase-file", passphrase)
    until(lambda: service_of(hospital))
    first = until(lambda: process_of(hospital, "service"))  # its supervisor may be slower
    supervisor = supervisor_of(hospital.run)
    assert supervisor is not None
    for pid in (first, supervisor):
        around = environment_of(pid) + Path(f"/proc/{pid}/cmdline").read_text()
        assert SAID not in around
        assert PASSPHRASE_FILE not in around
    told_so = (hospital.letterbox / "letterbox.json").read_bytes()
    monkeypatch.setenv(RUNTIME, str(passphrase.parent))  # as typed in a shell beside the unit
    again = fedkd("site", "start", hospital.folder, "--passphrase-file", passphrase)
    assert "running already" in again.stderr
    assert (hospital.letterbox / "letterbox.json").read_bytes() == told_so
    monkeypatch.delenv(RUNTIME)
    running = fedkd("site", "lock", hospital.folder, "--passphrase-file", passphrase)
    assert "running processes" in running.stderr

    def asked(run: str) -> int:
        request(hospital.socket, Frame(Kind.ANSWER, encode(RollCall(run))), SECONDS)
        with Log(hospital.site / "log.sqlite", hospital.name) as log:
            note = log.checkpoint()
            assert note is not None
            note.verify([log_key(hospital.site).verifier()])
            return len(log)

    before = asked("run-1")
    os.kill(first, signal.SIGKILL)
    until(lambda: process_of(hospital, "service") not in {None, first} and service_of(hospital))
    second = process_of(hospital, "service")
    assert asked("run-2") == before + 1
    expect_nowhere(hospital.folder, secrets)

    os.kill(supervisor, signal.SIGKILL)
    until(lambda: supervisor_of(hospital.run) is None and not Path(f"/proc/{second}").exists())
    start(hospital, "--only", "service", "--passphrase-file", passphrase)
    until(lambda: service_of(hospital))
    assert asked("run-3") == before + 2
    place = place_in_memory(hospital.folder)
    assert place is not None
    assert forms(hospital.node_key) & {each.read_bytes().strip() for each in place.folder.iterdir()}
    told("site", "status", hospital.folder)
    assert fedkd("site", "stop", hospital.folder).stdout == "stopped\n"
    assert not place.folder.exists()
    expect_nowhere(hospital.folder, secrets)


def process_of(hospital: Hospital, name: str) -> int | None:
    pid: int | None = state_of(hospital.run).get(name, {}).get("pid")
    return pid


@needs_nginx
@pytest.mark.deploy
def test_a_locked_coordinator_admits_a_locked_hospital(
    tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = coordinator(tmp_path, schema=RECORDS)
    joined = enrolled(server, "north", tmp_path / "hospital")
    hospital = Hospital(tmp_path / "hospital")
    made = Made.__new__(Made)
    made.hospital = hospital
    made.found(made.typed(AMERICAN, mechanism="none"))
    monkeypatch.setenv(PASSPHRASE_FILE, str(passphrase))
    told("site", "lock", hospital.folder)
    told("server", "lock", server.folder)
    secrets = secrets_of([*keys_of_hospital(hospital), *keys_of_server(server.folder)])
    try:
        begun = fedkd("server", "start", server.folder, "--detach", seconds=200)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        admitted = fedkd("server", "admit", joined.path, "--dir", server.folder, "--yes")
        assert admitted.returncode == 0, admitted.stdout + admitted.stderr
        start(hospital)
        until(lambda: told("site", "status", hospital.folder)["connected"] is True)
        facing = [process_of(hospital, "node"), process_of(hospital, "letterbox")]
        facing += [pid_of(server, "nginx"), pid_of(server, SUPERLINK)]
        for pid in facing:
            assert pid is not None
            assert PASSPHRASE_FILE not in environment_of(pid)
        expect_nowhere(tmp_path, secrets)
        rotated = told("server", "rotate", "--dir", server.folder)
        assert rotated["proxy_told"] is True
        until(lambda: superlink.is_healthy(server, server.settings()))
        pid = pid_of(server, SERVER)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid_of(server, SERVER) is None)
        begun = fedkd("server", "start", server.folder, "--detach", seconds=200)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        expect_nowhere(tmp_path, secrets)
    finally:
        fedkd("site", "stop", hospital.folder)
        fedkd("server", "stop", server.folder)
    place = place_in_memory(server.folder)
    assert place is not None
    assert not place.folder.exists()
