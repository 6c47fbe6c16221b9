"""What a real site service does when it is killed, replayed to, lied to, put back or without room.

One federation of three hospitals under dp_training; the server's own app speaks to their sockets.
"""

import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.deployed import DeployedRun
from fedkd.cli.run import open_run
from fedkd.deploy.approving import rule, shown
from fedkd.deploy.consent import Shelf
from fedkd.deploy.socket import Away, Frame, Kind, Why
from fedkd.deploy.starting import service_of
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.paying import ledger_of
from fedkd.privacy import Ledger
from fedkd.wire import (
    Answer,
    Considered,
    Evaluation,
    Message,
    Present,
    Proposal,
    Question,
    Reason,
    Refusal,
    RollCall,
    decode,
    encode,
    opened,
    pack,
    unpack,
)
from tests.deploy.federated import SITES, Federated, approve, table
from tests.deploy.federations import fedkd
from tests.deploy.held_training import HELD, is_paid
from tests.deploy.services import (
    SECONDS,
    Service,
    SocketGrid,
    can_mount,
    services,
    small_disk,
    until,
)
from tests.deploy.test_policy import ABOUT, a_thousand_times, question, sized

pytestmark = pytest.mark.deploy
PRIVATE = {"name": "dp_training", "epsilon": 0.4, "steps": 20}
EPSILON = 8.0
MIB = 1 << 20


@dataclass
class World:
    """A federation whose services run, and a run that went well on it."""

    federated: Federated
    services: dict[str, Service]
    run: DeployedRun
    grid: SocketGrid

    @property
    def east(self) -> Service:
        return self.services["east"]

    def approved(self, *overrides: str, sites: tuple[str, ...] = SITES) -> DeployedRun:
        """A run that people said yes to, through the sockets."""
        run = self.federated.proposed("mechanism=dp_training", *overrides)
        body, signature = run.paper()
        for site in sites:
            letter = Proposal(run.id, np.frombuffer(body, np.uint8), signature)
            assert isinstance(self.services[site].said(letter), Considered)
        approve(self.federated, run, *sites)
        return run


class WithOwnModel(Service):
    """A service that finds `tests.deploy.held_training`."""

    def command(self) -> list[str]:
        code = (
            "import sys; sys.path.append(sys.argv.pop(1)); "
            "from fedkd.deploy.service import main; sys.exit(main())"
        )
        here = str(Path(__file__).parents[2])
        return [sys.executable, "-I", "-c", code, here, str(self.hospital.folder)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rows = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
    federated = Federated.made(
        tmp_path_factory.mktemp("faults") / "all", rows, mechanism=PRIVATE, epsilon=EPSILON,
        mechanisms=["dp_training"], policy={"fewest_cosigners": 0},
    )  # fmt: skip
    site = federated.hospitals["east"].site
    own = {"model": {"_target_": "tests.deploy.held_training.logistic"}}
    write_json(site / "site.json", {**read_json(site / "site.json"), **own})
    with services(federated, WithOwnModel) as running:
        made = World(federated, running, None, None)  # type: ignore[arg-type]
        made.run = made.approved()
        made.grid = SocketGrid(federated, running)
        federated.conducted(made.run, made.grid)
        yield made


def questions(world: World, site: str = "east") -> list[tuple[bytes, bytes]]:
    """The letters that asked a site for answers, and what came back."""
    return [
        (there, back)
        for there, back in world.grid.letters[site]
        if isinstance(message(back), Answer)
    ]


def message(letter: bytes) -> Message:
    return decode(opened(letter)[1], MIB)


def spent(service: Service) -> float:
    with Log(service.hospital.site / "log.sqlite", service.hospital.name) as log:
        return float(ledger_of(log, service.hospital.name).spent())


def expect_refused(service: Service, asked: Message | bytes, reason: Reason, why: str = "") -> None:
    """A typed refusal, in the log too; nothing is charged or released, and why stays at home."""
    before = (spent(service), len(service.entries("release.outputs")))
    reply = service.said(asked)
    assert isinstance(reply, Refusal), reply
    assert reply.reason is reason
    assert (spent(service), len(service.entries("release.outputs"))) == before
    if reason is not Reason.ROLLED_BACK:  # whatever that one writes would be a second history
        assert reason in {it["rule"] for it in service.entries("release.refused")}
        assert why in (service.hospital.site / "errors.txt").read_text()


def test_a_replayed_message_gets_the_same_bytes_and_costs_nothing(world: World) -> None:
    east, before = world.east, spent(world.east)
    asked = questions(world)
    assert len(asked) == 2
    for _ in range(2):  # before and after a kill -9
        for there, back in asked:
            reply = east.ask(there)
            assert opened(reply.body)[1] == opened(back)[1]
        east.kill()
        east.start()
    assert spent(east) == before
    assert len(east.released(world.run.id)) == 2
    assert len(east.charged(world.run.id)) == 1


def test_a_message_that_comes_late_is_answered_once_and_changes_nothing(world: World) -> None:
    """Round 1 overtaken by round 2: the server went on without this site meanwhile."""
    run, east = world.approved(), world.east
    late: list[bytes] = []

    def between(site: str, letter: bytes) -> None:
        asked = message(letter)
        if site == "east" and isinstance(asked, Question) and asked.round == 1:
            late.append(letter)
            raise TimeoutError

    folder = world.federated.conducted(run, SocketGrid(world.federated, world.services, between))
    with Log(folder / "server" / "log.sqlite", "server") as log:
        admitted = [set(entry.body["answers"]) for entry in log.entries("answers.admitted")]
    assert admitted[0] == {"north", "west"}
    (letter,) = late
    paid, released = len(east.charged(run.id)), len(east.released(run.id))
    replies = [east.said(letter) for _ in range(2)]
    assert encode(replies[0]) == encode(replies[1])
    assert len(east.charged(run.id)) == paid == 1
    assert len(east.released(run.id)) - released == isinstance(replies[0], Answer)
    verified = fedkd("audit", "verify", east.hospital.site / "log.sqlite")
    assert "CONSISTENT" in verified.stdout, verified.stdout + verified.stderr


def lines_of_turns(service: Service) -> list[str]:
    """The service's lines about its turns, each of which is written once the reply is out."""

    def written() -> list[str]:
        standing = service_of(service.hospital)
        if standing is None:  # it had no time for that
            return []
        said = service.log.read_text().splitlines()
        lines = [line for line in said if re.search(r"turn \d+ took", line)]
        return lines if lines and f"turn {standing['turns']} took" in lines[-1] else []

    found: list[str] = until(written)
    return found


def test_every_line_about_a_rehearsal_says_so_and_no_other(world: World) -> None:
    federated, west = world.federated, world.services["west"]
    real = world.approved(sites=("west",))
    before = lines_of_turns(west)
    assert before
    assert not any("REHEARSAL" in line for line in before)
    run = federated.proposed("mechanism=dp_training", rehearsal=True)
    body, signature = run.paper()
    assert isinstance(
        west.said(Proposal(run.id, np.frombuffer(body, np.uint8), signature)), Considered
    )
    assert isinstance(west.said(RollCall(run.id)), Present)
    west.said(RollCall(real.id))
    lines = lines_of_turns(west)[len(before) :]
    assert ["REHEARSAL: turn" in line for line in lines] == [True, True, False]
    shown = fedkd("audit", "show", west.hospital.rehearsal / "log.sqlite").stdout
    assert shown.startswith("REHEARSAL: ")
    assert "REHEARSAL: " not in fedkd("audit", "show", west.hospital.site / "log.sqlite").stdout


def test_a_service_killed_in_its_training_answers_once(world: World) -> None:
    """What was lost is trained again as it was; what was answered is never paid or said anew."""
    run, east = world.approved("audit.cosigners=0"), world.east
    letter, price = (
        encode(question(run)),
        shown(east.hospital, run.proposal(), world.federated.build).price.plan,
    )
    assert price == PRIVATE["epsilon"], "what site approve shows"
    for _ in range(2):
        with held_in_training(east, run):
            lost = asked(east, letter)
            until(lambda: is_paid(log_of(east), run.id))
            east.kill()
        assert isinstance(lost(), Away)
        assert east.charged(run.id) == [f"{run.id}/train/charge"]
        assert not east.released(run.id)
        east.start()
    first = east.ask(letter)
    assert isinstance(message(first.body), Answer)
    east.kill()  # after the answer was durable, before anybody heard it
    east.start()
    assert east.ask(letter).body == first.body
    assert east.charged(run.id) == [f"{run.id}/train/charge"]
    assert len(east.released(run.id)) == 1
    assert 0.0 < spent_by(run, east) <= price + 1e-9


def test_a_service_that_is_told_to_stop_lets_its_training_end(world: World) -> None:
    run, east = world.approved("audit.cosigners=0"), world.east
    letter = encode(question(run))
    with held_in_training(east, run):
        said = asked(east, letter)
        until(lambda: is_paid(log_of(east), run.id))
        assert east.process is not None
        east.process.send_signal(signal.SIGTERM)
        until(lambda: is_told(east.process.pid, signal.SIGTERM))
    reply = said()
    assert isinstance(reply, Frame)
    assert isinstance(message(reply.body), Answer)
    assert east.process.wait(SECONDS) == 0
    east.start()
    assert east.ask(letter).body == reply.body
    assert east.charged(run.id) == [f"{run.id}/train/charge"]


def asked(service: Service, letter: bytes) -> Callable[[], Any]:
    """Asks meanwhile; what came of it, a frame or an error, once that is called."""
    came: list[Any] = []

    def asks() -> None:
        try:
            came.append(service.ask(letter))
        except Away as error:
            came.append(error)

    asking = threading.Thread(target=asks)
    asking.start()

    def outcome() -> Any:
        asking.join(SECONDS)
        return came[0]

    return outcome


def spent_by(run: DeployedRun, service: Service) -> float:
    """The epsilon of all that a site was charged for one run, however often it began."""
    with Log(service.hospital.site / "log.sqlite", service.hospital.name) as log:
        (opened,) = log.entries("budget.opened")
        charges = [it for it in log.entries("budget.charged") if it.key.startswith(f"{run.id}/")]
    return Ledger.opened(opened.body).replay(it.body["cost"] for it in charges).spent()


def log_of(service: Service) -> Path:
    return service.hospital.site / "log.sqlite"


@contextmanager
def held_in_training(service: Service, run: DeployedRun) -> Iterator[None]:
    """Meanwhile the service's training for a run is paid for at most, and does not go on."""
    held = service.log.parent / HELD
    held.write_text(f"{log_of(service)}\n{run.id}\n")
    try:
        yield
    finally:
        held.unlink()


def is_told(pid: int, number: int) -> bool:
    """Whether nothing is left of a signal for a process but what its handler did (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return not any(mask >> (number - 1) & 1 for mask in pending)


def test_a_server_that_asks_for_more_than_was_approved(world: World) -> None:
    run, east = world.approved("audit.cosigners=0"), world.east
    plan = run.terms().plan
    for asked, why in (
        (question(run, round=3), "the rounds"),
        (question(run, plan=replace(plan, local_epochs=3)), "the epochs"),
        (question(run, plan=replace(plan, batch=1)), "the batch"),
        (question(run, size=31), "the number of queries"),
    ):
        expect_refused(east, asked, Reason.OUTSIDE_POLICY, why)
    expect_refused(
        east, Evaluation(run.id, 3, ABOUT, (0.5,), None, 1.0), Reason.OUTSIDE_POLICY, "figures"
    )
    header, arrays = unpack(encode(question(run)), MIB)
    for kind in ("weights", "gradients", "get_parameters"):
        expect_refused(east, pack({**header, "kind": kind}, arrays), Reason.MALFORMED)
    header["v"] = 2
    expect_refused(east, pack(header, arrays), Reason.VERSION)
    expect_refused(east, question(replaced(run, "run-unknown")), Reason.NOT_APPROVED)
    assert isinstance(east.said(question(run)), Answer)  # what was approved is answered still


def replaced(run: DeployedRun, id: str) -> DeployedRun:
    """A run that says it is another one."""
    other = open_run(str(run.folder))
    assert isinstance(other, DeployedRun)
    other.id = id
    return other


def test_one_record_asked_a_thousand_times_and_a_set_outside_the_policy(world: World) -> None:
    """The averaging attack, approved by a person: the policy is the last word."""
    east, federated = world.east, world.federated
    typed = east.hospital.site_yaml.read_text()
    run = federated.proposed("mechanism=dp_training", "audit.cosigners=0")
    generator = run.rules().generator
    _, posed = generator.pose(generator.init(run.terms().seed), None, run.terms().queries)
    many = a_thousand_times(posed.inputs[0], run.form().space)
    proposal = run.proposal()
    proposal = replace(
        sized(proposal, 1000),
        query={"kind": "public", "source": "ours", "licence": "CC0-1.0", "digest": many.digest},
    )
    body = np.frombuffer(proposal.to_bytes(), np.uint8)
    ours = typed.replace("policy:", "policy:\n  query_sets: {sources: [ours]}")
    assert ours != typed
    attack = question(run, many, about=many.digest, origin=many.origin)
    try:
        east.hospital.site_yaml.write_text(ours)
        asked = Proposal(run.id, body, proposal.signed(federated.server.key()))
        assert isinstance(east.said(asked), Considered)
        rule(east.hospital, proposal, federated.build, by="Ada Example", decline=None)
        expect_refused(east, attack, Reason.OUTSIDE_POLICY, "most_repeats: found one query 1000")
    finally:
        east.hospital.site_yaml.write_text(typed)
    # The set is listed no longer: what a person had approved goes out no more.
    expect_refused(east, attack, Reason.OUTSIDE_POLICY, "query_sets: found ours")


def test_an_old_backup_of_the_site_refuses_to_answer(world: World, tmp_path: Path) -> None:
    west = world.services["west"]
    west.kill()
    shutil.copytree(west.hospital.site, tmp_path / "backup")
    west.start()
    world.federated.conducted(world.approved(), SocketGrid(world.federated, world.services))
    now = spent(west)
    west.kill()
    west.hospital.site.rename(tmp_path / "site")
    shutil.copytree(tmp_path / "backup", west.hospital.site)
    west.start()
    assert spent(west) < now  # to the copy, the last run never was
    run = world.approved()
    grid = SocketGrid(world.federated, world.services)
    folder = world.federated.conducted(run, grid)
    assert not west.charged(run.id)
    assert not west.released(run.id)
    said = [message(back) for _, back in grid.letters["west"]]
    refused = [it for it in said if isinstance(it, Refusal)]
    assert refused
    assert {it.reason for it in refused} == {Reason.ROLLED_BACK}
    with Log(folder / "server" / "log.sqlite", "server") as log:
        admitted = [set(entry.body["answers"]) for entry in log.entries("answers.admitted")]
    assert admitted == [{"east", "north"}] * 2  # the run went on without it
    # The right folder is put back: it answers again.
    west.kill()
    shutil.rmtree(west.hospital.site)
    (tmp_path / "site").rename(west.hospital.site)
    west.start()
    again = world.approved()
    world.federated.conducted(again, SocketGrid(world.federated, world.services))
    assert len(west.released(again.id)) == 2


@pytest.mark.skipif(not can_mount(), reason="only root can give a site a small disk of its own")
def test_nothing_leaves_a_site_whose_disk_is_full(world: World, tmp_path: Path) -> None:
    east = world.east
    east.kill()
    with small_disk(tmp_path / "disk", 32) as disk:
        moved = shutil.copytree(
            east.hospital.folder, disk / "site", ignore=shutil.ignore_patterns("*.sock")
        )
        small = WithOwnModel(type(east.hospital)(Path(moved)), tmp_path / "service.log")
        run = world.federated.proposed("mechanism=dp_training", "audit.cosigners=0")
        body, signature = run.paper()
        small.start()
        try:
            small.said(Proposal(run.id, np.frombuffer(body, np.uint8), signature))
            proposal = Shelf(small.hospital).read(run.proposal().digest)
            rule(small.hospital, proposal, world.federated.build, by="Ada", decline=None)
            filled = fill(disk)
            outbox = set((small.hospital.site / "outbox").iterdir())
            reply = small.ask(encode(question(run)))
            assert nothing_said(reply), reply
            assert set((small.hospital.site / "outbox").iterdir()) == outbox
            assert "No space left on device" in said_here(small)
            filled.unlink()
            assert not small.released(run.id)
            answer = small.said(question(run))
            assert isinstance(answer, Answer)
            assert len(small.charged(run.id)) == len(small.released(run.id)) == 1
        finally:
            small.kill()
            east.start()


def fill(disk: Path) -> Path:
    """A file that takes all that is left."""
    path = disk / "full"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    return path


def nothing_said(reply: Frame) -> bool:
    """A refusal of the closed list, by the site or by its service."""
    if reply.kind is Kind.REFUSED:
        return reply.body == Why.FAILED.encode()
    said = message(reply.body)
    return isinstance(said, Refusal) and said.reason is Reason.FAILED


def said_here(service: Service) -> str:
    """What the people at the site can read."""
    notes = [service.hospital.folder / "errors.txt", service.hospital.site / "errors.txt"]
    paths = [service.log, *(it for it in notes if it.exists())]
    return "\n".join(path.read_text(errors="replace") for path in paths)
