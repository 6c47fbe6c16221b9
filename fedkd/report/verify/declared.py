"""What persons declared: each statement signed with a key that was enrolled before."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from fedkd.audit.verify import Envelope, Refuted, VerifierKey, ed25519_check
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.refusals import ODD
from fedkd.audit.verify.spellings import shown
from fedkd.report.verify.digests import digest
from fedkd.report.verify.evidence import Evidence, Told

STATEMENT: Final = "application/vnd.fedkd.statement+json"
"""The type of what is signed: canonical JSON with field, text, name, role, date, number and run.

`number` counts this person's statements on this field from 1 (none given: the first), so that
nobody brings an earlier one back. With a detached signature also `signature`: `file`, `bytes` and
`digest`; the entry's own `artefact` holds the file in base64.
"""
SIGNED: Final = "signed-"
"""How the files of a detached signature begin: what was signed, and the signature."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""What may stand in the name of a file."""
_PKCS7: Final = (b"\x30", b"-----BEGIN PKCS7", b"-----BEGIN CMS")


@dataclass(frozen=True, slots=True)
class Detached:
    """An electronic signature of the person's own over `text_to_sign`, as it was handed in.

    It is not checked here: who made it, and whether its certificates hold, is for the reader.
    """

    file: str
    content: bytes

    def to_json(self) -> dict[str, Any]:
        """What the statement says of it: the name of the file, its bytes, their digest."""
        return {
            "file": self.file,
            "bytes": len(self.content),
            "digest": digest(self.content),
        }


@dataclass(frozen=True, slots=True)
class Declared:
    """A person's answer to one field."""

    index: int
    field: str
    text: str
    name: str
    role: str
    date: str
    run: str
    number: int = 1
    detached: Detached | None = None

    @property
    def author(self) -> str:
        """Who says so and when; and that a signature lies beside it, which says nothing here."""
        said = f"{self.name}, {self.role}, on {self.date}"
        if self.detached is None:
            return said
        return (
            f"{said}; carries a detached signature of {len(self.detached.content):,} bytes "
            f"({self.detached.file}, {digest(self.detached.content)}), not checked by this program"
        )

    @property
    def files(self) -> dict[str, bytes]:
        """The signature with the bytes that it was asked for, for whoever checks it; by name."""
        if self.detached is None or _PLAIN.fullmatch(self.field) is None:
            return {}
        name = f"{SIGNED}{self.field}-{self.index}"
        kind = "p7s" if self.detached.content.startswith(_PKCS7) else "sig"
        return {
            f"{name}.txt": text_to_sign(self.run, self.field, self.text),
            f"{name}.{kind}": self.detached.content,
        }


def text_to_sign(run: str, field: str, text: str) -> bytes:
    """The bytes that a person's detached signature is over: of which run and field, and the text.

    The text comes last, whatever lines it has.
    """
    return f"fedkd statement v1\nrun: {run}\nfield: {field}\n\n{text}\n".encode()


def signed_files(evidence: Evidence) -> dict[str, bytes]:
    """The files of all detached signatures, by name."""
    said, _ = declarations(evidence)
    return {
        name: content
        for those in said.values()
        for one in those
        for name, content in one.files.items()
    }


def declarations(evidence: Evidence) -> tuple[dict[str, tuple[Declared, ...]], list[str]]:
    """The statements that an enrolled person signed, by field; and why others do not count."""
    persons: dict[str, tuple[VerifierKey, str]] = {}
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
                persons[str(entry.body.get("party"))] = key, str(entry.body.get("role"))
        elif entry.type == "statement.declared":
            try:
                one = _checked(entry, persons, evidence.run)
                _expect_later(one, found.get(one.field, ()))
            except ODD as error:
                refused.append(f"entry {entry.index} of {SERVER}, statement.declared: {error}")
            else:
                # A later statement of the same person on the same field takes the earlier's place.
                kept = [it for it in found.get(one.field, ()) if it.name != one.name]
                found[one.field] = (*kept, one)
    return found, refused


def _expect_later(one: Declared, before: tuple[Declared, ...]) -> None:
    """Refuses a statement that its author said before another: the keeper of the log may have
    written down again what the author has replaced.
    """
    last = max((it.number for it in before if it.name == one.name), default=0)
    if one.number <= last:
        said = f"statement {one.number} of {shown(one.name)} on {one.field}"
        raise Refuted("statement", f"{said} again", f"one after number {last}")


def _checked(entry: Told, persons: Mapping[str, tuple[VerifierKey, str]], run: str) -> Declared:
    body: Mapping[str, Any] = entry.body or {}
    envelope = Envelope.parse(json.dumps(body.get("envelope")).encode())
    told = json.loads(envelope.payload)
    name = told.get("name") if isinstance(told, dict) else None
    if not isinstance(name, str) or name not in persons:
        raise Refuted("signature", f"a statement by {shown(str(name))}", "an enrolled person")
    key, role = persons[name]
    envelope.verify({key.text(): ed25519_check(key.public)}, STATEMENT)
    fields = ("field", "text", "name", "role", "date", "run")
    if any(type(told.get(one)) is not str for one in fields):
        raise Refuted("statement", "another shape", ", ".join(fields))
    if told["run"] != run or told["field"] != body.get("field"):
        raise Refuted("statement", f"one about {told['field']} of run {told['run']}", "this one")
    if told["role"] != role:
        found, expected = (shown(str(it)) for it in (told["role"], role))
        raise Refuted("statement", f"one by {shown(name)} as {found}", f"{expected}, as enrolled")
    _expect_day(told["date"], entry.time)
    number = told.get("number", 1)
    if type(number) is not int or number < 1:
        raise Refuted("statement", f"number {shown(str(number))}", "1 or more")
    detached = _detached(told.get("signature"), body.get("artefact"))
    index, said = entry.index, {one: told[one] for one in fields}
    return Declared(index=index, number=number, detached=detached, **said)


def _expect_day(day: str, time: str) -> None:
    """A statement is written down on the day that it names, or just after midnight."""
    try:
        written = date.fromisoformat(time[:10])
        late = written - date.fromisoformat(day)
    except ValueError:
        raise Refuted("statement", f"date {shown(day)}", "a day, such as 2026-11-30") from None
    if late not in (timedelta(0), timedelta(1)):
        raise Refuted("statement", f"date {day}", f"{written}, when it was written down")


def _detached(said: Any, artefact: Any) -> Detached | None:
    """The signature's file, if it is the one that the statement names."""
    if said is None and artefact is None:
        return None
    if not isinstance(said, dict) or not isinstance(artefact, str):
        there = "a statement that names none" if said is None else "no file"
        raise Refuted("detached signature", there, "the file that the statement names")
    try:
        content = base64.b64decode(artefact, validate=True)
    except (binascii.Error, ValueError):
        raise Refuted("detached signature", "a file that is no base64", "base64") from None
    found = Detached(str(said.get("file")), content)
    if found.to_json() != said:
        expected = shown(str(said.get("digest")))
        raise Refuted("detached signature", f"a file {digest(content)}", f"{expected}, as signed")
    return found
