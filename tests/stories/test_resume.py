"""A run that is killed at any named step goes on, and ends as an unbroken one."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.audit.log import Entry
from fedkd.cli.simulate import simulate_one
from fedkd.knowledge import BadInput
from tests.stories.forked import forked, kill_oneself

TINY = [
    "report=false",
    "data=digits",
    "data.records=150",
    "data.test_size=100",
    "query.size=40",
    "clients.count=3",
    "clients.models=[mlp,small_forest]",
    "rounds=2",
    "training.local_epochs=2",
    "training.lesson_epochs=1",
    "student.model=logistic",
    "student.epochs=2",
]
STEPS = [
    ("server", "run.started"),
    ("server", "queries.posed"),
    ("server", "lesson.sent"),
    ("server", "answers.admitted"),
    ("server", "aggregate.computed"),
    ("server", "student.updated"),
    ("server", "run.ended"),
    ("server", "evaluation.done"),
    ("site-01", "dataset.registered"),
    ("site-02", "budget.charged"),
    ("site-02", "train.local"),
    ("site-01", "release.outputs"),
]


def die_at(party: str, event: str, *, before: bool, time: int) -> None:
    """Kills this process at the `time`-th append of `event` in `party`'s log."""
    append = Log.append
    seen: list[str] = []

    def fatal(self: Log, key: str, type: str, body: Mapping[str, Any]) -> Entry:
        hit = self.party == party and type == event and self.entry(key) is None
        if hit:
            seen.append(key)
        if hit and before and len(seen) == time:
            kill_oneself()
        entry = append(self, key, type, body)
        if hit and len(seen) == time:
            kill_oneself()
        return entry

    Log.append = fatal  # type: ignore[method-assign]  # in a child that is about to die


def outcome(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text())
    for changing in ("wall_s", "train_s"):
        summary.pop(changing)
    summary["audit"].pop("root")  # salts are drawn afresh
    # Who goes on calls the roll again, and hears of everybody's head at other moments.
    summary["audit"].pop("entries")
    counts = ("bytes_up", "bytes_down", "messages")
    for row in (summary, *summary["clients"]):
        for count in counts:
            row.pop(count, None)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in metrics:
        for changing in ("seconds", *counts):
            row.pop(changing, None)
    with Log(run / "server" / "log.sqlite", "server") as log:
        answers = [entry.body["answers"] for entry in log.entries("answers.admitted")]
    return {
        "student": (run / "student.safetensors").read_bytes(),
        "summary": summary,
        "metrics": metrics,
        "answers": answers,
        "exchanged": sorted(path.name for path in (run / "exchange").iterdir()),
    }


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one's own, in a folder that a resumed run has to find by itself."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "model").mkdir()
    (folder / "model" / "small_forest.yaml").write_text(
        "_target_: fedkd.distill.models.random_forest.random_forest\ntrees: 5\nleaf: 2\n"
    )
    return folder


@pytest.fixture(scope="module")
def unbroken(own: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    simulate_one([*TINY, f"out={run}"], config_dir=own)
    return outcome(run)


CASES = [
    *((party, event, False) for party, event in STEPS),
    ("server", "answers.admitted", True),
    ("server", "student.updated", True),
    ("site-02", "train.local", True),
    ("site-01", "release.outputs", True),
]


@pytest.mark.parametrize(
    ("party", "event", "before"),
    CASES,
    ids=[f"{'before' if before else 'after'} {event} at {party}" for party, event, before in CASES],
)
def test_a_run_killed_at_a_step_ends_as_an_unbroken_one(
    party: str, event: str, before: bool, unbroken: dict[str, Any], own: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    once = event in ("run.started", "run.ended", "evaluation.done", "lesson.sent")
    time = 1 if once or party != "server" else 2

    def killed() -> None:
        die_at(party, event, before=before, time=time)
        simulate_one([*TINY, f"out={run}"], config_dir=own)

    assert forked(killed) == -9
    assert not (run / "summary.json").exists()
    assert forked(lambda: simulate_one([], resume=run)) == 0
    assert outcome(run) == unbroken


def test_a_finished_run_that_is_resumed_stays_as_it_is(own: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    simulate_one([*TINY, f"out={run}"], config_dir=own)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    simulate_one([], resume=run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def _cut_run_json(run: Path) -> None:
    (run / "run.json").write_text("{")


def _cut_checkpoint(run: Path) -> None:
    (run / "server" / "checkpoint.json").write_text("{")


def _take_the_student(run: Path) -> None:
    for path in (run / "server").glob("student-*"):
        path.unlink()


def _write_a_newer_log(run: Path) -> None:
    database = sqlite3.connect(run / "server" / "log.sqlite")
    database.execute("PRAGMA user_version=99")
    database.close()


@pytest.mark.parametrize(
    "damage", [_cut_run_json, _cut_checkpoint, _take_the_student, _write_a_newer_log]
)
def test_a_damaged_run_says_so(damage: Callable[[Path], None], own: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def killed() -> None:
        die_at("server", "answers.admitted", before=False, time=2)
        simulate_one([*TINY, f"out={run}"], config_dir=own)

    assert forked(killed) == -9
    damage(run)
    with pytest.raises(BadInput, match="damaged, or of another version"):
        simulate_one([], resume=run)
