"""Says how a coordinator's runs stand: in which round, who takes part, how far the log goes."""

import fcntl
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from sqlite3 import SQLITE_BUSY, SQLITE_LOCKED
from typing import Any, Final

from fedkd.audit import SERVER, Log
from fedkd.deploy.heads import checkpoint_of

MOST_RUNS: Final = 5
"""The newest ones, which are told of."""
EVALUATIONS: Final = "evaluations"
"""The folder within a run's where evaluations of its student are, each in its own."""
CONDUCTING: Final = ".conducting"
"""The file in a run's folder that whoever conducts it, or an evaluation of it, holds locked."""
CUT_OFF: Final = "cut off"
"""What is said of a run or an evaluation that began, did not end, and that nobody conducts."""
_GOING: Final = ("begun", "proposed", "running")
_STATUS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "run": str, "state": str, "why": str, "round": int, "rounds": int,
    "rulings": dict, "software": dict,
}  # fmt: skip
_PAPER: Final[Mapping[str, type | tuple[type, ...]]] = {
    "run": str, "rehearsal": bool, "expires": str, "asked": dict,
}  # fmt: skip
_ASKED: Final[Mapping[str, type | tuple[type, ...]]] = {
    "rounds": int, "mechanism": str, "epsilon": (int, float),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvaluationStanding:
    """An evaluation of a run's student: `state`, `why`, `rulings` and `cut_off` as a run's.

    `epsilon` is what each hospital would be charged, None where the question names none.
    """

    name: str
    state: str | None
    why: str | None
    rulings: Mapping[str, str]
    epsilon: float | None
    expires: str | None
    cut_off: bool = False

    @property
    def shown(self) -> str:
        """In which state it is, for people and metrics."""
        return _shown(self.state, self.cut_off)


@dataclass(frozen=True, slots=True)
class RunStanding:
    """One run: `state` as it told last (handed over, proposed, running, finished, failed).

    `round` is the one that was begun last, of `rounds`; one more than those is the closing.
    `rulings` are by site what it said to the proposal, `software` what it runs. `epsilon` is what
    was proposed that each site may spend at most, None where nothing bounds it. `checkpoint` is of
    the server's log. `evaluations` are of its student, oldest first. It is `cut_off` where its
    state is one of a run that goes on, and no process conducts it. `troubles` say which of its
    files cannot be read; what they would have said is missing.
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
    cut_off: bool = False
    troubles: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """In which state it is, for people and metrics."""
        return _shown(self.state, self.cut_off)

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
    troubles: list[str] = []
    told, paper, asked = _papers(folder, troubles)
    evaluations = _proposed(folder / EVALUATIONS)
    going = [path for path in (folder, *evaluations) if _is_going(path)]
    cut_off = set(going) - _conducted(folder, going)
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
        checkpoint=_checkpoint(folder / "server", troubles),
        evaluations=tuple(_evaluation(path, path in cut_off, troubles) for path in evaluations),
        cut_off=folder in cut_off,
        troubles=tuple(troubles),
    )


def _shown(state: str | None, cut_off: bool) -> str:
    return CUT_OFF if cut_off else state or "not begun"


def _is_going(folder: Path) -> bool:
    return _papers(folder, [])[0].get("state") in _GOING


def _conducted(run: Path, going: Sequence[Path]) -> set[Path]:
    """Which one of `going` a process conducts: none where nobody holds the run's lock.

    There is one lock for a run and its evaluations; who holds it told last how far it is.
    """
    if not going or not is_conducted(run):
        return set()
    return {max(going, key=lambda path: (path / "status.json").stat().st_mtime)}


def is_conducted(run: Path) -> bool:
    """Whether a process conducts the run in this folder, or an evaluation of it, just now."""
    try:
        with (run / CONDUCTING).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _evaluation(folder: Path, cut_off: bool, troubles: list[str]) -> EvaluationStanding:
    own: list[str] = []
    told, paper, asked = _papers(folder, own)
    troubles += [f"{EVALUATIONS}/{folder.name}, {said}" for said in own]
    return EvaluationStanding(
        name=folder.name,
        state=told.get("state"),
        why=told.get("why"),
        rulings=told.get("rulings", {}),
        epsilon=asked.get("epsilon"),
        expires=paper.get("expires"),
        cut_off=cut_off,
    )


def _checkpoint(server: Path, troubles: list[str]) -> dict[str, Any] | None:
    path = server / "log.sqlite"
    if not path.exists():
        return None
    try:
        with Log(path, SERVER) as log:
            return checkpoint_of(log)
    except (sqlite3.Error, OSError, ValueError, LookupError, TypeError) as error:
        # Its writer may have it for longer than this waits: that is no damage.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (SQLITE_BUSY, SQLITE_LOCKED):
            troubles.append(f"{server.name}/{path.name}: {error}")
        return None


def _papers(
    folder: Path, troubles: list[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What was told last, what was proposed, and what it asks for, as far as that can be read."""
    told = _mapping(_json(folder / "status.json", troubles), _STATUS, "status.json", troubles)
    paper = _mapping(_json(folder / "proposal.json", troubles), _PAPER, "proposal.json", troubles)
    return told, paper, _mapping(paper.get("asked", {}), _ASKED, "proposal.json", troubles)


def _json(path: Path, troubles: list[str]) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        troubles.append(f"{path.name}: {error}")
        return {}


def _mapping(
    plain: Any, kinds: Mapping[str, type | tuple[type, ...]], name: str, troubles: list[str]
) -> dict[str, Any]:
    """The values of `kinds` in `plain`, without those of another kind."""
    if not isinstance(plain, dict):
        troubles.append(f"{name}: no mapping")
        return {}
    known = {key: plain[key] for key in kinds if plain.get(key) is not None}
    wrong = sorted(key for key, value in known.items() if not isinstance(value, kinds[key]))
    if wrong:
        troubles.append(f"{name}: not what fedkd writes under {', '.join(wrong)}")
    return {key: value for key, value in known.items() if key not in wrong}
