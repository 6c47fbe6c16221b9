"""What persons declared: each statement signed with a key that was enrolled before."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fedkd.audit.verify import Envelope, Refuted, VerifierKey, ed25519_check
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.refusals import ODD
from fedkd.audit.verify.spellings import shown
from fedkd.report.verify.evidence import Evidence, Told

STATEMENT: Final = "application/vnd.fedkd.statement+json"
"""The type of what is signed: canonical JSON with field, text, name, role, date, and the run."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A person's answer to one field."""

    index: int
    field: str
    text: str
    name: str
    role: str
    date: str


def declarations(evidence: Evidence) -> tuple[dict[str, tuple[Declared, ...]], list[str]]:
    """The statements that an enrolled person signed, by field; and why others do not count."""
    persons: dict[str, VerifierKey] = {}
    found: dict[str, tuple[Declared, ...]] = {}
    refused: list[str] = []
    book = evidence.books.get(SERVER)
    for entry in () if book is None else book.entries:
        if entry.body is None:
            continue
        if entry.type == "party.enrolled" and entry.body.get("person") is True:
            try:
                key = VerifierKey.parse(str(entry.body.get("vkey")))
            except ODD as error:
                refused.append(f"entry {entry.index} of {SERVER}, party.enrolled: {error}")
            else:
                persons[str(entry.body.get("party"))] = key
        elif entry.type == "statement.declared":
            try:
                one = _checked(entry, persons, evidence.run)
            except ODD as error:
                refused.append(f"entry {entry.index} of {SERVER}, statement.declared: {error}")
            else:
                # A later statement of the same person on the same field takes the earlier's place.
                kept = [it for it in found.get(one.field, ()) if it.name != one.name]
                found[one.field] = (*kept, one)
    return found, refused


def _checked(entry: Told, persons: Mapping[str, VerifierKey], run: str) -> Declared:
    body: Mapping[str, Any] = entry.body or {}
    envelope = Envelope.parse(json.dumps(body.get("envelope")).encode())
    told = json.loads(envelope.payload)
    name = told.get("name") if isinstance(told, dict) else None
    if not isinstance(name, str) or name not in persons:
        raise Refuted("signature", f"a statement by {shown(str(name))}", "an enrolled person")
    key = persons[name]
    envelope.verify({key.text(): ed25519_check(key.public)}, STATEMENT)
    fields = ("field", "text", "name", "role", "date", "run")
    if any(type(told.get(one)) is not str for one in fields):
        raise Refuted("statement", "another shape", ", ".join(fields))
    if told["run"] != run or told["field"] != body.get("field"):
        raise Refuted("statement", f"one about {told['field']} of run {told['run']}", "this one")
    return Declared(entry.index, *(told[one] for one in fields[:-1]))
