"""Shows a person at a hospital what was proposed, and takes a yes or a no."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from fedkd.audit.verify.command import plain
from fedkd.deploy.approving import (
    Counting,
    Shown,
    every_proposal,
    find,
    outside,
    place,
    rule,
    shown,
    to_json,
)
from fedkd.deploy.bundles import allow, digits_of, expect_compared
from fedkd.deploy.evaluation_proposals import EvaluationProposal
from fedkd.deploy.hospital import hospital_at
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.building import Workshop
from fedkd.federation.flower.bundle import bundle_digest
from fedkd.knowledge import BadInput

DONE, REFUSED = 0, 1


def approve(
    folder: Path,
    named: str | None,
    *,
    yes: bool,
    decline: str | None,
    by: str,
    bundle: str | None = None,
    as_json: bool,
    model: Path | None = None,
) -> int:
    """Lists proposals; of one shows everything, asks, and logs what the person says.

    `bundle` are the first digits of a bundle that was not known here, as the coordinator read
    them over the telephone: without them, or a person who is asked, there is no yes. `model` is
    the file of the model that an evaluation is about; it is placed with a yes.
    """
    hospital, build = hospital_at(folder), Workshop()
    if named is None:
        if yes or decline is not None or model is not None:
            raise BadInput("no proposal", "the digest of the one that is meant")
        return _listed(every_proposal(hospital, build), folder, as_json=as_json)
    one = shown(hospital, find(hospital, named), build)
    if as_json and not yes and decline is None:
        print(json.dumps(to_json(one), indent=2))
        return DONE
    if not as_json:
        print("\n".join(map(plain, _lines(one))))
    if decline is None and one.objection is not None and one.decision is None:
        raise outside(one.objection)
    if not yes and decline is None:
        if not sys.stdin.isatty():
            needs = "" if one.counting is None or one.counting.model_is_here else "--model FILE "
            more = "" if one.known is None else " --bundle DIGITS"
            print(f"next:   fedkd site approve {folder} {named} {needs}--yes --by NAME{more}")
            return DONE
        by = by or typer.prompt("Who decides? Your name")
        what = "Take part in this run?" if one.counting is None else "Let these counts leave?"
        if not _compared(one, bundle) or not typer.confirm(what, default=False):
            print("nothing was decided")
            return REFUSED
    elif decline is None:
        _expect_read_aloud(one, bundle)
    if model is not None and decline is None:
        place(hospital, one.proposal, model)
    decision = rule(hospital, one.proposal, build, by=by, decline=decline)
    if decline is None and hospital.letterbox.is_dir():
        allow(hospital.letterbox, one.proposal.bundle)
    if as_json:
        print(json.dumps(to_json(shown(hospital, one.proposal, build)), indent=2))
        return DONE
    print(
        plain(f"{decision.ruling} by {decision.by} at {decision.at}: it stands in the site's log")
    )
    return DONE


def _compared(one: Shown, digits: str | None) -> bool:
    """Whether a new bundle's digits are those that the coordinator read; asks whoever sits here."""
    if one.known is None:
        return True
    if digits is not None:
        expect_compared(one.proposal.bundle, digits)
        return True
    print(f"This bundle is new here: {digits_of(one.proposal.bundle)}")
    return typer.confirm("Has the coordinator, whom you called, read the same to you?")


def _expect_read_aloud(one: Shown, digits: str | None) -> None:
    if one.known is None:
        return
    if digits is None:
        raise BadInput(
            f"a bundle that is not known here, {digits_of(one.proposal.bundle)}",
            "--bundle DIGITS, as the coordinator reads them to you over the telephone",
            "fedkd server status shows them at the coordinator",
        )
    expect_compared(one.proposal.bundle, digits)


def _listed(every: list[Shown], folder: Path, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([to_json(one) for one in every], indent=2))
        return DONE
    for one in every:
        short = one.proposal.digest.removeprefix("sha256:")[:12]
        print(plain(f"{short}  {one.state:14} {_in_short(one)}, until {one.proposal.expires}"))
    if not every:
        print("no run was proposed here")
    elif any(one.state == "pending" for one in every):
        print(f"next:   fedkd site approve {folder} DIGEST --by NAME")
    return DONE


def _in_short(one: Shown) -> str:
    asked, rehearsal = one.proposal.asked, one.proposal.rehearsal
    if one.counting is not None:
        kind = "REHEARSAL" if rehearsal else f"epsilon {asked['epsilon']:g}"
        return f"evaluation of run {one.proposal.run}, {kind}"
    kind = "REHEARSAL" if rehearsal else f"mechanism {asked['mechanism']}"
    return f"{asked['rounds']} rounds of {asked['size']} queries, {kind}"


def _lines(one: Shown) -> Iterator[str]:
    proposal, price = one.proposal, one.price
    yield f"proposal    {proposal.digest}"
    what = "run" if one.counting is None else "evaluation of the student of run"
    yield f"            {what} {proposal.run} of {proposal.federation}, {one.state}"
    if proposal.rehearsal:
        yield "            REHEARSAL: rows from declared ranges; no record is read or charged for"
    yield f"code        {proposal.software}; ticket sha256:{proposal.bundle}"
    same = proposal.bundle == bundle_digest()
    yield (
        "            that of the fedkd installed here, which is what runs"
        if same
        else "            NOT that of the fedkd installed here; what runs is what is installed"
    )
    if one.known is not None:
        known = " or ".join(map(digits_of, one.known))
        yield f"            NEW here, where {known} is allowed. It begins with"
        yield f"            {digits_of(proposal.bundle)}: have the coordinator read that to you"
    if isinstance(proposal, RunProposal):
        yield from _of_run(proposal)
    else:
        yield from _of_evaluation(proposal, one.counting)
    yield f"takes part  {', '.join(proposal.sites)}"
    if one.counting is None:
        yield from _price(one)
    else:
        yield from _cost_of_counts(one, one.counting)
    yield from _guard(one)
    yield f"yes until   {proposal.expires}"
    if one.objection is not None:
        yield f"NOT ALLOWED {one.objection}"
    if one.decision is not None:
        decision = one.decision
        why = f": {decision.reason}" if decision.reason else ""
        yield f"decided     {decision.ruling} by {decision.by} at {decision.at}{why}"
    if price.problem is not None:
        yield f"PROBLEM     {price.problem}"


def _guard(one: Shown) -> Iterator[str]:
    if one.watched is None:
        return
    by, needed, hours = one.watched.cosigners, one.watched.threshold, one.watched.most_age_s / 3600
    if not by:
        yield "log         WATCHED BY NOBODY: if an old copy of this site's log were put back, what"
        yield "            was spent since would be spent again, and nobody would notice"
        return
    yield f"log         watched by {', '.join(by)}: {needed} of them must have said within"
    yield f"            {hours:g} hours how far it goes, or nothing is answered"


def _price(one: Shown) -> Iterator[str]:
    price = one.price
    if not price.private:
        yield "cost        NOT PRIVATE: mechanism none bounds nothing that an answer tells"
    elif price.plan is None:
        yield "cost        cannot be told: see the problem below"
    else:
        yield f"cost        at most epsilon {price.plan:.4g} with {price.mechanism}"
        after = "" if price.after is None else f"afterwards at most {price.after:.4g}, "
        yield (
            f"            spent {price.spent:.4g}, {after}left now {price.left:.4g}, "
            f"delta {price.delta:.2g}"
        )
        if price.plan == price.left:
            yield "            ALL THAT IS LEFT: no later run or figure could be paid for"


def _of_run(proposal: RunProposal) -> Iterator[str]:
    asked, leaves, query = proposal.asked, proposal.would_leave, proposal.query
    yield f"asked       {asked['rounds']} rounds, {asked['size']} queries in each"
    if query["kind"] == "synthetic":
        yield f"queries     drawn by {query['generator']} from seed {query['seed']}, and drawn"
        yield f"            again by this site itself (code {query['code']})"
    else:
        yield f"queries     {query['source']} ({query['licence']}), set {query['digest']}"
        yield "            the name is the coordinator's word; the digest binds what is asked"
    yield (
        f"training    {asked['local_epochs']} epochs, {asked['lesson_epochs']} with each lesson, "
        f"batches of {asked['batch']}, loss {asked['loss']}"
    )
    shape = f"[{asked['size']}, {leaves['classes']}]"
    yield f"would leave {leaves['messages']} answers {shape} of probabilities, as {asked['codec']}"
    yield f"            {leaves['rows']} rows, {leaves['bytes']:,} bytes of numbers in all"
    yield "            nothing else of records or model: no weights, gradients or features; beside"
    yield "            them that the site is there, refusals, and heads of its log with signatures"
    yield f"made of it  {asked['aggregate']}, filter {asked['filter']}, student {asked['student']}"


def _of_evaluation(proposal: EvaluationProposal, counting: Counting | None) -> Iterator[str]:
    asked, leaves = proposal.asked, proposal.would_leave
    here = counting is not None and counting.model_is_here
    placed = "placed here" if here else "NOT HERE: bring the file with --model FILE"
    yield f"model       {asked['model']}"
    yield f"            a {asked['architecture']}, {placed}; it never travels in a message"
    if asked["thresholds"]:
        at = ", ".join(f"{one:g}" for one in asked["thresholds"])
        yield f"asked       how it does on this hospital's held-out patients, thresholds {at}"
    else:
        yield "asked       how it does on this hospital's held-out patients, by class"
    if asked["group"] is not None:
        yield f"            apart by {asked['group']}, {leaves['groups']} groups"
    shape = f"[{leaves['groups']}, {leaves['answers']}, {leaves['classes']}]"
    yield f"would leave {leaves['cells']} counts {shape} of patients: group, answer, true class"
    yield "            each patient is counted once, in one cell; beside the counts, that the site"
    yield "            is there, refusals, and heads of its log with signatures; nothing else"


def _cost_of_counts(one: Shown, counting: Counting) -> Iterator[str]:
    price = one.price
    if counting.law is not None and counting.scale:
        yield f"noise       {counting.law.replace('_', ' ')} of scale {counting.scale:.4g} on each"
    yield f"            a count below {counting.floor} stays here"
    if not price.private:
        yield "cost        NOT PRIVATE: an open budget lets counts out as they are"
    elif counting.spent is None or price.spent is None:
        yield "cost        cannot be told: see the problem below"
    else:
        yield f"cost        epsilon {price.plan:.4g}, once: asked again it gets the same counts"
        yield (
            f"            spent {price.spent:.4g}, afterwards {counting.spent:.4g}, "
            f"left now {price.left:.4g}, delta {price.delta:.2g}"
        )
