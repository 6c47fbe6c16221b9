"""Erases, in a party's own log, what old entries say, under a retention rule that the log keeps."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedkd.audit import Log
from fedkd.audit.erasing import Applied, apply_rule
from fedkd.audit.keys import FOLDER, LOG
from fedkd.audit.log import NotOwnLog, StillRead
from fedkd.audit.retention import LEAST_DAYS, NeverErased, check_erasable, moment
from fedkd.audit.verify import CannotTell, Refuted
from fedkd.audit.verify.command import plain
from fedkd.audit.verify.logs import check_log
from fedkd.knowledge import BadInput

DONE, REFUSED, CANNOT_TELL = 0, 1, 3
LOG_FILE = "log.sqlite"
MOST_SHOWN = 12
COPIES = (
    "copies that left this folder earlier (exports, backups, a run's audit folder) still hold them"
)


def erase(path: Path, *, type: str, before: str, rule: str, as_json: bool) -> int:
    """Erases bodies and salts of entries of `type` older than `before`; headers and proofs stay.

    `path` is a party's own folder, or the log.sqlite in it. The log is checked first: what does
    not hold is evidence, and nothing in it is erased.
    """
    file = _own_log(path)
    try:
        check_erasable(type)
        moment(before)
        party = _party(file)
        with Log(file, party) as log:
            applied = apply_rule(log, type, before, rule, datetime.now(UTC))
    except (NeverErased, NotOwnLog, Refuted, StillRead) as error:
        return fails(str(error), REFUSED)
    except CannotTell as error:
        return fails(str(error), CANNOT_TELL)
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        return fails(str(error), 2)
    _tell(file, party, type, before, rule, applied, as_json=as_json)
    return DONE


def _own_log(path: Path) -> Path:
    """The log that `path` names, which has its keys beside it: nobody else may add to it."""
    file = path / LOG_FILE if path.is_dir() else path
    expected = f"a site's or the server's own folder, which holds {LOG_FILE} and {FOLDER}/"
    if not file.is_file():
        raise BadInput(f"no log at {file}", expected)
    if not (file.parent / FOLDER / LOG).is_file():
        found = f"{file} without the key that signs it, so a copy that was handed over"
        raise BadInput(found, expected, "erase at the party that keeps the log")
    if file.name != LOG_FILE:
        found = f"{file}, a copy beside the party's own log"
        raise BadInput(found, str(file.with_name(LOG_FILE)), "delete the copy as a file")
    return file


def _party(file: Path) -> str:
    """Whose log it is, once it has been checked from its first byte to its last."""
    Log(file, file.parent.name).close()  # takes in what a process that was killed left in the WAL
    return check_log(file).party


def _tell(
    file: Path, party: str, type: str, before: str, rule: str, applied: Applied, *, as_json: bool
) -> None:
    warning = early(applied.youngest_days)
    entry = None if applied.entry is None else applied.entry.index
    if as_json:
        told = {
            "log": str(file),
            "party": party,
            "type": type,
            "before": before,
            "rule": rule,
            "erased": list(applied.indices),
            "count": len(applied.indices),
            "entry": entry,
            "youngest_days": applied.youngest_days,
            "kept": dict(applied.kept),
            "warning": warning,
        }
        print(json.dumps(told, indent=2))
        return
    if entry is None:
        print(plain(f"nothing to erase: {party} has no body of {type} left from before {before}"))
    else:
        shown = in_short(applied.indices)
        print(plain(f"erased what {len(applied.indices)} entries of {party} said: {type}, {shown}"))
        print(plain(f"entry {entry}, retention.applied, says so, with the rule: {rule}"))
        print(COPIES)
    for run, why in applied.kept.items():
        print(plain(f"kept: entries of run {run}, because {why}"))
    if warning is not None:
        print(warning, file=sys.stderr)


def in_short(indices: Sequence[int]) -> str:
    """The first of them, and how many more."""
    more = len(indices) - MOST_SHOWN
    return ", ".join(map(str, indices[:MOST_SHOWN])) + (f" and {more} more" if more > 0 else "")


def early(days: int | None) -> str | None:
    """What to be warned of where the youngest body that a rule erases is so many days old."""
    if days is None or days >= LEAST_DAYS:
        return None
    return (
        f"warning: the youngest of these was {days} days old; AI Act, Art. 19(1) and 26(6), ask "
        f"that logs of high-risk systems be kept at least six months ({LEAST_DAYS} days). The log "
        "keeps the number; whether the rule stands above that is for a person to say."
    )


def fails(text: str, code: int) -> int:
    """Says why nothing was erased; the exit code."""
    print(plain(f"error: {text}"), file=sys.stderr)
    return code
