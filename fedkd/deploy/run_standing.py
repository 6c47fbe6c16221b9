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


@dataclass(frozen=True, slots=True)
class RunStanding:
    """One run: `state` as it told last (handed over, proposed, running, finished, failed).

    `round` is the one that was begun last, of `rounds`; one more than those is the closing.
    `rulings` are by site what it said to the proposal, `software` what it runs. `epsilon` is what
    was proposed that each site may spend at most, None where nothing bounds it. `checkpoint` is of
    the server's log.
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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def runs_of(folder: Path) -> tuple[RunStanding, ...]:
    """The newest runs in FEDERATION/runs, oldest first."""
    made = [path for path in folder.iterdir() if (path / "proposal.json").exists()]
    made.sort(key=lambda path: (path / "proposal.json").stat().st_mtime)
    return tuple(_run(path) for path in made[-MOST_RUNS:])


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
