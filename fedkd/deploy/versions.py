"""Compares what a hospital runs and allows with what its coordinator runs, and says what to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fedkd import __version__
from fedkd.audit import Entry, Log
from fedkd.audit.officer import verifier_of
from fedkd.deploy.bundles import digits_of, pinned
from fedkd.deploy.evaluation_proposals import KIND, read_any
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.lines import utc
from fedkd.deploy.machine_check import software_verdict
from fedkd.deploy.socket import Told
from fedkd.knowledge import BadInput
from fedkd.wire import PROTOCOL, Reason

UPDATE: Final = "docs/deploy.md, Updating"
_NEWER: Final = (str(Reason.VERSION), f"letterbox: {Told.VERSION}")
"""The rules under which a message that another version wrote was refused."""
_WORKED: Final = ("release.outputs", "config.fixed")


@dataclass(frozen=True, slots=True)
class Coordinator:
    """What the coordinator runs, by its newest signed paper here, if there is one.

    That is the paper `proposal`, of the `kind` run or evaluation, about the run `run`.
    """

    software: str
    bundle: str
    run: str | None
    at: str | None
    proposal: str | None = None
    kind: str | None = None


def coordinator_of(hospital: Hospital) -> Coordinator:
    """By the newest proposal whose signature holds; by the invitation before there was one."""
    told = hospital.invited()
    key = verifier_of(str(told["federation_vkey"]))
    came = [(path.stat().st_mtime, path) for path in hospital.proposals.glob("*.json")]
    for when, path in sorted(came, reverse=True):
        try:
            signature = path.with_suffix(".sig").read_text(encoding="utf-8")
            proposal = read_any(path.read_bytes(), signature, key)
        except (BadInput, OSError, UnicodeDecodeError):
            continue
        software = proposal.software.removeprefix("fedkd ")
        at = utc(datetime.fromtimestamp(when, UTC))
        return Coordinator(
            software, proposal.bundle, proposal.run, at, proposal.digest, proposal.KIND
        )
    return Coordinator(told["software"], told["bundle"], None, None)


def versions_of(hospital: Hospital, running: str | None) -> dict[str, Any]:
    """Plain values; `running` is the fedkd that the site service says it runs."""
    there = coordinator_of(hospital)
    return {
        "software": __version__,
        "running": running,
        "wire": PROTOCOL,
        "bundles": list(pinned(hospital.invited(), hospital.letterbox)),
        "coordinator": {name: getattr(there, name) for name in Coordinator.__dataclass_fields__},
    }


def advice(hospital: Hospital, versions: dict[str, Any]) -> Iterator[str]:
    """What a person at the hospital should do about other versions: a line each, none if nothing.

    `versions` is what `versions_of` said.
    """
    there, folder = versions["coordinator"], hospital.folder
    verdict = software_verdict(__version__, there["software"], joined=True)
    if verdict.fix:
        yield f"{verdict.found}: {verdict.fix}"
    if there["bundle"] not in versions["bundles"]:
        known = " or ".join(digits_of(each) for each in versions["bundles"])
        named = str(there["proposal"]).removeprefix("sha256:")[:12]
        model = " --model FILE" if there["kind"] == KIND else ""
        yield (
            f"the coordinator proposes with the bundle {digits_of(there['bundle'])} "
            f"(fedkd {there['software']}), here {known} is allowed: have the coordinator read the "
            f"digits to you, then: fedkd site approve {folder} {named}{model} --bundle DIGITS"
        )
    if versions["running"] not in (None, __version__):
        yield (
            f"the site service runs fedkd {versions['running']}, {__version__} is installed: "
            f"fedkd site stop {folder}, then fedkd site start {folder}"
        )


def refused_as_newer(log: Log) -> str | None:
    """When a message that another version wrote was refused last (UTC, as in the log).

    None where none was, or where this site has answered or agreed since.
    """
    newest: Entry | None = None
    for refused in log.entries("release.refused"):
        if (refused.said or {}).get("rule") in _NEWER:  # a retention rule may have erased it
            newest = refused
    since = [entry for kind in _WORKED if (entry := log.last(kind)) is not None]
    if newest is None or any(entry.index > newest.index for entry in since):
        return None
    return newest.at
