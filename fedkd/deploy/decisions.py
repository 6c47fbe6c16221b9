"""Keeps in a site's own log what was decided there about a run, or about an evaluation of one."""

from dataclasses import dataclass
from typing import Final

from fedkd.audit import Entry, Log
from fedkd.deploy.evaluation_proposals import AnyProposal
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.witnessing import enrol
from fedkd.knowledge import Digest
from fedkd.wire import Ruling

ERASED: Final = "who, and why, was erased under a retention rule"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a run at a site: of which paper, by whom, when (UTC)."""

    run: str
    proposal: Digest
    ruling: Ruling
    by: str
    at: str
    reason: str


def decided(log: Log, about: str) -> Decision | None:
    """The newest decision in a site's log about a run, or whatever else a proposal is `about`.

    None where nobody decided anything.
    """
    entries = _decisions(log, about)
    if not entries:
        return None
    body, at = entries[-1].said, entries[-1].at
    if body is None:  # only a no can be erased: what agrees to something is kept as long as the log
        return Decision(about, Digest(""), Ruling.DECLINED, "(erased)", at, ERASED)
    ruling = Ruling(body["ruling"])
    return Decision(body["run"], body["proposal"], ruling, body["by"], at, body.get("reason", ""))


def _decisions(log: Log, about: str) -> list[Entry]:
    """The entries of what was decided about something, oldest first."""
    entries: list[Entry] = []
    while (entry := log.entry(f"consent/{about}/{len(entries) + 1}")) is not None:
        entries.append(entry)
    return entries


def decide(
    log: Log, proposal: AnyProposal, ruling: Ruling, *, by: str, reason: str = ""
) -> Decision:
    """Writes a decision into a site's log, durably; the same one again changes nothing.

    An approval also enrols everybody whose keys the proposal names: whom the site knows in the run.
    """
    about, digest = proposal.about, proposal.digest
    before = decided(log, about)
    if before is not None and (before.proposal, before.ruling) == (digest, ruling):
        return before
    key = f"consent/{about}/{len(_decisions(log, about)) + 1}"
    body = {"run": proposal.run, "round": 0, "proposal": digest, "ruling": str(ruling), "by": by}
    with log.writing():
        if ruling is Ruling.DECLINED:
            body |= {"rule": "declined", "reason": reason}
            log.append(key, "release.refused", body)
        else:
            roster = proposal.federated().rosters()[log.party]
            enrol(log, proposal.run, roster, None if about == proposal.run else about)
            body |= {"asked": dict(proposal.asked), "bundle": proposal.bundle}
            body |= {"would_leave": dict(proposal.would_leave)}
            if isinstance(proposal, RunProposal):
                body["query"] = dict(proposal.query)
            log.append(key, "config.fixed", body)
    made = decided(log, about)
    if made is None:
        raise KeyError(about)
    return made
