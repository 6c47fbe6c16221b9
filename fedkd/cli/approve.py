"""Shows a person at a hospital the runs that were proposed, and takes a yes or a no."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from fedkd.audit.verify.command import plain
from fedkd.deploy.approving import Shown, every_proposal, find, outside, rule, shown, to_json
from fedkd.deploy.bundles import allow, digits_of, expect_compared
from fedkd.deploy.hospital import hospital_at
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
) -> int:
    """Lists proposals; of one shows everything, asks, and logs what the person says.

    `bundle` are the first digits of a bundle that was not known here, as the coordinator read
    them over the telephone: without them, or a person who is asked, there is no yes.
    """
    hospital, build = hospital_at(folder), Workshop()
    if named is None:
        if yes or decline is not None:
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
            more = "" if one.known is None else " --bundle DIGITS"
            print(f"next:   fedkd site approve {folder} {named} --yes --by NAME{more}")
            return DONE
        by = by or typer.prompt("Who decides? Your name")
        if not _compared(one, bundle) or not typer.confirm("Take part in this run?", default=False):
            print("nothing was decided")
            return REFUSED
    elif decline is None and one.known is not None:
        if bundle is None:
            raise BadInput(
                f"a bundle that is not known here, {digits_of(one.proposal.bundle)}",
                "--bundle DIGITS, as the coordinator reads them to you over the telephone",
                "fedkd server status shows them at the coordinator",
            )
        expect_compared(one.proposal.bundle, bundle)
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


def _listed(every: list[Shown], folder: Path, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([to_json(one) for one in every], indent=2))
        return DONE
    for one in every:
        asked, short = one.proposal.asked, one.proposal.digest.removeprefix("sha256:")[:12]
        kind = "REHEARSAL" if one.proposal.rehearsal else f"mechanism {asked['mechanism']}"
        print(
            plain(
                f"{short}  {one.state:14} {asked['rounds']} rounds of {asked['size']} queries, "
                f"{kind}, until {one.proposal.expires}"
            )
        )
    if not every:
        print("no run was proposed here")
    elif any(one.state == "pending" for one in every):
        print(f"next:   fedkd site approve {folder} DIGEST --by NAME")
    return DONE


def _lines(one: Shown) -> Iterator[str]:
    proposal, price, asked = one.proposal, one.price, one.proposal.asked
    leaves, query = proposal.would_leave, proposal.query
    yield f"proposal    {proposal.digest}"
    yield f"            run {proposal.run} of {proposal.federation}, {one.state}"
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
    yield f"asked       {asked['rounds']} rounds, {asked['size']} queries in each"
    if query["kind"] == "synthetic":
        yield f"queries     drawn by {query['generator']} from seed {query['seed']}, and drawn"
        yield f"            again by this site itself (code {query['code']})"
    else:
        yield f"queries     {query['source']} ({query['licence']}), set {query['digest']}"
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
    yield f"takes part  {', '.join(proposal.sites)}"
    yield from _price(one)
    yield from _guard(one)
    yield f"until       {proposal.expires}"
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
        yield f"            spent {price.spent:.4g}, left {price.left:.4g}, delta {price.delta:.2g}"
