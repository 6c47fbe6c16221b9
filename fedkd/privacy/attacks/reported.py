"""Tells what attacks found in a run: as JSON, and as lines with what they cannot say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedkd.privacy.attacks.findings import SENTENCE, Claim, Finding

NOT_RELEASABLE = (
    "NOT RELEASABLE: this reads the hospitals' own records and models, as only a simulation can."
)
WHO = (
    "Members are a site's training records; others its validation and the test's, of equal label.",
    "A bound takes it that chance alone chose which is which, as where parts are drawn at random.",
)


@dataclass
class Attacked:
    """What was found at one site; `notes` say what could not be tried, and why."""

    site: str
    claim: Claim
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    label_mix: Mapping[str, float] | None = None

    @property
    def refuted(self) -> bool:
        """Whether one of the findings exceeds the claim."""
        return any(found.refutes(self.claim) for found in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        findings = [{**it.to_json(), "refutes": it.refutes(self.claim)} for it in self.findings]
        return {
            "site": self.site,
            "claim": {"epsilon": self.claim.epsilon, "delta": self.claim.delta},
            "findings": findings,
            "label_mix": self.label_mix,
            "notes": self.notes,
            "refuted": self.refuted,
        }

    def rows(self) -> list[list[str]]:
        """A row of the table for each finding."""
        claimed = "-" if self.claim.epsilon is None else f"{self.claim.epsilon:.2f}"
        rows = []
        for found in self.findings:
            at_least, says = "-", "what if"
            if found.epsilon_at_least is not None:
                at_least = f"{found.epsilon_at_least:.2f}"
                says = "REFUTED" if found.refutes(self.claim) else "silent"
                says = "no claim" if self.claim.epsilon is None else says
            tpr = f"{found.tpr:.3f} ({found.tpr_low:.3f}-{found.tpr_high:.3f})"
            pairs, area = str(found.pairs), f"{found.auc:.3f}"
            rows.append([self.site, found.attack, pairs, area, tpr, at_least, claimed, says])
        return rows


HEADINGS = [
    "hospital", "attack", "pairs", "AUC", "found at 1 % false alarms", "epsilon at least", "claim",
    "says",
]  # fmt: skip
LEFT = ("hospital", "attack", "says")


@dataclass
class Report:
    """All that was found in a run: `bounds` bounds hold together, save with probability `alpha`."""

    run: str
    shadows: int
    seed: int
    alpha: float
    bounds: int
    sites: list[Attacked] = field(default_factory=list)

    @property
    def alpha_each(self) -> float:
        """The level of each bound by itself (Bonferroni)."""
        return self.alpha / self.bounds

    @property
    def refuted(self) -> bool:
        """Whether a claim was refuted at any site."""
        return any(site.refuted for site in self.sites)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the first keys say what the figures are, and are not."""
        return {
            "run": self.run,
            "releasable": False,
            "sentence": SENTENCE,
            "unit": "patient (a record, where the data know no patients)",
            "relation": "all of one patient's records replaced by null",
            "confidence": 1 - self.alpha,
            "shadows": self.shadows,
            "seed": self.seed,
            "sites": [site.to_json() for site in self.sites],
            "refuted": self.refuted,
        }

    def lines(self) -> list[str]:
        """What is printed: a table, what its columns mean, and what it cannot say."""
        rows = [HEADINGS, *(row for site in self.sites for row in site.rows())]
        widths = [max(len(row[place]) for row in rows) for place in range(len(HEADINGS))]
        table = []
        for row in rows:
            cells = [
                cell.ljust(width) if heading in LEFT else cell.rjust(width)
                for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
            ]
            table.append("  ".join(cells).rstrip())
        notes = [f"{site.site}: {note}" for site in self.sites for note in site.notes]
        mixes = [_mix_line(it.site, it.label_mix) for it in self.sites if it.label_mix is not None]
        return [
            f"attacks on {self.run}: {self.shadows} shadow models a site, seed {self.seed}",
            "",
            *table,
            "",
            f"All bounds on epsilon hold together with confidence {1 - self.alpha:.0%}; "
            "in brackets: 95 %, each by itself.",
            *WHO,
            *mixes,
            *notes,
            SENTENCE,
            NOT_RELEASABLE,
        ]


def _mix_line(site: str, mix: Mapping[str, float]) -> str:
    return (
        f"{site}: label mix read from its answers, off by {mix['off']:.2f} (total variation; "
        f"{mix['off_uniform']:.2f} for who guesses it uniform)"
    )
