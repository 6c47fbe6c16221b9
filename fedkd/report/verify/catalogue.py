"""The fields of a report, what each asks for, and the sentences that evidence can answer it with.

`catalogue.json` lies beside this file: points of law in our own words, which are not the law's
text and no legal advice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from fedkd.report.verify.digests import digest

FILE: Final = "catalogue.json"
HOSPITAL: Final = "the hospital"
"""Who is asked for what only a hospital can supply."""


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that technical documentation is asked for.

    `evidence` is how it can be answered at best: by the log, by configuration, by a person.
    `asks` is who could supply what is missing. `legal` fields stay open in a simulation, whose
    parties are fictional. `needs` are the types of events without which nothing was computed.
    A `conditional` field is asked of another kind of system than fedkd makes: whether its condition
    (`applies`) is met only a person can say.
    """

    id: str
    point: str
    requirement: str
    evidence: str
    events: tuple[str, ...]
    asks: str
    at_best: str
    legal: bool
    note: str
    applies: str
    conditional: bool
    needs: tuple[str, ...]
    rules: tuple[Mapping[str, Any], ...]

    @property
    def automatic(self) -> bool:
        """Whether a program can answer it: no program knows whether a condition is met."""
        return self.evidence != "human-input" and not self.conditional

    @property
    def hospitals_own(self) -> bool:
        """Whether it stands in a hospital's own paper: it can answer it, or answers for it."""
        return self.asks == HOSPITAL or self.of_data_protection

    @property
    def of_data_protection(self) -> bool:
        """Whether it is a point of data protection law."""
        return self.point.startswith(("GDPR", "EDPB"))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All fields in the order in which a report shows them, and the chapters that they stand in."""

    id: str
    date: str
    digest: str
    law: Mapping[str, str]
    chapters: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]

    def field(self, id: str) -> Field:
        """The field of this name."""
        for field in self.fields:
            if field.id == id:
                return field
        raise KeyError(id)

    def chapter(self, field: Field) -> str:
        """The chapter that a field stands in."""
        return next(title for start, title in self.chapters if field.point.startswith(start))


@cache
def catalogue() -> Catalogue:
    """The catalogue of this version, with the digest of its file."""
    content = files("fedkd.report.verify").joinpath(FILE).read_bytes()
    told = json.loads(content)
    return Catalogue(
        told["catalogue"],
        told["date"],
        digest(content),
        told["law"],
        tuple((start, title) for start, title in told["chapters"]),
        tuple(_field(one) for one in told["fields"]),
    )


def _field(told: Mapping[str, Any]) -> Field:
    return Field(
        told["id"],
        told["point"],
        told["requirement"],
        told["evidence"],
        tuple(told["events"]),
        told["asks"],
        told.get("at_best", "COMPUTED"),
        told.get("legal", False),
        told.get("note", ""),
        told.get("applies", ""),
        told.get("conditional", False),
        tuple(told.get("needs", ())),
        tuple(told.get("rules", ())),
    )
