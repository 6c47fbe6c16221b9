"""Who may not in: tried with a coordinator behind its proxy, real nodes, and a hospital."""

import json
import re
import shutil
import ssl
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.deploy import running, superlink
from fedkd.deploy.authority import make_authority, make_leaf
from fedkd.deploy.coordinator import roster_of
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.invitations import address
from fedkd.deploy.knock import SETTINGS
from fedkd.deploy.preparing import AUTHORITY, Whose, prepare_letterbox
from fedkd.deploy.server_folder import SUPERLINK, ServerFolder
from fedkd.deploy.shims import SHARED
from fedkd.deploy.starting import reached
from fedkd.deploy.supervising import state_of
from fedkd.federation.flower.bundle import app_folder
from fedkd.wire import UNKNOWN, Reason, Refusal, decode
from tests.deploy.federations import coordinator, enrolled, fedkd, needs_nginx, told
from tests.deploy.ports import free_port
from tests.deploy.services import until
from tests.deploy.test_founding import AMERICAN, SCHEMA, Made

pytestmark = [pytest.mark.deploy, needs_nginx]

NODE_ALONE = """
import sys
from pathlib import Path
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.preparing import Whose
from fedkd.deploy.starting import LETTERBOX, NODE, programs
from fedkd.deploy.supervising import Supervisor
hospital = Hospital(Path(sys.argv[1]))
node = [it for it in programs(hospital, Whose(), (LETTERBOX,)) if it.name == NODE]
sys.exit(Supervisor(hospital.run, node).run())
"""
"""The supervisor of `fedkd site start`, with Flower's node and nothing else."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFolder]:
    """A coordinator that runs behind its proxy."""
    made = coordinator(tmp_path_factory.mktemp("coordinator"), schema=SCHEMA)
    started = fedkd("server", "start", made.folder, "--detach")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield made
    finally:
        fedkd("server", "stop", made.folder)


def joined(server: ServerFolder, site: str, folder: Path, *, admit: bool = True) -> Hospital:
    """A hospital that was invited and has joined, and is admitted unless `admit` is false."""
    took_in = enrolled(server, site, folder)
    if admit:
        told("server", "admit", took_in.path, "--dir", server.folder, "--fingerprint",
             took_in.enrolment.fingerprint())  # fmt: skip
    hospital = Hospital(folder)
    prepare_letterbox(hospital, Whose())
    return hospital


@contextmanager
def node(hospital: Hospital) -> Iterator[None]:
    """Flower's node of a hospital, kept running by the real supervisor."""
    with (hospital.run / "start.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", NODE_ALONE, str(hospital.folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(120)


def reads(hospital: Hospital) -> str:
    """What an engineer reads of the node in `fedkd site status`."""
    said: str = state_of(hospital.run).get("node", {}).get("said", "")
    return said


def comes_to_read(hospital: Hospital, words: str) -> str:
    """The same, once these words are in it."""
    return str(until(lambda: words in (said := reads(hospital)) and said))


def at(hospital: Hospital, where: str) -> None:
    """The letterbox is told another address of the coordinator."""
    path = hospital.letterbox / SETTINGS
    path.write_text(json.dumps({**json.loads(path.read_text()), "address": where}))


def connection(server: ServerFolder, site: str) -> str:
    sites: Any = told("server", "status", server.folder)["sites"]
    return next(str(each["connection"]) for each in sites if each["site"] == site)


def shown(server: ServerFolder) -> str:
    """The certificate that the proxy shows to whoever comes."""
    return ssl.get_server_certificate(address(server.settings().address))


@pytest.fixture
def expired(server: ServerFolder) -> Iterator[datetime]:
    """The proxy shows a certificate that ended yesterday; the right one comes back afterwards."""
    keys, before = server.keys, shown(server)
    kept = {name: (keys / name).read_bytes() for name in ("server.crt", "server.key")}
    ended = datetime.now(UTC) - timedelta(days=1)
    make_leaf(keys, server.settings().host, days=2, now=ended - timedelta(days=2))
    assert running.tell_to_reload(server)
    until(lambda: shown(server) != before)
    try:
        yield ended
    finally:
        for name, body in kept.items():
            (keys / name).write_bytes(body)
        running.tell_to_reload(server)
        until(lambda: shown(server) == before)


def test_an_expired_certificate_lets_no_node_in_and_is_told_in_words(
    server: ServerFolder, expired: datetime, tmp_path: Path
) -> None:
    hospital = joined(server, "barnet", tmp_path / "barnet")
    with node(hospital):
        said = comes_to_read(hospital, "certificate has expired")
        assert "fedkd server rotate" in said
        status = fedkd("site", "status", hospital.folder)
        assert "certificate has expired" in status.stdout
        assert told("site", "status", hospital.folder)["connected"] is not True
        checked = fedkd("site", "check", "--network", hospital.invitation)
        assert f"ended on {expired:%Y-%m-%d}" in checked.stdout, checked.stdout
        log = (hospital.run / "start.log").read_text()
        assert "the coordinator makes a new one" in log
    assert connection(server, "barnet") != "online"


def test_a_coordinator_does_not_start_with_a_certificate_that_expired(
    server: ServerFolder, tmp_path: Path
) -> None:
    of_who_runs = shutil.ignore_patterns("pids", "state.db*")  # files that come and go meanwhile
    copied = shutil.copytree(server.folder, tmp_path / "federation", ignore=of_who_runs)
    copy = ServerFolder(copied)
    (copy.folder / "pids").mkdir()
    make_leaf(copy.keys, copy.settings().host, days=2, now=datetime.now(UTC) - timedelta(days=9))
    done = fedkd("server", "start", copy.folder)
    assert done.returncode == 2
    assert "server.crt, which expired at" in done.stderr
    assert "fedkd server rotate makes a new one" in done.stderr
    assert not (copy.folder / "pids" / "superlink.pid").exists()


def test_a_site_that_holds_another_authority_sends_nothing(
    server: ServerFolder, tmp_path: Path
) -> None:
    """As where somebody on the way opens the connection: the chain is of another authority."""
    hospital = joined(server, "camden", tmp_path / "camden")
    make_authority(tmp_path / "ca.key", tmp_path / "ca.crt", "heart")
    shutil.copyfile(tmp_path / "ca.crt", hospital.letterbox / AUTHORITY)
    shutil.copyfile(tmp_path / "ca.crt", hospital.authority)
    asked = requests(server)
    with node(hospital):
        said = comes_to_read(hospital, "by another authority than the federation's")
        assert "Nothing was sent" in said
    assert requests(server) == asked


def requests(server: ServerFolder) -> int:
    """How many requests the proxy has logged."""
    return len((server.folder / "nginx" / "logs" / "access.log").read_text().splitlines())


def test_a_port_without_tls_hears_no_request_of_a_node(
    server: ServerFolder, tmp_path: Path
) -> None:
    hospital = joined(server, "downs", tmp_path / "downs", admit=False)
    port, heard = free_port(), tmp_path / "heard.log"
    with heard.open("wb") as log:
        plain = subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1"],
            stdout=log, stderr=log, cwd=tmp_path,
        )  # fmt: skip
    try:
        until(lambda: b"Serving" in heard.read_bytes())
        at(hospital, f"localhost:{port}")
        with node(hospital):
            comes_to_read(hospital, "speaks no TLS: nothing was sent")
        assert b"/v1/fleet" not in heard.read_bytes()
    finally:
        plain.kill()
        plain.wait()


def test_a_key_that_is_not_in_the_roster_is_kept_out(server: ServerFolder, tmp_path: Path) -> None:
    hospital = joined(server, "ealing", tmp_path / "ealing", admit=False)
    with node(hospital):
        comes_to_read(hospital, "not admitted yet")
        assert told("site", "status", hospital.folder)["connected"] is not True
    listed = {int(each["node-id"]) for each in superlink.nodes(server)}
    assert len(listed) == len(roster_of(server).admitted())


def test_a_stolen_key_is_cut_off_where_it_is_connected_and_stays_out(
    server: ServerFolder, tmp_path: Path
) -> None:
    """The thief's machine is connected with all that the hospital holds; then it is revoked."""
    hospital = joined(server, "finchley", tmp_path / "finchley")
    with node(hospital):
        until(lambda: reached(hospital.letterbox))
        said = told("server", "revoke", "finchley", "--dir", server.folder, "--reason", "stolen")
        assert said["superlink_told"] is True
        comes_to_read(hospital, "knows its key no longer: it was revoked")  # at its next call
        assert connection(server, "finchley") != "online"
    assert "finchley" not in {member.site for member in roster_of(server).admitted()}
    assert fedkd("server", "admit", next(hospital.folder.glob("*.enrolment")), "--dir",
                 server.folder, "--yes").returncode != 0  # fmt: skip


HEX = re.compile("[0-9a-f]+")


def test_nobody_else_on_the_machine_takes_a_task_from_the_node(
    server: ServerFolder, tmp_path: Path
) -> None:
    """Any user reaches a port of loopback: whoever takes a task answers in the site's name."""
    hospital = joined(server, "girton", tmp_path / "girton")
    secret = hospital.letterbox / SHARED
    with node(hospital):
        until(lambda: reached(hospital.letterbox))
        port = port_of(hospital)
        assert acquired(port, None) == 401
        assert acquired(port, b"guessed") == 401
        assert acquired(port, secret.read_bytes()) == 200  # as its own executor does
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def port_of(hospital: Hospital) -> int:
    """Where the node serves its executor."""
    pid = state_of(hospital.run)["node"]["pid"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return int(words[words.index(b"--port") + 1])


def acquired(port: int, secret: bytes | None) -> int:
    """The status of the call that takes a task, as Flower's executor makes it."""
    import httpx
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.superexec import run_superexec as flower

    more: list[Any] = [flower.RuntimeVersionHttpInterceptor(component_name="SuperExec")]
    if secret is not None:
        more.append(
            flower.SuperExecAuthHttpInterceptor(
                master_secret=secret, protected_methods=flower._SUPEREXEC_AUTH_METHODS
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # flwr 1.41 with a newer httpx
        reached = flower.RuntimeHttpClient.from_server_address(
            server_address=f"127.0.0.1:{port}", insecure=True, root_certificates=None,
            interceptors=more,
        )  # fmt: skip
    with reached as client:
        try:
            client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-clientapp"]))
        except httpx.HTTPStatusError as error:
            return error.response.status_code
    return 200


OTHER_TASKS = ("train", "evaluate", "query", "query.weights", "train.answer")
FOREIGN_RUN = "run-foreign"
FOREIGN_CLIENT = """\
from pathlib import Path
Path({planted!r}).write_text("imported")
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
@app.evaluate()
@app.query()
@app.query("answer")
def run(message, context):
    Path({planted!r}).write_text("called")
    return message
"""
FOREIGN_SERVER = """\
import json, time
import numpy as np
from pathlib import Path
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from fedkd.federation.flower.letters import content_of
from fedkd.wire import RollCall, encode
app = ServerApp()
WEIGHTS = RecordDict({{"arrays": ArrayRecord({{"w": Array(np.zeros(4, np.float32))}}),
                       "config": ConfigRecord({{"lr": 0.1}})}})
CALL = content_of(encode(RollCall({run!r})))
ASKED = {{"train": WEIGHTS, "evaluate": WEIGHTS, "query": WEIGHTS, "query.weights": WEIGHTS,
          "train.answer": CALL, "query.answer": CALL}}
@app.main()
def main(grid, context):
    came, until = {{}}, time.time() + 300
    while {node} not in grid.get_node_ids() and time.time() < until:
        time.sleep(0.5)
    asked = {{}}
    for kind, content in ASKED.items():
        message = Message(content, dst_node_id={node}, message_type=kind, ttl=300)
        asked |= dict.fromkeys(grid.push_messages([message]), kind)
    while len(came) < len(asked) and time.time() < until:
        time.sleep(0.2)
        for reply in grid.pull_messages([it for it in asked if asked[it] not in came]):
            kind = asked[reply.metadata.reply_to_message_id]
            came[kind] = "" if reply.has_content() else str(reply.error)
            if reply.has_content():
                came[kind] = reply.content["fedkd"]["body"].numpy().tobytes().hex()
    Path({out!r}).write_text(json.dumps(came))
"""


UNFOLDED = 64 << 20
DENSELY = """
import zipfile
from flwr.cli import build
def write(bundle, path, content):
    bundle.writestr(path, content, zipfile.ZIP_DEFLATED)
    return bundle
build.write_to_zip = write
from flwr.cli.app import app
app()
"""
"""Flower's `flwr`, with the one difference that its bundles are compressed."""


def most_memory(pid: int) -> int:
    """The most bytes of memory that a process ever had at once (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (told,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(told) << 10


def node_of(server: ServerFolder, site: str) -> int:
    found = roster_of(server).expect(site).node_id
    assert found is not None
    return found


def foreign_app(folder: Path, planted: Path, out: Path, node_id: int) -> Path:
    """An app that looks like fedkd's, with other code in it: its client writes a file."""
    app = app_folder(folder)
    (app / "clients" / "app.py").write_text(FOREIGN_CLIENT.format(planted=str(planted)))
    (app / "server" / "app.py").write_text(
        FOREIGN_SERVER.format(out=str(out), node=node_id, run=FOREIGN_RUN)
    )
    return app


def test_a_foreign_app_runs_at_no_hospital_and_every_task_gets_a_typed_refusal(
    server: ServerFolder, tmp_path: Path
) -> None:
    """With the control interface in hand: the worst that a coordinator can be."""
    hospital = joined(server, "north", tmp_path / "north")
    made = Made.__new__(Made)
    made.hospital = hospital
    made.found(made.typed(AMERICAN, mechanism="none"))
    planted, out = tmp_path / "planted", tmp_path / "came.json"
    app = foreign_app(tmp_path / "app", planted, out, node_of(server, "north"))
    subprocess.run(
        [sys.executable, "-c", "import clients.app"], cwd=app, check=True, capture_output=True
    )
    planted.unlink()  # the plant works: whoever imports the app does this
    with (app / "pyproject.toml").open("a") as told_of_it:  # small as it travels, and then large
        told_of_it.write(f'\n[tool.unfolds]\nto = "{"0" * UNFOLDED}"\n')
    started = fedkd("site", "start", hospital.folder, "--detach")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        until(lambda: connection(server, "north") == "online")
        node_before = state_of(hospital.run)["node"]["pid"]
        small = most_memory(node_before)
        ran = subprocess.run(
            [sys.executable, "-c", DENSELY, "run", str(app), SUPERLINK, "--stream"],
            env=superlink.environment(server), cwd=tmp_path, capture_output=True, text=True,
            timeout=400, check=False,
        )  # fmt: skip
        assert out.exists(), ran.stdout + ran.stderr
        assert state_of(hospital.run)["node"]["pid"] == node_before, "the node ended"
        assert most_memory(node_before) - small < UNFOLDED // 2, "the bundle was opened"
        status = told("site", "status", hospital.folder)
    finally:
        fedkd("site", "stop", hospital.folder)
    told_there = json.loads(out.read_text())
    assert all(HEX.fullmatch(body) for body in told_there.values()), (
        told_there
    )  # no error of Flower's
    came = {kind: bytes.fromhex(body) for kind, body in told_there.items()}
    said = {kind: decode(body, 1 << 16) for kind, body in came.items()}
    refused = {kind: Refusal("north", UNKNOWN, 0, Reason.MALFORMED) for kind in OTHER_TASKS}
    assert said == {
        **refused,
        "query.answer": Refusal("north", FOREIGN_RUN, 0, Reason.NOT_APPROVED),
    }
    assert not planted.exists()
    assert not list((hospital.letterbox / "home").glob("apps/*"))  # nothing was unpacked
    assert status["service"]["turns"] == 0  # type: ignore[index]
    with Log(hospital.site / "log.sqlite", "north") as log:
        rules = [entry.body["rule"] for entry in log.entries("release.refused")]
    assert set(rules) == {"letterbox: bundle", "letterbox: malformed"}
    assert len(rules) <= 4  # each kind once a day, also where that ends meanwhile
    noted = (hospital.letterbox / "refusals.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in noted] == ["malformed"] * len(OTHER_TASKS) + [
        "bundle"
    ]
    kept = {path.read_bytes() for path in (hospital.letterbox / "outbox").iterdir()}
    assert kept == set(came.values())
