"""Holds the policy that came with a log against whom its own entries name as cosigners.

Nobody signs the policy in a bundle: where it is left out, or asks for less, the log's own roster
still says who was to cosign. An auditor with a policy of their own needs none of this.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from fedkd.audit.verify import TrustPolicy
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.bundle import CANNOT_TELL, CONSISTENT, REFUTED, Finding
from fedkd.report.verify.evidence import Book, Evidence, Told
from fedkd.report.verify.values import Absent, pointed

ENROLLED: Final = "party.enrolled"
_NAME: Final = "policies"


class Terms(NamedTuple):
    """Who is to cosign a log: any key of a cosigner, and how many cosigners suffice at least.

    `fewest` is 1 where the log names cosigners and not their number.
    """

    entry: Told
    keys: frozenset[str]
    fewest: int
    by: tuple[str, ...]

    def __str__(self) -> str:
        where = f"{self.entry.party}#{self.entry.index}"
        return f"at least {self.fewest} of {', '.join(self.by)}, as {where} says"


def own_terms(evidence: Evidence) -> Iterator[Finding]:
    """What becomes of each policy in the evidence, by the log's own word."""
    met = 0
    for party, book in sorted(evidence.books.items()):
        if book.log is None:
            continue
        asked = _server(book, evidence) if party == SERVER else list(_site(book))
        if not asked:
            continue
        if book.log.policy is None:
            found = f"log of {party}: found no policy in the evidence, expected one that asks for "
            why = f"{found}{asked[-1]}; it may have been taken out: give --policy"
            yield Finding(_NAME, CANNOT_TELL, why)
        elif not any(_asks(book.log.policy, terms) for terms in asked):
            found = f"log of {party}: found a policy that asks for other or fewer cosigners, "
            yield Finding(_NAME, REFUTED, f"{found}expected {asked[-1]}")
        else:
            met += 1
    if not met:
        return
    said = f"{met} with the cosigners that the log itself names; whether they are the right ones"
    yield Finding(_NAME, CONSISTENT, f"{said} is not checked")


def _site(book: Book) -> Iterator[Terms]:
    """A site's own rosters, by run: an older one holds again where an older run goes on."""
    for entry in _enrolments(book):
        body = entry.body or {}
        names, fewest = body.get("cosigners"), body.get("threshold")
        if body.get("party") != book.party or not isinstance(names, list) or not names:
            continue
        if type(fewest) is int:
            keys = [_keys(body, f"peers/{name}/witnesses") for name in names]
            yield Terms(entry, frozenset().union(*keys), fewest, tuple(map(str, names)))


def _server(book: Book, evidence: Evidence) -> list[Terms]:
    """The sites that the server enrolled; not where its configuration asks for no cosigning."""
    entries = [it for it in _enrolments(book) if "witnesses" in (it.body or {})]
    if not entries or _without_cosigning(evidence):
        return []
    keys = [_keys(it.body or {}, "witnesses") for it in entries]
    names = sorted({str((it.body or {}).get("party")) for it in entries})
    return [Terms(entries[-1], frozenset().union(*keys), 1, tuple(names))]


def _without_cosigning(evidence: Evidence) -> bool:
    for entry in reversed(evidence.told("config.fixed", SERVER)):
        try:
            return bool(pointed(entry.body or {}, "config/audit/cosigners") == 0)
        except Absent:
            continue
    return False


def _enrolments(book: Book) -> list[Told]:
    return [it for it in book.entries if it.type == ENROLLED and it.body is not None]


def _keys(body: Mapping[str, Any], pointer: str) -> frozenset[str]:
    try:
        found = pointed(body, pointer)
    except Absent:
        return frozenset()
    return frozenset(map(str, found)) if isinstance(found, list) else frozenset()


def _asks(policy: TrustPolicy, terms: Terms) -> bool:
    """Whether a policy asks for no less than the terms, and for nobody else."""
    named = {str(witness.key.text()) for witness in policy.witnesses}
    groups = [group for group in policy.groups if group.name == policy.quorum]
    if not policy.needs_cosigners or not named or not named <= terms.keys:
        return False
    return (groups[0].threshold if groups else 1) >= terms.fewest
