"""A site's own hand-over for a report: which bodies it opens, which in bands, which it keeps."""

import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedkd.audit import Log
from fedkd.audit.verify import canonical, parsed
from fedkd.audit.verify.agreement import SERVER
from fedkd.knowledge import BadInput
from fedkd.report.building import evidence_of
from fedkd.report.verify.catalogue import catalogue

FORMAT: Final = "fedkd-disclosure/1"
ENROLLED: Final = "party.enrolled"
OPEN, BAND, KEEP = "open", "band", "keep"
CHOICES: Final = (OPEN, BAND, KEEP)
COUNTED: Final = ("dataset.registered", "budget.opened")
"""Types of entries whose bodies hold numbers about records or patients."""
ALWAYS: Final = ("log.opened", ENROLLED, "checkpoint.witnessed", "release.outputs")
"""Types whose bodies the server knows already, or that say nothing of any record."""
NO_COUNTS: Final = ("epsilon", "delta", "order")
"""What is no count, even where it is a whole number."""
BANDS: Final = (0, 1, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000)


@dataclass(frozen=True, slots=True)
class Asked:
    """A body that a report asks a site for: its entry, what it holds, and what is proposed."""

    index: int
    type: str
    time: str
    holds: str
    proposed: str


def asked_of(log: Log, run: str | None = None) -> list[Asked]:
    """The entries of a site's log whose bodies a report would show, in order.

    With `run` those of other runs are left out; what belongs to no run stays.
    """
    types = {
        rule["each"]["type"]
        for field in catalogue().fields
        for rule in field.rules
        if "each" in rule and rule["each"].get("party") is None
    } | {"train.local", "release.outputs", "budget.charged", "checkpoint.witnessed", ENROLLED}
    found = []
    for entry in log.entries():
        about = None if entry.said is None else entry.said.get("run")
        if entry.type not in types or entry.said is None or (run and about not in (None, run)):
            continue
        proposed = OPEN if entry.type in ALWAYS else BAND if entry.type in COUNTED else KEEP
        holds = ", ".join(sorted(key for key in entry.said if key != "run"))
        found.append(Asked(entry.index, entry.type, entry.at, holds, proposed))
    return found


def band(count: int) -> str:
    """A count in words that do not give it away: "200 to 499"."""
    place = bisect_right(BANDS, count)
    if place == len(BANDS):
        return f"{BANDS[-1]:,} or more"
    low, high = BANDS[place - 1], BANDS[place] - 1
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def disclose(log: Log, folder: Path, choices: Mapping[int, str], who: str) -> bytes:
    """The site's bundle with the chosen bodies open; the log remembers who opened what.

    What is opened leaves without being covered by any epsilon: the log's entry says so. Of a body
    in bands another entry is made, which says the bands and the rest; the body itself stays.
    """
    if not who.strip():
        raise BadInput("nobody who discloses", "the name of the person", "give --by")
    for index, choice in choices.items():
        if choice not in CHOICES:
            raise BadInput(f"{choice!r} for entry {index}", f"one of {', '.join(CHOICES)}")
    entries = {entry.index: entry for entry in log.entries()}
    unknown = sorted(choices.keys() - entries.keys())
    if unknown:
        raise BadInput(f"entry {unknown[0]}", f"one of {len(entries)} entries of {log.party}")
    opened = {index for index, choice in choices.items() if choice == OPEN}
    with log.writing():
        for index in sorted(index for index, choice in choices.items() if choice == BAND):
            opened.add(_banded(log, index, entries[index].type, entries[index].body))
        told = sorted(opened)
        body = {
            "who": who.strip(),
            "what": "bodies opened for a report",
            "entries": told,
            "in_bands": sorted(index for index, it in choices.items() if it == BAND),
            "covered_by_epsilon": False,
        }
        opened.add(log.append(f"disclosed/{len(log)}", "access.performed", body).index)
    return _bundle(log, folder, opened)


def _banded(log: Log, index: int, type: str, body: Mapping[str, Any]) -> int:
    """Another entry that says the same with its counts in bands; its index."""
    said = _in_bands(dict(body))
    entry = log.append(
        f"banded/{index}",
        "data.assessed",
        {
            "data": body.get("id", body.get("population")),
            "measure": "counts in bands",
            "group": "all",
            "value": said,
            "gap": None,
            "about": {"index": index, "type": type},
        },
    )
    return entry.index


def _in_bands(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: one if key in NO_COUNTS else _in_bands(one)
            for key, one in value.items()
            if key != "commitment"
        }
    if isinstance(value, int) and not isinstance(value, bool):
        return band(value)
    return value


def _bundle(log: Log, folder: Path, opened: Iterable[int]) -> bytes:
    chosen = set(opened)
    with tempfile.TemporaryDirectory(dir=folder) as there:  # whole, whatever is still being written
        copy = Path(there) / f"{log.party}.sqlite"
        log.export(copy)
        told = evidence_of(log.party, copy)
    told["open"] = {key: it for key, it in told["open"].items() if int(key) in chosen}
    return canonical({"format": FORMAT, "party": log.party, "log": told}, "disclosure")


def read_bundle(path: Path) -> tuple[str, dict[str, Any]]:
    """Whose bundle it is, and the log as evidence holds it; `BadInput` where it is none."""
    try:
        told = parsed(path.read_bytes(), "disclosure")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}, which cannot be read ({error})", "a site's bundle") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise BadInput(f"{path}, which is no {FORMAT}", "what fedkd site disclose wrote")
    party, log = told.get("party"), told.get("log")
    if not isinstance(party, str) or party == SERVER or not isinstance(log, dict):
        raise BadInput(f"{path}, a bundle of {party!r}", "that of a site")
    return party, log
