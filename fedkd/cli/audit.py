"""Reads and checks the logs of a run: what happened, whether it holds, whether it can be redone."""

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.audit.events import EVENTS
from fedkd.audit.verify import CannotTell, ProofFile, Refuted
from fedkd.audit.verify.auditor import Asked, UsedWrongly, find_logs
from fedkd.audit.verify.bundle import CONSISTENT, judge, quorum_of, with_files
from fedkd.audit.verify.command import plain
from fedkd.audit.verify.logs import CheckedLog, check_log
from fedkd.knowledge import BadInput

if TYPE_CHECKING:
    from fedkd.federation.exchange import Exchange
    from fedkd.knowledge import Distributions

SERVER = "server"
DONE, REFUTED, CANNOT_TELL = 0, 1, 3
ENTRY = re.compile(r"(?P<path>.+)#(?P<index>0|[1-9][0-9]{0,15})", re.DOTALL)
REHEARSED = "fedkd.invalid/rehearsal/"
PROOF, LEAF = ".tlog-proof", ".leaf"


REDONE = ("answers.admitted", "aggregate.computed", "student.updated")
"""Entries that recomputation starts from and compares with."""


def show(path: Path, *, party: str | None, type: str | None, as_json: bool) -> int:
    """Prints entries as a table: one log, or those of a run, filtered by party and type."""
    try:
        logs = _checked(path)
    except CannotTell as error:
        return _fails(error)
    if party is not None and party not in dict(logs):
        raise BadInput(f"--party {party}", f"one of {', '.join(dict(logs))}")
    if type is not None and type not in EVENTS:
        raise BadInput(f"--type {type}", f"one of {', '.join(sorted(EVENTS))}")
    shown = [
        {
            "party": name,
            "index": leaf.header.sequence,
            "time": leaf.header.time,
            "type": leaf.header.type,
            "body": leaf.body,
        }
        for name, log in logs
        if party in (None, name)
        for leaf in log.entries
        if type in (None, leaf.header.type)
    ]
    if as_json:
        print(json.dumps(shown, indent=2))
        return DONE
    rehearsed = sorted({name for name, log in logs if is_rehearsed(log)})
    if rehearsed:
        print(plain(f"REHEARSAL: keys and noise of {', '.join(rehearsed)} are a rehearsal's"))
    for entry in shown:
        body = json.dumps(entry["body"], sort_keys=True) if entry["body"] is not None else "erased"
        where = f"{entry['party']:12} {entry['index']:4}  {entry['time']}"
        cut = body if len(body) <= 100 else body[:97] + "..."
        print(plain(f"{where}  {entry['type']:20} {cut}"))
    return DONE


def is_rehearsed(log: CheckedLog) -> bool:
    """Whether a log is a rehearsal's: by the name that its keys have, or by its opening."""
    named = log.origin.startswith(REHEARSED)
    return named or any(body.get("rehearsal") for body in log.bodies("log.opened"))


def all_hold(folder: Path) -> bool:
    """Whether every log in `folder` holds, and all of them agree."""
    try:
        return judge(Asked(folder)).verdict == CONSISTENT
    except UsedWrongly:
        return False


def prove(entry: str, *, out: Path | None, as_json: bool) -> int:
    """Writes a proof file that shows one entry in its log, and the leaf that it is about."""
    named = ENTRY.fullmatch(entry)
    if named is None:
        raise BadInput(f"entry {entry}", "PATH#INDEX, for example audit/server.sqlite#12")
    path, index = Path(named["path"]), int(named["index"])
    if not path.is_file():
        raise BadInput(f"no log at {path}", "a .sqlite file, and behind # the entry's index")
    try:
        log = with_files(check_log(path), path, path.name.removesuffix(".sqlite"))
        size = _size_to_prove(log, index)
        proof = ProofFile.make(index, log.head(size), log.tree.node).to_bytes()
    except (Refuted, CannotTell) as error:
        return _fails(error)
    name = f"{path.name.removesuffix('.sqlite')}-{index}"
    target = Path(name + PROOF) if out is None else out
    leaf = target.with_name(target.name.removesuffix(PROOF) + LEAF)
    contents = {target: proof, leaf: log.entries[index].header.to_bytes()}
    try:
        for file, content in contents.items():
            if file.exists() and file.read_bytes() != content:
                found = f"{file}, which holds something else"
                raise BadInput(found, "a new file", "choose with --out")
        for file, content in contents.items():
            file.write_bytes(content)
    except OSError as error:
        raise BadInput(f"{error.strerror} at {error.filename}", "a file to write") from None
    cosigned = len(log.head(size).signatures) - 1
    told = {"proof": str(target), "leaf": str(leaf), "entry": index, "size": size}
    if as_json:
        print(json.dumps({**told, "cosignatures": cosigned}, indent=2))
    else:
        print(plain(f"{target} and {leaf}: entry {index} in the {size} entries of {log.origin}"))
        print(f"that head has {cosigned} cosignatures; an auditor checks it against his own policy")
    return DONE


def _size_to_prove(log: CheckedLog, index: int) -> int:
    """The newest head over the entry that its cosigners' quorum signed; else the newest one."""
    if index >= log.tree.size:
        expected = f"0 to {log.tree.size - 1}"
        raise BadInput(f"entry {index} of a log of {log.tree.size}", expected)
    quorum = None if log.policy is None else quorum_of(log, log.policy)
    return quorum.size if quorum is not None and quorum.size > index else log.tree.size


def recompute(path: Path, *, as_json: bool) -> int:
    """Redoes filter, aggregation, lesson and student from the released answers, to the bit."""
    try:
        rows = list(_recomputed(path))
    except (Refuted, CannotTell) as error:
        return _fails(error)
    if not any(row["round"] for row in rows):
        expected = "one round of answers at least"
        return _fails(CannotTell(f"answers.admitted: found none in the log, expected {expected}"))
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
    for leaf in log.entries:
        if leaf.body is None and leaf.header.type in REDONE:
            raise CannotTell(
                f"entry {leaf.header.sequence} of {SERVER}, {leaf.header.type}: found it closed or "
                "erased, expected it open: what followed from it cannot be redone"
            )
    yield from _other_settings(log, run.id, run.config)
    combined = {body["round"]: body for body in log.bodies("aggregate.computed")}
    updated = {body["round"]: body for body in log.bodies("student.updated")}
    filter_memory, aggregate_memory = rules.filter.init(), rules.aggregate.init()
    for body in log.bodies("answers.admitted"):
        number = body["round"]
        said = {site: _released(exchange, it) for site, it in body["answers"].items()}
        filter_memory, kept = rules.filter.keep(filter_memory, Answers.of(said))
        aggregate_memory, consensus = rules.aggregate.combine(aggregate_memory, kept.answers)
        common = consensus.common
        student = rules.teach(student, [Lesson(exchange.queries(common.about), common)], number)
        weights = digest_of_arrays({"kind": "model"}, student.weights() or {})
        for what, found, expected in (
            ("consensus", common.digest, _said(combined, number, "output")),
            ("lesson", rules.lesson(common).digest, _said(combined, number, "lesson")),
            ("student", weights, _said(updated, number, "output")),
        ):
            if expected is None:  # the run ended before: nothing was said that could be wrong
                continue
            yield {
                "round": number,
                "what": what,
                "found": str(found),
                "expected": expected,
                "equal": found == expected,
            }


def _said(bodies: Mapping[int, Mapping[str, Any]], round: int, what: str) -> str | None:
    return None if round not in bodies else str(bodies[round][what])


def _other_settings(
    log: CheckedLog, run: str, config: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """What is redone must be what the log fixed before the first round, not what lies beside it."""
    fixed = [it["config"] for it in log.bodies("config.fixed") if it["run"] == run]
    if not fixed:
        raise CannotTell(f"config.fixed: found none of run {run} in the log, expected it open")
    for key in sorted({*fixed[0], *config}):
        found, expected = config.get(key), fixed[0].get(key)
        if found != expected:
            yield {
                "round": 0,
                "what": f"config.yaml {key}",
                "found": json.dumps(found, sort_keys=True),
                "expected": json.dumps(expected, sort_keys=True),
                "equal": False,
            }


def _released(exchange: "Exchange", digest: str) -> "Distributions":
    from fedkd.knowledge import WrongDigest

    name = exchange.path(digest).name
    try:
        return exchange.distributions(digest)
    except OSError as error:
        why = f"exchange/{name}: found {error.strerror}, expected the answer of that digest"
        raise CannotTell(why) from None
    except (WrongDigest, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Refuted(f"exchange/{name}", type(error).__name__, f"the answer {digest}") from None


def _checked(path: Path) -> list[tuple[str, CheckedLog]]:
    try:
        return [(name, check_log(log)) for name, log in _logs(path).items()]
    except Refuted as error:
        raise BadInput(
            f"a log that does not hold ({error})", "one that audit verify accepts"
        ) from None


def _logs(path: Path) -> dict[str, Path]:
    try:
        return find_logs(path)
    except UsedWrongly as error:
        raise BadInput(error.found, error.expected) from None


def _fails(error: Refuted | CannotTell) -> int:
    refuted = isinstance(error, Refuted)
    print(plain(f"{'REFUTED' if refuted else 'CANNOT TELL'}  {error}"), file=sys.stderr)
    return REFUTED if refuted else CANNOT_TELL
