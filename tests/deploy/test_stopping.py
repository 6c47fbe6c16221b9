"""What is told to stop lets its turn end, as long as every place says; a second word ends it."""

import configparser
import io
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.preparing import Whose
from fedkd.deploy.starting import SERVICE, programs
from fedkd.deploy.supervising import (
    STOP_SECONDS,
    Program,
    Supervisor,
    state_of,
    stop,
    supervisor_of,
)
from tests.deploy.services import until

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
TURN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path("told").touch())
pathlib.Path("ready").touch()
while not pathlib.Path("done").exists():
    time.sleep(0.05)
"""
"""A program that ends once its turn is done, whatever it is told."""


def supervised(folder: Path, end_seconds: float = 600.0) -> int:
    """A supervisor, in a process of its own, of a program in the middle of a turn."""
    (folder / "run").mkdir()
    pid = os.fork()
    if pid == 0:
        words = [sys.executable, "-c", TURN]
        program = Program("turn", words, {}, folder, folder / "turn.log", end_seconds=end_seconds)
        try:
            Supervisor(folder / "run", [program], lambda line: None).run()
        finally:
            os._exit(0)
    until((folder / "ready").exists)
    until(lambda: state_of(folder / "run"))  # written down after it began
    return pid


def ended(folder: Path, pid: int) -> int | None:
    """How the program ended, once its supervisor has."""
    try:
        until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
    finally:
        (folder / "done").touch()
    exit: int | None = state_of(folder / "run")["turn"]["last_exit"]
    return exit


def test_a_turn_is_let_end(tmp_path: Path) -> None:
    pid = supervised(tmp_path)
    os.kill(pid, signal.SIGTERM)
    until((tmp_path / "told").exists)
    (tmp_path / "done").touch()
    assert ended(tmp_path, pid) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    pid = supervised(tmp_path)
    os.kill(pid, signal.SIGINT)
    until((tmp_path / "told").exists)
    os.kill(pid, signal.SIGINT)
    assert ended(tmp_path, pid) == -signal.SIGKILL


def test_a_turn_that_takes_longer_than_all_agreed_on_is_ended(tmp_path: Path) -> None:
    pid = supervised(tmp_path, end_seconds=0.5)
    os.kill(pid, signal.SIGTERM)
    assert ended(tmp_path, pid) == -signal.SIGKILL


class Person(io.StringIO):
    """Types Ctrl-C once that is said to end it, and does not read on."""

    def write(self, said: str) -> int:
        if "Ctrl-C ends it at once" in said and not self.getvalue():
            super().write(said)
            signal.raise_signal(signal.SIGINT)
        return len(said)


def test_whoever_waits_for_a_stop_may_end_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, person = supervised(tmp_path), Person()
    monkeypatch.setattr(sys, "stderr", person)
    assert stop(tmp_path / "run") is True
    assert ended(tmp_path, pid) == -signal.SIGKILL
    assert person.getvalue(), "nobody said so"


def test_what_a_killed_supervisor_wrote_is_not_said_of_the_next_one(tmp_path: Path) -> None:
    """Else `fedkd site status` calls a node connected that is not even started."""
    pid = supervised(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert state_of(tmp_path / "run")["turn"]["pid"] is not None
    (tmp_path / "done").touch()  # it was told to end once its supervisor was gone

    @contextmanager
    def looked_at() -> Iterator[None]:
        before_the_first.append(state_of(tmp_path / "run"))
        raise InterruptedError
        yield

    before_the_first: list[object] = []
    program = Program("turn", [sys.executable, "-c", ""], {}, tmp_path, tmp_path / "turn.log")
    with pytest.raises(InterruptedError):
        Supervisor(tmp_path / "run", [program], lambda line: None).run(looked_at())
    assert before_the_first == [{}]


def test_who_can_be_found_can_be_told_to_stop(tmp_path: Path) -> None:
    """Else a stop that comes at once leaves what was laid out for the time that it runs."""
    done: list[str] = []

    @contextmanager
    def told_at_once() -> Iterator[None]:
        done.append("laid out")
        assert supervisor_of(tmp_path) == os.getpid()
        os.kill(os.getpid(), signal.SIGTERM)
        yield
        done.append("put away")

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        assert Supervisor(tmp_path, [], lambda line: None).run(told_at_once()) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert done == ["laid out", "put away"]


def test_some_words_are_chosen_anew_at_each_start(tmp_path: Path) -> None:
    """A port that somebody took meanwhile would be tried again for ever."""
    (tmp_path / "run").mkdir()
    log, numbers = tmp_path / "node.log", itertools.count(1)

    def chosen() -> list[str]:
        return ["--port", str(next(numbers))]

    pid = os.fork()
    if pid == 0:
        program = Program("node", ["/bin/echo"], {}, tmp_path, log, more=chosen)
        try:
            Supervisor(tmp_path / "run", [program], lambda line: None).run()
        finally:
            os._exit(0)
    try:
        until(lambda: log.exists() and log.read_text().count("\n") >= 2)
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    assert log.read_text().splitlines()[:2] == ["--port 1", "--port 2"]


def test_every_place_lets_a_turn_end_for_as_long(tmp_path: Path) -> None:
    (service,) = programs(Hospital(tmp_path), Whose(), [SERVICE])
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(PACKAGING / "systemd" / "fedkd-site.service")
    assert unit["Service"]["TimeoutStopSec"] == "10min"
    composed = yaml.safe_load((PACKAGING / "containers" / "site.compose.yaml").read_text())
    periods = {it.get("stop_grace_period") for it in composed["services"].values()}
    assert periods == {"10m", None}
    assert service.end_seconds == 600.0
    assert service.end_seconds < STOP_SECONDS, "else the supervisor is killed before its program"
