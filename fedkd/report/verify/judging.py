"""Judges a report: its evidence first, then every statement, then what was drawn of them."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from fedkd.audit.verify import CannotTell, Refuted, TrustPolicy
from fedkd.audit.verify.agreement import check_continues, check_kept_heads, kept_heads
from fedkd.audit.verify.auditor import Kept
from fedkd.audit.verify.bundle import (
    CANNOT_TELL,
    CONSISTENT,
    REFUTED,
    VERIFIED,
    Finding,
    agreements,
)
from fedkd.audit.verify.canonical import canonical
from fedkd.audit.verify.cosignatures import Head
from fedkd.audit.verify.refusals import ODD
from fedkd.audit.verify.spellings import shown
from fedkd.report.verify.attached import UNCHECKED
from fedkd.report.verify.catalogue import catalogue
from fedkd.report.verify.declared import SIGNED
from fedkd.report.verify.deriving import Derived, derive
from fedkd.report.verify.drawing import EVIDENCE, SHEET, drawn, evidence_in, names
from fedkd.report.verify.evidence import Evidence, read_evidence
from fedkd.report.verify.origins import followed
from fedkd.report.verify.terms import own_terms

MOST_BYTES: Final = 1 << 28
KeptNotes: TypeAlias = tuple[Mapping[str, Sequence[Kept]], Mapping[str, str]]
"""Checkpoints by origin, and by file why one cannot be read."""
SamePaper: TypeAlias = Callable[[str, bytes, Derived, bytes], str]
"""(name, paper, what was derived, evidence) -> what was found; `Refuted` or `CannotTell` else."""


class Judgement(NamedTuple):
    """Every finding, and the worst of them; VERIFIED only under the auditor's own policies.

    `unwitnessed` are the parties whose cosigners nobody asked for: all of them without a policy of
    the auditor's own, and those of which that policy asks for none.
    """

    verdict: str
    findings: tuple[Finding, ...]
    derived: Derived | None
    own_policy: bool = False
    unwitnessed: tuple[str, ...] = ()


def judge(
    path: Path,
    policies: Mapping[str, TrustPolicy] | None = None,
    kept: KeptNotes = ({}, {}),
    *,
    others: Mapping[str, SamePaper] | None = None,
    beside: bool = False,
) -> Judgement:
    """What becomes of a report, a file of it: evidence.json, report.json, report.md, index.html.

    `kept` are checkpoints that the auditor kept earlier, which the logs must go on from. `others`
    compare papers that are not drawn here, by the end of their name. With `beside` the papers that
    lie beside the evidence are compared too.
    Raises `OSError` where the file cannot be read.
    """
    content = _read(path)
    try:
        bundle, paper = evidence_in(path.name, content), content
        if bundle is None:
            near = path.with_name(EVIDENCE)
            if not near.is_file():
                raise CannotTell(f"{shown(path.name)}: found no {EVIDENCE} beside it")
            bundle = _read(near)
        evidence = read_evidence(bundle, policies)
        derived = derive(evidence, catalogue())
    except ODD as error:
        return _ended([_failed("evidence", error)], policies, None)
    findings = [
        *_books(evidence),
        *(own_terms(evidence) if policies is None else ()),
        *_together(evidence),
        _catalogue(evidence),
        *_statements(derived),
    ]
    findings += _kept(evidence, kept)
    if path.name != EVIDENCE:
        same = (others or {}).get(path.suffix, _same_paper)
        findings.append(_checked("paper", lambda: same(path.name, paper, derived, bundle)))
    for near in map(path.with_name, names(derived) if beside else ()):
        if near != path and near.is_file():
            content = _read(near)
            check = partial(_same_paper, near.name, content, derived, bundle)
            findings.append(_checked("paper", check))
    for stray in strays(path.parent, names(derived)) if beside else ():
        found = f"found a paper {shown(stray.name)}, expected none that its evidence does not give"
        findings.append(Finding("paper", REFUTED, found))
    return _ended(findings, policies, derived)


def strays(folder: Path, own: Collection[str]) -> list[Path]:
    """Data sheets and signed statements in a report's folder that are not among its papers."""
    found = [path for kind in (SHEET, SIGNED) for path in folder.glob(f"{kind}*")]
    return sorted(path for path in found if path.name not in own)


def _read(path: Path) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise CannotTell(f"{shown(path.name)}: found more than {MOST_BYTES} bytes")
    return path.read_bytes()


def _ended(
    findings: list[Finding], policies: Mapping[str, Any] | None, derived: Derived | None
) -> Judgement:
    found = {finding.verdict for finding in findings}
    good = VERIFIED if policies is not None else CONSISTENT
    verdict = next((bad for bad in (REFUTED, CANNOT_TELL) if bad in found), good)
    books = {} if derived is None else derived.evidence.books
    free = tuple(party for party in sorted(books) if _asks_nobody(policies, party))
    return Judgement(verdict, tuple(findings), derived, policies is not None, free)


def _asks_nobody(policies: Mapping[str, TrustPolicy] | None, party: str) -> bool:
    policy = None if policies is None else policies.get(party)
    return policy is None or not policy.needs_cosigners


def _failed(name: str, error: Exception) -> Finding:
    if isinstance(error, CannotTell):
        return Finding(name, CANNOT_TELL, str(error))
    if isinstance(error, Refuted):
        return Finding(name, REFUTED, str(error))
    found = f"found another shape ({type(error).__name__}), expected evidence"
    return Finding(name, REFUTED, found)


def _checked(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, CONSISTENT, check())
    except ODD as error:
        return _failed(name, error)


def _books(evidence: Evidence) -> Iterator[Finding]:
    for party, book in sorted(evidence.books.items()):
        if book.error is not None:
            yield _failed(f"log {party}", book.error)
        else:
            closed = sum(entry.body is None for entry in book.entries)
            said = f"{len(book.entries)} entries; {book.quorum}"
            said += f"; {closed} bodies closed or erased" if closed else ""
            yield Finding(f"log {party}", CONSISTENT, said)


def _together(evidence: Evidence) -> Iterator[Finding]:
    logs = {party: book.log for party, book in evidence.books.items() if book.log is not None}
    if len(logs) < len(evidence.books):
        return  # what holds of some of them says nothing of all

    def heads() -> str:
        by_origin = kept_heads(logs)
        count = sum(check_kept_heads(log, by_origin.get(log.origin, ())) for log in logs.values())
        return f"parties hold {count} heads of other logs, which go on from them"

    yield _checked("kept heads", heads)
    for finding in agreements(logs):
        if finding.name == "lineage" and finding.verdict == CANNOT_TELL:
            yield _checked("lineage", lambda: followed(evidence))
        else:
            yield finding


def _kept(evidence: Evidence, kept: KeptNotes) -> Iterator[Finding]:
    for file, why in kept[1].items():
        yield Finding(f"kept {file}", CANNOT_TELL, why)
    logs = {book.log.origin: book.log for book in evidence.books.values() if book.log is not None}

    def goes_on(one: Kept) -> str:
        head = one.note.checkpoint()
        if head.origin not in logs:
            raise CannotTell(f"found no log {shown(head.origin)} in the evidence")
        log = logs[head.origin]
        one.note.verify([log.key])
        whose = f"{head.size} entries with root {head.root.hex()}, as in {one.file}: the proof"
        check_continues(log, Head(head.size, head.root), whose)
        return f"{shown(head.origin)} goes on from it"

    for one in (one for notes in kept[0].values() for one in notes):
        yield _checked(f"kept {one.file}", partial(goes_on, one))


def _catalogue(evidence: Evidence) -> Finding:
    own = catalogue()

    def check() -> str:
        told = evidence.claimed.get("catalogue")
        if told != {"id": own.id, "digest": own.digest}:
            raise CannotTell(f"found another catalogue than {own.id}, {own.digest[:19]}")
        return f"{own.id}, {len(own.fields)} fields, each once"

    return _checked("catalogue", check)


def _statements(derived: Derived) -> Iterator[Finding]:
    """What the bundle claims against what follows from its entries: the first of each kind."""
    claimed = derived.evidence.claimed
    yield _checked("shape", lambda: _shape(claimed))
    yield _checked("statements", lambda: _same_statements(derived, claimed.get("statements")))
    yield _checked("statuses", lambda: _same_statuses(derived, claimed.get("fields")))
    for reason in derived.refused:
        yield Finding("declared", REFUTED, reason)
    for statement in derived.statements:
        if statement.status == CANNOT_TELL:
            yield Finding(statement.id, CANNOT_TELL, statement.text)


_BUNDLE: Final = frozenset({"format", "catalogue", "logs", "statements", "fields"})
_LOG: Final = frozenset(
    {"vkey", "head", "cosigned", "policy", "witnesses", "seen", "leaves", "open"}
)


def _shape(claimed: Mapping[str, Any]) -> str:
    """Nothing stands in a bundle that nobody looks at: a reader of its text would believe it."""
    _expect_keys("evidence", claimed, _BUNDLE)
    for party, log in claimed["logs"].items():
        _expect_keys(f"log {shown(party)}", log, _LOG)
        for index, opened in log["open"].items():
            _expect_keys(f"log {shown(party)}, body {index}", opened, frozenset({"body", "salt"}))
    for one in claimed["fields"]:
        _expect_keys("fields", one, frozenset({"id", "status"}))
    return "nothing stands in the evidence that is not checked"


def _expect_keys(what: str, told: Mapping[str, Any], keys: frozenset[str]) -> None:
    if (found := told.keys() ^ keys) != set():
        names = ", ".join(sorted(map(shown, told)))
        raise Refuted(what, names, f"{', '.join(sorted(keys))} (not {shown(min(found))})")


def _same_statements(derived: Derived, claimed: Any) -> str:
    own = {one.id: one.to_json() for one in derived.statements}
    told = {one["id"]: one for one in claimed}
    for id in sorted(own.keys() - told.keys()):
        raise Refuted(f"statement {id}", "nothing", repr(own[id]["text"]))
    for id in sorted(told.keys() - own.keys()):
        raise Refuted(f"statement {shown(id)}", shown(str(told[id].get("text"))), "no such one")
    for id, one in own.items():
        _expect_keys(f"statement {id}", told[id], frozenset(one))
        for key, value in one.items():
            if one["status"] == CANNOT_TELL and key in ("text", "status", "evidence"):
                continue  # whoever built it may have had the accountant that is missing here
            if canonical(told[id].get(key)) != canonical(value):
                found, expected = shown(str(told[id].get(key))), shown(str(value))
                raise Refuted(f"statement {id}, {key}", found, expected)
    if [one["id"] for one in claimed] != list(own):
        raise Refuted("statements", "another order", "that of the catalogue")
    unknown = sum(one["status"] == CANNOT_TELL for one in own.values())
    return f"{len(own) - unknown} statements follow from their entries"


def _same_statuses(derived: Derived, claimed: Any) -> str:
    own = {one.field.id: one.status for one in derived.answers}
    told = {one["id"]: one["status"] for one in claimed}
    if len(told) != len(claimed):
        raise Refuted("fields", "one that comes twice", "each exactly once")
    unknown = {one.field for one in derived.statements if one.status == CANNOT_TELL}
    for id in sorted(own.keys() | told.keys()):
        if own.get(id) != told.get(id) and not (id in unknown and id in told):
            found = shown(str(told.get(id, "nothing")))
            raise Refuted(f"field {shown(id)}", found, str(own.get(id, "no such field")))
    said = ", ".join(f"{count} {name}" for name, count in derived.coverage().items())
    apart = ", ".join(f"{count} {name}" for name, count in derived.apart().items())
    return f"{said}; apart, under a condition: {apart}" if derived.conditional else said


def _same_paper(name: str, paper: bytes, derived: Derived, bundle: bytes) -> str:
    own = drawn(name, derived, bundle)
    if own is None and name.endswith(".pdf"):
        raise CannotTell(f"{shown(name)}: found nothing that draws a PDF here; {UNCHECKED}")
    if own is None:
        raise CannotTell(f"{shown(name)}: found a form that cannot be drawn again here")
    if own == paper:
        return f"{shown(name)} is what its evidence gives, to the byte"
    if any(one.status == CANNOT_TELL for one in derived.statements):
        raise CannotTell(f"{shown(name)}: what it says cannot all be told here, nor compared")
    found, expected = paper.splitlines(), own.splitlines()
    for number, (one, other) in enumerate(zip(found, expected, strict=False), 1):
        if one != other:
            place = next(
                (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                min(len(one), len(other)),
            )
            start = max(0, place - 20)
            raise Refuted(
                f"{name}, line {number}",
                shown(one[start : start + 60].decode(errors="replace")),
                shown(other[start : start + 60].decode(errors="replace")),
            )
    raise Refuted(name, f"{len(found)} lines", f"{len(expected)}")
