"""The proxy's configuration: what it lets through is what a SuperNode calls, no more."""

import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from fedkd.deploy import proxy, superlink
from fedkd.deploy.invitations import address
from fedkd.deploy.server_folder import ServerFolder
from fedkd.knowledge import BadInput
from tests.deploy.federations import PATIENT, coordinator, needs_nginx


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ServerFolder:
    return coordinator(tmp_path_factory.mktemp("coordinator"))


def written(server: ServerFolder) -> str:
    return (server.folder / "nginx" / "nginx.conf").read_text()


def test_flower_has_no_call_of_a_registered_node_that_we_do_not_know() -> None:
    """With a new flwr this says what to look at, before a hospital finds out."""
    import flwr.supernode.fleet_http_client as client

    called = set(re.findall(r'path="/v1/fleet/([a-z-]+)"', Path(client.__file__).read_text()))
    assert called == {*proxy.FLEET, "register-node", "unregister-node"}


def test_no_interface_but_the_fleets_is_named(server: ServerFolder) -> None:
    said = "\n".join(line.split(" #")[0] for line in written(server).splitlines())
    assert not re.search(r"control|runtime|health", re.sub(r"#.*", "", said))
    assert set(re.findall(r"/v1/([a-z]+)", said)) == {"fleet"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/", "/v1/fleet/pull-messages/", "/v1/fleet/pull-messages?a",
        "/v1/fleet/../control",
        "/v1/fleet/%70ull-messages", "/v1//fleet/pull-messages", "//v1/fleet/pull-messages",
        "/v1/fleet/pull-messages/../../control/start-run", "/v1/fleet/register-node",
        "/V1/FLEET/PULL-MESSAGES", "/v1/fleet/pull-messages\n/v1/control",
    ],
)  # fmt: skip
def test_the_pattern_takes_a_path_letter_by_letter(server: ServerFolder, path: str) -> None:
    [pattern] = re.findall(r'\$request_uri !~ "(.*)"', written(server))
    assert re.search(pattern, "/v1/fleet/pull-messages")
    assert not re.search(pattern.replace("$", r"\Z"), path)


def test_the_superlink_listens_on_loopback_and_asks_for_registered_keys(
    server: ServerFolder,
) -> None:
    command = superlink.command(server, server.settings())
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--enable-supernode-auth" in command
    assert "--disable-runtime-dependency-installation" in command
    assert "--insecure" not in command


def test_flowers_processes_call_nobody_at_home_and_find_no_proxy(
    server: ServerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    found = superlink.environment(server)
    assert not {"HTTPS_PROXY", "http_proxy", "FLWR_INTERNAL_GRPC_CONTROL_API"} & set(found)
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_HOME"] == str(server.folder / "home")


def test_a_folder_that_nginx_would_read_as_words_is_refused(tmp_path: Path) -> None:
    for name in ("a b", "a;b", "a{b", 'a"b', "a$b"):
        with pytest.raises(BadInput, match="without spaces"):
            proxy.nginx_conf(tmp_path / name, listen="127.0.0.1:1", port=2)


def test_without_nginx_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(proxy, "_PLACES", ())
    with pytest.raises(BadInput, match="apt install nginx"):
        proxy.nginx()


@needs_nginx
def test_nginx_takes_the_configuration(server: ServerFolder) -> None:
    proxy.expect_valid(server.folder)
    done = subprocess.run(
        [*proxy.command(server.folder), "-t"], capture_output=True, text=True, check=False
    )
    assert "warn" not in done.stderr, done.stderr


@needs_nginx
def test_a_proxy_is_waited_for_until_it_has_its_port_or_has_ended(tmp_path: Path) -> None:
    """A port that is taken is tried for by nginx for seconds: only then is it over."""
    server = coordinator(tmp_path)
    place = address(server.settings().address)

    def runs() -> bool:
        proxy.expect_valid(server.folder)
        proxy.forget(server.folder)
        process = subprocess.Popen(proxy.command(server.folder), stderr=subprocess.DEVNULL)
        try:
            assert proxy.came_up(server.folder, process, PATIENT)
            with suppress(ConnectionRefusedError), socket.create_connection(place):
                return process.poll() is None
            return False
        finally:
            process.terminate()
            process.wait()

    assert runs()
    with socket.create_server(place, backlog=0):
        assert not runs()
    assert runs()


@needs_nginx
def test_what_nginx_refuses_says_where_to_look(tmp_path: Path) -> None:
    server = coordinator(tmp_path)
    path = server.folder / "nginx" / "nginx.conf"
    path.write_text(written(server).replace("listen 127.0.0.1:", "listen 127.0.0.1:9"))
    with pytest.raises(BadInput, match=r"server\.yaml"):
        proxy.expect_valid(server.folder)
