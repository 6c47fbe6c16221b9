"""Which bodies of a log a retention rule may erase, and which are needed as long as the log."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from fedkd.audit.events import EVENTS
from fedkd.audit.verify import Header

LEAST_DAYS: Final = 183
"""Six months: AI Act, Art. 19(1) and 26(6), ask that logs be kept at least so long. A person
decides; what is erased earlier is said to be."""

NO_RUN: Final = "unknown"
"""What a refusal names as its run where no message could be read: not one that goes on."""

NEVER: Final[Mapping[str, str]] = MappingProxyType(
    {
        "budget.opened": "the ledger is replayed from it: what was spent would be given back",
        "budget.charged": "the ledger is replayed from it: what was spent would be given back",
        "config.fixed": "a run that is opened again is compared with it",
        "dataset.registered": "models are traced back to it, to its licence and its legal basis",
        "dataset.withdrawn": "who was taken out is held against it at each turn, and stays out",
        "log.key.rotated": "it says which key signs the log",
        "log.opened": "it says whose log this is",
        "party.enrolled": "the roster is read from it: whose word counts, and with which key",
        "party.left": "the roster is read from it: whose word counts, and with which key",
        "release.outputs": "a question that is asked again gets the answer that it names, without "
        "a charge and without fresh noise, and the server's book is compared with it",
        "retention.applied": "it says why other bodies are missing",
    }
)
"""Types whose bodies are never erased, and what each is needed for.

All other types may be: a running party appends them and reads none of them back beyond the run
that they belong to. Of a run that the server's log has begun and not ended nothing is erased there
(`due`); a site goes on with a run without what these said.
"""


class NeverErased(ValueError):
    """A type of event whose bodies are needed as long as the log."""


def check_erasable(type: str) -> None:
    """Raises `NeverErased` where the party needs what it said, `ValueError` for no type at all."""
    if type in NEVER:
        raise NeverErased(
            f"found {type}, expected a type whose bodies may be erased; {NEVER[type]}"
        )
    if type not in EVENTS:
        erasable = ", ".join(sorted(EVENTS - NEVER.keys()))
        raise ValueError(f"found event {type!r}, expected one of {erasable}")


def moment(text: str) -> datetime:
    """A time in RFC 3339, with its offset from UTC."""
    expected = "RFC 3339, as 2026-11-24T00:00:00Z"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"found time {text!r}, expected {expected}") from None
    if found.tzinfo is None:
        raise ValueError(f"found time {text!r} without its offset from UTC, expected {expected}")
    return found.astimezone(UTC)


def spelled(at: datetime) -> str:
    """The inverse of `moment`, as the log spells times."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Due:
    """Indices of the entries whose bodies a rule erases; `kept` says of which runs nothing is."""

    indices: tuple[int, ...]
    kept: Mapping[str, str]


def due(headers: Iterable[Header], type: str, before: datetime) -> Due:
    """What a rule for `type` erases of a log: entries older than `before`, of runs that are over.

    A run is over for a log whose last entry of it is older than `before`, too, and which does not
    say that the run started without saying that it ended. The server's log alone says either: at a
    site only the age of its last entry counts, and a run that rests longer may still go on there.
    """
    rows = [(it, None if it.run == NO_RUN else it.run, moment(it.time)) for it in headers]
    newest: dict[str, datetime] = {}
    for _, run, at in rows:
        if run is not None:
            newest[run] = max(at, newest.get(run, at))
    started, ended = (
        {run for header, run, _ in rows if header.type == event}
        for event in ("run.started", "run.ended")
    )
    going_on = started - ended - {None}
    indices, kept = [], {}
    for header, run, at in rows:
        if header.type != type or at >= before:
            continue
        if run is not None and newest[run] >= before:
            kept[run] = "it went on later"
        elif run in going_on:
            kept[str(run)] = "it has not ended"
        else:
            indices.append(header.sequence)
    return Due(tuple(indices), kept)
