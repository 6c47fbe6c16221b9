"""What a person sees of a run: live on a terminal, in lines without one, nothing when quiet."""

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedkd.cli import main
from fedkd.cli.configuration import compose, sweep
from fedkd.cli.lines import QUIET
from fedkd.cli.progress import Watching
from fedkd.federation.asking import Reply

TINY = [
    "data=digits", "data.records=60", "data.test_size=40", "query.size=12", "clients.count=3",
    "clients.models=[logistic]", "training.local_epochs=1", "training.lesson_epochs=1",
    "student.model=logistic", "student.epochs=1", "report=false",
]  # fmt: skip
TWO_ROUNDS = [*TINY, "rounds=2", "faults=dropout", "faults.rounds=[2]"]
LEFT_OUT = re.compile(r"round 2 of 2: 2 of 3 hospitals answered.*, left out: (site-0[123])  \(")


def simulated(words: Sequence[str], *, terminal: bool, quiet: bool = False) -> tuple[str, str]:
    """Standard output and standard error of a run in a process of its own."""
    spoilt = (QUIET, "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR")
    env = {name: value for name, value in os.environ.items() if name not in spoilt}
    env |= {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"} | ({QUIET: "1"} if quiet else {})
    ours, theirs = os.openpty() if terminal else os.pipe()
    heard: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # a terminal whose other end is closed says so
                return
            if not piece:
                return
            heard.append(piece)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fedkd.cli", "simulate", *words],
            env=env, stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=False,
        )  # fmt: skip
    finally:
        os.close(theirs)
        listener.join()
        os.close(ours)
    errors = b"".join(heard).decode()
    assert done.returncode == 0, errors
    return done.stdout.decode(), errors


def test_a_terminal_shows_the_rounds_and_the_hospitals_as_they_answer(tmp_path: Path) -> None:
    out, shown = simulated([*TWO_ROUNDS, f"out={tmp_path / 'run'}"], terminal=True)
    assert "\x1b[" in shown  # a live line, drawn over and over
    assert "round 1 of 2  ●●● 3/3  site-03 answered" in shown
    (silent,) = re.findall(r"round 2 of 2  ●●● 3/3  (site-0[123]) no reply", shown)
    assert LEFT_OUT.findall(shown) == [silent]
    assert "closing" in shown
    assert "asking" not in shown  # that line is for those who have no live one
    assert shown.rstrip().endswith("\x1b[2K")  # nothing of the live line is left behind
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # and the cursor is back
    assert "\x1b[" not in out


def test_without_a_terminal_each_round_is_two_plain_lines(tmp_path: Path) -> None:
    out, shown = simulated([*TWO_ROUNDS, f"out={tmp_path / 'run'}"], terminal=False)
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert not {"●", "○"} & set(shown)
    lines = [line for line in shown.splitlines() if line.startswith("round")]
    assert [line.split(",")[0] for line in lines] == [
        "round 1 of 2: asking 3 hospitals",
        "round 1 of 2: 3 of 3 hospitals answered",
        "round 2 of 2: asking 3 hospitals",
        "round 2 of 2: 2 of 3 hospitals answered",
    ]
    assert LEFT_OUT.search(lines[3])
    assert "on validation" in lines[1]
    assert "round 1 of" not in out  # standard output is the result alone


def test_quiet_is_silent_on_a_terminal_too(tmp_path: Path) -> None:
    words = [*TINY, "rounds=1", f"out={tmp_path / 'run'}"]
    out, shown = simulated(words, terminal=True, quiet=True)
    assert shown == ""
    assert "next:" in out


def test_quiet_is_silent_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(QUIET, "1")
    assert main(["simulate", *TINY, "rounds=1", f"out={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().err == ""


class Noting:
    """A `Watch` that notes what it sees, and adds a figure."""

    def __init__(self, figure: float | None) -> None:
        self.figure = figure
        self.seen: list[Any] = []

    def round_begins(self, round: int, rounds: int, asked: Sequence[str]) -> None:
        self.seen.append((round, rounds, list(asked)))

    def reply(self, reply: Reply) -> None:
        self.seen.append(reply)

    def round_ends(self, row: dict[str, Any], student: Any) -> dict[str, Any]:
        self.seen.append(row)
        return {**row, "student_accuracy": self.figure}


ROW = {"answered": 1, "asked": 2, "left_out": ["b"], "seconds": 0.25}
REPLIES = [Reply("a", b"body"), Reply("b", None, "no reply")]


@pytest.mark.parametrize(
    ("figure", "told"),
    [(0.75, ", student 0.750 on validation"), (None, "")],
    ids=["measured", "no validation"],
)
def test_whoever_watches_sees_all_that_the_watch_behind_sees(
    figure: float | None,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(QUIET, raising=False)
    behind = Noting(figure)
    watching = Watching(behind)
    watching.round_begins(4, 5, ["a", "b"])
    for reply in REPLIES:
        watching.reply(reply)
    student: Any = None
    assert watching.round_ends(ROW, student) == {**ROW, "student_accuracy": figure}
    watching.round_begins(6, 5, ["a"])  # the closing question is no round
    assert behind.seen == [(4, 5, ["a", "b"]), *REPLIES, ROW, (6, 5, ["a"])]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "round 4 of 5: asking 2 hospitals",
        f"round 4 of 5: 1 of 2 hospitals answered{told}, left out: b  (0.2 s)",
    ]


def next_words(shown: str) -> list[str]:
    """The words that stand after `next:` as a shell would read them."""
    (line,) = [line for line in shown.splitlines() if line.startswith("next:")]
    command, verb, *words = shlex.split(line.removeprefix("next:"))
    assert (command, verb) == ("fedkd", "simulate")
    return words


def points(words: list[str]) -> list[dict[str, Any]]:
    """The configuration of each run that `words` stand for; `BadInput` if they do not parse."""
    config_dir = None
    if "--config-dir" in words:
        at = words.index("--config-dir")
        config_dir = Path(words[at + 1])
        words = words[:at] + words[at + 2 :]
    if "-m" not in words:
        return [compose(words, config_dir)]
    rest = [word for word in words if word != "-m"]
    return [compose(point, config_dir) for point in sweep(rest, config_dir)]


def test_what_comes_next_is_a_command_that_parses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *TINY, "rounds=1", f"out={tmp_path / 'run'}"]) == 0
    (then,) = points(next_words(capsys.readouterr().out))
    assert then["choices"]["data"] == "digits"
    assert then["baselines"]["enabled"]  # first beside what it should be held against


def test_after_the_baselines_come_the_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["baselines=true", "baselines.fedavg_rounds=1", "baselines.fedavg_local_epochs=[1]"]
    assert main(["simulate", *TINY, *quick, "rounds=1", f"out={tmp_path / 'run'}"]) == 0
    then = points(next_words(capsys.readouterr().out))
    assert [(it["choices"]["data"], it["seed"]) for it in then] == [
        ("digits", 0), ("digits", 1), ("digits", 2),
    ]  # fmt: skip


SCHEMA = """
columns:
  age: {kind: numeric, low: 0, high: 120, unit: years}
label: {column: ill, classes: ["no", "yes"]}
"""


@pytest.mark.parametrize("name", ["plain", "a folder", "a hospital's", "x=1, y=2"])
def test_what_comes_next_finds_the_file_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    rows = [f"{20 + row},{'yes' if row % 3 else 'no'}" for row in range(60)]
    (folder / "own.csv").write_text("\n".join(["age,ill", *rows]))
    (folder / "own.csv.schema.yaml").write_text(SCHEMA)
    quoted = str(folder / "own.csv").replace("'", r"\'")
    words = ["data=table", f"data.path='{quoted}'", "clients.count=2", "query.size=20", *TINY[5:],
             "rounds=1", f"out={tmp_path / 'run'}"]  # fmt: skip
    assert main(["simulate", *words]) == 0
    (then,) = points(next_words(capsys.readouterr().out))
    assert Path(then["data"]["path"]).resolve() == folder / "own.csv"


def test_what_comes_next_names_the_folder_of_ones_own_yaml_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine"
    (own / "data").mkdir(parents=True)
    (own / "data" / "my_digits.yaml").write_text(
        "# @package _global_\nquery:\n  size: 12\n"
        "data:\n  _target_: fedkd.data.sources.digits.digits\n"
        "  records: null\n  validation: 0.1\n  test_size: 40\n  reference_model: logistic\n"
    )
    words = ["data=my_digits", *TINY[1:], "rounds=1", f"out={tmp_path / 'run'}"]
    assert main(["simulate", *words, "--config-dir", str(own)]) == 0
    (then,) = points(next_words(capsys.readouterr().out))
    assert then["choices"]["data"] == "my_digits"
