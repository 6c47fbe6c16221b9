"""Gathers the claims of a simulation's sites, for `summary.json` and everything that shows it."""

from typing import TYPE_CHECKING, Any

from fedkd.federation.claiming import claim_of_site, spent_by_round
from fedkd.federation.site import SiteFolder
from fedkd.privacy.claim import Claim, NoClaim
from fedkd.report.claims import NOT_PRIVATE, statement

if TYPE_CHECKING:
    from fedkd.cli.run import Run


ELSEWHERE = (
    "found its ledger at the hospital, expected it here; the hospital shows it (fedkd privacy "
    "status) and hands over what it decides to (fedkd site disclose)"
)


def privacy_of(run: "Run") -> dict[str, Any]:
    """What `summary.json` says of privacy: each site's claim, or why there is none."""
    claims: dict[str, Claim] = {}
    without: dict[str, str] = {}
    spent: dict[str, Any] = {}
    if run.config["choices"]["mechanism"] == "none":
        return {"statement": NOT_PRIVATE, "claims": claims, "without": without, "spent": spent}
    for site, path in run.sites.items():
        folder = SiteFolder(path)
        population = folder.settings().population
        with folder.log(site) as log:
            try:
                claims[site] = claim_of_site(folder, log, population)
            except NoClaim as error:
                without[site] = f"found {error.found}, expected {error.expected}"
            else:
                spent[site] = spent_by_round(log, population, run.id)
    without |= dict.fromkeys(run.elsewhere, ELSEWHERE)
    return {
        "statement": statement(claims),
        "claims": {site: claim.to_json() for site, claim in claims.items()},
        "without": without,
        "spent": spent,
    }


def claimed(row: dict[str, Any], privacy: dict[str, Any]) -> dict[str, Any]:
    """A hospital's figures, with its epsilon only where the whole claim stands beside it."""
    claim = privacy["claims"].get(row["site"])
    if claim is None:
        return {**row, "epsilon": None, "delta": None}
    return {**row, "epsilon": claim["spent"], "delta": claim["delta"]}
