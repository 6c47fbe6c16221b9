"""Lays out what the letterbox may see, and opens the way to it for its group, and for it alone."""

import grp
import json
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedkd.audit.locking import erase
from fedkd.deploy.hospital import Hospital, private_folder, write_private
from fedkd.deploy.knock import APPROVED, SETTINGS
from fedkd.deploy.shims import write_shims
from fedkd.knowledge.bad_input import BadInput

OUTBOX: Final = "outbox"
HOME: Final = "home"
LOGS: Final = "logs"
REFUSALS: Final = "refusals.log"
NODE_KEY: Final = "node.key"
AUTHORITY: Final = "ca.crt"


@dataclass(frozen=True, slots=True)
class Whose:
    """Who runs the letterbox: a user and a group, both None where it is the same as the service's.

    With a group alone somebody else (systemd, a container) starts it as another user.
    """

    user: int | None = None
    group: int | None = None


def whose(user: str | None, group: str | None) -> Whose:
    """The user and group of these names or numbers; a user's own group unless one is given."""
    try:
        found = None
        if user is not None:
            found = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        number = found.pw_gid if found else None
        if group is not None:
            number = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise BadInput(
            f"no user or group {user or ''} {group or ''} here",
            "one of this machine",
            "make it first: useradd --system --no-create-home fedkd-letterbox",
        ) from None
    if found is not None and os.geteuid() != 0:
        raise BadInput(
            f"--letterbox-user {user} without being root",
            "root, who may start it as another user",
            "or start the two halves by themselves: --only service, --only letterbox",
        )
    return Whose(found.pw_uid if found else None, number)


def prepare_letterbox(hospital: Hospital, who: Whose, node_key: Path | None = None) -> None:
    """Writes settings, shims, and copies of the authority and the node's key into letterbox/.

    With a `node_key`, where it lies in memory, the settings say so, and there is no copy.
    """
    told, folder = hospital.invited(), private_folder(hospital.letterbox)
    copy = folder / NODE_KEY
    private_folder(hospital.run)
    for name in (OUTBOX, HOME, LOGS):
        private_folder(folder / name)
    settings = {
        "site": told["site"],
        "federation": told["federation"],
        "address": told["address"],
        "service": str(hospital.socket),
        "node_key": str(node_key or copy),
    }
    write_private(folder / SETTINGS, json.dumps(settings, indent=2, sort_keys=True).encode())
    write_private(folder / AUTHORITY, hospital.authority.read_bytes())
    if node_key is None:
        write_private(copy, hospital.node_key.read_bytes())
    known = (folder / APPROVED).read_text().split() if (folder / APPROVED).exists() else []
    if told["bundle"] not in known:
        known.append(told["bundle"])
    write_private(folder / APPROVED, "".join(f"{each}\n" for each in known).encode())
    (folder / REFUSALS).touch(mode=0o600)
    write_shims(folder)
    if who.group is not None:
        _open_to(hospital, who.group)


def withdraw_letterbox(hospital: Hospital) -> None:
    """Takes settings and key back: without them no letterbox starts, whoever's it is."""
    (hospital.letterbox / SETTINGS).unlink(missing_ok=True)
    erase(hospital.letterbox / NODE_KEY)


def _open_to(hospital: Hospital, group: int) -> None:
    """The group may pass through, read what the letterbox needs, and write where it has to."""
    folder = hospital.letterbox
    modes = {hospital.folder: 0o710, hospital.run: 0o750, folder: 0o750, folder / "shims": 0o750}
    told = [folder / name for name in (SETTINGS, AUTHORITY, NODE_KEY, APPROVED)]
    modes |= {path: 0o640 for path in told if path.exists()}
    modes |= dict.fromkeys((folder / "shims").iterdir(), 488)
    # No setgid, which the unit forbids (RestrictSUIDSGID=yes): this is the letterbox's own group.
    modes |= {folder / name: 0o770 for name in (OUTBOX, HOME, LOGS)}
    modes |= {folder / REFUSALS: 0o660}
    for path, mode in modes.items():
        try:
            shutil.chown(path, group=group)
        except PermissionError:
            raise BadInput(
                f"{path}, which cannot be given to the group {group}",
                "a group that this user is in",
                "usermod --append --groups GROUP USER",
            ) from None
        path.chmod(mode)
