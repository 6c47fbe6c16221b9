"""How a coordinator and a hospital say that they stand, to a person, to a program, to a watcher."""

import fcntl
import http.client
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedkd.audit import Log
from fedkd.cli.hospital import start as site_start
from fedkd.cli.hospital import status as site_status
from fedkd.cli.server import status as server_status
from fedkd.cli.telling import alone
from fedkd.deploy.authority import ending, make_authority, make_leaf
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.hospital_standing import figures_of, standing_of
from fedkd.deploy.lines import JsonLines, Line, teller
from fedkd.deploy.metrics import Metric, one, server, text_of
from fedkd.deploy.preparing import Whose, prepare_letterbox
from fedkd.deploy.run_standing import CONDUCTING, is_conducted
from fedkd.deploy.running import SERVER, SUPERLINK, _write_pid
from fedkd.deploy.server_folder import ServerFolder
from fedkd.deploy.server_metrics import KEPT_SECONDS, kept, server_metrics
from fedkd.deploy.site_metrics import site_metrics
from fedkd.deploy.socket import listening
from fedkd.deploy.standing import SERVED, Standing, standing
from fedkd.deploy.turns import Service
from fedkd.federation.durable import write_json
from fedkd.knowledge import BadInput
from tests.deploy.federated import SITES, Federated, table
from tests.deploy.federations import PATIENT
from tests.deploy.services import until

SAMPLE = re.compile(
    r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-z_]+="([^"\\\n]|\\[\\"n])*"(,[a-z_]+="([^"\\\n]|\\[\\"n])*")*\})?'
    r" -?[0-9.e+-]+"
)
"""A line of the text format 0.0.4, without the values that we never have (NaN, Inf)."""
SOON = 10


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Federated:
    """Two hospitals after a rehearsal; nothing runs any more."""
    rows = {site: [row for row in table(90) if row["clinic"] == site] for site in SITES[:2]}
    made = Federated.made(tmp_path_factory.mktemp("standing") / "all", rows)
    made.conducted(made.proposed("rounds=1", rehearsal=True))
    return made


@pytest.fixture
def hospital(federated: Federated) -> Hospital:
    return federated.hospitals[SITES[0]]


def parsed(text: str) -> dict[str, float]:
    """By name and labels; every line is as Prometheus reads it, every sample has its type."""
    found, typed = {}, set[str]()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("gauge", "counter")
            typed.add(name)
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            name, _, value = line.rpartition(" ")
            assert name.partition("{")[0] in typed
            assert name not in found
            found[name] = float(value)
    return found


def ends_soon(hospital: Hospital, folder: Path, path: Path) -> None:
    """An authority with few days left in the place of the real one."""
    begun = datetime.now(UTC) - timedelta(days=3650 - SOON)
    make_authority(folder / "ca.key", path, hospital.name, begun)


def test_a_coordinator_tells_round_and_who_cosigned_its_log(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server_status(federated.server.folder, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    (run,) = told["progress"]
    assert (run["state"], run["rehearsal"], run["round"], run["rounds"]) == ("finished", True, 2, 1)
    assert run["rulings"] == dict.fromkeys(SITES[:2], "rehearsing")
    folder = federated.server.folder / "runs" / run["folder"] / "server"
    with Log(folder / "log.sqlite", "server") as log:
        assert run["checkpoint"]["size"] == log.checkpoint().checkpoint().size
    cosigned = run["checkpoint"]["cosigned"]
    assert set(cosigned["by"]) <= set(SITES[:2])
    assert 0 < cosigned["size"] <= run["checkpoint"]["size"]
    assert server_status(federated.server.folder, as_json=False) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "closing; log of" in said
    assert "; none, NOT PRIVATE" in said


def test_a_hospital_tells_round_budget_and_who_cosigned_its_log(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site_status(hospital.folder, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["round"]["rehearsal"] is True
    assert told["round"]["round"] == told["rehearsal"]["last_question"]["round"] > 0
    assert told["real"]["budget"]["epsilon"] is None  # its officer signed so
    assert told["rehearsal"]["checkpoint"]["cosigned"]["by"]
    assert told["connected"] is None
    assert told["warnings"] == []
    assert told["certificates"][0]["days_left"] > 3000


def test_a_hospital_is_warned_before_its_authority_expires(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hospital.authority.read_bytes()
    try:
        ends_soon(hospital, tmp_path, hospital.authority)
        (warning,) = standing_of(hospital)["warnings"]
        assert site_status(hospital.folder, as_json=False) == 0
        assert f"WARNING: {warning}" in capsys.readouterr().out
    finally:
        hospital.authority.write_bytes(before)
    assert warning.startswith("ca.crt expires at ")


def test_a_coordinator_is_warned_before_a_certificate_expires(federated: Federated) -> None:
    keys = federated.server.keys
    assert ending(keys) == []
    before = (keys / "server.crt").read_bytes(), (keys / "server.key").read_bytes()
    try:
        make_leaf(keys, "127.0.0.1", days=SOON)
        found = standing(federated.server)
        (warning,) = ending(keys)
    finally:
        (keys / "server.crt").write_bytes(before[0])
        (keys / "server.key").write_bytes(before[1])
    assert warning in found.warnings
    assert "server.crt expires at" in warning
    assert "fedkd server rotate" in warning
    named = 'fedkd_certificate_expiry_timestamp_seconds{name="server.crt"}'
    left = parsed(text_of(server_metrics(found)))[named] - datetime.now(UTC).timestamp()
    assert (SOON - 1) * 86_400 < left < (SOON + 1) * 86_400


@contextmanager
def shown(certificate: Path, key: Path) -> Iterator[int]:
    """The port of a TLS server on loopback that shows a certificate, and says nothing."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    bare, _ = listener.accept()
                    with bare, suppress(OSError):
                        tls.wrap_socket(bare, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def warned_of(server: ServerFolder, what: str) -> Standing | None:
    """How it stands, where a warning speaks of that."""
    found = standing(server)
    return found if what in str(found.warnings) else None


@pytest.mark.parametrize(("left", "said"), [(-1, "expired"), (SOON, "expires")])
def test_a_certificate_that_the_superlink_still_serves_is_warned_of(
    federated: Federated, tmp_path: Path, left: int, said: str
) -> None:
    server = federated.copied(tmp_path / "all").server
    now = datetime.now(UTC)
    make_leaf(server.keys, "127.0.0.1", now=now - timedelta(days=365 - left, hours=-1))
    for name in ("server.crt", "server.key"):
        shutil.copy(server.keys / name, tmp_path / name)
    make_leaf(server.keys, "127.0.0.1")  # as fedkd server rotate makes it
    for name in (SERVER, SUPERLINK):
        _write_pid(server, name, os.getpid())
    with shown(tmp_path / "server.crt", tmp_path / "server.key") as port:
        settings = server.folder / "server.yaml"
        settings.write_text(settings.read_text().replace("18000", str(port)))
        # A machine under load may have no time to show it within two seconds.
        found = until(lambda: warned_of(server, SERVED))
    (warning,) = [each for each in found.warnings if SERVED in each]
    assert f"which {said} at {now + timedelta(days=left, hours=1):%Y-%m-%d}" in warning
    assert "fedkd server stop, fedkd server start" in warning
    served = f'fedkd_certificate_expiry_timestamp_seconds{{name="{SERVED}"}}'
    assert served in parsed(text_of(server_metrics(found)))
    if left < 0:
        assert "does not answer" not in str(found.warnings)  # another log would be looked at


def test_a_run_that_nobody_conducts_any_more_is_not_shown_as_running(
    federated: Federated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = federated.copied(tmp_path / "all").server
    run = next((server.folder / "runs").iterdir())
    evaluation = run / "evaluations" / "abcd"
    evaluation.mkdir(parents=True)
    (evaluation / "proposal.json").write_text("{}")
    left = {"state": "running", "round": 1, "rounds": 2}
    write_json(run / "status.json", {**json.loads((run / "status.json").read_text()), **left})

    def told() -> tuple[bool, bool, str, dict[str, float]]:
        found = standing(server)
        (shown,) = found.progress
        capsys.readouterr()
        assert server_status(server.folder, as_json=False) == 0
        lines = " ".join(capsys.readouterr().out.split())
        figures = parsed(text_of(server_metrics(found)))
        return shown.cut_off, shown.evaluations[0].cut_off, lines, figures

    cut, _, said, figures = told()
    assert cut
    assert "cut off, round 1 of 2; log of" in said
    assert f"fedkd run --resume {run}".replace(" ", "") in said.replace(" ", "")
    assert figures['fedkd_server_run_state{state="cut off"}'] == 1
    with alone(run, lambda state, **more: None):
        cut, _, said, figures = told()
        assert not cut
        assert "running, round 1 of 2" in said
        assert figures['fedkd_server_run_state{state="running"}'] == 1

    write_json(run / "status.json", {**left, "state": "finished"})
    write_json(evaluation / "status.json", {"state": "proposed"})
    cut, cut_evaluation, said, figures = told()
    assert (cut, cut_evaluation) == (False, True)
    assert "cut off; nobody was heard yet; go on with: the same fedkd evaluate" in said
    assert figures['fedkd_server_evaluations{state="cut off"}'] == 1
    with alone(run, lambda state, **more: None):
        assert told()[:2] == (False, False)


def test_what_a_run_may_cost_is_shown_to_people_and_watchers(
    federated: Federated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = federated.copied(tmp_path / "all").server
    paper = next((server.folder / "runs").iterdir()) / "proposal.json"
    asked = json.loads(paper.read_text())
    for epsilon, said in ((0.25, "at most epsilon 0.25 for each site"), (None, "as much as each")):
        asked["asked"] |= {"mechanism": "dp_training", "epsilon": epsilon}
        write_json(paper, asked)
        assert server_status(server.folder, as_json=False) == 0
        assert f"dp_training, {said}" in " ".join(capsys.readouterr().out.split())
        figures = parsed(text_of(server_metrics(standing(server))))
        assert figures.get("fedkd_server_run_epsilon") == epsilon


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "server" / "log.sqlite").write_bytes(b"x" * 8192), "not a database"),
        (lambda run: shutil.rmtree(run / "server" / "keys"), "found no key beside a log"),
        (lambda run: sql(run, "PRAGMA user_version = 99"), "a newer fedkd wrote it"),
        (lambda run: sql(run, "DROP TABLE checkpoints"), "no such table"),
        (lambda run: write_json(run / "status.json", {"rulings": [], "round": "2"}), "status.json"),
        (lambda run: (run / "proposal.json").write_text('{"asked": 3}'), "proposal.json"),
    ],
)
def test_one_damaged_run_takes_status_away_from_no_other(
    federated: Federated, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    server = federated.copied(tmp_path / "all").server
    run = next((server.folder / "runs").iterdir())
    shutil.copytree(run, server.folder / "runs" / "whole")
    damage(run)
    found = standing(server)
    (warning,) = found.warnings
    assert warning.startswith(f"runs/{run.name}")
    assert said in warning
    damaged, whole = sorted(found.progress, key=lambda it: it.folder == "whole")
    assert damaged.checkpoint is None or "json" in said
    assert whole.checkpoint is not None
    assert server_status(server.folder, as_json=False) == 0
    assert server_status(server.folder, as_json=True) == 0
    assert text_of(server_metrics(found))


def sql(run: Path, command: str) -> None:
    with sqlite3.connect(run / "server" / "log.sqlite") as database:
        database.execute(command)
    database.close()


def test_who_only_looks_does_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    told = []
    with alone(tmp_path, lambda state, **more: told.append(state)):
        assert is_conducted(tmp_path)
        with pytest.raises(BadInput, match="another process conducts"), alone(tmp_path, print):
            pass
    assert not is_conducted(tmp_path)
    with (tmp_path / CONDUCTING).open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with alone(tmp_path, lambda state, **more: told.append(state)):
            pass
    assert told == ["begun", "finished"] * 2


def test_a_coordinators_figures_are_what_its_status_says(federated: Federated) -> None:
    found = parsed(text_of(server_metrics(standing(federated.server))))
    assert found["fedkd_server_up"] == 0
    assert found['fedkd_server_sites{state="admitted"}'] == 2
    assert found['fedkd_server_run_state{state="finished"}'] == 1
    assert found["fedkd_server_log_entries"] >= found["fedkd_server_log_cosigned_entries"] > 0
    assert not any("connected" in name for name in found)  # nobody could be asked


def test_figures_of_a_coordinator_are_kept_for_a_while() -> None:
    asked, now = [], [0.0]

    def ask() -> Standing:
        asked.append(now[0])
        return None  # type: ignore[return-value]  # what it says does not matter

    cached = kept(ask, lambda: now[0])
    for seconds in (0.0, KEPT_SECONDS / 2, KEPT_SECONDS + 1):
        now[0] = seconds
        cached()
    assert asked == [0.0, KEPT_SECONDS + 1]


@contextmanager
def serving(hospital: Hospital) -> Iterator[None]:
    """The hospital's service, as far as it can be asked how it is."""
    service = Service(None, print, lambda: figures_of(hospital))  # type: ignore[arg-type]
    with listening(hospital.socket, 0o660) as listener:
        service.listen(listener)
        yield
        service.stop()


def up(hospital: Hospital) -> dict[str, float] | None:
    """Its figures, where its service had the time to answer."""
    found = parsed(text_of(site_metrics(hospital.letterbox)))
    return found if found["fedkd_site_up"] else None


def test_a_sites_figures_come_over_the_socket(hospital: Hospital) -> None:
    prepare_letterbox(hospital, Whose())
    (hospital.letterbox / "refusals.log").write_text("2026-01-01T00:00:00Z bundle\n" * 3)
    away = parsed(text_of(site_metrics(hospital.letterbox)))
    with serving(hospital):
        found = until(lambda: up(hospital))
    assert away["fedkd_site_up"] == 0
    assert found["fedkd_site_paused"] == 0
    assert found["fedkd_site_refusals_total"] == 3
    assert found['fedkd_site_round{folder="rehearsal"}'] > 0
    entries = found['fedkd_site_log_entries{folder="rehearsal"}']
    assert entries == standing_of(hospital)["rehearsal"]["checkpoint"]["size"]
    assert 'fedkd_site_epsilon_spent{folder="real"}' not in found  # nothing is bounded here
    assert not any(name.startswith("fedkd_site_log") for name in away)


def test_figures_that_fail_say_nothing_of_why(hospital: Hospital) -> None:
    service = Service(None, print, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    with listening(hospital.socket, 0o660) as listener:
        service.listen(listener)
        found = until(lambda: up(hospital))
        service.stop()
    assert not any(name.startswith("fedkd_site_log") for name in found)


def asked(port: int, path: str = "/metrics", host: str = "localhost") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENT)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def test_figures_are_served_on_loopback_alone_and_to_nobodys_page() -> None:
    metrics = [
        Metric("site", "Words.", (({"name": 'a "b" \\ \n'}, 1.5),)),
        one("none", "None.", None),
    ]
    with server(0, lambda: metrics) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        host, port = made.server_address[:2]
        status, body = asked(port)
        strange, other = asked(port, host="attacker.example"), asked(port, "/")
        made.shutdown()
        with pytest.raises(BadInput, match=f"port {port}"):
            server(port, lambda: metrics)
    assert host == "127.0.0.1"
    assert (status, strange[0], other[0]) == (200, 404, 404)
    assert parsed(body) == {'site{name="a \\"b\\" \\\\ \\n"}': 1.5}


def test_figures_that_cannot_be_had_are_an_error_without_words() -> None:
    with server(0, lambda: [1 / 0]) as made:  # type: ignore[list-item]
        threading.Thread(target=made.serve_forever, daemon=True).start()
        status, body = asked(made.server_address[1])
        made.shutdown()
    assert status == 500
    assert "ZeroDivision" not in body


def test_a_half_without_a_network_serves_no_figures(hospital: Hospital) -> None:
    for more, said in (({"metrics": 9100, "only": "service"}, "--only letterbox"),
                       ({"metrics": 80, "only": None}, "1024"),
                       ({"log_format": "xml", "only": None}, "text or json")):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            site_start(hospital.folder, user=None, group=None, detach=False, keep_network=False,
                       **more)  # type: ignore[arg-type]  # fmt: skip


def test_lines_for_machines_carry_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    line = Line("node ended\nwith status 1", level="warning", program="node", status=1)
    teller("json", "site")(line)
    teller("text", "site")(line)
    machine, *person = capsys.readouterr().out.splitlines()
    told = json.loads(machine)
    assert datetime.fromisoformat(told.pop("at"))
    assert told == {
        "level": "warning", "from": "site", "said": "node ended\nwith status 1",
        "program": "node", "status": 1,
    }  # fmt: skip
    assert person[0].endswith("Z node ended")


def test_a_services_own_log_may_be_json() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, Line("turn 3 took 1 s", turn=3), (), None)
    told = json.loads(JsonLines("service").format(record))
    assert (told["level"], told["from"], told["turn"]) == ("info", "service", 3)
