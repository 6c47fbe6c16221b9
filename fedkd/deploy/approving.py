"""Shows a person at a hospital what a proposal would do, and takes the answer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedkd.audit import Log, Roster
from fedkd.deploy.bundles import pinned
from fedkd.deploy.consent import Shelf, agreed_settings, folder_of, lacks_model, objection_to
from fedkd.deploy.decisions import Decision, decide, decided
from fedkd.deploy.evaluation_proposals import AnyProposal, EvaluationProposal
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.evaluating import digest_of_model, place_model
from fedkd.federation.papers import NotSigned, expect_paper
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import Build, SiteSettings
from fedkd.knowledge import BadInput
from fedkd.privacy import BudgetExhausted, Ledger, Mechanism, PublicFacts
from fedkd.privacy.counts import noise_for
from fedkd.wire import Ruling


@dataclass(frozen=True, slots=True)
class Price:
    """What a run may cost here: epsilons in nats, None where nothing is bounded.

    `plan` is what this run may spend at most, by itself. `spent` and `left` are what the
    population's budget is at now, `after` what it says is spent once the run was: under `rdp`,
    whose order suits the whole budget, that may be more than `spent` and `plan` together; None
    where it was not planned. `problem` says why nothing would be paid at all, such as a missing
    paper.
    """

    mechanism: str
    private: bool
    plan: float | None
    spent: float | None
    left: float | None
    delta: float | None
    problem: str | None
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Counting:
    """How an evaluation would be counted here.

    The `law` of the noise on each count and its `scale` (None where nothing can be paid), the floor
    below which a count stays here, epsilon `spent` afterwards, and whether the model was placed.
    """

    law: str | None
    scale: float | None
    floor: int
    spent: float | None
    model_is_here: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A proposal as a person sees it: what it is, what it costs, and why it may not be possible.

    `counting` is there for an evaluation, None for a run. `known` are the bundles that are allowed
    here, None where the proposal's is one of them. `watched` says who would cosign this site's log,
    None where its keys are not named.
    """

    proposal: AnyProposal
    decision: Decision | None
    objection: str | None
    price: Price
    counting: Counting | None = None
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


def find(hospital: Hospital, named: str) -> AnyProposal:
    """The proposal whose digest begins so, or of this run; `BadInput` for none, or several."""
    wanted = named.removeprefix("sha256:")
    every = Shelf(hospital).all()
    found = [
        one
        for one in every
        if wanted and (one.digest.removeprefix("sha256:").startswith(wanted) or one.about == named)
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(one.digest.removeprefix("sha256:")[:12] for one in every) or "none"
    raise BadInput(
        f"{len(found)} proposals named {named!r}",
        f"one of those that came in: {known}",
        "fedkd site approve HOSPITAL lists them",
    )


def shown(hospital: Hospital, proposal: AnyProposal, build: Build) -> Shown:
    """What a person has to know before saying yes."""
    site = folder_of(hospital, proposal)
    objection = objection_to(hospital, proposal, build, datetime.now(UTC))
    settings = site.settings()
    mechanism: Mechanism = build(settings.mechanism)
    counting = None
    with site.log(settings.name) as log:
        decision = decided(log, proposal.about)
        problem, paper = None, None
        try:
            paper = expect_paper(site, settings, log, mechanism)
        except NotSigned as error:
            problem = str(error)
        if isinstance(proposal, EvaluationProposal):
            ledger = None if problem else ledger_of(log, settings.population)
            groups = settings.accepts.groups if paper is None else paper.evaluation_groups
            price, counting = _counted(hospital, proposal, settings, mechanism, ledger, groups)
            price = price if problem is None else replace(price, problem=problem)
        else:
            ledger = ledger_of(log, settings.population) if not problem else None
            patients = None if decision is not None else _patients(log, settings.population)
            price = _trained(settings, proposal, mechanism, ledger, problem, patients)
    known = pinned(hospital.invited(), hospital.letterbox)
    new = proposal.bundle not in known
    watched = proposal.federated().rosters().get(settings.name)
    return Shown(proposal, decision, objection, price, counting, known if new else None, watched)


def _trained(
    settings: SiteSettings,
    proposal: RunProposal,
    mechanism: Mechanism,
    ledger: Ledger | None,
    problem: str | None,
    patients: int | None,
) -> Price:
    """What a run may cost; afterwards, too, where `patients` says for how many it is planned."""
    agreed, _ = agreed_settings(settings, proposal, mechanism)
    plan = spent = left = delta = after = None
    if ledger is not None and mechanism.private and ledger.epsilon is not None:
        spent, left, delta = ledger.spent(), ledger.left(), ledger.delta
        plan = left if agreed.plan_epsilon is None else min(left, agreed.plan_epsilon)
        if left <= 0:
            problem = "nothing is left of the budget: every answer would be refused"
        elif patients is not None:
            after, problem = _spent_after(agreed, mechanism, ledger, patients)
    return Price(mechanism.name, mechanism.private, plan, spent, left, delta, problem, after)


def _patients(log: Log, population: str) -> int | None:
    """How many patients there were when their budget was opened; None where it was not."""
    opened = (entry.body for entry in log.entries("budget.opened"))
    return next((int(it["patients"]) for it in opened if it["population"] == population), None)


def _spent_after(
    settings: SiteSettings, mechanism: Mechanism, ledger: Ledger, patients: int
) -> tuple[float | None, str | None]:
    """What the budget says is spent once a run's plan was; or why there is no such plan."""
    if mechanism.plan is None or mechanism.cost_at is None:
        return None, None
    facts = PublicFacts(patients, len(settings.space.classes), named=ledger.unit == "patient")
    try:
        planned = mechanism.plan(facts, ledger, settings.plan_epsilon)
        return ledger.charge(mechanism.cost_at(facts, planned.noise_multiplier)).spent(), None
    except (BadInput, BudgetExhausted) as error:
        return None, str(error)


def _counted(
    hospital: Hospital,
    proposal: EvaluationProposal,
    settings: SiteSettings,
    mechanism: Mechanism,
    ledger: Ledger | None,
    groups: Sequence[str],
) -> tuple[Price, Counting]:
    """What an evaluation costs, and the noise that this pays for; nothing is charged."""
    asked, here = proposal.asked, not lacks_model(hospital, proposal)
    plan = spent = left = delta = after = problem = noise = None
    if ledger is not None:
        try:
            noise = noise_for(ledger, asked["epsilon"])
            after = ledger.charge(noise.cost).spent() if ledger.epsilon is not None else None
        except BudgetExhausted as error:
            problem = str(error)
        if ledger.epsilon is not None:
            plan, delta = asked["epsilon"], ledger.delta
            spent, left = ledger.spent(), ledger.left()
    if asked["group"] is not None and asked["group"] not in groups:
        problem = f"nobody allowed counts by {asked['group']} here: it would be refused"
    law, scale = (None, None) if noise is None else (noise.law, noise.scale)
    private = ledger is None or ledger.epsilon is not None
    price = Price(mechanism.name, private, plan, spent, left, delta, problem)
    return price, Counting(law, scale, settings.accepts.floor, after, here)


def place(hospital: Hospital, proposal: AnyProposal, weights: Path) -> None:
    """Puts the model that an evaluation is about where the site finds it; `BadInput` if another."""
    if not isinstance(proposal, EvaluationProposal):
        raise BadInput(f"--model {weights} with a run", "an evaluation, which is about a model")
    wanted = proposal.question().model
    try:
        found = digest_of_model(weights)
    except OSError as error:
        raise BadInput(f"{weights}, which cannot be read ({error.strerror})", "a file") from None
    if found != wanted:
        raise BadInput(
            f"the model {found} in {weights}",
            f"{wanted}, which the proposal names",
            "have the coordinator send student.safetensors of that run",
        )
    place_model(folder_of(hospital, proposal).folder, weights, proposal.asked["architecture"])


def outside(objection: str) -> BadInput:
    """What is said to whoever says yes to what cannot be."""
    return BadInput(
        f"a proposal that cannot be approved here ({objection})",
        "one that site.yaml allows",
        "decline it, or change policy in site.yaml if it is meant to be allowed",
    )


def rule(
    hospital: Hospital, proposal: AnyProposal, build: Build, *, by: str, decline: str | None
) -> Decision:
    """Writes a person's yes, or with `decline` the reason of a no, into the site's log.

    A no after a yes takes it back: from then on it is not answered. `BadInput` for a yes to what
    the policy does not allow, and to an evaluation of a model that is not here.
    """
    if not by.strip():
        raise BadInput("nobody's name", "who decides", "add --by NAME")
    site = folder_of(hospital, proposal)
    name = site.settings().name
    if decline is None:
        objection = objection_to(hospital, proposal, build, datetime.now(UTC))
        if objection is not None:
            raise outside(objection)
        if lacks_model(hospital, proposal):
            raise BadInput(
                f"no model {proposal.asked['model']} at this hospital",
                "the file student.safetensors of the run, which the coordinator sends by hand",
                "add --model FILE: a model never travels in a message",
            )
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
        "kind": proposal.KIND,
        "query": dict(proposal.query) if isinstance(proposal, RunProposal) else None,
        "counting": None if one.counting is None else asdict(one.counting),
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
