"""Spells what every exporter writes: JSON in one spelling, names of entries, names of files."""

import itertools
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from fedkd.audit.verify import Reference
from fedkd.audit.verify.lineage import NOT_STATED, Logs
from fedkd.audit.verify.naming import SERVER, Place

VOCABULARY: Final = "https://fedkd.invalid/ns#"
"""What our own terms begin with. `.invalid` is a name that nobody can own (RFC 2606)."""
WITHHELD: Final = "record counts: a release that no privacy budget covers"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9]+")


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """The document as JSON for people and machines; the same content has the same bytes."""
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def entry_of(logs: Logs, place: Place) -> str:
    """The entry at `place`, as every party names it: the log's origin, then its index."""
    return str(Reference(logs[place.party].origin, place.index))


def iri_of(logs: Logs, place: Place) -> str:
    """The entry as a name that the web's formats take."""
    return f"https://{entry_of(logs, place)}"


def slug(text: str) -> str:
    """`text` as a part of a file's name, which two texts may share."""
    return _UNSAFE.sub("-", text)[:60].strip("-") or "unnamed"


def names_of(logs: Logs) -> dict[str, str]:
    """A name for each party that no other has: as a prefix (PROV-N, PN_PREFIX), and as a folder."""
    names: dict[str, str] = {}
    for party in sorted(logs):
        name = slug(party)
        taken = {"fedkd", "prov", "xsd", *names.values()}
        plain = name if name[0].isalpha() else f"log-{name}"
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        names[party] = plain if plain not in taken else next(n for n in numbered if n not in taken)
    return names


def only_stated(said: Mapping[str, str | None]) -> dict[str, str]:
    """Without what is not stated."""
    return {key: text for key, text in said.items() if text and text != NOT_STATED}


def records_of(party: str, body: Mapping[str, Any]) -> object | None:
    """How many records a registered data set has, where that may be told; None else.

    A hospital's count is a release about its patients; a rehearsal has none, and what the server
    registers is public.
    """
    may_be_told = party == SERVER or body.get("rehearsal") is True
    return body.get("records") if may_be_told else None
