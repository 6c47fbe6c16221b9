"""Says how a coordinator's side stands: what runs, who is connected, how long certificates hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509

from fedkd import __version__
from fedkd.deploy import superlink
from fedkd.deploy.authority import REMEDY, Holding, ending, held, holding, read_certificate
from fedkd.deploy.coordinator import key_fingerprint, roster_of
from fedkd.deploy.coordinator_policy import CoordinatorPolicy
from fedkd.deploy.locked import keys_of_server, standing_of_keys
from fedkd.deploy.machine_check import software_verdict
from fedkd.deploy.roster import ADMITTED, Member, Roster
from fedkd.deploy.run_standing import RunStanding, runs_of
from fedkd.deploy.running import PROXY, SERVER, SUPERLINK, pid_of
from fedkd.deploy.server_folder import ServerFolder
from fedkd.deploy.superlink import CannotTell
from fedkd.federation.flower.bundle import bundle_digest
from fedkd.knowledge import BadInput
from fedkd.wire import PROTOCOL

SERVED: Final = "server.crt at the SuperLink"
_RESTART: Final = "fedkd server stop, fedkd server start"
Told = tuple[dict[str, Mapping[str, Any]] | None, tuple[Mapping[str, Any], ...] | None]


@dataclass(frozen=True, slots=True)
class Standing:
    """A coordinator's side at one moment.

    `processes` are ids by name, None where one does not run. `connections` are by site what the
    SuperLink says of it, None where it did not: nobody can tell. `warnings` are what a person
    should do something about. `progress` is of the newest runs, oldest first. `bundle` is the
    SHA-256 of what runs are proposed with. `keys` says how keys lie on the disk
    (`fedkd.deploy.locked.standing_of_keys`).
    """

    name: str
    address: str
    fingerprint: str
    processes: Mapping[str, int | None]
    healthy: bool
    members: tuple[Member, ...]
    connections: Mapping[str, Mapping[str, Any]] | None
    runs: tuple[Mapping[str, Any], ...] | None
    folders: tuple[str, ...]
    certificates: tuple[Holding, ...]
    warnings: tuple[str, ...]
    progress: tuple[RunStanding, ...] = ()
    bundle: str = ""
    keys: Mapping[str, Any] = field(default_factory=dict)
    policy: CoordinatorPolicy = field(default_factory=CoordinatorPolicy)

    @property
    def is_up(self) -> bool:
        """Whether hospitals can reach the SuperLink."""
        return self.healthy and self.processes[PROXY] is not None

    def connection(self, member: Member) -> str | None:
        """What the SuperLink says of a member: online, offline, registered; None: not known."""
        if self.connections is None or member.state != ADMITTED:
            return None
        return str(self.connections.get(member.site, {}).get("status", "not registered"))

    def software(self, member: Member) -> str | None:
        """The fedkd of a member when it was heard of last: in a run, or when it joined."""
        return _software(member, self.progress)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "federation": self.name,
            "address": self.address,
            "fingerprint": self.fingerprint,
            "software": __version__,
            "wire": PROTOCOL,
            "bundle": self.bundle,
            "up": self.is_up,
            "superlink": {"pid": self.processes[SUPERLINK], "healthy": self.healthy},
            "proxy": {"pid": self.processes[PROXY]},
            "server": {"pid": self.processes[SERVER]},
            "sites": [self._site(member) for member in self.members],
            "runs": None if self.runs is None else [dict(run) for run in self.runs],
            "run_folders": list(self.folders),
            "progress": [run.to_json() for run in self.progress],
            "policy": self.policy.to_json(),
            "keys": dict(self.keys),
            "certificates": [each.to_json() for each in self.certificates],
            "warnings": list(self.warnings),
        }

    def _site(self, member: Member) -> dict[str, Any]:
        seen = (self.connections or {}).get(member.site, {})
        return {
            "site": member.site,
            "state": member.state,
            "connection": self.connection(member),
            "online_since": seen.get("online-at") if seen.get("status") == "online" else None,
            "offline_since": seen.get("offline-at") if seen.get("status") == "offline" else None,
            "node_id": member.node_id,
            "software": self.software(member),
            "invited_at": member.invited_at,
            "expires": member.expires,
            "admitted_at": member.admitted_at,
            "revoked_at": member.revoked_at,
            "reason": member.reason,
        }


def standing(server: ServerFolder) -> Standing:
    """How it stands now; asks the SuperLink, where it is up."""
    settings = server.settings()
    roster = roster_of(server)
    processes = {name: pid_of(server, name) for name in (SERVER, SUPERLINK, PROXY)}
    warnings: list[str] = []
    healthy = superlink.is_healthy(server, settings)
    connections, runs = _told(server, roster, warnings) if healthy else (None, None)
    leaf = None
    if healthy or processes[SUPERLINK] is not None:
        leaf = superlink.served(settings)
    warnings += _of_before(leaf, server)
    if (
        processes[SERVER] is not None
        and not healthy
        and not (leaf and held(SERVED, leaf).is_expired)
    ):
        warnings.append("the SuperLink does not answer: see superlink/superlink.log")
    if processes[SERVER] is not None and processes[PROXY] is None:
        warnings.append("the proxy does not run: see nginx/logs/error.log")
    certificates = [holding(server.keys / name) for name in REMEDY]
    certificates += [] if leaf is None else [held(SERVED, leaf)]
    warnings += ending(server.keys)
    try:
        server.federation()
    except BadInput as error:
        warnings.append(str(error))
    progress = runs_of(server.folder / "runs")
    warnings += _apart(roster.admitted(), progress)
    warnings += [f"runs/{run.folder}, {said}" for run in progress for said in run.troubles]
    return Standing(
        name=settings.name,
        address=settings.address,
        fingerprint=key_fingerprint(server),
        processes=processes,
        healthy=healthy,
        members=roster.members,
        connections=connections,
        runs=runs,
        folders=_folders(server),
        certificates=tuple(certificates),
        warnings=tuple(warnings),
        progress=progress,
        bundle=bundle_digest(),
        keys=standing_of_keys(server.folder, keys_of_server(server.folder)),
        policy=settings.policy,
    )


def _of_before(leaf: x509.Certificate | None, server: ServerFolder) -> Iterator[str]:
    """Where the SuperLink still has the certificate of its start, and what to do about it.

    The proxy lets nobody through to one that has expired: every hospital is cut off then.
    """
    if leaf is None or leaf == read_certificate(server.keys / "server.crt"):
        return
    until = held(SERVED, leaf)
    when = "expired" if until.is_expired else "expires"
    yield (
        f"{SERVED} is the one of before, which {when} at {until.until:%Y-%m-%d}; no hospital "
        f"gets through after that: {_RESTART}"
    )


def _software(member: Member, progress: Sequence[RunStanding]) -> str | None:
    told = [run.software[member.site] for run in progress if member.site in run.software]
    return told[-1] if told else member.software


def _apart(members: Sequence[Member], progress: Sequence[RunStanding]) -> Iterator[str]:
    """Which hospitals run another version than this one, and what to do about it."""
    for member in members:
        theirs = _software(member, progress)
        if theirs is None:
            continue
        verdict = software_verdict(theirs, __version__, joined=True)
        if verdict.fix:
            yield f"{member.site} runs {verdict.found}: {verdict.fix}"


def _told(server: ServerFolder, roster: Roster, warnings: list[str]) -> Told:
    """By site what the SuperLink says of its node, and the runs that it knows."""
    try:
        by_id = {int(node["node-id"]): node for node in superlink.nodes(server)}
        runs = superlink.runs(server)
    except (CannotTell, KeyError, ValueError) as error:
        warnings.append(f"the SuperLink did not say who is connected: {error}")
        return None, None
    admitted = roster.admitted()
    warnings += _not_admitted(by_id, roster)
    return {it.site: by_id[it.node_id] for it in admitted if it.node_id in by_id}, runs


def _not_admitted(by_id: Mapping[int, Mapping[str, Any]], roster: Roster) -> Iterator[str]:
    """Whose keys the SuperLink still takes although the roster says no, and what ends that."""
    sites = {member.node_id: member.site for member in roster.members}
    admitted = {member.node_id for member in roster.admitted()}
    for node_id, node in sorted(by_id.items()):
        if node_id in admitted:
            continue
        site = sites.get(node_id)
        whose = f"of {site}" if site else "of nobody in the roster"
        remedy = f"fedkd server revoke {site!r} again, or " if site else ""
        yield (
            f"the SuperLink still takes the node {node_id} {whose} ({node.get('status')}), "
            f"which is not admitted: {remedy}{_RESTART}"
        )


def _folders(server: ServerFolder) -> tuple[str, ...]:
    return tuple(sorted(it.name for it in (server.folder / "runs").iterdir() if it.is_dir()))
