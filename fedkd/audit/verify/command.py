"""Verifies logs and proofs from a terminal: prints the verdicts, and exits by them."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fedkd.audit.verify.auditor import Asked, UsedWrongly, read_small
from fedkd.audit.verify.bundle import (
    CANNOT_TELL,
    CONSISTENT,
    NOT_RECORDED,
    REFUTED,
    VERIFIED,
    LogFinding,
    Quorum,
    Report,
    judge,
)
from fedkd.audit.verify.leaves import MOST_LEAF_BYTES, Header
from fedkd.audit.verify.policies import (
    MOST_POLICY_BYTES,
    QuorumRow,
    TrustPolicy,
    quorum_row,
    quorum_table,
)
from fedkd.audit.verify.proofs import MOST_PROOF_BYTES, ProofFile
from fedkd.audit.verify.refusals import CannotTell, Refuted

FORMAT: Final = 1
USED_WRONGLY: Final = 2
CODES: Final[Mapping[str, int]] = {
    VERIFIED: 0,
    CONSISTENT: 0,
    NOT_RECORDED: 0,
    REFUTED: 1,
    CANNOT_TELL: 3,
}
_SHORT: Final = 16
_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999."""


def verify(
    path: Path,
    *,
    policy: Path | None,
    seen: Path | None,
    every_signature: bool,
    as_json: bool,
    debug: bool = False,
) -> int:
    """Prints what becomes of the log or logs in `path`, and returns the exit code."""
    try:
        report = judge(Asked(path, policy, seen, every_signature))
    except UsedWrongly as error:
        return _used_wrongly(str(error))
    except Exception as error:  # whatever it was, nothing was verified: that is a verdict too
        if debug:
            raise
        found = f"{type(error).__name__}: {error} (--debug shows where)"
        return _verdict(CANNOT_TELL, {"why": f"found {found}, expected logs to read"}, as_json)
    if as_json:
        print(json.dumps(_report(report), indent=2))
    else:
        print("\n".join(map(plain, _lines(report))))
    return CODES[report.verdict]


def _lines(report: Report) -> list[str]:
    lines = [f"{one.verdict:12} {one.name:14} {_said(one)}" for one in report.logs]
    lines += [f"{one.verdict:12} {one.name:14} {one.why}" for one in report.checks]
    lines += ["", _signatures_said(report), *_table(report), ""]
    good = report.verdict in (VERIFIED, CONSISTENT)
    if good and report.holder is not None:
        return [
            *lines,
            f"{report.verdict}, ONE HOLDER ({report.holder}): this proves the format, not the "
            "independence; one party alone could have written all of it.",
        ]
    means = {
        VERIFIED: "by your policy, as far as said above.",
        CONSISTENT: "the keys came with the logs. This shows that they hold together; whose they "
        "are, only a policy of your own can show (--policy).",
        REFUTED: "something here is not as its owner signed it, or not as others saw it.",
        CANNOT_TELL: "nothing was refuted, and not everything could be checked.",
    }
    return [*lines, f"{report.verdict}: {means[report.verdict]}"]


def _said(one: LogFinding) -> str:
    """What there is to know of a log, in a line."""
    if one.error is not None or one.log is None:
        return str(one.error)
    log, quorum, size = one.log, one.quorum, one.log.tree.size
    said = []
    if log.own_key or quorum is None:
        said += [f"{size} entries, root {log.root.hex()[:_SHORT]}", _cosigned(quorum, size)]
    elif not quorum.members:
        said += [f"{size} entries, root {log.root.hex()[:_SHORT]}"]
        said += ["the policy asks for no cosigner, so that its holder can rewrite it alone"]
    else:
        root = log.tree.root(quorum.size).hex()[:_SHORT]
        said += [f"{quorum.size} of {size} entries, root {root}"]
        said += [f"cosigned {_by(quorum)}, last at {_time(max(quorum.by.values()))}"]
        if beyond := size - quorum.size:
            entries = "entry" if beyond == 1 else "entries"
            said += [f"{beyond} {entries} beyond the last cosigned head"]
    if log.closed:
        said += [f"{log.closed} bodies closed or erased"]
    if one.kept is not None:
        kept = f"goes on from {one.kept} kept earlier" if one.kept else "none kept of it earlier"
        said += [kept]
    return "; ".join(said)


def _cosigned(quorum: Quorum | None, size: int) -> str:
    if quorum is None:
        return "it says nothing of cosigners"
    if not quorum.members:
        return "it has no cosigners"
    if not quorum.size:
        return f"no head is cosigned by {quorum.threshold} of {quorum.members}"
    return f"cosigned to entry {quorum.size} of {size} {_by(quorum)}"


def _by(quorum: Quorum) -> str:
    return f"by {quorum.met} of {quorum.members} (k={quorum.threshold})"


def _time(seconds: int) -> str:
    if seconds > _LAST_SECOND:
        return f"second {seconds}"
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _signatures(report: Report) -> dict[str, int]:
    """Of how many checkpoints the log's signature was verified, and of how many cosigners'."""
    logs = [one.log for one in report.logs if one.log is not None]
    quorums = [one.quorum for one in report.logs if one.quorum is not None]
    return {
        "checked": sum(log.signed for log in logs),
        "of": sum(log.tree.size for log in logs),
        "cosigned_checked": sum(quorum.verified for quorum in quorums),
        "cosigned_of": sum(len(log.cosignatures) for log in logs),
    }


def _signatures_said(report: Report) -> str:
    counts = _signatures(report)
    said = (
        f"signatures verified: of {counts['checked']} of {counts['of']} checkpoints; cosignatures: "
        f"of {counts['cosigned_checked']} of {counts['cosigned_of']} cosigned ones"
    )
    if counts["checked"] < counts["of"] or counts["cosigned_checked"] < counts["cosigned_of"]:
        said += ", newest first"
    return said


# Quorums: what k of n stands.


def _applying(report: Report) -> dict[QuorumRow, list[str]]:
    """The quorums that logs here have, each with the logs."""
    rows: dict[QuorumRow, list[str]] = {}
    for one in report.logs:
        if one.quorum is not None and one.quorum.members:
            row = quorum_row(one.quorum.members, one.quorum.threshold)
            rows.setdefault(row, []).append(one.name)
    return rows


def _table(report: Report) -> list[str]:
    rows = quorum_table()
    columns: dict[str, list[int | str]] = {
        "n cosigners": [row.cosigners for row in rows],
        "k suffice by default": [row.threshold for row in rows],
        "liars tolerated": ["-" if row.liars < 0 else row.liars for row in rows],
        "sites that may be absent": [row.absent for row in rows],
    }
    lines = [
        f"{name:25}" + "".join(f"{cell!s:>5}" for cell in cells) for name, cells in columns.items()
    ]
    lines += ["(-: two heads can each find k cosigners of whom nobody lies)"]
    for row, names in _applying(report).items():
        shown = ", ".join(names[:_SHORT]) + (", ..." if len(names) > _SHORT else "")
        lines += [
            f"here, k={row.threshold} of n={row.cosigners}: {_stands(row)}; {row.absent} may be "
            f"absent ({shown})"
        ]
    return lines


def _stands(row: QuorumRow) -> str:
    if row.liars < 0:
        return "two heads need no lying cosigner"
    return f"tolerates {row.liars} lying cosigners"


# As JSON.


def _report(report: Report) -> dict[str, Any]:
    return {
        "v": FORMAT,
        "verdict": report.verdict,
        "one_holder": report.holder is not None,
        "one_holder_because": report.holder,
        "logs": [_log(one) for one in report.logs],
        "checks": [
            {"check": one.name, "verdict": one.verdict, "why": one.why, **_error(one.error)}
            for one in report.checks
        ],
        "signatures": _signatures(report),
        "quorum": {
            "table": [row._asdict() for row in quorum_table()],
            "here": [{**row._asdict(), "logs": n} for row, n in _applying(report).items()],
        },
    }


def _log(one: LogFinding) -> dict[str, Any]:
    told: dict[str, Any] = {"log": one.name, "verdict": one.verdict}
    if one.error is not None:
        told |= {"why": str(one.error), **_error(one.error)}
    if one.log is not None:
        told |= {
            "origin": one.log.origin,
            "key": one.log.key.text(),
            "entries": one.log.tree.size,
            "root": one.log.root.hex(),
            "closed": one.log.closed,
            "kept": one.kept,
        }
    if one.quorum is not None and one.log is not None:
        told["cosigned"] = {
            "size": one.quorum.size,
            "beyond": one.log.tree.size - one.quorum.size,
            "by": dict(one.quorum.by),
            "met": one.quorum.met,
            "cosigners": one.quorum.members,
            "threshold": one.quorum.threshold,
        }
    return told


def _error(error: Exception | None) -> dict[str, str]:
    if not isinstance(error, Refuted):
        return {}
    return {"what": error.what, "found": error.found, "expected": error.expected}


# One proof.


def proof(file: Path, leaf: Path, *, policy: Path, as_json: bool) -> int:
    """Prints what the leaf in a proof file says, once the policy holds, and returns the code."""
    try:
        content, written = read_small(file, MOST_PROOF_BYTES), read_small(leaf, MOST_LEAF_BYTES)
        trusted = read_small(policy, MOST_POLICY_BYTES)
    except CannotTell as error:
        return _used_wrongly(str(error))
    except Refuted as error:
        return _verdict(REFUTED, {"why": str(error), **_error(error)}, as_json)
    try:
        parsed = TrustPolicy.parse(trusted)
        proven = ProofFile.parse(content).verify(parsed, written)
        header = Header.parse(written)
        if header.sequence != proven.index:
            found, expected = f"sequence {header.sequence}", f"{proven.index}, its place"
            raise Refuted("leaf", found, expected)
    except Refuted as error:
        return _verdict(REFUTED, {"why": str(error), **_error(error)}, as_json)
    except CannotTell as error:
        return _verdict(CANNOT_TELL, {"why": str(error)}, as_json)
    head = proven.witnessed.checkpoint
    cosigned = {name: _time(time) for name, time in proven.witnessed.cosigned.items()}
    told = {
        "log": head.origin,
        "entry": proven.index,
        "of": head.size,
        "type": header.type,
        "time": header.time,
        "party": header.actor,
        "run": header.run,
        "key": header.key,
        "body": header.commitment.hex(),
        "refs": [str(reference) for reference in header.references],
        "cosigned": cosigned,
    }
    if not parsed.needs_cosigners:
        told["but"] = "the policy asks for no cosigner, so that the log's holder can rewrite it"
    return _verdict(VERIFIED, told, as_json)


def _verdict(verdict: str, told: Mapping[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps({"v": FORMAT, "verdict": verdict, **told}, indent=2))
        return CODES[verdict]
    if verdict is not VERIFIED:
        print(plain(f"{verdict:12} {told['why']}"))
        return CODES[verdict]
    print(verdict)
    for name, value in told.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        if isinstance(value, dict):
            text = ", ".join(f"{key} at {time}" for key, time in value.items()) or "by nobody"
        if text and value is not None:
            print(plain(f"  {name:9} {text}"))
    return CODES[verdict]


def plain(line: str) -> str:
    """A line that cannot steer a terminal: what a log holds is somebody else's text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _used_wrongly(why: str) -> int:
    print(f"error: {plain(why)}", file=sys.stderr)
    return USED_WRONGLY


def main(arguments: Sequence[str] | None = None) -> int:
    """The verifier by itself, for an auditor with nothing else of fedkd."""
    return run(commands_of("verify | proof")[0], arguments, {})


def run(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    more: Mapping[str, Callable[[argparse.Namespace], int]],
) -> int:
    """Runs the command that was asked for: one of this module's, or one of `more`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    given = parser.parse_args(arguments)
    try:
        if given.command in more:
            return more[given.command](given)
        if given.command == "proof":
            return proof(given.file, given.leaf, policy=given.policy, as_json=given.json)
        return verify(
            given.path,
            policy=given.policy,
            seen=given.seen,
            every_signature=given.every_signature,
            as_json=given.json,
            debug=given.debug,
        )
    except BrokenPipeError:
        # The reader of a pipe has gone, perhaps before the verdict: so there is none.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CODES[CANNOT_TELL]


def commands_of(names: str) -> tuple[argparse.ArgumentParser, Any]:
    """The parser of the verifier, and where more commands may be added to it."""
    parser = argparse.ArgumentParser(
        description="Checks what fedkd leaves. It makes no connection and writes nothing.",
        epilog="Exit codes: 0 verified or consistent, 1 refuted, 2 used wrongly, 3 cannot tell.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    logs = commands.add_parser("verify", help="one log, or all logs of a run", allow_abbrev=False)
    logs.add_argument("path", type=Path, help="a run's folder, its audit folder, or one log")
    logs.add_argument(
        "--policy", type=Path, help="your own policy: a file, or a folder with <party>.policy files"
    )
    logs.add_argument("--seen", type=Path, help="a folder with *.checkpoint files kept earlier")
    logs.add_argument(
        "--every-signature", action="store_true", help="also those that nothing relies upon"
    )
    one = commands.add_parser("proof", help="that a leaf is in a log", allow_abbrev=False)
    one.add_argument("file", type=Path, help="a *.tlog-proof file")
    one.add_argument("leaf", type=Path, help="the leaf, as it was written beside the proof")
    one.add_argument("--policy", type=Path, required=True, help="your own policy, a file")
    for command in (logs, one):
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser, commands
