"""A hospital that is paused, or whose hours end, in the middle of a turn: nothing is let out."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.cli import main
from fedkd.cli.deployed import DeployedRun
from fedkd.deploy.consent import Desk
from fedkd.deploy.hospital import Hospital
from fedkd.federation.site import Build, SiteFolder, Spec
from fedkd.wire import Answer, Question, Reason, Refusal, decode, encode
from fedkd.wire import Message as Said
from tests.deploy.federated import Federated, approve, taken_in
from tests.deploy.services import until
from tests.deploy.test_policy import question, with_policy
from tests.deploy.test_retention import is_waited_for

WHY = {"paused": "fedkd site pause", "left": "this hospital left the federation"}


@pytest.fixture
def asked(private: Federated) -> tuple[Federated, DeployedRun]:
    """A run under dp_training that east said yes to."""
    with_policy(private, fewest_cosigners=0)
    run = private.proposed("mechanism=dp_training", "audit.cosigners=0")
    taken_in(private, run)
    approve(private, run, "east")
    return private, run


def said(federated: Federated, message: Question, build: Build | None = None) -> Said:
    desk = Desk(federated.hospitals["east"].folder, build or federated.build)
    return decode(desk.handle(encode(message)), 1 << 20)


def counted(hospital: Hospital) -> tuple[int, int]:
    """How often something was charged, and how often something was released."""
    with Log(hospital.site / "log.sqlite", "east") as log:
        charged, released = log.entries("budget.charged"), log.entries("release.outputs")
        return len(list(charged)), len(list(released))


def expect_paused(reply: Said, hospital: Hospital, why: str) -> None:
    assert isinstance(reply, Refusal)
    assert reply.reason is Reason.PAUSED
    with Log(hospital.site / "log.sqlite", "east") as log:
        assert [it.body["rule"] for it in log.entries("release.refused")] == [Reason.PAUSED]
    assert why in (hospital.site / "errors.txt").read_text()


def marking(federated: Federated, mark: str, at: str) -> Build:
    """Builds parts, and pauses the hospital, or has it leave, when the first `at` is built."""
    path = getattr(federated.hospitals["east"], mark)
    return interrupted(federated, lambda: path.write_text("now\n"), at)


def interrupted(federated: Federated, happens: Callable[[], object], at: str) -> Build:
    """Builds parts; when the first one is built whose key or target `at` names, that happens."""
    to_come = [happens]

    def build(spec: Spec) -> Any:
        if to_come and (at in spec or at in str(spec.get("_target_"))):
            to_come.pop()()
        return federated.build(spec)

    return build


@pytest.mark.parametrize("mark", WHY)
def test_a_pause_before_the_turn_begins_charges_nothing(
    asked: tuple[Federated, DeployedRun], mark: str
) -> None:
    """The letter was let in, and its mechanism built; then its turn begins."""
    federated, run = asked
    east = federated.hospitals["east"]
    build = marking(federated, mark, at="_target_")
    expect_paused(said(federated, question(run), build), east, WHY[mark])
    assert counted(east) == (0, 0)


AT = {"its model is about to be trained": "distill.models", "its answer is made": "wire.codecs"}


@pytest.mark.parametrize("when", AT)
@pytest.mark.parametrize("mark", WHY)
def test_a_pause_during_the_turn_lets_no_answer_out(
    asked: tuple[Federated, DeployedRun], mark: str, when: str
) -> None:
    federated, run = asked
    east = federated.hospitals["east"]
    build = marking(federated, mark, at=AT[when])
    expect_paused(said(federated, question(run), build), east, WHY[mark])
    charged, released = counted(east)
    assert charged > released == 0
    getattr(east, mark).unlink()
    assert isinstance(said(federated, question(run)), Answer)
    assert counted(east) == (charged, 1)  # what was trained is there: it is not paid for again


@pytest.mark.parametrize("mark", WHY)
def test_a_pause_during_the_turn_gives_no_answer_a_second_time(
    asked: tuple[Federated, DeployedRun], mark: str
) -> None:
    federated, run = asked
    east = federated.hospitals["east"]
    assert isinstance(said(federated, question(run)), Answer)
    before = counted(east)
    build = marking(federated, mark, at="wire.codecs")  # what would leave is counted with it
    expect_paused(said(federated, question(run), build), east, WHY[mark])
    assert counted(east) == before


def test_hours_hold_when_an_answer_would_leave_and_in_the_morning_it_does(
    asked: tuple[Federated, DeployedRun],
) -> None:
    """A training that begins before the end of the day may end after it."""
    federated, run = asked
    east = federated.hospitals["east"]
    with_policy(federated, hours="08:00-18:00")
    now = [datetime(2026, 11, 30, 17, 59).astimezone()]

    def clock() -> float:
        return now[0].timestamp()

    def passes(hours: int) -> None:
        now[0] += timedelta(hours=hours)

    build = interrupted(federated, lambda: passes(2), at="distill.models")
    desk = Desk(east.folder, build, clock)
    late = decode(desk.handle(encode(question(run))), 1 << 20)
    assert late == Refusal("east", run.id, 1, Reason.OUTSIDE_POLICY)
    assert "hours: found 19:59, expected 08:00-18:00" in (east.site / "errors.txt").read_text()
    charged, released = counted(east)
    assert charged > released == 0
    passes(14)
    assert isinstance(decode(desk.handle(encode(question(run))), 1 << 20), Answer)
    assert counted(east) == (charged, 1)


def test_pausing_waits_for_a_turn_and_says_so(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads `paused` may rely on it: nothing is charged after that."""
    east = federated.hospitals["east"]
    codes: list[int] = []
    pausing = threading.Thread(
        target=lambda: codes.append(main(["site", "pause", str(east.folder)]))
    )
    with SiteFolder(east.site).turn():
        pausing.start()
        until(lambda: codes or is_waited_for(east.site / ".turn"))
        assert east.is_paused
        assert codes == []
        heard = capsys.readouterr().out  # nothing is being said meanwhile
        assert "waits for its" in heard
        assert "refuses every question" not in heard
    pausing.join()
    assert codes == [0]
    assert "refuses every question" in capsys.readouterr().out


def test_a_hospital_that_never_took_a_turn_is_paused_at_once(
    federated: Federated, tmp_path: Path
) -> None:
    waits: list[str] = []
    SiteFolder(tmp_path).wait_for_turn(lambda: waits.append("waits"))
    SiteFolder(federated.hospitals["east"].site).wait_for_turn(lambda: waits.append("waits"))
    assert (waits, list(tmp_path.iterdir())) == ([], [tmp_path / "all"])
