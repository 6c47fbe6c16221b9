"""The command: quick to help, one sentence for an error, and an exit code that means one thing."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedkd import __version__
from fedkd.cli import app as commands
from fedkd.cli import main

HEAVY = ("torch", "hydra", "flwr", "pandas", "sklearn", "opacus", "scipy", "ray")


def fedkd(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedkd.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def broken(*args: Any, **kwargs: Any) -> int:
        raise error

    monkeypatch.setattr(commands, "app", broken)
    return commands.run(["simulate"])


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from fedkd.cli import main; main(['--help']); "
        f"sys.exit(str([it for it in {HEAVY} if it in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert "simulate" in done.stdout


def test_help_takes_little_of_the_processor() -> None:
    # Processor time, not wall time: other work on the machine says nothing about ours. The bar is
    # 0.5 s on an idle machine; caches of a first run may be cold, so the best of three counts.
    def seconds() -> float:
        before = os.times()
        assert fedkd("--help").returncode == 0
        after = os.times()
        spent = after.children_user + after.children_system
        return spent - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 1.0


def test_the_version_is_printed() -> None:
    done = fedkd("--version")
    assert (done.returncode, done.stdout) == (0, f"fedkd {__version__}\n")


@pytest.mark.parametrize("command", ["simulate", "compare", "laws", "bench"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage: fedkd" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["simulat"],
        ["--nothing"],
        ["simulate", "--nothing"],
        ["simulate", "--resume"],
        ["simulate", "round=3"],
        ["simulate", "rounds=abc"],
        ["simulate", "rounds"],
        ["simulate", "--config-dir", "nowhere"],
        ["compare"],
        ["compare", "nowhere"],
        ["laws"],
        ["laws", "nothing"],
        ["simulate", "-m", "seed=0,1", "--resume", "nowhere"],
        ["simulate", "--resume", "nowhere", "--config-dir", "."],
        ["bench", "nothing"],
        ["bench", "methods", "seeds=a"],
        ["bench", "methods", "seeds=0,0"],
        ["bench", "methods", "cells=4"],
        ["bench", "methods", "cells"],
        ["bench", "simulate", "sites=-3"],
        ["bench", "simulate", "seconds=nan"],
        ["bench", "simulate", "engine=steam"],
        ["bench", "scale", "rounds=2.5"],
        ["bench", "scale", "--config-dir", "."],
    ],
)
def test_what_is_used_wrongly_exits_with_2_and_no_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert said.err.startswith("error: ") or "error: " in said.err or not arguments


def test_a_wrong_key_is_answered_in_the_terminal() -> None:
    done = fedkd("simulate", "round=3")
    assert done.returncode == 2
    assert "did you mean rounds?" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_where_it_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "round=3", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_unforeseen_error_is_one_sentence_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails_with(OSError("disk full\nsecond line"), monkeypatch) == 1
    assert capsys.readouterr().err == "error: OSError: disk full (--debug shows where)\n"


def test_an_error_without_words_is_still_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails_with(RuntimeError(), monkeypatch) == 1
    assert "no reason given" in capsys.readouterr().err


def test_an_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fails_with(KeyboardInterrupt(), monkeypatch) == 130


def test_a_pipe_whose_reader_has_gone_is_no_error() -> None:
    command = f"{sys.executable} -m fedkd.cli --help | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_installed_app_is_found_from_anywhere(tmp_path: Path) -> None:
    code = "from fedkd.cli.configuration import app_root; print((app_root() / 'conf').is_dir())"
    root = Path(commands.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True"
