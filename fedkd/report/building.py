"""Builds a report's evidence out of the logs that were handed over, and draws its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.audit.verify import CannotTell, Refuted, canonical
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.auditor import find_logs
from fedkd.audit.verify.bundle import quorum_of, with_files
from fedkd.audit.verify.logs import checked
from fedkd.audit.verify.reading import StoredLog, read_log
from fedkd.audit.verify.spellings import base64_text
from fedkd.federation.durable import write_bytes
from fedkd.report.verify.catalogue import catalogue
from fedkd.report.verify.deriving import Derived, derive
from fedkd.report.verify.drawing import EVIDENCE, drawn, names
from fedkd.report.verify.evidence import FORMAT, read_evidence


@dataclass(frozen=True, slots=True)
class Built:
    """A report that was built: its evidence, what it says, and its files by name."""

    bundle: bytes
    derived: Derived
    files: Mapping[str, bytes]


def build(path: Path, disclosed: Mapping[str, Mapping[str, Any]] | None = None) -> Built:
    """The report of the logs in `path`: a run's folder, or its audit folder.

    `disclosed` are logs that sites handed over themselves, with the bodies that they opened: they
    take the place of what lies there.

    A log that does not hold is in the report all the same, which says so at its top.
    """
    logs = {name: evidence_of(name, file) for name, file in sorted(find_logs(path).items())}
    return assembled({**logs, **(disclosed or {})})


def leave(built: Built, folder: Path) -> None:
    """Writes a report's files; the evidence comes last, so that where it is all are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(built.files.items(), key=lambda item: item[0] == EVIDENCE):
        write_bytes(folder / name, content)


def assembled(logs: Mapping[str, Mapping[str, Any]]) -> Built:
    """The report of these logs, each as evidence holds it."""
    told: dict[str, Any] = {
        "format": FORMAT,
        "catalogue": {"id": catalogue().id, "digest": catalogue().digest},
        "logs": logs,
    }
    derived = derive(read_evidence(canonical(told, "evidence")), catalogue())
    told["statements"] = [one.to_json() for one in derived.statements]
    told["fields"] = [{"id": one.field.id, "status": one.status} for one in derived.answers]
    bundle = canonical(told, "evidence")
    files = {EVIDENCE: bundle}
    for name in names(derived):
        content = drawn(name, derived, bundle)
        assert content is not None  # noqa: S101 - each of them is drawn
        files[name] = content
    return Built(bundle, derived, files)


def evidence_of(name: str, path: Path) -> dict[str, Any]:
    """One log as the evidence holds it: up to the last entry that is not about a report.

    So the second report of a run is the first one, to the byte.
    """
    stored = read_log(path)
    size = len(stored.entries)
    if name == SERVER:
        while size > 1 and stored.entries[size - 1][2] == "report.exported":
            size -= 1
    rows = stored.entries[:size]
    return {
        "vkey": stored.facts.get("vkey", b"").decode(),
        "head": bytes(stored.checkpoints[size - 1][1]).decode() if stored.checkpoints else "",
        "cosigned": _cosigned(name, path, stored, size),
        "policy": stored.facts["policy"].decode() if "policy" in stored.facts else None,
        "witnesses": stored.facts.get("witness", b"").decode().splitlines(),
        "seen": [bytes(row[3]).decode() for row in stored.seen],
        "leaves": [bytes(row[4]).decode(errors="replace") for row in rows],
        "open": {str(row[0]): _opened(row) for row in rows if row[6] is not None},
    }


def _opened(row: Any) -> dict[str, Any]:
    return {"body": json.loads(row[6]), "salt": base64_text(bytes(row[5] or b""))}


def _cosigned(name: str, path: Path, stored: StoredLog, size: int) -> str | None:
    """The newest head that enough cosigners signed, with what they said of it."""
    try:
        log = with_files(checked(stored), path, name)
        if log.policy is None or not log.policy.needs_cosigners:
            return None
        found = quorum_of(log, log.policy).size
        return log.head(found).to_bytes().decode() if 0 < found <= size else None
    except (Refuted, CannotTell):
        return None
