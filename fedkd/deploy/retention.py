"""Says what the retention rules of a hospital's site.yaml make due in its logs, and erases it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fedkd.audit.erasing import Applied, Overdue, apply_rule, overdue
from fedkd.audit.retention import LEAST_DAYS, moment, spelled
from fedkd.audit.verify.logs import check_log
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.site_file import SiteFile
from fedkd.deploy.verdicts import Verdict, passed
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput

COMMAND = "fedkd site erase"


@dataclass(frozen=True, slots=True)
class Rule:
    """What entries of one type say is kept for so many days."""

    type: str
    days: int

    def __str__(self) -> str:
        return f"{self.type} after {self.days} days"

    @property
    def text(self) -> str:
        """The rule as the log keeps it."""
        return f"retention in site.yaml: {self.type} is kept for {self.days} days"

    def limit(self, now: datetime) -> datetime:
        """What is older than this is due; a time as the log spells it, so to the millisecond."""
        return moment(spelled(now - timedelta(days=self.days)))


@dataclass(frozen=True, slots=True)
class Due:
    """What a rule makes due in one of a hospital's logs; `applied` where it was erased."""

    folder: str
    rule: Rule
    limit: datetime
    found: Overdue
    youngest_days: int | None
    applied: Applied | None = None


def rules_of(site_file: SiteFile) -> tuple[Rule, ...]:
    """The rules in the order in which they were typed."""
    return tuple(Rule(type, days) for type, days in site_file.retention.items())


def due_at(hospital: Hospital, rules: tuple[Rule, ...], now: datetime) -> list[Due]:
    """By log and rule, what is due; nothing is changed."""
    found = []
    for site in _sites(hospital) if rules else ():
        with site.log(site.settings().name) as log:
            for rule in rules:
                limit = rule.limit(now)
                what = overdue(log, rule.type, limit)
                days = what.youngest_days(now)
                found.append(Due(site.folder.name, rule, limit, what, days))
    return found


def erase_due(hospital: Hospital, rules: tuple[Rule, ...], now: datetime) -> Iterator[Due]:
    """Applies each rule to each of the hospital's logs, in its turn; what came of it, one by one.

    Both logs are checked before anything is erased: one that does not hold is evidence. Raises as
    `apply_rule` and `check_log` do, and `BadInput` in a locked folder without its passphrase.
    """
    sites = _sites(hospital) if rules else []
    with ExitStack() as turns:
        for site in sites:
            turns.enter_context(site.turn())
        for site in sites:
            _expect_holds(site)
        for site in sites:
            with site.log(site.settings().name) as log:
                for rule in rules:
                    limit = rule.limit(now)
                    found = overdue(log, rule.type, limit)
                    applied = apply_rule(log, rule.type, spelled(limit), rule.text, now)
                    days = applied.youngest_days
                    yield Due(site.folder.name, rule, limit, found, days, applied)


def _sites(hospital: Hospital) -> list[SiteFolder]:
    """The folders of the hospital that have a log."""
    both = (hospital.site, hospital.rehearsal)
    return [SiteFolder(folder) for folder in both if (folder / "site.json").exists()]


def _expect_holds(site: SiteFolder) -> None:
    """`Refuted` where the log of a site does not hold from its first byte to its last."""
    site.log(site.settings().name).close()  # takes in what a process that was killed left
    check_log(site.folder / "log.sqlite")


def counted(found: list[Due]) -> dict[str, int]:
    """How many bodies are due, by type, over both logs; without types of which none is."""
    counts: dict[str, int] = {}
    for due in found:
        if due.found.bodies:
            counts[due.rule.type] = counts.get(due.rule.type, 0) + len(due.found.bodies)
    return counts


def in_words(counts: Mapping[str, int]) -> str:
    """What is due, for a person."""
    listed = ", ".join(f"{count} of {type}" for type, count in counts.items())
    return f"bodies are due to be erased: {listed}" if listed else "nothing is due"


def check_retention(hospital: Hospital, site_file: SiteFile, now: datetime) -> Verdict:
    """The rules in words, and what to type where something is due: that hinders no start."""
    rules = rules_of(site_file)
    if not rules:
        return passed("retention", "no rule: nothing that the log says is ever erased")
    counts = counted(due_at(hospital, rules, now))
    said = f"{', '.join(map(str, rules))}; {in_words(counts)}"
    early = ", ".join(rule.type for rule in rules if rule.days < LEAST_DAYS)
    if early:
        said += f"; sooner than six months ({LEAST_DAYS} days, AI Act, Art. 19(1)): {early}"
    return passed("retention", said, f"{COMMAND} {hospital.folder}" if counts else "")


def standing_of_retention(hospital: Hospital, now: datetime) -> dict[str, Any] | None:
    """Rules and what is due by type; None where no site.yaml says anything that can be read."""
    try:
        rules = rules_of(SiteFile.read(hospital.site_yaml))
    except BadInput:
        return None
    due = counted(due_at(hospital, rules, now))
    return {"days": {rule.type: rule.days for rule in rules}, "due": due}
