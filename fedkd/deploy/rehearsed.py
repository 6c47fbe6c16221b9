"""Tells whether a letter to a hospital belongs to a rehearsal: by the signed paper of its run."""

from contextlib import suppress

from fedkd.deploy.consent import Shelf
from fedkd.deploy.hospital import Hospital
from fedkd.knowledge import BadInput
from fedkd.wire import UNKNOWN, Malformed, header_of, opened

MARK = "REHEARSAL: "


def mark_of(hospital: Hospital, front: bytes) -> str:
    """What lines about a letter begin with: `MARK` where each paper of its run is a rehearsal's.

    No message says so by itself. Of a run that nobody proposed here nothing can be said. `front` is
    the letter, or its beginning: its arrays are not looked at.
    """
    run = UNKNOWN
    with suppress(Malformed):
        run = header_of(opened(front)[1])[0].get("run", UNKNOWN)
    try:
        papers = [paper for paper in Shelf(hospital).all() if paper.run == run]
    except (OSError, BadInput):
        return ""
    return MARK if papers and all(paper.rehearsal for paper in papers) else ""
