"""Reads and checks the logs of a run: what happened, whether it holds, whether it can be redone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedkd.audit.verify import CannotTell, Refuted
from fedkd.audit.verify.logs import CheckedLog, check_double_entry, check_log
from fedkd.knowledge import BadInput

SERVER = "server"
DONE, REFUTED, CANNOT_TELL = 0, 1, 3


def show(path: Path, *, party: str | None, type: str | None, as_json: bool) -> int:
    """Prints entries as a table: one log, or those of a run, filtered by party and type."""
    shown = [
        {
            "party": name,
            "index": leaf.header.sequence,
            "time": leaf.header.time,
            "type": leaf.header.type,
            "body": leaf.body,
        }
        for name, log in _checked(path)
        if party in (None, name)
        for leaf in log.entries
        if type in (None, leaf.header.type)
    ]
    if as_json:
        print(json.dumps(shown, indent=2))
        return DONE
    for entry in shown:
        body = json.dumps(entry["body"], sort_keys=True) if entry["body"] is not None else "erased"
        where = f"{entry['party']:12} {entry['index']:4}  {entry['time']}"
        print(f"{where}  {entry['type']:20} {body if len(body) <= 100 else body[:97] + '...'}")
    return DONE


def verify(path: Path, *, as_json: bool) -> int:
    """Checks one log, or all logs of a run with what they say of each other."""
    rows: list[dict[str, Any]] = []
    checked: dict[str, CheckedLog] = {}
    code = DONE
    for name, log_path in _logs(path).items():
        try:
            log = check_log(log_path)
        except CannotTell as error:
            rows.append({"log": name, "verdict": "CANNOT TELL", "why": str(error)})
            code = max(code, CANNOT_TELL) if code != REFUTED else code
        except Refuted as error:
            rows.append({"log": name, "verdict": "REFUTED", "why": str(error)})
            code = REFUTED
        else:
            checked[name] = log
            told = {"entries": len(log.entries), "root": log.root.hex()}
            rows.append({"log": name, "verdict": log.verdict, **told})
    if code == DONE and SERVER in checked:
        rows.append(_double_entry(checked))
        code = REFUTED if rows[-1]["verdict"] == "REFUTED" else code
    if as_json:
        print(json.dumps(rows, indent=2))
        return code
    for row in rows:
        detail = row.get("why") or f"{row['entries']} entries, root {row['root'][:16]}"
        print(f"{row['verdict']:12} {row['log']:14} {detail}")
    if checked:
        print(
            "ONE HOLDER: keys and logs come from the same folder. This shows that they hold "
            "together; whose they are, and that nobody rewrote them, it cannot show."
        )
    return code


def _double_entry(checked: dict[str, CheckedLog]) -> dict[str, Any]:
    sites = {name: log for name, log in checked.items() if name != SERVER}
    try:
        matched = check_double_entry(checked[SERVER], sites)
    except Refuted as error:
        return {"log": "double entry", "verdict": "REFUTED", "why": str(error)}
    why = f"{matched} answers stand alike in the server's log and in the site's"
    return {"log": "double entry", "verdict": "CONSISTENT", "why": why}


def all_hold(folder: Path) -> bool:
    """Whether every log in `folder` holds, and all of them agree."""
    try:
        checked = {name: check_log(path) for name, path in _logs(folder).items()}
        sites = {name: log for name, log in checked.items() if name != SERVER}
        check_double_entry(checked[SERVER], sites)
    except (Refuted, CannotTell):
        return False
    return True


def recompute(path: Path, *, as_json: bool) -> int:
    """Redoes filter, aggregation, lesson and student from the released answers, to the bit."""
    rows = list(_recomputed(path))
    failed = [row for row in rows if not row["equal"]]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            word = "EQUAL" if row["equal"] else "REFUTED"
            print(f"{word:8} round {row['round']}  {row['what']:10} {row['found']}")
            if not row["equal"]:
                print(f"         expected by the server's log: {row['expected']}")
    return REFUTED if failed else DONE


def _recomputed(path: Path) -> Iterator[dict[str, Any]]:
    from fedkd.cli.run import open_run
    from fedkd.federation.exchange import Exchange
    from fedkd.knowledge import Answers, Lesson, digest_of_arrays

    if not (path / "run.json").exists():
        raise BadInput(f"no run in {path}", "the folder of a run")
    run = open_run(str(path))
    rules, student = run.rules(), run.student()
    exchange = Exchange(path / "exchange")
    log = check_log(path / "audit" / f"{SERVER}.sqlite")
    combined = {body["round"]: body for body in log.bodies("aggregate.computed")}
    updated = {body["round"]: body for body in log.bodies("student.updated")}
    filter_memory, aggregate_memory = rules.filter.init(), rules.aggregate.init()
    for body in log.bodies("answers.admitted"):
        number = body["round"]
        said = {site: exchange.distributions(it) for site, it in body["answers"].items()}
        filter_memory, kept = rules.filter.keep(filter_memory, Answers.of(said))
        aggregate_memory, consensus = rules.aggregate.combine(aggregate_memory, kept.answers)
        common = consensus.common
        student = rules.teach(student, [Lesson(exchange.queries(common.about), common)], number)
        weights = digest_of_arrays({"kind": "model"}, student.weights() or {})
        for what, found, expected in (
            ("consensus", common.digest, combined[number]["output"]),
            ("lesson", rules.lesson(common).digest, combined[number]["lesson"]),
            ("student", weights, updated[number]["output"]),
        ):
            yield {
                "round": number,
                "what": what,
                "found": str(found),
                "expected": expected,
                "equal": found == expected,
            }


def _checked(path: Path) -> list[tuple[str, CheckedLog]]:
    try:
        return [(name, check_log(log)) for name, log in _logs(path).items()]
    except Refuted as error:
        raise BadInput(
            f"a log that does not hold ({error})", "one that audit verify accepts"
        ) from None


def _logs(path: Path) -> dict[str, Path]:
    """The logs in `path` by party: of a run's folder, of its audit folder, or one file."""
    if path.is_file():
        return {path.stem: path}
    folder = path / "audit" if (path / "audit").is_dir() else path
    found = {file.stem: file for file in sorted(folder.glob("*.sqlite"))}
    if not found:
        raise BadInput(f"no log in {path}", "a run's folder, its audit folder, or a .sqlite file")
    return found
