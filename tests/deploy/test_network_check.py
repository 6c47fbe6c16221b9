"""The way from a hospital to its federation, tried against real servers on loopback."""

import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from fedkd.deploy.firewall import IDLE, ticket
from fedkd.deploy.hospital_proxy import proxy_for
from fedkd.deploy.machine_check import (
    LEAST_FREE,
    check_machine,
    disk_verdict,
    python_verdict,
    software_verdict,
)
from fedkd.deploy.network_check import STEPS, Target, check_network, clock_verdict
from fedkd.deploy.verdicts import Verdict, in_order, not_tried, passed
from fedkd.federation.flower.node import HEARTBEAT_SECONDS, POLL_SECONDS
from fedkd.knowledge import BadInput
from tests.deploy.network_servers import (
    connect_proxy,
    federation,
    intercepting_proxy,
    listening,
)
from tests.deploy.ports import free_port

SECRET = "hunter2"  # noqa: S105


@pytest.fixture(scope="module")
def authority():
    return trustme.CA(organization_name="Example Federation")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def target(authority, port, host="localhost"):
    return Target(host, port, authority.cert_pem.bytes().decode())


def tried(authority, port, host="localhost", seconds=2.0):
    way = check_network(target(authority, port, host), proxy_for(host), seconds)
    return {verdict.check: verdict for verdict in way.verdicts}


def outcomes(found):
    return {name: verdict.outcome for name, verdict in found.items()}


def test_the_right_authority_passes_at_every_step(authority):
    with federation(authority) as port:
        way = check_network(target(authority, port), None, 2.0)
    assert [verdict.check for verdict in way.verdicts] == list(STEPS)
    assert in_order(way.verdicts)
    assert way.source == "127.0.0.1"
    assert "127.0.0.1" in way.addresses


def test_a_name_that_is_none_says_so_and_the_rest_is_not_tried(authority):
    found = tried(authority, 443, host="no-such-name.invalid")
    assert found["name"].outcome == "problem"
    assert {found[step].outcome for step in STEPS[1:]} == {"not tried"}
    assert not in_order(found.values())


def test_a_closed_port_names_the_firewall_and_the_server(authority):
    found = tried(authority, free_port())
    assert "refuses" in found["port"].found
    assert "HTTPS_PROXY" in found["port"].fix
    assert "fedkd server status" in found["port"].fix


def test_a_port_that_drops_what_is_sent_is_a_firewall(authority):
    with socket.socket() as full:  # nobody accepts, and the queue is full: packets are dropped
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        found = tried(authority, place[1], seconds=0.3)
        for one in waiting:
            one.close()
    assert "drops" in found["port"].found


def test_a_chain_of_another_authority_is_interception(authority):
    other = trustme.CA(organization_name="Example Hospital TLS Inspection")
    with federation(other) as port:
        found = tried(authority, port)
    assert "TLS inspection" in found["certificate"].found
    assert "Example Hospital TLS Inspection" in found["certificate"].found
    assert f"exempt localhost:{port} from TLS inspection" in found["certificate"].fix
    assert found["clock"].outcome == "not tried"


def test_an_authority_of_the_same_name_with_another_key_is_a_matter_for_the_telephone(authority):
    same = trustme.CA(organization_name="Example Federation", organization_unit_name="x")
    mine = trustme.CA(organization_name="Example Federation", organization_unit_name="x")
    with federation(same) as port:
        found = tried(mine, port)
    assert "with another key" in found["certificate"].found
    assert "telephone" in found["certificate"].fix


def test_an_expired_certificate_is_the_coordinators_to_renew(authority):
    ended = datetime.now(UTC) - timedelta(days=1)
    with federation(authority, not_after=ended) as port:
        found = tried(authority, port)
    assert "ended on" in found["certificate"].found
    assert "fedkd server rotate" in found["certificate"].fix


def test_a_certificate_of_tomorrow_is_this_machines_clock(authority):
    begins = datetime.now(UTC) + timedelta(days=1)
    with federation(authority, not_before=begins) as port:
        found = tried(authority, port)
    assert "set this machine's clock" in found["certificate"].fix


def test_a_certificate_that_ends_soon_passes_and_says_so(authority):
    soon = datetime.now(UTC) + timedelta(days=9)
    with federation(authority, not_after=soon) as port:
        found = tried(authority, port)
    assert found["certificate"].outcome == "passed"
    assert "8 days left" in found["certificate"].fix


def test_another_host_name_is_the_coordinators_to_mend(authority):
    with federation(authority, host="federation.example") as port:
        found = tried(authority, port)
    assert "not for localhost" in found["certificate"].found


def test_a_server_without_tls_is_not_the_federation(authority):
    def serve(line):
        line.recv(100)
        line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(serve) as port:
        found = tried(authority, port)
    assert "not with TLS" in found["certificate"].found


def test_a_handshake_that_is_cut_is_a_filter(authority):
    with listening(lambda line: line.recv(100)) as port:
        found = tried(authority, port)
    assert "cut in the TLS handshake" in found["certificate"].found


@pytest.mark.parametrize("ahead", [-400.0, 60.0])
def test_a_clock_that_flower_would_refuse_is_found(authority, ahead):
    with federation(authority, ahead=-ahead) as port:
        found = tried(authority, port)
    assert found["clock"].outcome == "problem"
    assert f"{abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}" in found["clock"].found


@pytest.mark.parametrize(("ahead", "good"), [(4, True), (6, False), (-290, True), (-301, False)])
def test_the_window_is_flowers_own(ahead, good):
    pytest.importorskip("flwr")
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE) == (5, 300)
    assert in_order([clock_verdict(ahead)]) == good


@pytest.mark.parametrize("status", [401, 415])
def test_a_superlink_is_known_by_its_own_refusals(authority, status):
    with federation(authority, status=status) as port:
        found = tried(authority, port)
    assert in_order(found.values())


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_with_nobody_behind_it_is_the_coordinators(authority, status):
    with federation(authority, status=status) as port:
        found = tried(authority, port)
    assert found["clock"].outcome == "passed"
    assert found["server"].outcome == "problem"
    assert "nobody behind it" in found["server"].found
    assert "fedkd server status" in found["server"].fix


def test_a_proxy_that_is_busy_is_not_one_with_nobody_behind_it(authority):
    with federation(authority, status=503) as port:
        found = tried(authority, port)
    assert found["server"].outcome == "problem"
    assert "it is busy (503)" in found["server"].found
    assert "again in a minute" in found["server"].fix


@pytest.mark.parametrize("status", [200, 403, 404, 413, 500])
def test_what_answers_otherwise_is_no_superlink(authority, status):
    with federation(authority, status=status) as port:
        found = tried(authority, port)
    assert found["server"].outcome == "problem"
    assert f"no SuperLink ({status})" in found["server"].found
    assert "compare host and port" in found["server"].fix


def test_an_answer_without_a_date_is_no_federations(authority):
    with federation(authority, date=False) as port:
        found = tried(authority, port)
    assert "no time" in found["clock"].found


def test_a_connect_proxy_is_used_and_the_chain_is_still_the_federations(authority, monkeypatch):
    seen = []
    with federation(authority) as port, connect_proxy(seen) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")
        found = tried(authority, port)
    assert in_order(found.values()), found
    assert f"CONNECT localhost:{port}" in seen[0]
    assert found["proxy"].outcome == "passed"


def test_an_intercepting_proxy_is_refused_with_what_to_ask_for(authority, monkeypatch):
    with federation(authority) as port, intercepting_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy}")
        found = tried(authority, port)
    assert found["proxy"].outcome == "passed"
    assert "Example Hospital TLS Inspection" in found["certificate"].found
    assert f"exempt localhost:{port}" in found["certificate"].fix


def test_a_proxy_that_wants_a_password_gets_it_and_nobody_else_does(authority, monkeypatch):
    seen = []
    with federation(authority) as port, connect_proxy(seen, password="Basic dTpodW50ZXIy") as proxy:  # noqa: S106
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")
        found = tried(authority, port)
        assert "name and password" in found["proxy"].fix
        monkeypatch.setenv("HTTPS_PROXY", f"http://u:{SECRET}@127.0.0.1:{proxy}")
        way = check_network(target(authority, port), proxy_for("localhost"), 2.0)
        text = ticket(target(authority, port), "heart", "north", proxy_for("localhost"), way)
    assert in_order(way.verdicts)
    assert SECRET not in text + str([verdict.to_json() for verdict in way.verdicts])


@pytest.mark.parametrize(("refuse", "fix"), [("403 No", "CONNECT"), ("502 Gone", "reach")])
def test_a_proxy_that_refuses_says_whom_to_ask(authority, monkeypatch, refuse, fix):
    with connect_proxy([], refuse=refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")
        found = tried(authority, 443)
    assert fix in found["proxy"].fix
    assert found["certificate"].outcome == "not tried"


def test_what_is_no_http_proxy_is_refused_before_anything_is_tried(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(BadInput, match="socks5"):
        proxy_for("localhost")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert proxy_for("localhost") is None


def test_python_versions_and_disk_have_their_limits(tmp_path):
    assert python_verdict((3, 10, 9)).outcome == "problem"
    assert python_verdict((3, 12, 0)).outcome == "passed"
    assert software_verdict("0.1.0", "0.1.3", joined=False).outcome == "passed"
    assert software_verdict("0.2.0", "0.1.3", joined=False).outcome == "problem"
    assert software_verdict("0.2.0", "0.1.3", joined=True).outcome == "passed"
    assert software_verdict("0.3.0", "0.1.3", joined=True).outcome == "problem"
    assert software_verdict("0.1", "nonsense", joined=True).outcome == "problem"
    assert disk_verdict(tmp_path, LEAST_FREE - 1).outcome == "problem"
    assert disk_verdict(tmp_path, LEAST_FREE).outcome == "passed"
    assert in_order(check_machine(tmp_path / "not" / "there", "0.1.0"))


def test_a_ticket_says_all_that_network_people_ask(authority):
    with federation(authority) as port:
        there = target(authority, port)
        text = ticket(there, "heart", "north", None, check_network(there, None, 2.0))
    for part in (f"localhost:{port}", "outbound only", "TLS 1.2", "inspection",
                 "openssl s_client", "SHA-256", "PASSED", socket.gethostname()):  # fmt: skip
        assert part in text
    assert IDLE in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if "openssl" not in line) <= 120
    assert there.ca.strip() in text


def test_how_often_a_hospital_asks_is_told_as_it_is():
    """The network's people hold a client to its ticket, and to the table in the guide."""
    assert IDLE.startswith(f"a request every {POLL_SECONDS:g} seconds")
    assert f"every {HEARTBEAT_SECONDS:g}, about" in IDLE
    guide = Path(__file__).parents[2] / "docs" / "deploy.md"
    assert f"| idle traffic | {IDLE} |" in guide.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_the_command_in_a_ticket_tries_what_it_says(authority, tmp_path):
    (tmp_path / "ca.crt").write_bytes(authority.cert_pem.bytes())
    with federation(authority) as port:
        there = target(authority, port)
        text = ticket(there, "heart", "north", None, check_network(there, None, 2.0))
        line = next(one for one in text.splitlines() if "openssl" in one)
        said = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True
        )
    assert "Verification: OK" in said.stdout


def test_what_was_not_tried_is_no_yes():
    assert not in_order([])
    assert not in_order([passed("name", "x"), not_tried("port", "y")])
    with pytest.raises(ValueError, match="remedy"):
        Verdict("name", "problem", "x")
