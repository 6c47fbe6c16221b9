"""A coordinator that runs: what a hospital can reach of it, who is let in, who no longer is."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from fedkd.deploy import running, superlink
from fedkd.deploy.coordinator import roster_of
from fedkd.deploy.invitations import address
from fedkd.deploy.network_check import Target, check_network
from fedkd.deploy.server_folder import ServerFolder
from fedkd.federation.flower.bundle import app_folder
from tests.deploy.federations import (
    coordinator,
    ends,
    enrolled,
    fedkd,
    needs_nginx,
    raw,
    told,
)
from tests.deploy.ports import free_port

pytestmark = [pytest.mark.deploy, needs_nginx]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFolder]:
    """A coordinator that runs behind its proxy."""
    made = coordinator(tmp_path_factory.mktemp("coordinator"))
    started = fedkd("server", "start", made.folder, "--detach")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield made
    finally:
        fedkd("server", "stop", made.folder)


def admitted(server: ServerFolder, site: str, folder: Path) -> Path:
    """The folder of a hospital that was invited, has joined and is admitted."""
    joined = enrolled(server, site, folder)
    told(
        "server", "admit", joined.path, "--dir", server.folder,
        "--fingerprint", joined.enrolment.fingerprint(),
    )  # fmt: skip
    return folder


def port_of(server: ServerFolder) -> int:
    return address(server.settings().address)[1]


def node(hospital: Path, port: int, home: Path) -> "subprocess.Popen[bytes]":
    """Flower's SuperNode with all that the hospital holds, through the proxy."""
    home.mkdir(exist_ok=True)
    with (home / "node.log").open("ab") as log:
        return subprocess.Popen(
            [
                str(BIN / "flower-supernode"),
                "--superlink", f"localhost:{port}",
                "--root-certificates", str(hospital / "ca.crt"),
                "--auth-supernode-private-key", str(hospital / "keys" / "node.key"),
                "--host", "127.0.0.1", "--port", str(free_port()),
                "--max-retries", "1",
            ],
            env={**flower(home), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def flower(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }


def end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    if not ends(process, 10):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def connection(server: ServerFolder, site: str) -> str:
    sites = told("server", "status", server.folder)["sites"]
    assert isinstance(sites, list)
    return next(str(each["connection"]) for each in sites if each["site"] == site)


def until(check: Any, seconds: float) -> bool:
    end_at = time.monotonic() + seconds
    while not (done := check()) and time.monotonic() < end_at:
        time.sleep(0.1)
    return bool(done)


def pull(hospital: Path, port: int, node_id: int) -> int:
    """The status of the call that asks for a node's messages, signed with the hospital's key."""
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key: Any = load_ssh_private_key((hospital / "keys" / "node.key").read_bytes(), None)
    signed = NodeAuthHttpInterceptor(key, key.public_key())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # flwr 1.41 with a newer httpx
        reached = FleetHttpClient.from_server_address(
            f"localhost:{port}", False, str(hospital / "ca.crt"), interceptors=[signed]
        )
    with reached as client:
        try:
            client.PullMessages(PullMessagesRequest(node=Node(node_id=node_id)))
        except httpx.HTTPStatusError as error:
            return error.response.status_code
    return 200


TO_CONTROL = (
    "/v1/control/list-nodes",
    "/v1/control/start-run",
    "/v1/runtime/pull-task",
    "/health",
    "/docs",
    "/openapi.json",
    "/",
    "/v1/fleet/",
    "/v1/fleet/register-node",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/..%2fcontrol/start-run",
    "/v1/fleet/..%252fcontrol/start-run",
    "/v1/fleet/pull-messages/../../control/start-run",
    "/v1/fleet/pull-messages/..%2f..%2fcontrol%2fstart-run",
    "/v1/fleet/pull-messages;/../../control/start-run",
    "/v1/fleet/pull-messages?/../../control/start-run",
    "/v1/fleet/pull-messages#/../../control/start-run",
    "/v1/control/start-run?/v1/fleet/pull-messages",
    "//v1/control/start-run",
    "/v1//control/start-run",
    "//v1//fleet//..//control//start-run",
    "/%76%31/control/start-run",
    "/V1/control/start-run",
    "\\v1\\control\\start-run",
    "/v1/fleet\\..\\control\\start-run",
    "/v1/fleet/pull-messages%00",
    "https://localhost/v1/control/start-run",
    "https://localhost/v1/fleet/../control/start-run",
    "http://127.0.0.1:{superlink}/v1/control/start-run",
)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_no_path_from_outside_leads_to_another_interface(server: ServerFolder, method: str) -> None:
    log = server.folder / "superlink" / "superlink.log"
    size = log.stat().st_size
    for asked in TO_CONTROL:
        path = asked.format(superlink=server.settings().superlink_port)
        request = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        came = raw(
            port_of(server),
            server.authority,
            f"{request}Content-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n".encode(),
        )
        assert came.split(b" ")[1] in (b"404", b"400"), (path, came)
        assert b"nginx/" not in came  # no version
    with log.open("rb") as lines:
        lines.seek(size)
        assert b"HTTP/1" not in lines.read(), "the SuperLink was asked something"


@pytest.mark.parametrize(
    "request_",
    [
        b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /v1/control/start-run HTTP/1.1\r\n"
        b"Host: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n"
        b"Content-Length: 60\r\n\r\n0\r\n\r\nPOST /v1/control/start-run HTTP/1.1\r\n"
        b"Host: x\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        b"POST /v1/control/start-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
        b"Connection: close\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 17000000\r\n\r\n",
    ],
)
def test_no_request_is_smuggled_past_the_proxy(server: ServerFolder, request_: bytes) -> None:
    log = server.folder / "superlink" / "superlink.log"
    size = log.stat().st_size
    came = raw(port_of(server), server.authority, request_, 3.0)
    assert b" 200 " not in came
    with log.open("rb") as lines:
        lines.seek(size)
        assert b"/v1/control" not in lines.read()


def handshake(port: int, trust: ssl.SSLContext) -> None:
    with (
        socket.create_connection(("127.0.0.1", port), 5) as bare,
        trust.wrap_socket(bare, server_hostname="localhost"),
    ):
        pass


def test_an_old_tls_is_refused_and_so_is_none(server: ServerFolder) -> None:
    old = ssl.create_default_context(cafile=str(server.authority))
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        handshake(port_of(server), old)
    plain = httpx.get(f"http://localhost:{port_of(server)}/v1/fleet/pull-messages")
    assert plain.status_code == 400


def test_who_does_not_know_the_authority_does_not_talk_to_the_proxy(server: ServerFolder) -> None:
    handshake(port_of(server), ssl.create_default_context(cafile=str(server.authority)))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(port_of(server), ssl.create_default_context())


def test_the_superlink_is_on_loopback_alone(server: ServerFolder) -> None:
    done = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("ss is not installed")
    pid = running.pid_of(server, running.SUPERLINK)
    ours = [line.split()[3] for line in done.stdout.splitlines() if f"pid={pid}," in line]
    assert ours == [f"127.0.0.1:{server.settings().superlink_port}"]


def test_a_registered_node_connects_and_a_revoked_one_is_refused(
    server: ServerFolder, tmp_path: Path
) -> None:
    hospital = admitted(server, "cleveland", tmp_path / "cleveland")
    node_id = roster_of(server).expect("cleveland").node_id
    assert node_id is not None
    assert pull(hospital, port_of(server), node_id + 1) == 401  # somebody else's messages
    process = node(hospital, port_of(server), tmp_path / "home")
    try:
        assert until(lambda: connection(server, "cleveland") == "online", 40), (
            tmp_path / "home" / "node.log"
        ).read_text()
        assert pull(hospital, port_of(server), node_id) == 200

        said = told("server", "revoke", "cleveland", "--dir", server.folder, "--reason", "stolen")
        assert said == {"site": "cleveland", "state": "revoked", "superlink_told": True}
        assert pull(hospital, port_of(server), node_id) == 401
        assert ends(process, 60), "a revoked SuperNode goes on"
    finally:
        end(process)
    again = node(hospital, port_of(server), tmp_path / "home")
    try:
        assert ends(again, 60), "a stolen key that was revoked connects"
        assert again.returncode != 0
    finally:
        end(again)
    assert superlink.nodes(server) == ()


def test_a_superlink_that_was_not_told_is_not_taken_for_one_that_is_down(
    server: ServerFolder, tmp_path: Path
) -> None:
    hospital = admitted(server, "zurich", tmp_path / "zurich")
    node_id = roster_of(server).expect("zurich").node_id
    link = running.pid_of(server, running.SUPERLINK)
    assert node_id is not None
    assert link is not None
    os.kill(link, signal.SIGSTOP)
    try:
        done = fedkd("server", "revoke", "zurich", "--dir", server.folder)
    finally:
        os.kill(link, signal.SIGCONT)
    assert done.returncode == 3, done.stdout
    assert "type it again" in done.stderr
    assert pull(hospital, port_of(server), node_id) == 200  # whoever stole it is in still
    warnings = told("server", "status", server.folder)["warnings"]
    assert isinstance(warnings, list)
    (warning,) = [each for each in warnings if "zurich" in each]
    assert f"{node_id} of zurich" in warning
    assert "fedkd server revoke 'zurich' again" in warning

    said = told("server", "revoke", "zurich", "--dir", server.folder)
    assert said["superlink_told"] is True
    assert pull(hospital, port_of(server), node_id) == 401
    assert "zurich" not in str(told("server", "status", server.folder)["warnings"])


def test_with_all_that_a_site_holds_no_run_can_be_started(
    server: ServerFolder, tmp_path: Path
) -> None:
    hospital = admitted(server, "hungarian", tmp_path / "hungarian")
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "fed"\n[superlink.fed]\naddress = "localhost:{port_of(server)}"\n'
        f'root-certificates = "{hospital / "ca.crt"}"\n'
    )
    app = app_folder(tmp_path / "app")
    for words in (
        ("run", str(app), "fed"),
        ("list", "fed"),
        ("supernode", "list", "fed"),
        ("supernode", "register", str(tmp_path / "own.pub"), "fed"),
    ):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", tmp_path / "own"],
            stdin=subprocess.DEVNULL, check=False, capture_output=True,
        )  # fmt: skip
        done = subprocess.run(
            [BIN / "flwr", *words], env=flower(home), capture_output=True, text=True,
            timeout=60, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode != 0, (words, done.stdout)
    assert superlink.runs(server) == ()
    assert {int(each["node-id"]) for each in superlink.nodes(server)} == {
        member.node_id for member in roster_of(server).admitted()
    }
    # On the machine itself the same words do something: it is the proxy that holds.
    done = subprocess.run(
        [BIN / "flwr", "supernode", "list", "fed"], env=superlink.environment(server),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_new_certificate_is_taken_while_everything_runs(
    server: ServerFolder, tmp_path: Path
) -> None:
    hospital = admitted(server, "lugano", tmp_path / "lugano")
    node_id = roster_of(server).expect("lugano").node_id
    assert node_id is not None

    def shown() -> str:
        return ssl.get_server_certificate(
            ("localhost", port_of(server)), ca_certs=str(server.authority)
        )

    before = shown()
    pids = [running.pid_of(server, name) for name in (running.SUPERLINK, running.PROXY)]
    said = told("server", "rotate", "--dir", server.folder)
    assert said["proxy_told"] is True
    assert until(lambda: shown() != before, 10)
    assert [running.pid_of(server, it) for it in (running.SUPERLINK, running.PROXY)] == pids
    assert pull(hospital, port_of(server), node_id) == 200  # through to the SuperLink
    warnings = told("server", "status", server.folder)["warnings"]
    assert isinstance(warnings, list)
    (warning,) = [each for each in warnings if "at the SuperLink is the one of before" in each]
    assert warning.endswith("fedkd server stop, fedkd server start")


def test_a_hospital_sees_that_the_superlink_answers(server: ServerFolder) -> None:
    target = Target("localhost", port_of(server), server.authority.read_text())
    (found,) = (it for it in check_network(target, None).verdicts if it.check == "server")
    assert found.outcome == "passed"
    assert "(415)" in found.found  # Flower's word, which no proxy says: it is no protocol buffer


def test_a_second_start_is_refused(server: ServerFolder) -> None:
    for words in ((), ("--detach",)):
        done = fedkd("server", "start", server.folder, *words)
        assert done.returncode == 2
        assert "running already" in done.stderr
    # Another one that is being started at this moment has not said yet who it is.
    pid_file = server.folder / "pids" / "server.pid"
    pid_file.rename(pid_file.with_suffix(".aside"))
    try:
        done = fedkd("server", "start", server.folder)
        assert done.returncode == 2
        assert "running already" in done.stderr
        assert not pid_file.exists()
    finally:
        pid_file.with_suffix(".aside").rename(pid_file)


def test_a_killed_superlink_ends_all_and_a_start_goes_on_with_the_same_sites(
    tmp_path: Path,
) -> None:
    server = coordinator(tmp_path)
    for site in ("cleveland", "hungarian"):
        admitted(server, site, tmp_path / site)  # nothing runs: told at the start
    assert roster_of(server).expect("cleveland").node_id is None
    names = (running.SERVER, running.SUPERLINK, running.PROXY)
    seen = []
    try:
        for kill in (running.SUPERLINK, running.SERVER, None):
            started = fedkd("server", "start", server.folder, "--detach")
            assert started.returncode == 0, started.stdout + started.stderr
            known = {member.node_id for member in roster_of(server).admitted()}
            assert {int(it["node-id"]) for it in superlink.nodes(server)} == known
            seen.append(roster_of(server).expect("cleveland").node_id)
            if kill is None:
                break
            if kill == running.SUPERLINK:
                told("server", "revoke", "hungarian", "--dir", server.folder)
            victim = running.pid_of(server, kill)
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            assert until(lambda: not any(running.pid_of(server, it) for it in names), 40)
            if kill == running.SERVER:
                (server.folder / "superlink" / "state.db").unlink()  # the roster is the truth
        assert seen[0] == seen[1] != seen[2]
    finally:
        fedkd("server", "stop", server.folder)
    assert not list((server.folder / "pids").glob("*.pid"))
