"""Where the student comes from, as far as sites let it be seen.

A site may keep the registration of a data set at home and tell of it in bands (`data.assessed`):
then the walk to the sources goes through what it tells, which is its word and no more. A body that
a site keeps altogether is WITHHELD by it: that is known, and not undecided.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fedkd.audit.verify import CannotTell
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.lineage import Gap, Lineage, every_lineage, lineage
from fedkd.audit.verify.logs import CheckedLog
from fedkd.report.verify.evidence import Book, Evidence, Told

REGISTERED = "dataset.registered"


def told_in_bands(
    evidence: Evidence, type: str, party: str | None = None
) -> Iterator[tuple[Told, Told, Mapping[str, Any]]]:
    """(closed entry, the entry that tells of it, what that says) for entries of one type.

    Only where a site tells of an entry of its own of that type, whose body is closed.
    """
    for entry in evidence.told("data.assessed", party):
        body = entry.body or {}
        about, value = body.get("about"), body.get("value")
        if not isinstance(about, Mapping) or not isinstance(value, Mapping):
            continue
        index, entries = about.get("index"), evidence.books[entry.party].entries
        if entry.party == SERVER or not isinstance(index, int) or not 0 <= index < entry.index:
            continue
        meant = entries[index]
        if meant.type == type == about.get("type") and meant.body is None:
            yield meant, entry, value


def logs_in_bands(evidence: Evidence) -> dict[str, CheckedLog]:
    """The logs, with what sites tell in bands in the place of a closed registration.

    `CannotTell` where a log does not hold.
    """
    return {party: _in_bands(evidence, book) for party, book in evidence.books.items()}


def _in_bands(evidence: Evidence, book: Book) -> CheckedLog:
    if book.log is None:
        raise CannotTell("a log does not hold, so that not every source can be found")
    said = {
        meant.index: value for meant, _, value in told_in_bands(evidence, REGISTERED, book.party)
    }
    if not said:
        return book.log
    entries = tuple(
        replace(leaf, body=said[place]) if place in said else leaf
        for place, leaf in enumerate(book.log.entries)
    )
    return replace(book.log, entries=entries)


def origin(evidence: Evidence) -> Lineage:
    """All that the newest student goes back to."""
    return lineage(logs_in_bands(evidence), evidence.model)


def withheld_by(gaps: tuple[Gap, ...]) -> list[str]:
    """The sites whose closed bodies alone leave these gaps; none where anything else does."""
    places = [gap.closed for gap in gaps]
    if any(place is None or place.party == SERVER for place in places):
        return []
    return sorted({place.party for place in places if place is not None})


def followed(evidence: Evidence) -> str:
    """What became of every name on the way from every model to its sources, for a verifier.

    Raises as `lineage.check_lineage` does, but not for what sites alone keep back: a report shows
    that as withheld, and so it is no open question.
    """
    found = every_lineage(logs_in_bands(evidence))
    said = f"{found.followed} names lead to the entries behind them, from the models to the sources"
    if not found.gaps:
        return said
    kept = withheld_by(found.gaps)
    if not kept:
        more = f" ({len(found.gaps)} such gaps)" if len(found.gaps) > 1 else ""
        raise CannotTell(f"{found.gaps[0]}{more}")
    what = "1 name leads" if len(found.gaps) == 1 else f"{len(found.gaps)} names lead"
    return f"{said}; {what} into bodies that are WITHHELD BY {', '.join(kept)}"
