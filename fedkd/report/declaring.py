"""Adds what persons declare to the server's log: who may, and a signed statement for each field."""

import difflib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from fedkd.audit import Log
from fedkd.audit.verify import Envelope, SigningKey, VerifierKey, canonical, ed25519_sign
from fedkd.knowledge import BadInput
from fedkd.report.verify.catalogue import Catalogue, Field
from fedkd.report.verify.declared import STATEMENT, Detached, text_to_sign
from fedkd.report.verify.deriving import MISSING, WITHHELD, Answered, Derived

MOST_TEXT: Final = 20_000
MOST_SIGNATURE_BYTES: Final = 1 << 18
"""Of a detached signature: room for its certificates, a time stamp and what was said of both."""


class Person(NamedTuple):
    """Who may declare something: a name, what this person is there, and the key."""

    name: str
    role: str
    key: VerifierKey


def name_of(key: VerifierKey) -> str:
    """Whose key it is, as it was named when it was made."""
    return unquote(key.name.rpartition("/")[2])


def enrol(log: Log, person: Person) -> None:
    """Lets a person declare: what they sign counts from here on.

    `BadInput` where the name is enrolled already with another key.
    """
    if not person.role.strip():
        raise BadInput("a person without a role", "what the person is there", "give --role")
    known = persons(log)
    if (found := known.get(person.name)) is not None:
        if found == person:
            return
        raise BadInput(
            f"{person.name}, enrolled as {found.role} with key {found.key}",
            "a person who is not enrolled yet",
            "choose another name for the new key, such as the year beside it",
        )
    body = {
        "party": person.name,
        "person": True,
        "role": person.role,
        "vkey": person.key.text(),
    }
    log.append(f"person/{person.name}", "party.enrolled", body)


def persons(log: Log) -> dict[str, Person]:
    """Everybody who was enrolled, by name."""
    return {
        entry.body["party"]: Person(
            entry.body["party"], entry.body["role"], VerifierKey.parse(entry.body["vkey"])
        )
        for entry in log.entries("party.enrolled")
        if entry.said is not None and entry.body.get("person") is True
    }


def read_detached(path: Path) -> Detached:
    """A detached signature, as it lies in a file; what it says is not looked at."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_SIGNATURE_BYTES else b""
    except OSError as error:
        raise BadInput(f"{error.strerror} at {path}", "a detached signature") from None
    if not content:
        raise BadInput(
            f"{size} bytes in {path}", f"a detached signature of 1 to {MOST_SIGNATURE_BYTES}"
        )
    return Detached(path.name, content)


def to_sign(run: str, field: str, text: str, catalogue: Catalogue) -> bytes:
    """The bytes that a detached signature of a statement has to be over."""
    return text_to_sign(run, _field(field, catalogue).id, _checked(field, text))


def declare(
    log: Log,
    run: str,
    key: SigningKey,
    texts: Mapping[str, str],
    catalogue: Catalogue,
    detached: Detached | None = None,
) -> list[str]:
    """Signs and appends a statement for each field of `texts`; the fields that it was said of.

    Everything is checked before anything is written. What this person said last of a field is not
    written again, word for word. `detached` is a signature of the person's own over `to_sign`: its
    digest goes into the statement, its bytes lie beside it.
    """
    name = name_of(key.verifier())
    person = persons(log).get(name)
    if person is None or person.key != key.verifier():
        raise BadInput(
            f"a key of {name}, {key.verifier()}, which is not enrolled",
            "the key of a person whom fedkd report enrol named",
            "enrol the person first",
        )
    fields = [(_field(id, catalogue), _checked(id, text)) for id, text in texts.items()]
    opened = log.entry("log.opened")
    if opened is not None and opened.body.get("rehearsal") is not False:
        for field, _ in fields:
            if field.legal:
                raise BadInput(
                    f"a statement on {field.id} in a simulation",
                    "none on a legal field: the parties are fictional",
                    "leave it out; in a deployment it is asked for",
                )
    signature = None if detached is None else detached.to_json()
    newest: dict[str, Mapping[str, Any]] = {}
    for entry in log.entries("statement.declared"):
        if entry.said is not None and entry.body.get("name") == name:
            before = newest.get(entry.body["field"])
            if before is None or before.get("number", 1) < entry.body.get("number", 1):
                newest[entry.body["field"]] = entry.body
    fresh = [
        (field, text)
        for field, text in fields
        if (said := newest.get(field.id)) is None
        or (said["text"], said.get("signature")) != (text, signature)
    ]
    today = datetime.now(UTC).date().isoformat()
    with log.writing():
        for field, text in fresh:
            told: dict[str, Any] = {
                "field": field.id,
                "text": text,
                "name": name,
                "role": person.role,
                "date": today,
                "run": run,
                "number": 1 + newest.get(field.id, {"number": 0}).get("number", 1),
            }
            if detached is not None:
                told["signature"] = signature
            written = canonical(told, "statement")
            signers = {key.verifier().text(): ed25519_sign(key.seed)}
            envelope = Envelope.sign(written, STATEMENT, signers)
            body = {**told, "envelope": json.loads(envelope.to_bytes())}
            if detached is not None:
                body["artefact"] = b64encode(detached.content).decode()
            log.append(f"statement/{len(log)}", "statement.declared", body)
    return [field.id for field, _ in fresh]


def _field(id: str, catalogue: Catalogue) -> Field:
    try:
        return catalogue.field(id)
    except KeyError:
        near = difflib.get_close_matches(id, [field.id for field in catalogue.fields], 1)
        remedy = f"did you mean {near[0]}?" if near else "fedkd report questions lists them"
        raise BadInput(f"field {id!r}", "one of the catalogue's", remedy) from None


def _checked(id: str, text: str) -> str:
    if not text.strip():
        raise BadInput(f"nothing said of {id}", "a statement in words")
    if len(text) > MOST_TEXT:
        raise BadInput(f"{len(text)} letters said of {id}", f"at most {MOST_TEXT}")
    return text.strip()


def open_questions(derived: Derived) -> dict[str, list[Answered]]:
    """The fields that somebody could still answer, by who; a simulation's legal ones nobody can."""
    found: dict[str, list[Answered]] = {}
    for answer in derived.answers:
        closed = answer.field.legal and derived.simulation
        if answer.status in (MISSING, WITHHELD) and not closed:
            found.setdefault(answer.field.asks, []).append(answer)
    return found


def differences(old: Iterable[Answered], new: Iterable[Answered]) -> list[dict[str, Any]]:
    """What changed between two reports, field by field: statuses and sentences."""
    before = {answer.field.id: answer for answer in old}
    after = {answer.field.id: answer for answer in new}
    found = []
    for id in [*after, *(before.keys() - after.keys())]:
        one, other = before.get(id), after.get(id)
        gone, come = _texts(one), _texts(other)
        if (one and one.status) == (other and other.status) and gone == come:
            continue
        found.append(
            {
                "field": id,
                "before": one.status if one else None,
                "after": other.status if other else None,
                "gone": [text for text in gone if text not in come],
                "new": [text for text in come if text not in gone],
            }
        )
    return found


def _texts(answer: Answered | None) -> list[str]:
    return [] if answer is None else [statement.text for statement in answer.statements]
