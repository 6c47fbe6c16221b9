"""Shows a person at a hospital what a proposed run would do, and takes the answer."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedkd.audit import Roster
from fedkd.deploy.bundles import pinned
from fedkd.deploy.consent import (
    Decision,
    Shelf,
    agreed_settings,
    decide,
    decided,
    folder_of,
    objection_to,
)
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.papers import NotSigned, expect_paper
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import Build
from fedkd.knowledge import BadInput
from fedkd.privacy import Mechanism
from fedkd.wire import Ruling


@dataclass(frozen=True, slots=True)
class Price:
    """What a run may cost here: epsilons in nats, None where nothing is bounded.

    `plan` is what this run may spend at most, `spent` and `left` what the population's budget is
    at now. `problem` says why nothing would be paid at all, such as a missing paper.
    """

    mechanism: str
    private: bool
    plan: float | None
    spent: float | None
    left: float | None
    delta: float | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A proposal as a person sees it: what it is, what it costs, and why it may not be possible.

    `known` are the bundles that are allowed here, None where the proposal's is one of them.
    `watched` says who would cosign this site's log, None where its keys are not named.
    """

    proposal: RunProposal
    decision: Decision | None
    objection: str | None
    price: Price
    known: tuple[str, ...] | None = None
    watched: Roster | None = None

    @property
    def state(self) -> str:
        """What was decided; `pending` where nobody has, `outside policy` where nobody can."""
        if self.decision is not None:
            return str(self.decision.ruling)
        return "pending" if self.objection is None else "outside policy"


def every_proposal(hospital: Hospital, build: Build) -> list[Shown]:
    """Each proposal that came in, oldest first."""
    return [shown(hospital, one, build) for one in Shelf(hospital).all()]


def find(hospital: Hospital, named: str) -> RunProposal:
    """The proposal whose digest or run begins so; `BadInput` where there is none, or several."""
    wanted = named.removeprefix("sha256:")
    every = Shelf(hospital).all()
    found = [
        one
        for one in every
        if wanted and (one.digest.removeprefix("sha256:").startswith(wanted) or one.run == named)
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(one.digest.removeprefix("sha256:")[:12] for one in every) or "none"
    raise BadInput(
        f"{len(found)} proposals named {named!r}",
        f"one of those that came in: {known}",
        "fedkd site approve HOSPITAL lists them",
    )


def shown(hospital: Hospital, proposal: RunProposal, build: Build) -> Shown:
    """What a person has to know before saying yes."""
    site = folder_of(hospital, proposal)
    objection = objection_to(hospital, proposal, build, datetime.now(UTC))
    settings = site.settings()
    mechanism: Mechanism = build(settings.mechanism)
    agreed, _ = agreed_settings(settings, proposal, mechanism)
    with site.log(settings.name) as log:
        decision = decided(log, proposal.run)
        problem = None
        try:
            expect_paper(site, settings, log, mechanism)
        except NotSigned as error:
            problem = str(error)
        plan = spent = left = delta = None
        if problem is None and mechanism.private:
            ledger = ledger_of(log, settings.population)
            if ledger.epsilon is not None:
                spent, left, delta = ledger.spent(), ledger.left(), ledger.delta
                plan = left if agreed.plan_epsilon is None else min(left, agreed.plan_epsilon)
                if left <= 0:
                    problem = "nothing is left of the budget: every answer would be refused"
    price = Price(mechanism.name, mechanism.private, plan, spent, left, delta, problem)
    known = pinned(hospital)
    new = proposal.bundle not in known
    watched = proposal.federated().rosters().get(settings.name)
    return Shown(proposal, decision, objection, price, known if new else None, watched)


def outside(objection: str) -> BadInput:
    """What is said to whoever says yes to what cannot be."""
    return BadInput(
        f"a proposal that cannot be approved here ({objection})",
        "one that site.yaml allows",
        "decline it, or change policy in site.yaml if it is meant to be allowed",
    )


def rule(
    hospital: Hospital, proposal: RunProposal, build: Build, *, by: str, decline: str | None
) -> Decision:
    """Writes a person's yes, or with `decline` the reason of a no, into the site's log.

    A no after a yes takes it back: from then on the run is not answered. `BadInput` for a yes to
    what the policy does not allow.
    """
    if not by.strip():
        raise BadInput("nobody's name", "who decides", "add --by NAME")
    site = folder_of(hospital, proposal)
    name = site.settings().name
    if decline is None:
        objection = objection_to(hospital, proposal, build, datetime.now(UTC))
        if objection is not None:
            raise outside(objection)
    yes = Ruling.REHEARSING if proposal.rehearsal else Ruling.APPROVED
    with site.turn(), site.log(name) as log:
        if decline is not None:
            return decide(log, proposal, Ruling.DECLINED, by=by, reason=decline)
        return decide(log, proposal, yes, by=by)


def to_json(one: Shown) -> dict[str, Any]:
    """Plain values of what a person sees."""
    proposal, price = one.proposal, one.price
    return {
        "digest": proposal.digest,
        "run": proposal.run,
        "state": one.state,
        "rehearsal": proposal.rehearsal,
        "federation": proposal.federation,
        "bundle": proposal.bundle,
        "bundles_allowed_here": None if one.known is None else list(one.known),
        "software": proposal.software,
        "asked": dict(proposal.asked),
        "query": dict(proposal.query),
        "would_leave": dict(proposal.would_leave),
        "sites": list(proposal.sites),
        "expires": proposal.expires,
        "cosigners": None if one.watched is None else list(one.watched.cosigners),
        "objection": one.objection,
        "cost": {name: getattr(price, name) for name in Price.__dataclass_fields__},
        "decision": None
        if one.decision is None
        else {name: getattr(one.decision, name) for name in Decision.__dataclass_fields__},
    }
