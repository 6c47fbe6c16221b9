"""Says how a hospital stands: running, connected, paused, what was asked last, what is left."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedkd import __version__
from fedkd.audit import Log
from fedkd.deploy.apart import warnings_of
from fedkd.deploy.authority import ending_authority, holding
from fedkd.deploy.heads import checkpoint_of
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.locked import keys_of_hospital, standing_of_keys
from fedkd.deploy.policy import NoPolicy, Policy
from fedkd.deploy.retention import standing_of_retention
from fedkd.deploy.starting import connection_of, refused_by_proxy, running_in, service_of
from fedkd.deploy.supervising import state_of, supervisor_of
from fedkd.deploy.versions import UPDATE, advice, refused_as_newer, versions_of
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder

ASKED = ("release.outputs", "release.refused", "evaluation.done")


def standing_of(hospital: Hospital) -> dict[str, Any]:
    """Plain values, for `fedkd site status --json`; what is not there yet is None."""
    told = hospital.invited()
    service = service_of(hospital)
    where = running_in(hospital.letterbox)
    held = holding(hospital.authority)
    folders = {kind: _site(folder) for kind, folder in _folders(hospital).items()}
    connected = connection_of(hospital.letterbox)
    versions = versions_of(hospital, None if service is None else service.get("software"))
    return {
        "site": told["site"],
        "federation": told["federation"],
        "address": told["address"],
        "running": supervisor_of(hospital.run) is not None or service is not None,
        "connected": connected,
        "proxy": "" if connected is not False else _proxy(hospital, told["address"]),
        "paused": hospital.is_paused,
        "left": hospital.left.exists(),
        "service": service,
        "processes": {**state_of(hospital.run), **({} if where is None else state_of(where))},
        "founded": (hospital.site / "site.json").exists(),
        "round": _round(folders),
        "keys": standing_of_keys(hospital.folder, keys_of_hospital(hospital)),
        "retention": standing_of_retention(hospital, datetime.now(UTC)),
        "certificates": [held.to_json()],
        "versions": versions,
        "warnings": [
            *warnings_of(hospital, service),
            *ending_authority(hospital.authority),
            *advice(hospital, versions),
            *_unreadable(hospital),
            *_refused(hospital),
        ],
        **folders,
    }


def _proxy(hospital: Hospital, address: str) -> str:
    return refused_by_proxy(hospital.letterbox, address)


def _unreadable(hospital: Hospital) -> list[str]:
    """What is wrong with the policy of a site.yaml that was changed since the site was founded."""
    if not (hospital.site / "site.json").exists():
        return []
    try:
        Policy.read(hospital.site_yaml)
    except NoPolicy as error:
        return [f"everything is refused (not_configured) until site.yaml is mended: {error}"]
    return []


def _refused(hospital: Hospital) -> list[str]:
    """What to do about messages of a newer fedkd that were refused here, if any were."""
    found = []
    for folder in _folders(hospital).values():
        if (folder / "site.json").exists():
            site = SiteFolder(folder)
            with site.log(site.settings().name) as log:
                found.append(refused_as_newer(log))
    newest = max(filter(None, found), default=None)
    if newest is None:
        return []
    return [
        f"at {newest} the coordinator sent what fedkd {__version__} does not read: ask it for the "
        f"wheelhouse of its version ({UPDATE})"
    ]


def figures_of(hospital: Hospital) -> dict[str, Any]:
    """Numbers that anybody on this machine may read, for whoever watches the site service."""
    told: dict[str, Any] = {}
    for kind, folder in _folders(hospital).items():
        if (site := _site(folder)) is not None:
            budget, head = site["budget"] or {}, site["checkpoint"] or {}
            cosigned = head.get("cosigned") or {}
            told[kind] = {
                "round": (site["last_question"] or {}).get("round"),
                "spent": budget.get("spent"),
                "left": budget.get("left"),
                "charges": budget.get("charges"),
                "entries": head.get("size"),
                "held": cosigned.get("size"),
                "cosigners": len(cosigned["by"]) if cosigned else None,
            }
    return {"paused": hospital.is_paused, "folders": told}


def _folders(hospital: Hospital) -> dict[str, Path]:
    return {"real": hospital.site, "rehearsal": hospital.rehearsal}


def _round(folders: dict[str, dict[str, Any] | None]) -> dict[str, Any] | None:
    """The run and round that a server asked about last."""
    asked = {kind: site["last_question"] for kind, site in folders.items() if site is not None}
    found = {kind: last for kind, last in asked.items() if last is not None}
    if not found:
        return None
    kind = max(found, key=lambda each: str(found[each]["at"]))
    last = found[kind]
    return {
        "run": last["run"], "round": last["round"], "at": last["at"],
        "rehearsal": kind == "rehearsal",
    }  # fmt: skip


def _site(folder: Path) -> dict[str, Any] | None:
    if not (folder / "site.json").exists():
        return None
    site = SiteFolder(folder)
    settings = site.settings()
    with site.log(settings.name) as log:
        return {
            "population": settings.population,
            "mechanism": str(settings.mechanism.get("_target_", "")).rpartition(".")[2],
            "budget": _budget(log, settings.population),
            "last_question": _last(log),
            "checkpoint": checkpoint_of(log),
        }


def _budget(log: Log, population: str) -> dict[str, Any] | None:
    """What is spent and left, epsilon; None before the officer's paper is installed."""
    try:
        ledger = ledger_of(log, population)
    except KeyError:
        return None
    bounded = ledger.epsilon is not None
    return {
        "epsilon": ledger.epsilon,
        "delta": ledger.delta,
        "spent": ledger.spent() if bounded else None,
        "left": ledger.left() if bounded else None,
        "charges": len(ledger.charged),
    }


def _last(log: Log) -> dict[str, Any] | None:
    entries = [entry for kind in ASKED if (entry := log.last(kind)) is not None]
    if not entries:
        return None
    newest = max(entries, key=lambda entry: entry.index)
    body = newest.said or {}  # a retention rule may have erased it
    return {
        "at": newest.at,
        "type": newest.type,
        "run": body.get("run"),
        "round": body.get("round"),
        "rule": body.get("rule"),
    }
