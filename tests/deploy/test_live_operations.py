"""What engineers type while a federation runs does what it says: real processes, a real proxy.

One federation, in the order of the tests: rehearsed before any record is there, then run, paused,
restarted, and left by two of its four hospitals.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedkd.deploy import superlink
from fedkd.deploy.authority import read_certificate
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.keeping import command
from fedkd.deploy.preparing import LOGS, Whose
from fedkd.deploy.roster import read_roster
from fedkd.deploy.server_folder import ServerFolder
from fedkd.deploy.supervising import supervisor_of
from fedkd.federation.asking import GONE, NOT_ADMITTED
from fedkd.federation.durable import read_json, write_json
from tests.deploy.federated import table
from tests.deploy.federations import needs_nginx, needs_offline
from tests.deploy.listening import Address, is_loopback, listened_on, processes_of
from tests.deploy.live import Live, admitted, left_out, named
from tests.deploy.ports import free_port
from tests.deploy.services import until
from tests.deploy.test_faults_in_a_federation import happened, held, rounds_of
from tests.deploy.test_nothing_secret_leaves import PART, SECRETS, found_in
from tests.stories.hospitals import Hospitals, fedkd, told

pytestmark = [pytest.mark.long, needs_nginx, needs_offline]
EAST, NORTH, SOUTH, WEST = SITES = ("east", "north", "south", "west")
ROWS = {site: table(320)[number::4] for number, site in enumerate(SITES)}
COORDINATOR = "coordinator"
RECORDS = ("records.csv", "site/train.npz", "site/validation.npz")
PLANTED = ("exception", "class", "cause", "argument")
"""The secrets that are in what SOUTH's turn raises."""
OWN_CODE = Path(__file__).with_name("with_own_code.py")


class Operated(Live):
    """Figures are served at both sides; SOUTH has code of its own; records come after the start."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ROWS)
        self.figures = {name: free_port() for name in (*SITES, COORDINATOR)}

    @property
    def there(self) -> list[str]:
        """The hospitals that are admitted, and have not left."""
        members = read_roster(self.federation / "roster.json").admitted()
        return [it.site for it in members if not Hospital(self.sites[it.site]).left.exists()]

    def start_server(self) -> None:
        port = self.figures[COORDINATOR]
        fedkd("server", "start", self.federation, "--detach", "--metrics", port)

    def words_of(self, site: str) -> list[str]:
        port, folder = self.figures[site], self.sites[site]
        if site == SOUTH:
            return [sys.executable, str(OWN_CODE), str(folder), str(self.folder), str(port)]
        return command(Hospital(folder), Whose(), metrics=port)

    def bring_records(self) -> None:
        """What lay elsewhere lies where each hospital has it."""
        for name in self._records():
            (self.folder / "elsewhere" / name).rename(self.folder / name)

    def begun(self, *overrides: str) -> "tuple[subprocess.Popen[bytes], Path]":
        """A run whose first round is posed."""
        process, out = self.begin(*overrides)
        self.say_yes(out, *self.there)
        happened(process, out, "/1/posed")
        return process, out

    def _found(self) -> None:
        super()._found()
        (self.folder / "planted.py").write_text(PART.format(secrets=SECRETS))
        for name in self._records():
            away = self.folder / "elsewhere" / name
            away.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).rename(away)

    def _records(self) -> list[str]:
        return [f"{site}/{name}" for site in SITES for name in RECORDS]


@pytest.fixture(scope="module")
def recordless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with Operated(tmp_path_factory.mktemp("operated") / "all") as running:
        yield running


@pytest.fixture(scope="module")
def rehearsed(recordless: Operated) -> Path:
    """A rehearsal in which no record was there."""
    for site in SITES:
        assert not any((recordless.sites[site] / name).exists() for name in RECORDS)
    return recordless.run("rehearsal=true")


@pytest.fixture(scope="module")
def live(recordless: Operated, rehearsed: Path) -> Operated:
    recordless.bring_records()
    return recordless


@pytest.fixture(scope="module")
def failing(live: Operated) -> tuple[Path, dict[str, set[Address]]]:
    """A run in which SOUTH's turn raises, and where each side's processes listened meanwhile."""
    path = Hospital(live.sites[SOUTH]).site / "site.json"
    before = path.read_bytes()
    write_json(path, {**read_json(path), "model": {"_target_": "planted.raising"}})
    process, out = live.begun("rounds=1")
    listened: dict[str, set[Address]] = {name: set() for name in live.figures}
    while process.poll() is None:
        for name, addresses in listened.items():
            for one in processes_of(live.folder / name):
                addresses.update(listened_on(one)[0])
        time.sleep(0.5)  # each look reads all of /proc
    live.ended(process, out)
    path.write_bytes(before)
    return out, listened


def answered(live: Operated, site: str, run: str, number: int) -> bool:
    """Whether a site's answer is with the coordinator: by its log, and by what its node sent."""
    if number not in rounds_of(live, site, run):
        return False
    node = (Hospital(live.sites[site]).letterbox / LOGS / "node.log").read_text(errors="replace")
    return "Sent successfully" in node.rpartition(f", ROUND {number}]")[2]


def files_in(folder: Path) -> dict[str, bytes]:
    """What stands on the disk while those run who write it."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it was moved to its place meanwhile
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def test_a_rehearsal_reads_no_record(recordless: Operated, rehearsed: Path) -> None:
    clients = json.loads((rehearsed / "summary.json").read_text())["clients"]
    assert {row["site"]: row["left_out"] for row in clients} == {site: [] for site in SITES}
    for site in SITES:
        service = recordless.log(site)
        for kind in ("train.local", "release.outputs", "budget.charged", "run.approved"):
            assert service.entries(kind) == []


def test_a_federation_asks_for_no_more_than_its_own_policy_allows(live: Operated) -> None:
    path = live.federation / "server.yaml"
    before, runs = path.read_text(), list((live.federation / "runs").iterdir())
    path.write_text(before.replace("fewest_sites: 1", "fewest_sites: 9"))
    said = fedkd("run", "--federation", live.federation, *live.terms, check=False)
    path.write_text(before)
    assert "found 4 admitted hospitals to ask, expected at least 9: fewest_sites" in said
    assert list((live.federation / "runs").iterdir()) == runs


def test_figures_are_served_and_all_else_listens_on_loopback_alone(
    live: Operated, failing: tuple[Path, dict[str, set[Address]]]
) -> None:
    _, listened = failing
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for name, addresses in listened.items():
        assert all(map(is_loopback, addresses)), (name, addresses)
        assert ("127.0.0.1", live.figures[name]) in addresses
        where = f"http://127.0.0.1:{live.figures[name]}/metrics"
        with directly.open(where, timeout=60) as figures:
            assert b"\nfedkd_" in figures.read()


def test_what_a_turn_raised_is_in_no_byte_at_the_coordinator(
    live: Operated, failing: tuple[Path, dict[str, set[Address]]]
) -> None:
    out, _ = failing
    assert left_out(out) == {1: {SOUTH: "refused: failed"}}
    at_home = Hospital(live.sites[SOUTH]).site / "errors.txt"
    assert found_in(at_home.read_bytes(), PLANTED) == set(PLANTED)
    files = files_in(live.federation)
    run = out.relative_to(live.federation).as_posix()
    assert files.keys() >= {
        "superlink/state.db", "superlink/superlink.log", "nginx/logs/access.log",
        "nginx/logs/error.log", f"{run}/server/log.sqlite", f"{run}/flower.log",
    }  # fmt: skip
    database = b"".join(body for name, body in files.items() if name.startswith("superlink/state"))
    assert run.encode() in database  # that it is read as it stands on the disk, its -wal, too
    leaks = {(name, place) for name, body in files.items() for place in found_in(body, PLANTED)}
    assert leaks == set()


def test_a_hospital_that_is_paused_in_a_run_answers_again_once_it_resumes(live: Operated) -> None:
    process, out = live.begun("rounds=8")
    run = named(out)
    with held(live, EAST, out) as first:
        until(lambda: answered(live, NORTH, run, first))
        assert "refuses every question" in fedkd("site", "pause", live.sites[NORTH])
        before = rounds_of(live, NORTH, run)
    happened(process, out, f"/{first + 2}/posed")
    with held(live, EAST, out) as later:
        assert rounds_of(live, NORTH, run) == before
        fedkd("site", "resume", live.sites[NORTH])
    live.ended(process, out)
    took, without = admitted(out), left_out(out)
    assert without[first + 1] == {NORTH: "refused: paused"}
    assert set(took[first + 1]) == {EAST, SOUTH, WEST}
    assert set(took[later + 1]) == set(SITES)
    assert without[8] == {}
    assert rounds_of(live, NORTH, run) == [number for number in took if NORTH in took[number]]
    assert "CONSISTENT" in fedkd("audit", "verify", out)


def test_hospitals_connect_again_after_a_new_certificate_and_a_new_start(live: Operated) -> None:
    server, sites = ServerFolder(live.federation), live.there
    keepers = {site: supervisor_of(Hospital(live.sites[site]).run) for site in sites}
    before = superlink.served(server.settings(), 60.0)
    fedkd("server", "rotate", "--dir", live.federation)
    new = read_certificate(server.keys / "server.crt")
    assert superlink.served(server.settings(), 60.0) == before != new
    assert is_warned_of_the_old_one(live)
    fedkd("server", "stop", live.federation)
    for site in sites:
        until(lambda site=site: not live.is_connected(site), every=0.2)
    live.start_server()
    live.connected(*sites)
    Hospitals.connected(live, *sites)  # as the coordinator sees it
    assert superlink.served(server.settings(), 60.0) == new
    assert not is_warned_of_the_old_one(live)
    assert {site: supervisor_of(Hospital(live.sites[site]).run) for site in sites} == keepers


def is_warned_of_the_old_one(live: Operated) -> bool:
    warnings = told("server", "status", live.federation)["warnings"]
    return any("is the one of before" in each for each in warnings)


def test_a_run_goes_on_without_who_is_revoked_and_who_leaves_meanwhile(live: Operated) -> None:
    """The one is asked nothing more; of the other no process is left."""
    process, out = live.begun("rounds=4", "audit.threshold=2")
    run, folder, outbox = named(out), live.sites[NORTH], live.sites[WEST] / "letterbox" / "outbox"
    assert processes_of(folder)
    with held(live, EAST, out) as last:
        for site in (NORTH, WEST):
            until(lambda site=site: answered(live, site, run, last))
        fedkd("server", "revoke", WEST, "--dir", live.federation)
        fedkd("site", "leave", folder, "--yes")
        until(lambda: not processes_of(folder))  # the last of them ends once its lock is free
        until(lambda: not live.is_connected(WEST), every=0.2)
        before = len(list(outbox.iterdir()))
    live.ended(process, out)
    took, without = admitted(out), left_out(out)
    assert set(took[last]) == set(SITES)
    assert last < 4
    for number in range(last + 1, 5):
        assert set(took[number]) == {EAST, SOUTH}
        assert without[number] == {NORTH: GONE, WEST: NOT_ADMITTED}
    for site in (NORTH, WEST):
        assert rounds_of(live, site, run) == list(range(1, last + 1))
    assert len(list(outbox.iterdir())) == before
    assert "CONSISTENT" in fedkd("audit", "verify", out)
