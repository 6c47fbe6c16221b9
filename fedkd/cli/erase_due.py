"""Shows, and with a yes erases, what the retention rules of a hospital's site.yaml make due."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedkd.audit.log import NotOwnLog, StillRead
from fedkd.audit.retention import spelled
from fedkd.audit.verify import CannotTell, Refuted
from fedkd.audit.verify.command import plain
from fedkd.cli.retention import CANNOT_TELL, DONE, REFUSED, early, fails, in_short
from fedkd.deploy.hospital import Hospital, hospital_at
from fedkd.deploy.retention import COMMAND, Due, Rule, due_at, rules_of
from fedkd.deploy.retention import erase_due as apply
from fedkd.deploy.site_file import SiteFile

NOT_REACHED = (
    "outbox/ and models, copies of the logs that were handed over (exports, reports, bundles), "
    "backups"
)


def erase_due(folder: Path, *, yes: bool, as_json: bool) -> int:
    """Says by log and rule what is due, and which runs are kept; only with `yes` it is erased.

    Where the second of two rules fails, what the first one erased is told all the same.
    """
    hospital, now = hospital_at(folder), datetime.now(UTC)
    rules = rules_of(SiteFile.read(hospital.site_yaml))
    found: list[Due] = []
    code = DONE
    try:
        for due in apply(hospital, rules, now) if yes else due_at(hospital, rules, now):
            found.append(due)
    except (NotOwnLog, Refuted, StillRead) as error:
        code = fails(str(error), REFUSED)
    except CannotTell as error:
        code = fails(str(error), CANNOT_TELL)
    if as_json:
        print(json.dumps(_to_json(hospital, now, rules, found, yes), indent=2))
    elif code == DONE or found:
        _say(hospital, rules, found, yes)
    return code


def _to_json(
    hospital: Hospital, now: datetime, rules: tuple[Rule, ...], found: list[Due], yes: bool
) -> dict[str, Any]:
    return {
        "site": hospital.name,
        "at": spelled(now),
        "yes": yes,
        "retention": {rule.type: rule.days for rule in rules},
        "found": [_row(due) for due in found],
        "not_reached": NOT_REACHED,
    }


def _row(due: Due) -> dict[str, Any]:
    times, applied = due.found.bodies.values(), due.applied
    entry = None if applied is None or applied.entry is None else applied.entry.index
    return {
        "folder": due.folder,
        "type": due.rule.type,
        "days": due.rule.days,
        "rule": due.rule.text,
        "before": spelled(due.limit),
        "due": len(times),
        "oldest": spelled(min(times)) if times else None,
        "youngest": spelled(max(times)) if times else None,
        "youngest_days": due.youngest_days,
        "kept": dict(due.found.kept),
        "erased": [] if applied is None else list(applied.indices),
        "entry": entry,
        "warning": early(due.youngest_days),
    }


def _say(hospital: Hospital, rules: tuple[Rule, ...], found: list[Due], yes: bool) -> None:
    if not rules:
        print(f"no rule under retention in {hospital.site_yaml}: nothing is ever erased")
        return
    if not found:
        print(plain(f"{hospital.name} has no log yet: fedkd site init {hospital.folder}"))
        return
    for due in found:
        for line in _lines(due):
            print(plain(line))
    if not yes and any(due.found.bodies for due in found):
        print(f"nothing was erased yet: {COMMAND} {hospital.folder} --yes")
    print(f"not reached: {NOT_REACHED}")
    for due in found:
        if (warning := early(due.youngest_days)) is not None:
            print(f"{warning} ({due.folder}: {due.rule})", file=sys.stderr)


def _lines(due: Due) -> Iterator[str]:
    times, applied = due.found.bodies.values(), due.applied
    if not times:
        what = "nothing is due"
    else:
        count = "1 body is" if len(times) == 1 else f"{len(times)} bodies are"
        oldest, youngest = min(times).date(), max(times).date()
        what = f"{count} due, the oldest of {oldest}, the youngest of {youngest}"
    yield f"{due.folder:9} {due.rule}: {what}"
    if applied is not None and applied.entry is not None:
        yield f"{'':9} erased: what was said in {in_short(applied.indices)}"
        yield f"{'':9} entry {applied.entry.index}, retention.applied, says so: {due.rule.text}"
    for run, why in due.found.kept.items():
        yield f"{'':9} kept: entries of run {run}, because {why}"
