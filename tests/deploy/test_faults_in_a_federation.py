"""Three hospitals, a coordinator and a line between them, all real processes, and what befalls them.

The tests share one federation and follow each other: what one breaks, it mends.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.deploy.authority import make_authority, make_leaf
from fedkd.deploy.consent import Desk
from fedkd.deploy.joining import node_key_of
from fedkd.deploy.running import tell_to_reload
from fedkd.deploy.socket import HEAD_BYTES, MAGIC, Frame, Kind, listening, receive, send
from fedkd.deploy.starting import letterbox_environment
from fedkd.deploy.superlink import environment, program
from fedkd.federation.building import Workshop
from fedkd.wire import Answer, cover, decode, encode, opened
from tests.deploy.federations import fedkd, free_port, needs_nginx
from tests.deploy.live import Live, done, kill, service_process
from tests.deploy.services import until

pytestmark = [pytest.mark.deploy, needs_nginx]
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
FOREIGN = {
    "pyproject.toml": """\
[project]
name = "foreign"
version = "1.0.0"
description = "an app that nobody approved"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "somebody"
fab-include = ["app/*.py"]

[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"

[tool.flwr.app.config]
out = ""
""",
    "app/__init__.py": "",
    "app/client.py": """\
from pathlib import Path

from flwr.clientapp import ClientApp

Path("{marker}").write_text("imported")
app = ClientApp()
""",
    "app/server.py": """\
import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

from fedkd.federation.flower.letters import content_of, letter_of
from fedkd.wire import RollCall, decode, encode, opened

app = ServerApp()


@app.main()
def main(grid, context):
    weights = RecordDict({{"arrays": ArrayRecord({{"w": Array(np.zeros(3, np.float32))}})}})
    letter = content_of(encode(RollCall("a-run")))
    said = []
    for type, content in (
        ("train", weights), ("evaluate", weights), ("query", weights), ("query.answer", weights),
        ("train", letter), ("query.answer", letter),
    ):
        ask = [Message(content, dst_node_id=node, message_type=type) for node in grid.get_node_ids()]
        for reply in grid.send_and_receive(ask, timeout=40):
            if reply.has_error():
                said.append([type, "error", reply.error.reason])
                continue
            message = decode(opened(letter_of(reply, 1 << 20))[1], 1 << 20)
            said.append([type, message.__class__.__name__, str(getattr(message, "reason", ""))])
    Path(context.run_config["out"]).write_text(json.dumps(said))
""",
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live(tmp_path_factory.mktemp("live")) as made:
        yield made


@pytest.fixture(autouse=True)
def with_logs(live: Live, request: pytest.FixtureRequest) -> Iterator[None]:
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(live.logs())


def test_a_site_slow_past_the_deadline_is_left_out_and_comes_back(live: Live) -> None:
    pid = service_process(live.hospitals["west"])
    going = live.begin("rounds=3", "deadline=15")
    going.logged("1/posed")
    os.kill(pid, signal.SIGSTOP)
    try:
        going.logged("1/admitted")
    finally:
        os.kill(pid, signal.SIGCONT)
    going.ended()
    rounds = going.admitted()
    assert [{"east", "north"} <= each for each in rounds] == [True] * 3
    assert "west" in rounds[-1]
    assert sorted(set(going.released("west"))) == sorted(going.released("west"))  # each once


def test_a_site_killed_in_a_round_rejoins(live: Live) -> None:
    going = live.begin("rounds=4", "deadline=25")
    going.logged("1/posed")
    kill(live.hospitals["west"].folder)
    live.start("west")
    going.ended()
    rounds = going.admitted()
    assert [{"east", "north"} <= each for each in rounds] == [True] * 4
    live.connected()
    released = going.released("west")
    assert sorted(set(released)) == sorted(released)
    again = live.begin("rounds=1", "deadline=60")
    again.ended()
    assert again.admitted() == [{"east", "north", "west"}]


def test_a_server_killed_within_a_run_is_resumed(live: Live) -> None:
    going = live.begin("rounds=3", "deadline=60")
    going.logged("1/admitted")
    kill(live.server.folder)
    going.ended(code=None)
    assert not (going.out / "summary.json").exists()
    live.start_server()
    live.connected()
    live.begin(resume=going.out).ended()
    assert going.admitted() == [{"east", "north", "west"}] * 3
    for site in live.hospitals:
        assert sorted(going.released(site)) == [1, 2, 3]  # nothing was answered twice


def test_a_network_cut_for_half_a_minute_loses_nothing(live: Live) -> None:
    going = live.begin("rounds=2", "deadline=120")
    going.logged("1/posed")
    live.line.cut()
    time.sleep(30)
    live.line.join()
    going.ended()
    assert {"east", "north", "west"} in going.admitted()
    for site in live.hospitals:
        assert sorted(going.released(site)) == sorted(set(going.released(site)))
    live.connected()


def test_a_foreign_app_and_foreign_messages_run_nowhere(live: Live, tmp_path: Path) -> None:
    marker, out = tmp_path / "imported", tmp_path / "said.json"
    for name, text in FOREIGN.items():
        path = tmp_path / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = text.format(marker=marker) if name.endswith(("client.py", "server.py")) else text
        path.write_text(text)
    ran = subprocess.run(
        [program("flwr"), "run", str(tmp_path / "app"), "fed", "--stream", "--run-config",
         f'out="{out}"'],
        env=environment(live.server), cwd=live.server.folder, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    until(out.exists, 60)
    assert not marker.exists(), ran.stdout
    said = __import__("json").loads(out.read_text())
    assert len(said) == 18
    assert {kind for _, kind, _ in said} <= {"Refusal", "error"}
    assert {why for type, kind, why in said if type == "query.answer"} == {
        "malformed", "not_approved",
    }  # fmt: skip
    for hospital in live.hospitals.values():
        refused = (hospital.letterbox / "refusals.log").read_text()
        assert "bundle" in refused
        assert "malformed" in refused
        with Log(hospital.site / "log.sqlite", hospital.name) as log:
            rules = {entry.body["rule"] for entry in log.entries("release.refused")}
        assert {"letterbox: bundle", "letterbox: malformed"} <= rules


HOSTILE = ("garbage", "not a number", "enormous", "announced", "poisoned shape")


def test_what_a_hostile_service_answers_goes_no_further(live: Live) -> None:
    """The letterbox in front of it stops what has no form; the server what is no distribution."""
    west = live.hospitals["west"]
    live.stop("west")
    with hostile(west.socket, Desk(west.folder, Workshop())):
        live.start("west", "--only", "letterbox")
        live.connected()
        going = live.begin(f"rounds={len(HOSTILE)}", "deadline=60")
        going.ended()
    assert going.admitted() == [{"east", "north"}] * len(HOSTILE)
    left = going.left_out("west")
    assert set(range(1, len(HOSTILE) + 1)) <= set(left)
    live.stop("west")
    live.start("west")
    live.connected()


@contextmanager
def hostile(path: Path, desk: Desk) -> Iterator[None]:
    """A service at the socket that says what it is asked, but for its answers."""

    def serve(connection: object) -> None:
        with connection, suppress(OSError):  # type: ignore[attr-defined]
            while (frame := receive(connection)) is not None:  # type: ignore[arg-type]
                if frame.kind is not Kind.ANSWER:
                    send(connection, Frame(Kind.HEARD))  # type: ignore[arg-type]
                    continue
                with turn:
                    reply = desk.handle(frame.body)
                connection.sendall(spoilt(reply))  # type: ignore[attr-defined]

    def accept(door: object) -> None:
        with suppress(OSError):
            while True:
                connection, _ = door.accept()  # type: ignore[attr-defined]
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    turn = threading.Lock()
    with listening(path, 0o600) as door:
        threading.Thread(target=accept, args=(door,), daemon=True).start()
        yield


def spoilt(reply: bytes) -> bytes:
    """The frame that a hostile service sends: an answer of each round is wrong in its own way."""
    envelope, body = opened(reply)
    said = decode(body, 1 << 20)
    if not isinstance(said, Answer):
        return Frame(Kind.ANSWERED, reply).to_bytes()
    how = HOSTILE[said.round - 1]
    (name,) = said.coded
    probs = said.coded[name]
    if how == "garbage":
        return Frame(Kind.ANSWERED, b"\x93NUMPY" + os.urandom(4096)).to_bytes()
    if how == "announced":
        head = MAGIC + bytes([Kind.ANSWERED]) + (1 << 40).to_bytes(8, "big")
        assert len(head) == HEAD_BYTES
        return head + bytes(1024)
    wrong = {
        "not a number": np.full_like(probs, np.nan),
        "enormous": np.zeros((4 << 20, *probs.shape[1:]), probs.dtype),
        "poisoned shape": probs[:-1],
    }[how]
    letter = encode(replace(said, coded={name: wrong}))
    return Frame(Kind.ANSWERED, (cover(envelope) if envelope else b"") + letter).to_bytes()


def test_an_expired_certificate_stops_everybody_until_it_is_rotated(live: Live) -> None:
    past = datetime.now(UTC) - timedelta(days=800)
    make_leaf(live.server.keys, "127.0.0.1", now=past)
    assert tell_to_reload(live.server)
    time.sleep(1)
    live.line.cut()  # nobody keeps an old connection
    live.line.join()
    east = live.hospitals["east"]
    checked = fedkd("site", "check", east.folder, "--network", east.invitation)
    assert checked.returncode != 0
    assert "certificate ended on" in checked.stdout
    assert "fedkd server rotate" in checked.stdout
    until(lambda: live.standing("east")["connected"] is not True)
    done(fedkd("server", "rotate", "--dir", live.server.folder))
    live.connected()
    until(lambda: live.standing("east")["connected"] is True)


def test_a_node_with_something_wrong_is_not_let_in(live: Live, tmp_path: Path) -> None:
    """A stranger's key, another authority, no TLS, a clock that is ahead: all at once."""
    west = live.hospitals["west"]
    live.stop("west")
    make_authority(tmp_path / "other.key", tmp_path / "other.crt", "other")
    stranger = type(west)(tmp_path / "stranger")
    stranger.keys.mkdir(parents=True)
    node_key_of(stranger)
    real = (str(west.authority), str(west.node_key))
    ways = {
        "wrong key": (["--root-certificates", real[0]], str(stranger.node_key), {}),
        "other authority": (["--root-certificates", str(tmp_path / "other.crt")], real[1], {}),
        "no TLS": (["--insecure"], real[1], {}),
    }
    if FAKETIME.exists():
        ahead = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+60s"}
        ways["clock"] = (["--root-certificates", real[0]], real[1], ahead)
    said = nodes(live, tmp_path, ways)
    for name, text in said.items():
        assert "Connection successful" not in text, (name, text)
        assert "SuperNode ID" not in text, (name, text)
    assert "305" in said["wrong key"]
    if "clock" in said:
        assert "305" in said["clock"], said["clock"]
    live.start("west")
    live.connected()


def nodes(
    live: Live, folder: Path, ways: dict[str, tuple[list[str], str, dict[str, str]]]
) -> dict[str, str]:
    """What Flower's node says for each way of starting it, within a quarter of a minute."""
    address = f"127.0.0.1:{live.line.port}"
    started = {}
    for name, (how, key, more) in ways.items():
        home = folder / f"home {name}"
        home.mkdir()
        with (folder / f"{name}.log").open("wb") as log:
            started[name] = subprocess.Popen(
                [sys.executable, "-m", "fedkd.federation.flower.node", "--superlink", address,
                 *how, "--auth-supernode-private-key", key, "--host", "127.0.0.1",
                 "--port", str(free_port())],
                env={**letterbox_environment(live.hospitals["west"].letterbox),
                     "FLWR_HOME": str(home), **more},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
    ends = time.monotonic() + 15
    while any(it.poll() is None for it in started.values()) and time.monotonic() < ends:
        time.sleep(0.2)
    for process in started.values():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return {name: (folder / f"{name}.log").read_text(errors="replace") for name in started}


def test_a_stolen_key_is_of_no_use_once_it_is_revoked(live: Live, tmp_path: Path) -> None:
    west = live.hospitals["west"]
    done(fedkd("server", "revoke", "west", "--dir", live.server.folder))
    until(lambda: "west" not in live.online())
    until(lambda: live.standing("west")["connected"] is not True, 90)
    live.stop("west")
    thief = {"stolen": (["--root-certificates", str(west.authority)], str(west.node_key), {})}
    said = nodes(live, tmp_path, thief)["stolen"]
    assert "Connection successful" not in said
    assert "305" in said
