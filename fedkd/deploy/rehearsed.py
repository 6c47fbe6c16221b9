"""Tells whether a letter to a hospital belongs to a rehearsal: by the signed paper of its run."""

from contextlib import suppress

from fedkd.deploy.consent import Shelf
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.socket import MOST_LETTER_BYTES
from fedkd.knowledge import BadInput
from fedkd.wire import UNKNOWN, Malformed, OtherVersion, decode, opened

MARK = "REHEARSAL: "


def mark_of(hospital: Hospital, letter: bytes) -> str:
    """What lines about `letter` begin with: `MARK` where each paper of its run is a rehearsal's.

    No message says so by itself. Of a run that nobody proposed here nothing can be said.
    """
    run = UNKNOWN
    with suppress(Malformed, OtherVersion):
        run = decode(opened(letter)[1], MOST_LETTER_BYTES).run
    try:
        papers = [paper for paper in Shelf(hospital).all() if paper.run == run]
    except (OSError, BadInput):
        return ""
    return MARK if papers and all(paper.rehearsal for paper in papers) else ""
