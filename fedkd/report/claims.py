"""Holds a run's epsilons together with the claims that they are part of."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from fedkd.knowledge import BadInput
from fedkd.privacy.claim import Claim, NoClaim
from fedkd.privacy.risk import recognised
from fedkd.report.svg import shortened

NOT_PRIVATE = "NOT PRIVATE: mechanism=none bounds nothing that an answer tells about a patient."
NO_CLAIM = "No claim: no site's epsilon comes with all that makes it one, so none is given."
INDENT = " " * 15
BEFORE_CLAIMS = "a run of a version that kept no claim beside an epsilon"


def claims_of(summary: Mapping[str, Any]) -> dict[str, Claim]:
    """Each site's claim, by its name; `NoClaim` where one of them lacks a field."""
    kept = (summary.get("privacy") or {}).get("claims", {})
    return {site: Claim.from_json(body) for site, body in sorted(kept.items())}


def without_claim(summary: Mapping[str, Any]) -> dict[str, str]:
    """Why a site has no claim, by its name."""
    return dict(sorted((summary.get("privacy") or {}).get("without", {}).items()))


def statement(claims: Mapping[str, Claim]) -> str:
    """What a run protects, in a sentence or two: as little as its least protected site."""
    return " ".join(bounds(claims)) or NO_CLAIM


def bounds(claims: Mapping[str, Claim]) -> list[str]:
    """The bound and the risk, one line for all the sites for which they are the same."""
    alike: dict[str, list[str]] = {}
    for site, claim in claims.items():
        alike.setdefault(bound(claim), []).append(site)
    if len(alike) == 1:
        return list(alike)
    return [f"{_names(sites)}: {said}" for said, sites in alike.items()]


def bound(claim: Claim) -> str:
    """The bound, the risk, and whether it is more than a rehearsal, on one line."""
    caught = 100 * recognised(claim.epsilon, claim.delta, claim.filter)
    rehearsal = "; NOT PRIVATE yet: rehearsal noise, drawn from a seed" * claim.is_rehearsal
    return (
        f"at most epsilon {claim.epsilon:g} (delta {claim.delta:.2g}), ever, for each "
        f"{claim.unit}: of 100, an attacker recognises at most {caught:.1f} at one false alarm "
        f"in 100; {claim.audit}{rehearsal}."
    )


def lines(summary: Mapping[str, Any]) -> list[str]:
    """What is printed about privacy beside a run's figures."""
    if not summary["private"]:
        return [NOT_PRIVATE]
    claims = bounds(claims_of(summary))
    said = [line for one in claims for line in wrapped("privacy", one)]
    tail = f"{INDENT}The whole claims are in summary.json, under privacy."
    said.append(tail if claims else NO_CLAIM)
    missing = without_claim(summary)
    for site, why in list(missing.items())[:5]:
        said += wrapped("no claim", f"{site}: {why}")
    if len(missing) > 5:
        said.append(f"no claim       {len(missing) - 5} more, with their reasons in summary.json")
    return said


def promises(summary: Mapping[str, Any]) -> list[str]:
    """What a run promises a patient: its bounds, which sites have none, or NOT PRIVATE."""
    if not summary["private"]:
        return [NOT_PRIVATE]
    missing = [f"no claim for {site}: {why}" for site, why in without_claim(summary).items()]
    return [*(bounds(claims_of(summary)) or [NO_CLAIM]), *missing]


def warning_of(summary: Mapping[str, Any]) -> str:
    """What stands under each drawing of a run that protects nobody; empty for any other."""
    return "" if summary["private"] else NOT_PRIVATE


def wrapped(heading: str, words: str, width: int = 100) -> list[str]:
    """A heading with words beside it, in lines of a terminal."""
    first = heading.ljust(len(INDENT))
    return textwrap.wrap(words, width, initial_indent=first, subsequent_indent=INDENT)


def check_claims(summary: Mapping[str, Any]) -> None:
    """`BadInput` where an epsilon stands in a summary without its whole claim."""
    claims = claims_of(summary)
    for client in summary["clients"]:
        site = client["site"]
        if client["epsilon"] is not None and site not in claims:
            raise NoClaim(
                f"epsilon {client['epsilon']:g} of {site} without a claim",
                "everything that has to be said beside it",
                "write null, and why, where the claim cannot be made",
            )
        if site in claims and client["epsilon"] != claims[site].spent:
            raise NoClaim(
                f"epsilon {client['epsilon']} of {site} beside a claim of {claims[site].spent}",
                "the same",
            )
    if not summary["private"] and claims:
        raise BadInput("a claim of a run that is not private", "none")


def drop_unclaimed(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary of a version that knew no claims, without the epsilons that lack one."""
    if not summary["private"] or summary.get("privacy"):
        return summary
    clients = [{**client, "epsilon": None, "delta": None} for client in summary["clients"]]
    without = {client["site"]: BEFORE_CLAIMS for client in clients}
    kept = {"statement": NO_CLAIM, "claims": {}, "without": without, "spent": {}}
    return {**summary, "clients": clients, "privacy": kept}


def _names(sites: Sequence[str], most: int = 3) -> str:
    named = ", ".join(shortened(site, 20) for site in sites[:most])
    return named if len(sites) <= most else f"{named} and {len(sites) - most} more"
