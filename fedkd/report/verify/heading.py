"""What stands at the top of a report, in whichever form: what it is, and what it is not."""

from collections.abc import Sequence
from typing import Final

from fedkd.report.verify.deriving import Derived
from fedkd.report.verify.glance import rehearsed
from fedkd.report.verify.values import NOT_STATED

NOT_FOR_FILING: Final = "SIMULATION, PARTIES FICTIONAL, NOT FOR FILING"
MEANINGS: Final = {
    "COMPUTED": "by the program from logged entries; the entries stand behind each sentence",
    "RECORDED": "typed into a data card or the configuration; that it is true is not checked",
    "DECLARED": "a person's signed statement, shown with name, role and date",
    "WITHHELD": "a hospital keeps it at home, and may disclose it",
    "MISSING": "nobody has supplied or measured it; it says who could",
}
"""What the five statuses mean: shown apart, never added up."""
_NAMED: Final = 6


def title(derived: Derived) -> str:
    """What the report is about."""
    return f"Technical documentation of run {derived.evidence.run}"


def made_at(derived: Derived) -> str:
    """The time of the newest entry: the report says nothing of what came later."""
    times = [entry.time for book in derived.evidence.books.values() for entry in book.entries]
    return max(times, default=NOT_STATED)


def not_private(derived: Derived) -> list[str]:
    """The sites whose budget is open."""
    return sorted(
        {
            entry.party
            for entry in derived.evidence.told("budget.opened")
            if entry.body is not None and entry.body.get("epsilon") is None
        }
    )


def with_known_noise(derived: Derived) -> list[str]:
    """The sites that have a budget, but whose noise came from a seed."""
    open_ones = not_private(derived)
    sites = derived.evidence.sites
    return [it for it in sites if it not in open_ones and rehearsed(derived.evidence, it)]


def warnings(derived: Derived) -> list[str]:
    """The lines that nobody may overlook, the worst first."""
    lines = [
        f"{'A LOG DOES NOT HOLD' if reason.startswith('log') else 'DOES NOT COUNT'}: {reason}"
        for reason in derived.trouble
    ]
    if derived.simulation:
        lines.append(NOT_FOR_FILING)
    if sites := not_private(derived):
        where = names(sites, derived.evidence.sites)
        lines.append(
            f"NOT PRIVATE at {where}: the budget is open, and nothing bounds what answers tell "
            "about a patient"
        )
    if sites := with_known_noise(derived):
        where = names(sites, derived.evidence.sites)
        lines.append(
            f"NOT PRIVATE IN FACT at {where}: the noise was drawn from the run's seed, as in every "
            "rehearsal, and whoever has the seed can draw it again"
        )
    return lines


def unsupported(derived: Derived, party: str) -> str:
    """What is put behind a figure out of a log that does not hold; nothing behind others."""
    book = derived.evidence.books.get(party)
    return " NOT SUPPORTED" if book is None or book.log is None else ""


def standing(derived: Derived) -> str:
    """As of when, and what the words about law are worth."""
    caveat = derived.catalogue.law.get("caveat", "")
    return f"As of {made_at(derived)}, the time of the newest entry. {caveat}."


def first_lines(derived: Derived) -> list[str]:
    """The lines at the top, in order."""
    return [*warnings(derived), standing(derived)]


def names(some: Sequence[str], all_of_them: Sequence[str] = ()) -> str:
    """Names in words: the first few, and how many more."""
    if len(some) > _NAMED and set(some) == set(all_of_them):
        return f"all {len(some)} hospitals"
    if len(some) > _NAMED:
        return f"{', '.join(some[:_NAMED])} and {len(some) - _NAMED} more"
    return ", ".join(some)
