"""What stands at the top of a report, in whichever form: what it is, and what it is not."""

from collections.abc import Sequence
from typing import Final

from fedkd.report.verify.deriving import Derived
from fedkd.report.verify.glance import rehearsed, setting, settings
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
    """What the report is about; a hospital's own paper knows its own log alone."""
    if derived.evidence.alone:
        return f"What {names(derived.evidence.sites)} did, from its own log alone"
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


def without_mechanism(derived: Derived) -> str:
    """That the run had no mechanism, where no open budget in these logs says so."""
    entry, config = settings(derived.evidence)
    if entry is None or not_private(derived):
        return ""
    if setting(config, "choices/mechanism") != "none":
        return ""
    return (
        "NOT PRIVATE: the run used no privacy mechanism (mechanism=none), and nothing bounds what "
        "answers tell about a patient"
    )


def warnings(derived: Derived) -> list[str]:
    """The lines that nobody may overlook, the worst first."""
    lines = [
        f"{'A LOG DOES NOT HOLD' if reason.startswith('log') else 'DOES NOT COUNT'}: {reason}"
        for reason in derived.trouble
    ]
    if derived.simulation:
        lines.append(NOT_FOR_FILING)
    if unprotected := without_mechanism(derived):
        lines.append(unprotected)
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


def not_cosigned(derived: Derived) -> list[str]:
    """Of whom how many entries lie beyond the head that enough others signed; for a reader."""
    lines: list[str] = []
    for party, book in sorted(derived.evidence.books.items()):
        if book.beyond:
            are = "entry is" if book.beyond == 1 else "entries are"
            lines.append(
                f"{party}: the last {book.beyond:,} of {len(book.entries):,} {are} not cosigned; "
                "nobody but its keeper vouches for that yet"
                if book.beyond < len(book.entries)
                else f"{party}: none of {len(book.entries):,} entries is cosigned by enough others"
            )
        elif book.log is not None and book.beyond is None:
            lines.append(f"{party}: its policy asks for no cosigners; whoever has its key can "
                         "write it anew")  # fmt: skip
    return lines


def apart(derived: Derived) -> str:
    """Of the fields that count nowhere, how many are said; empty where there are none."""
    if not derived.conditional:
        return ""
    kinds = ", ".join(f"{count} {status}" for status, count in derived.apart().items())
    return (
        f"Apart, in none of these counts: {len(derived.conditional)} fields that are asked only of "
        f"another kind of system ({kinds}). That they apply, or do not, only a person can declare; "
        "what the logs hold of them stands there all the same"
    )


def elsewhere(derived: Derived) -> str:
    """What a hospital's own paper leaves to others, in one line; empty in a run's report."""
    if not derived.elsewhere:
        return ""
    asked: dict[str, int] = {}
    for field in derived.elsewhere:
        asked[field.asks] = asked.get(field.asks, 0) + 1
    whose = ", ".join(f"{count} of {who}" for who, count in sorted(asked.items()))
    return (
        f"Not here: {len(derived.elsewhere)} further fields ({whose}), which are not the "
        "hospital's to answer; they stand in the report of a run"
    )


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
