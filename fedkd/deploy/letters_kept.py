"""Reads what the letterbox of a hospital kept of what left, and no site's outbox has."""

import os
from collections.abc import Container
from pathlib import Path

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.others_files import opened as opened_file
from fedkd.deploy.preparing import OUTBOX
from fedkd.deploy.socket import MOST_LETTER_BYTES
from fedkd.federation.sent import Sent, listed
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.wire import Malformed, opened


def kept_letters(hospital: Hospital, known: Container[str]) -> tuple[list[Sent], list[str]]:
    """Bodies in letterbox/outbox/ whose digest is not `known`, by run and round; names of no such.

    They are refusals that the letterbox made, or the desk before it asked a site, and what a site
    said that is in no outbox of its own any more. The folder is the letterbox's: what lies there is
    its word, and whatever is no letter is named, by the second, and not followed.
    """
    site = hospital.site / "site.json"
    classes = len(SiteFolder(hospital.site).settings().space.classes) if site.exists() else 1
    found: dict[str, Sent] = {}
    odd = []
    for path in sorted((hospital.letterbox / OUTBOX).glob("*")):
        if path.name.startswith("."):
            continue  # half written: it has not left
        try:
            covered, body = opened(_read(path))
            one = listed(body, classes, envelopes=0 if covered is None else 1)
        except (OSError, BadInput, Malformed):
            odd.append(path.name)
            continue
        if one.digest not in known:
            found[one.digest] = one
    return sorted(found.values(), key=lambda one: (one.run, one.round, one.kind, one.digest)), odd


def _read(path: Path) -> bytes:
    with os.fdopen(opened_file(path, os.O_RDONLY), "rb") as file:
        return file.read(MOST_LETTER_BYTES)
