"""Says what of each population's budget is spent and left, as its site's log remembers it."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.audit import Log
from fedkd.federation.claiming import claim_of_site
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.privacy import Ledger
from fedkd.privacy.claim import Claim, NoClaim
from fedkd.privacy.risk import in_words
from fedkd.report.svg import shortened

DONE = 0
HEADINGS = ("site", "budget", "spent", "left", "delta", "units", "paid", "free", "refused", "of")
LEGEND = (
    "budget, spent, left: epsilon. Under filter gdp squares add up, so spent and left do not. "
    "What is spent never comes back.",
    "paid, free: charges that cost something, and answers that cost nothing more. refused: how "
    "often the ledger said no.",
)
NONE = (
    "No budget was opened here yet: nothing was paid, and nothing is answered before there is one.",
    "fedkd privacy budget new DIR makes a paper, for the data protection officer to sign.",
)
OPEN = "NOT PRIVATE: an open budget bounds nothing that its answers tell about a patient."


@dataclass(frozen=True, slots=True)
class Account:
    """One population's budget at a site, with its claim, or why there is none."""

    site: str
    ledger: Ledger
    claim: Claim | None
    missing: str | None

    @property
    def paid(self) -> int:
        """Charges that cost something."""
        return sum(1 for cost in self.ledger.charged if cost.get("event") != "NoOp")

    def to_json(self) -> dict[str, Any]:
        """Plain values; without a claim there is no epsilon, and the reason stands beside it."""
        ledger, claim = self.ledger, self.claim
        told: dict[str, Any] = {
            "site": self.site,
            **ledger.to_json(),
            "spent": ledger.spent() if claim else None,
            "left": ledger.left() if claim else None,
            "charges": len(ledger.charged),
            "paid": self.paid,
            "refusals": claim.refusals if claim else None,
            "private": ledger.epsilon is not None,
            "risk": None,
            "claim": claim.to_json() if claim else None,
            "no_claim": self.missing,
        }
        if claim is None:
            return {**told, "epsilon": None, "delta": None}
        return {**told, "risk": in_words(claim.epsilon, claim.delta, claim.filter, claim.unit)}

    def cells(self) -> list[str]:
        """What stands in a row of the table, in the order of `HEADINGS`."""
        free = str(len(self.ledger.charged) - self.paid)
        if self.claim is None:
            return [self.site, *["-"] * 5, str(self.paid), free, "-", self._population()]
        claim = self.claim
        return [
            self.site,
            f"{claim.epsilon:g}",
            f"{claim.spent:.3f}",
            f"{self.ledger.left():.3f}",
            f"{claim.delta:.2g}",
            f"{claim.units} {claim.unit}s",
            str(self.paid),
            free,
            str(claim.refusals),
            self._population(),
        ]

    def _population(self) -> str:
        name = self.ledger.population
        return "a rehearsal" if name.startswith("rehearsal:") else shortened(name, 30)


def status(path: Path, *, as_json: bool) -> int:
    """Prints each population's budget: opened, spent and left, and what the bound means."""
    accounts = list(_accounts(path))
    if as_json:
        print(json.dumps([account.to_json() for account in accounts], indent=2))
        return DONE
    print("\n".join(_lines(accounts)))
    return DONE


def _lines(accounts: Sequence[Account]) -> list[str]:
    if not accounts:
        return list(NONE)
    bounded = [account for account in accounts if account.ledger.epsilon is not None]
    lines = []
    if bounded:
        lines += [*_table([HEADINGS, *(account.cells() for account in bounded)]), ""]
        lines += [line for one in LEGEND for line in textwrap.wrap(one, 100)]
    for sites, facts in _alike(bounded).items():
        lines += ["", f"{sites}:"]
        lines += [line for what, said in facts for line in _fact(what, said)]
    if spent := [it.site for it in bounded if it.claim and it.ledger.left() == 0]:
        lines += ["", *textwrap.wrap(f"Nothing is left at {', '.join(spent)}: a question that "
                                     "costs something is refused there.", 100)]  # fmt: skip
    for account in accounts:
        if account.missing is not None and account.ledger.epsilon is not None:
            lines += ["", *_fact(account.site, f"no claim, and so no epsilon: {account.missing}")]
    if open_budgets := [account for account in accounts if account.ledger.epsilon is None]:
        lines += ["", OPEN] if lines else [OPEN]
        for account in open_budgets:
            lines.append(f"  {account.site}: {len(account.ledger.charged)} charges went into it")
    return lines


def _alike(accounts: Sequence[Account]) -> dict[str, list[tuple[str, str]]]:
    """What holds of sites, said once for all of which the same holds."""
    grouped: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for account in accounts:
        if account.claim is not None:
            grouped.setdefault(tuple(_facts(account.claim)), []).append(account.site)
    return {", ".join(sites): list(facts) for facts, sites in grouped.items()}


def _facts(claim: Claim) -> Iterator[tuple[str, str]]:
    yield "risk", in_words(claim.epsilon, claim.delta, claim.filter, claim.unit)
    yield "one unit", claim.records_per_unit
    yield "compared", "the records as they are, and with all of one unit's replaced by nothing"
    yield "trusted", claim.trust
    yield "not covered", "; ".join((*claim.not_protected, claim.several_sites))
    steps = (*claim.preprocessing, *claim.tuning)
    if unpaid := [step.what for step in steps if step.handled == "NOT charged"]:
        yield "NOT charged", "; ".join(unpaid)
    yield "noise", claim.noise_source
    yield "attacks", claim.audit
    order = f", order {claim.order:g}" if not isinstance(claim.order, str) else ""
    yield "counted by", f"{claim.accountant}{order} ({claim.accountant_version})"


def _fact(what: str, said: str) -> list[str]:
    first = f"  {what:<13}"
    return textwrap.wrap(said, 100, initial_indent=first, subsequent_indent=" " * 15)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if 0 < n < len(row) - 1 else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _accounts(path: Path) -> Iterator[Account]:
    """Every budget in a site's folder, or in those of a run's sites."""
    if (path / "run.json").exists():
        from fedkd.cli.run import open_run

        run = open_run(str(path))
        if run.elsewhere:
            raise BadInput(
                f"a run whose hospitals are elsewhere, in {path}",
                "a site's own folder: its ledger never leaves it",
                "at each hospital: fedkd privacy status HOSPITAL/site",
            )
        folders = run.sites
    else:  # a hospital's site is in a folder that is not called as the site is
        named = (path / "site.json").exists()
        folders = {SiteFolder(path).settings().name if named else path.name: path}
    for site, folder in folders.items():
        if not (folder / "log.sqlite").exists():
            raise BadInput(f"no log in {folder}", "a run's folder, or a site's own")
        with Log(folder / "log.sqlite", site) as log:
            opened = [entry.body["population"] for entry in log.entries("budget.opened")]
            for population in dict.fromkeys(opened):  # a raise opens it once more
                yield _account(site, SiteFolder(folder), log, population)


def _account(site: str, folder: SiteFolder, log: Log, population: str) -> Account:
    ledger = ledger_of(log, population)
    try:
        claim = claim_of_site(folder, log, population)
    except NoClaim as error:
        return Account(site, ledger, None, f"found {error.found}, expected {error.expected}")
    return Account(site, ledger, claim, None)
