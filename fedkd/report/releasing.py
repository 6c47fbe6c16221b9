"""Freezes a run's student as a version: the file, its threshold, its preprocessing, its tests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedkd.audit import Contradiction, Entry, Log
from fedkd.audit.verify import canonical
from fedkd.audit.verify.agreement import SERVER
from fedkd.knowledge import BadInput, digest_of_bytes

RELEASED: Final = "model.released"
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Release:
    """What is frozen: everything that a reader needs to know which model it is, and how it is used.

    `threshold` is for two classes: a probability from which on the second one is said; None for
    the most probable class. `preprocessing` are the columns, units and ranges, or the shape and
    scaling, that the model expects of its input.
    """

    version: str
    parent: str | None
    parent_model: str | None
    model: str
    architecture: str
    file: bytes
    threshold: float | None
    preprocessing: Mapping[str, Any]

    def body(self, run: str, evaluations: list[int], bom: bytes | None) -> dict[str, Any]:
        """The entry's body: names and digests, and where the tests stand in this log."""
        return {
            "run": run,
            "model": self.model,
            "version": self.version,
            "parent": self.parent,
            "parent_model": self.parent_model,
            "architecture": self.architecture,
            "file": digest_of_bytes(self.file),
            "threshold": self.threshold,
            "preprocessing": digest_of_bytes(canonical(dict(self.preprocessing), "preprocessing")),
            "evaluations": evaluations,
            "bom": None if bom is None else digest_of_bytes(bom),
        }


def check_version(version: str) -> None:
    """`BadInput` unless it can be the name of a folder and of a version."""
    if _VERSION.fullmatch(version) is None:
        raise BadInput(
            f"version {version!r}", "letters, digits and . + _ -, at most 64", "such as 1.2"
        )


def released(log: Log) -> dict[str, Entry]:
    """The versions that a log knows, by name."""
    return {
        entry.body["version"]: entry
        for entry in log.entries(RELEASED)
        if entry.said is not None and "version" in entry.body
    }


def threshold_in_use(path: Path) -> float:
    """Of two classes: that of the version which the log at `path` released last; 0.5 before any."""
    with Log(path, SERVER) as log:
        versions = list(released(log).values())
    found = versions[-1].body.get("threshold") if versions else None
    return 0.5 if found is None else float(found)


def release(log: Log, run: str, what: Release, bom: bytes | None) -> Entry:
    """The entry that freezes a version; the same again finds it there.

    `BadInput` where the version stands for something else already, where its parent is unknown,
    or where the model was never evaluated: a version without a test is none.
    """
    check_version(what.version)
    if what.threshold is not None and not 0 < what.threshold < 1:
        raise BadInput(f"threshold {what.threshold:g}", "a number above 0 and below 1")
    known = released(log)
    if what.parent is not None and what.parent_model is None and what.parent not in known:
        names = ", ".join(known) or "none"
        raise BadInput(
            f"parent {what.parent}", f"a version of this log: {names}", "or name its run as well"
        )
    evaluations = [
        entry.index
        for entry in log.entries("evaluation.done")
        if entry.said is not None and entry.body.get("model") == what.model
    ]
    if not evaluations:
        raise BadInput(f"no evaluation of {what.model}", "one", "run fedkd evaluate first")
    body = what.body(run, evaluations, bom)
    earlier = known.get(what.version)
    if earlier is not None:  # what was measured since does not change what was frozen
        body = {**body, "evaluations": earlier.body["evaluations"], "bom": earlier.body["bom"]}
    try:
        return log.append(f"release/{what.version}", RELEASED, body)
    except Contradiction:
        raise BadInput(
            f"version {what.version}, which was released as something else",
            "a new version: a released one never changes",
        ) from None
