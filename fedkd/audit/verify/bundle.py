"""Judges a log, or all logs that a run left, against what an auditor trusts and remembers."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from fedkd.audit.verify.agreement import (
    ENROLLED,
    SERVER,
    Logs,
    check_continues,
    check_double_entry,
    check_kept_heads,
    check_keys,
    kept_heads,
)
from fedkd.audit.verify.auditor import (
    CHECKPOINT,
    POLICY,
    Asked,
    Kept,
    Trust,
    find_logs,
    kept_checkpoints,
    key_of,
    read_small,
    trust_of,
)
from fedkd.audit.verify.cosignatures import Head
from fedkd.audit.verify.lineage import check_lineage
from fedkd.audit.verify.logs import MOST_SIGNATURES, CheckedLog, checked, origin_of
from fedkd.audit.verify.notes import MOST_NOTE_BYTES, Note
from fedkd.audit.verify.policies import MOST_POLICY_BYTES, NONE, PolicyGroup, TrustPolicy
from fedkd.audit.verify.reading import read_log
from fedkd.audit.verify.refusals import ODD, CannotTell, Refuted
from fedkd.audit.verify.spellings import shown

REFUTED: Final = "REFUTED"
CANNOT_TELL: Final = "CANNOT TELL"
CONSISTENT: Final = "CONSISTENT"
VERIFIED: Final = "VERIFIED"
NOT_RECORDED: Final = "NOT RECORDED"
_REHEARSAL: Final = "fedkd.invalid/rehearsal/"


class Finding(NamedTuple):
    """What came of one check; `error` holds found and expected where it failed."""

    name: str
    verdict: str
    why: str
    error: Refuted | None = None


@dataclass(frozen=True, slots=True)
class Quorum:
    """How far cosigners stand behind a log: the newest `size` that enough of them signed.

    `by` are the cosigners of that size with their times (seconds since 1970, UTC). `met` of
    `members` of the policy's quorum signed, of which `threshold` suffice. At size 0 no head has
    the quorum, and `reason` says what the newest one lacks. Of `verified` heads the cosignatures
    were verified.
    """

    policy: TrustPolicy
    size: int
    by: Mapping[str, int]
    met: int
    members: int
    threshold: int
    verified: int
    reason: Refuted


@dataclass(frozen=True, slots=True)
class LogFinding:
    """What came of one log; `log` is there if it holds together, whatever else is wrong."""

    name: str
    verdict: str
    error: Refuted | CannotTell | None = None
    log: CheckedLog | None = None
    quorum: Quorum | None = None
    kept: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything found; `holder` says why all this may be one party's work, None if it need not."""

    logs: tuple[LogFinding, ...]
    checks: tuple[Finding, ...]
    by_policy: bool
    holder: str | None

    @property
    def verdict(self) -> str:
        """The worst of all; VERIFIED only under the auditor's own policy."""
        verdicts = {log.verdict for log in self.logs} | {one.verdict for one in self.checks}
        for bad in (REFUTED, CANNOT_TELL):
            if bad in verdicts:
                return bad
        return VERIFIED if self.by_policy else CONSISTENT


def judge(asked: Asked) -> Report:
    """Checks every log, and all of them against each other; raises `UsedWrongly` alone."""
    paths = find_logs(asked.path)
    trust = trust_of(asked, paths)
    kept, unread = kept_checkpoints(asked, paths)
    findings = {
        name: _judged(name, path, paths, trust, kept, asked) for name, path in paths.items()
    }
    holding = {name: one.log for name, one in findings.items() if one.log is not None}
    checks = [Finding(f"kept {file}", CANNOT_TELL, why) for file, why in unread.items()]
    if len(paths) > 1:
        findings, checks = _judged_together(findings, holding, checks)
        checks += _not_here(findings, trust, kept)
    reasons = [_one_holder(log, paths) for log in holding.values()]
    return Report(
        tuple(findings.values()),
        tuple(checks),
        asked.policy is not None,
        next((reason for reason in reasons if reason is not None), None),
    )


# One log.


def _judged(
    name: str,
    path: Path,
    paths: Mapping[str, Path],
    trust: Trust | None,
    kept: Mapping[str, Sequence[Kept]],
    asked: Asked,
) -> LogFinding:
    log = None
    try:
        stored = read_log(path)
        policy, unknown = _policy(trust, name, origin_of(stored))
        key = None if policy is None else key_of(policy, origin_of(stored))
        log = checked(stored, key, every_signature=asked.every_signature)
        if len(paths) > 1 and log.party != name:
            found = f"the log of {shown(log.party)}"
            raise Refuted(shown(path.name), found, f"that of {shown(name)}, as it is named")
        log = with_files(log, path, name)
        mine = kept.get(log.origin, ())
        for one in mine:
            log = _with_kept(log, one)
        used = policy or log.policy
        quorum = None if used is None else quorum_of(log, used, asked.every_signature)
        if policy is not None and quorum is not None and not quorum.size:
            raise quorum.reason
        if asked.seen is not None and not mine and len(paths) == 1:
            unknown = CannotTell(f"{log.origin}: found no checkpoint of it kept earlier")
        if unknown is not None:
            raise unknown
        count = None if asked.seen is None else len(mine)
        return LogFinding(name, log.verdict, None, log, quorum, count)
    except (Refuted, CannotTell) as error:
        verdict = REFUTED if isinstance(error, Refuted) else CANNOT_TELL
        return LogFinding(name, verdict, error, log)
    except ODD as error:
        return LogFinding(name, CANNOT_TELL, _unknown_shape(error), None)


def _policy(
    trust: Trust | None, name: str, origin: str | None
) -> tuple[TrustPolicy | None, CannotTell | None]:
    """The auditor's policy for a log; why there is none comes after what the log itself shows."""
    try:
        return (None if trust is None else trust.about(name, origin)), None
    except CannotTell as error:
        return None, error


def with_files(log: CheckedLog, path: Path, name: str) -> CheckedLog:
    """The log with the cosignatures that lie beside it, once the files beside it are its own."""
    policy = path.with_name(name + POLICY)
    if os.path.lexists(policy) and read_small(policy, MOST_POLICY_BYTES) != log.policy_text:
        raise Refuted(shown(policy.name), "another policy", "the one in its log, to the byte")
    checkpoint = path.with_name(name + CHECKPOINT)
    if not os.path.lexists(checkpoint):
        return log
    note = Note.parse(read_small(checkpoint, MOST_NOTE_BYTES))
    origin = note.checkpoint().origin
    if origin != log.origin:
        raise Refuted(shown(checkpoint.name), f"a checkpoint of {shown(origin)}", log.origin)
    return _with_kept(log, Kept(shown(checkpoint.name), note))


def _with_kept(log: CheckedLog, kept: Kept) -> CheckedLog:
    """The log with the cosignatures of a kept checkpoint, which it must go on from."""
    head = kept.note.checkpoint()
    try:
        kept.note.verify([log.key])
    except Refuted:
        expected = f"one by {log.key}, which signs this log"
        raise Refuted(f"checkpoint {kept.file}", "no signature by it", expected) from None
    whose = f"{head.size} entries with root {head.root.hex()}, as in {kept.file}: the proof"
    check_continues(log, Head(head.size, head.root), whose)
    if head.size == 0 or kept.note.text != log.head(head.size).text:
        return log
    own = set(Note.parse(log.notes[head.size - 1]).signatures)
    known = log.cosignatures.get(head.size, ())
    more = [line for line in kept.note.signatures if line not in own and line not in known]
    return replace(log, cosignatures={**log.cosignatures, head.size: (*known, *more)})


def quorum_of(log: CheckedLog, policy: TrustPolicy, every: bool = False) -> Quorum:
    """The newest head that meets `policy`, with all cosignatures at hand verified.

    Of a long log the newest heads alone are verified, and in any case down to the one that
    counts. A line that claims to be by a known key and is not raises `Refuted`.
    """
    keys = [log.key, *(witness.key for witness in policy.witnesses)]
    sizes = sorted(log.cosignatures, reverse=True)
    if not policy.needs_cosigners and log.tree.size not in log.cosignatures:
        sizes.insert(0, log.tree.size)
    size, by, reason, heads, lines = 0, dict[str, int](), None, 0, 0
    for candidate in sizes:
        if size and lines >= MOST_SIGNATURES and not every:
            break
        note = log.head(candidate)
        note.verify(keys)
        heads, lines = heads + (candidate in log.cosignatures), lines + len(note.signatures)
        if size:
            continue
        try:
            size, by = candidate, dict(policy.witnessed(note).cosigned)
        except Refuted as error:
            reason = reason or error
    members, threshold = _quorum_group(policy)
    met = sum(_is_met(policy, member, by) for member in members)
    none = Refuted(f"cosignatures of {log.origin}", "none", f"{threshold} of {len(members)}")
    return Quorum(policy, size, by, met, len(members), threshold, heads, reason or none)


def _quorum_group(policy: TrustPolicy) -> tuple[tuple[str, ...], int]:
    """The members of the policy's quorum and how many suffice, for people to read."""
    for group in policy.groups:
        if group.name == policy.quorum:
            return group.members, group.threshold
    return ((), 0) if policy.quorum == NONE else ((policy.quorum,), 1)


def _is_met(policy: TrustPolicy, member: str, by: Mapping[str, int]) -> bool:
    groups: dict[str, PolicyGroup] = {group.name: group for group in policy.groups}
    if member not in groups:
        return member in by
    met = sum(_is_met(policy, one, by) for one in groups[member].members)
    return met >= groups[member].threshold


# All logs together.


def _judged_together(
    findings: dict[str, LogFinding], logs: dict[str, CheckedLog], checks: list[Finding]
) -> tuple[dict[str, LogFinding], list[Finding]]:
    kept: dict[str, int] = {}

    def heads() -> str:
        by_origin = kept_heads(logs)
        for name, log in logs.items():
            try:
                kept[name] = check_kept_heads(log, by_origin.get(log.origin, ()))
            except Refuted as error:
                if findings[name].verdict != REFUTED:
                    findings[name] = replace(findings[name], verdict=REFUTED, error=error)
        count = sum(kept.values())
        wrong = "".join(f"; that of {shown(name)} does not" for name in logs if name not in kept)
        return f"parties hold {count} heads of other logs, which go on from them{wrong}"

    checks.append(_checked("kept heads", heads))
    return findings, [*checks, *agreements(logs)]


def agreements(logs: Logs) -> Iterator[Finding]:
    """What the logs say of each other: keys, both sides of each answer, sources of models."""
    yield _checked(
        "keys",
        lambda: f"{check_keys(logs)} times a party names another's key, and it is that log's",
    )
    if SERVER not in logs:
        return
    yield _checked("double entry", lambda: _double_entry(logs))
    if _tells_lineage(logs[SERVER]):
        lineage = "names lead to the entries behind them, from the models to the sources"
        yield _checked("lineage", lambda: f"{check_lineage(logs)} {lineage}")
    else:
        why = "an earlier fedkd wrote these logs, which name no sources"
        yield Finding("lineage", NOT_RECORDED, why)


def _checked(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, CONSISTENT, check())
    except Refuted as error:
        return Finding(name, REFUTED, str(error), error)
    except CannotTell as error:
        return Finding(name, CANNOT_TELL, str(error))
    except ODD as error:
        return Finding(name, CANNOT_TELL, str(_unknown_shape(error)))


def _unknown_shape(error: Exception) -> CannotTell:
    found = f"{type(error).__name__} {shown(str(error))}"
    return CannotTell(f"found {found}, expected entries of a known shape")


def _double_entry(logs: Logs) -> str:
    found = check_double_entry(logs)
    said = f"{found.matched} answers stand alike in the server's log and in the site's"
    if found.erased:
        said += f"; of {found.erased} more a side was erased under a rule that its log names"
    unknown = [f"no log of {shown(site)} that holds" for site in sorted(found.absent)]
    if found.closed:
        unknown.append(f"{found.closed} answers of which a side is closed")
    if unknown:
        raise CannotTell(f"{said}; found {', '.join(unknown)}; expected both sides of each")
    return said


def _tells_lineage(server: CheckedLog) -> bool:
    """Whether the log is of a version that names sources; closed bodies do not hide that."""
    return any(
        leaf.body is None or "rehearsal" in leaf.body
        for leaf in server.entries
        if leaf.header.type == "log.opened"
    )


def _not_here(
    findings: Mapping[str, LogFinding],
    trust: Trust | None,
    kept: Mapping[str, Iterable[Kept]],
) -> Iterator[Finding]:
    """Logs that the auditor knows of and that are not in the folder: perhaps kept back."""
    logs = {name: one.log for name, one in findings.items() if one.log is not None}
    if len(logs) < len(findings):
        return  # a log that cannot be read may be the missing one, and is bad news enough
    origins = {log.origin for log in logs.values()}
    enrolled = logs[SERVER].bodies(ENROLLED) if SERVER in logs else ()
    keepers = {str(one.get("party")) for one in enrolled if one.get("person") is not True}
    for party in sorted(keepers - findings.keys()):
        why = f"found no log of {shown(party)}, which the server enrolled"
        yield Finding("missing log", CANNOT_TELL, why)
    for origin in sorted(trust.named() - origins) if trust is not None else ():
        why = f"found no log {shown(origin)}, which the policy names"
        yield Finding("missing log", CANNOT_TELL, why)
    for party in sorted(trust.parties - findings.keys()) if trust is not None else ():
        why = f"found no log of {shown(party)}, for which there is a policy"
        yield Finding("missing log", CANNOT_TELL, why)
    for origin, notes in sorted(kept.items()):
        if origin not in origins:
            files = ", ".join(one.file for one in notes)
            why = f"found no log {shown(origin)}, of which {files} was kept"
            yield Finding("missing log", CANNOT_TELL, why)


def _one_holder(log: CheckedLog, paths: Mapping[str, Path]) -> str | None:
    """Why one party may have written all this, alone; None where that need not be so."""
    if log.origin.startswith(_REHEARSAL):
        return "its keys are a rehearsal's"
    says = [body.get("rehearsal") for body in log.bodies("log.opened")]
    if True in says:
        return "log.opened says rehearsal"
    run = next(iter(paths.values())).parent.parent
    folders = [run / SERVER if name == SERVER else run / "sites" / name for name in paths]
    if len(paths) > 1 and all(os.path.isdir(folder / "keys") for folder in folders):  # noqa: PTH112
        return "all parties' keys lie in one folder"
    return None if False in says else "nothing in the log says that it is no rehearsal"
