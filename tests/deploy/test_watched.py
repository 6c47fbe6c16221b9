"""A coordinator and a hospital that run, watched from beside: figures, and lines for machines."""

import http.client
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from fedkd.cli.bench.deployed_hospitals import Hospitals
from fedkd.cli.bench.made_up import names_of
from fedkd.deploy.running import METRICS, SERVER, pid_of
from fedkd.deploy.supervising import state_of
from tests.deploy.federations import coordinator, fedkd, needs_nginx
from tests.deploy.ports import free_port
from tests.deploy.services import until
from tests.deploy.test_standing import parsed

pytestmark = [pytest.mark.deploy, needs_nginx]


def figures(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        reply = connection.getresponse()
        return parsed(reply.read().decode()) if reply.status == 200 else {}
    except (OSError, http.client.HTTPException):  # of one that is killed, half a reply
        return {}
    finally:
        connection.close()


def says(port: int, **wanted: float) -> bool:
    """Whether these figures are told, all at once; those of a coordinator are half a minute old."""
    found = figures(port)
    return all(found.get(name) == value for name, value in wanted.items())


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_both_sides_serve_figures_and_write_lines_for_machines(tmp_path: Path) -> None:
    of_server, of_site = free_port(), free_port()
    (name,) = names = names_of(1)
    federation = Hospitals(
        tmp_path / "f", model="logistic",
        server_words=["--metrics", str(of_server), "--log-format", "json"],
        site_words=["--metrics", str(of_site), "--log-format", "json"],
    )  # fmt: skip
    federation.join(names, names)
    hospital = federation.hospitals[name]
    with federation:
        connected = f'fedkd_server_site_connected{{site="{name}"}}'
        until(lambda: says(of_site, fedkd_site_connected=1, fedkd_site_up=1))
        until(lambda: says(of_server, fedkd_server_up=1, **{connected: 1}))

        before = state_of(hospital.run)["metrics"]["pid"]
        os.kill(before, signal.SIGKILL)
        until(lambda: figures(of_site) and state_of(hospital.run)["metrics"]["pid"] != before)
        watching = pid_of(federation.server, METRICS)
        assert watching is not None
        os.kill(watching, signal.SIGKILL)
        until(lambda: pid_of(federation.server, METRICS) not in (None, watching))
        until(lambda: says(of_server, fedkd_server_up=1))
        assert pid_of(federation.server, SERVER) is not None  # who watches is not who is watched

        started = lines_of(federation.folder / f"{name}.log")
        assert {"service", "letterbox", "node"} <= {line.get("program") for line in started}
        ready = lines_of(federation.folder / "server.log")
        assert "ready" in {line.get("event") for line in ready}
        assert [line["program"] for line in ready if line.get("event") == "ended"] == [METRICS]
        assert {line["from"] for line in lines_of(hospital.run / "service.log")} == {"service"}


def test_a_coordinator_whose_port_for_figures_is_taken_does_not_start(tmp_path: Path) -> None:
    made = coordinator(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = fedkd("server", "start", made.folder, "--metrics", port)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"port {port} of 127.0.0.1 for metrics" in done.stderr
        behind = fedkd("server", "start", made.folder, "--detach", "--metrics", port)
    assert behind.returncode == 1
    assert f"port {port} of 127.0.0.1 for metrics" in behind.stderr
    assert pid_of(made, SERVER) is None
    assert not (made.folder / "superlink" / "superlink.log").exists()
