"""Says how far a log goes, and up to where who cosigned it."""

from typing import Any, Final

from fedkd.audit import Log, Peer, Roster
from fedkd.federation.witnessing import ENROLLED

MOST_LOOKED_AT: Final = 10_000
"""Entries, from the newest, among which a cosigned head is looked for."""


def checkpoint_of(log: Log) -> dict[str, Any] | None:
    """The newest checkpoint (`size`, `root` in hex), and the newest one that peers cosigned.

    `cosigned` is None, or its `size` and the names of whose signatures over it came back (`by`).
    """
    note = log.checkpoint()
    if note is None:
        return None
    head = note.checkpoint()
    return {"size": head.size, "root": head.root.hex(), "cosigned": _cosigned(log, head.size)}


def _cosigned(log: Log, newest: int) -> dict[str, Any] | None:
    owners = _owners(log)
    for size in range(newest, max(0, newest - MOST_LOOKED_AT), -1):
        lines = log.cosignatures(size)
        if lines:
            by = {owners.get((line.name, line.key_id), line.name) for line in lines}
            return {"size": size, "by": sorted(by)}
    return None


def _owners(log: Log) -> dict[tuple[str, bytes], str]:
    """Whose a cosigning key is, by its name and number, as the log says.

    A site's log has its newest roster, a server's one entry for each party.
    """
    peers: dict[str, Peer] = {}
    for entry in log.entries(ENROLLED):
        said = entry.said or {}  # a retention rule may have erased it
        if "peers" in said:
            peers |= Roster.from_json(said).peers
        elif "witnesses" in said:
            peers[said["party"]] = Peer.from_json(said)
    return {(key.name, key.id): party for party, peer in peers.items() for key in peer.witnesses}
