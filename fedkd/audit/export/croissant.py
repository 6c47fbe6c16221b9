"""Writes each registered data set as Croissant 1.1 with RAI 1.0: what is known, and no record.

A hospital's records have no page, no download and no date of publication, and no log states who
created them. Croissant asks for those four; they are named under `fedkd:notStated` and not made up.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedkd.audit.export.writing import (
    VOCABULARY,
    WITHHELD,
    entry_of,
    iri_of,
    json_bytes,
    names_of,
    only_stated,
    records_of,
    slug,
)
from fedkd.audit.verify.lineage import NOT_STATED, Logs, card_of, open_entries, stated
from fedkd.audit.verify.naming import SERVER, OpenEntry, Place

CONFORMS_TO: Final = (
    "http://mlcommons.org/croissant/1.1",
    "http://mlcommons.org/croissant/RAI/1.0",
)
REGISTERED: Final = "dataset.registered"
ASKED_FOR: Final = ("creator", "datePublished", "distribution", "url")
"""What Croissant 1.1 requires of a data set and no log states."""
_TERMS: Final = (
    "annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes",
    "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "readLines", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "sdVersion", "separator",
    "source", "subField", "transform", "unArchive", "value",
)  # fmt: skip
CONTEXT: Final[Mapping[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "fedkd": VOCABULARY,
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS},
}
"""Written out in every file (Croissant 1.1, Appendix 1), so that nobody has to fetch it."""


def files(logs: Logs) -> Iterator[tuple[str, bytes]]:
    """A file for each registered data set whose entry is open."""
    for party, name in names_of(logs).items():
        for entry in open_entries(logs, party, REGISTERED):
            ending = f"{entry.place.index}-{slug(stated(entry.body, 'id'))}.json"
            yield f"croissant/{name}-{ending}", json_bytes(card(logs, entry))


def closed(logs: Logs) -> list[Place]:
    """The registered data sets that nothing can be told of: their entries are closed."""
    return [
        Place(party, leaf.header.sequence)
        for party, log in sorted(logs.items())
        for leaf in log.entries
        if leaf.header.type == REGISTERED and leaf.body is None
    ]


def card(logs: Logs, entry: OpenEntry) -> dict[str, Any]:
    """The data set that `entry` registers, as JSON-LD."""
    body, said = entry.body, card_of(entry.body)
    records = records_of(entry.place.party, body)
    described = {key: said[key] for key in ("modality", "origin")}
    silent = [key for key in ("citation", "version", "modality") if said[key] == NOT_STATED]
    document: dict[str, Any] = {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "@id": iri_of(logs, entry.place),
        "conformsTo": list(CONFORMS_TO),
        "name": stated(body, "id"),
        "description": "; ".join(only_stated(described).values()) or NOT_STATED,
        "license": said["licence"],
        "usageInfo": {"@type": "CreativeWork", "name": "legal basis", "text": said["legal_basis"]},
        "prov:wasAttributedTo": {"@type": "prov:Agent", "prov:label": entry.place.party},
        "fedkd:entry": entry_of(logs, entry.place),
        "fedkd:registeredAt": entry.header.time,
        "fedkd:notStated": sorted((*ASKED_FOR, *silent)),
    }
    document |= only_stated(
        {
            "version": said["version"],
            "citeAs": said["citation"],
            "rai:dataCollectionRawData": said["origin"],
            "fedkd:card": said["name"],
            "fedkd:commitment": stated(body, "commitment"),
            "fedkd:digest": stated(body, "digest"),
            "fedkd:role": stated(body, "role"),
            "fedkd:withheld": WITHHELD if records is None and "records" in body else None,
        }
    )
    if records is not None:
        document["fedkd:records"] = records
    if isinstance(body.get("rehearsal"), bool):
        document["fedkd:rehearsal"] = body["rehearsal"]
    if (whole := _whole(logs, stated(body, "id"))) is not None:
        document["prov:wasDerivedFrom"] = {"@id": iri_of(logs, whole)}
    return document


def _whole(logs: Logs, part: str) -> Place | None:
    """The data set that the server's log says this one was cut from."""
    cuts = [cut for cut in open_entries(logs, SERVER, "data.partitioned") if part in cut.made()]
    input = cuts[-1].body.get("input") if cuts else part
    wholes = [
        entry.place for entry in open_entries(logs, SERVER, REGISTERED) if input in entry.made()
    ]
    return wholes[-1] if wholes and input != part else None
