"""What a check came to: passed, a problem with its remedy, or not tried because of another."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Outcome: TypeAlias = Literal["passed", "problem", "not tried"]
SPELT = {"passed": "PASSED", "problem": "PROBLEM", "not tried": "NOT TRIED"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of a check: what was looked at, what was found, and how to mend it."""

    check: str
    outcome: Outcome
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.outcome == "problem" and not self.fix:
            raise ValueError(f"found no remedy for {self.check}, expected how to mend it")

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        return {
            "check": self.check,
            "outcome": self.outcome,
            "found": self.found,
            "fix": self.fix,
        }

    def lines(self) -> Iterator[str]:
        """The verdict as a terminal shows it, the remedy below."""
        yield f"{SPELT[self.outcome]:9} {self.check:14} {self.found}"
        if self.fix:
            yield f"{'':9} {'':14} to fix: {self.fix}"


def passed(check: str, found: str, fix: str = "") -> Verdict:
    """A line that is in order; `fix` may hold what a person does well to know."""
    return Verdict(check, "passed", found, fix)


def problem(check: str, found: str, fix: str) -> Verdict:
    """A line that has to be mended first."""
    return Verdict(check, "problem", found, fix)


def not_tried(check: str, why: str) -> Verdict:
    """A line that nothing can be said of yet."""
    return Verdict(check, "not tried", why)


def in_order(verdicts: Iterable[Verdict]) -> bool:
    """Whether every check passed; one that was not tried did not, and none at all is no yes."""
    outcomes = [verdict.outcome for verdict in verdicts]
    return bool(outcomes) and all(outcome == "passed" for outcome in outcomes)


def to_json(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """What `--json` prints of a check."""
    rows = list(verdicts)
    return {"passed": in_order(rows), "checks": [row.to_json() for row in rows]}
