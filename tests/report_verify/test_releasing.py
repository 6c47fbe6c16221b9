"""A version is frozen once: what it is, what it follows, and that it was tested."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedkd.cli import main
from fedkd.report.building import build


def test_a_version_stands_in_the_report_and_the_logs_still_hold(run: Path, capsys: Any) -> None:
    assert main(["release", str(run), "--version", "1.0"]) == 0
    assert main(["release", str(run), "--version", "1.1", "--parent", "1.0"]) == 0
    said = [one.text for one in build(run).derived.answer("a4.6.changes").statements]
    assert said[0].startswith("Version 1.0 (logistic")
    assert "it names no earlier version" in said[0]
    assert "follows version 1.0" in said[1]
    assert said[2].startswith("From version 1.0 to version 1.1: changed none; the same model, ")
    capsys.readouterr()
    assert main(["report", "diff", "1.0", "1.1", "--run", str(run), "--json"]) == 0
    changed = {one["field"] for one in json.loads(capsys.readouterr().out)}
    assert {"a4.1a.version", "a4.6.changes"} <= changed
    assert main(["report", "diff", "1.0", "1.2", "--run", str(run)]) == 2
    assert "1.0, 1.1" in capsys.readouterr().err
    assert main(["audit", "verify", str(run)]) == 0
    folder = run / "releases" / "1.1"
    frozen = json.loads((folder / "release.json").read_bytes())
    assert frozen["parent"] == "1.0"
    assert frozen["evaluations"]
    assert (folder / "student.safetensors").read_bytes() == (
        run / "student.safetensors"
    ).read_bytes()


def test_a_version_never_changes(run: Path, capsys: Any) -> None:
    told = ["release", str(run), "--version", "1.0"]
    assert main(told) == 0
    before = (run / "releases" / "1.0" / "release.json").read_bytes()
    assert main(told) == 0  # the same again
    assert (run / "releases" / "1.0" / "release.json").read_bytes() == before
    assert main([*told, "--parent", "1.0"]) == 2
    assert "never changes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--version", "../1"], "version"),
        (["--version", ""], "version"),
        (["--version", "1", "--parent", "9"], "parent 9"),
        (["--version", "1", "--threshold", "0.5"], "two classes"),
        (["--version", "1", "--parent-run", "nowhere"], "--parent"),
        (["--version", "1", "--parent", "1", "--parent-run", "nowhere"], "no server's log"),
    ],
)
def test_what_makes_no_version_is_refused(
    run: Path, more: list[str], said: str, capsys: Any
) -> None:
    assert main(["release", str(run), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (run / "releases").exists()


def test_another_file_than_the_log_names_is_not_released(run: Path, capsys: Any) -> None:
    path = run / "student.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert main(["release", str(run), "--version", "1.0"]) == 2
    assert "the log names" in capsys.readouterr().err


def test_what_changed_between_two_runs_is_said(run: Path, tmp_path: Path, capsys: Any) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    assert main(["release", str(other), "--version", "2.0"]) == 0
    capsys.readouterr()
    assert main(["report", "diff", str(run), str(other), "--json"]) == 0
    changed = {one["field"]: one for one in json.loads(capsys.readouterr().out)}
    assert changed["a4.6.changes"]["before"] == "MISSING"
    assert changed["a4.6.changes"]["after"] in ("RECORDED", "COMPUTED")
    # Figures at the threshold that is used are now those of a version, and say of which.
    figures = {"a4.2g.metrics", "a4.3.capabilities", "a13.3b.accuracy", "a15.1.level"}
    assert set(changed) == {"a4.6.changes", "a4.1a.version", "nist.measure", *figures}
    for id in figures:
        assert any("no version is released" in text for text in changed[id]["gone"])
        assert any("version 2.0" in text for text in changed[id]["new"])
