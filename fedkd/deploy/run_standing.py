"""Says how a coordinator's runs stand: in which round, who takes part, how far the log goes."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fedkd.audit import SERVER, Log
from fedkd.deploy.heads import checkpoint_of

MOST_RUNS: Final = 5
"""The newest ones, which are told of."""
EVALUATIONS: Final = "evaluations"
"""The folder within a run's where evaluations of its student are, each in its own."""


@dataclass(frozen=True, slots=True)
class EvaluationStanding:
    """An evaluation of a run's student: `state`, `why` and `rulings` as a run's.

    `epsilon` is what each hospital would be charged, None where the question names none.
    """

    name: str
    state: str | None
    why: str | None
    rulings: Mapping[str, str]
    epsilon: float | None
    expires: str | None


@dataclass(frozen=True, slots=True)
class RunStanding:
    """One run: `state` as it told last (handed over, proposed, running, finished, failed).

    `round` is the one that was begun last, of `rounds`; one more than those is the closing.
    `rulings` are by site what it said to the proposal, `software` what it runs. `epsilon` is what
    was proposed that each site may spend at most, None where nothing bounds it. `checkpoint` is of
    the server's log. `evaluations` are of its student, oldest first.
    """

    folder: str
    run: str | None
    rehearsal: bool
    state: str | None
    why: str | None
    round: int | None
    rounds: int | None
    rulings: Mapping[str, str]
    software: Mapping[str, str]
    mechanism: str | None
    epsilon: float | None
    checkpoint: Mapping[str, Any] | None
    evaluations: tuple[EvaluationStanding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def runs_of(folder: Path) -> tuple[RunStanding, ...]:
    """The newest runs in FEDERATION/runs, oldest first."""
    return tuple(_run(path) for path in _proposed(folder)[-MOST_RUNS:])


def _proposed(folder: Path) -> list[Path]:
    """The folders in `folder` that hold a proposal, the oldest first; none where it is not there.

    By when they were proposed: one that is proposed again is the newest.
    """
    if not folder.is_dir():
        return []
    made = [path for path in folder.iterdir() if (path / "proposal.json").exists()]
    return sorted(made, key=lambda path: (path / "proposal.json").stat().st_mtime)


def _run(folder: Path) -> RunStanding:
    told, paper = _json(folder / "status.json"), _json(folder / "proposal.json")
    asked = paper.get("asked", {})
    return RunStanding(
        folder=folder.name,
        run=told.get("run", paper.get("run")),
        rehearsal=bool(paper.get("rehearsal", False)),
        state=told.get("state"),
        why=told.get("why"),
        round=told.get("round"),
        rounds=told.get("rounds", asked.get("rounds")),
        rulings=told.get("rulings", {}),
        software=told.get("software", {}),
        mechanism=asked.get("mechanism"),
        epsilon=asked.get("epsilon"),
        checkpoint=_checkpoint(folder / "server"),
        evaluations=tuple(_evaluation(path) for path in _proposed(folder / EVALUATIONS)),
    )


def _evaluation(folder: Path) -> EvaluationStanding:
    told, paper = _json(folder / "status.json"), _json(folder / "proposal.json")
    return EvaluationStanding(
        name=folder.name,
        state=told.get("state"),
        why=told.get("why"),
        rulings=told.get("rulings", {}),
        epsilon=paper.get("asked", {}).get("epsilon"),
        expires=paper.get("expires"),
    )


def _checkpoint(server: Path) -> dict[str, Any] | None:
    path = server / "log.sqlite"
    if not path.exists():
        return None
    try:
        with Log(path, SERVER) as log:
            return checkpoint_of(log)
    except sqlite3.OperationalError:  # its writer has it for longer than this waits
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
