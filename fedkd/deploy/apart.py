"""Says how far apart a hospital's two halves run: as whom, and whether one has no network."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.knock import KNOCK
from fedkd.deploy.offline import OFFLINE, StillConnected, is_offline
from fedkd.deploy.preparing import Whose
from fedkd.deploy.starting import LETTERBOX, SERVICE
from fedkd.knowledge.bad_input import BadInput

ONE_USER: Final = (
    "both halves run as one user: whoever takes over the letterbox, which faces the network, may "
    "read the records. Start them as two: the units (docs/deploy.md, As services), or as root "
    "fedkd site start HOSPITAL --letterbox-user USER"
)
CONNECTED: Final = (
    "the site service, which holds the records, is not cut off from the network: it uses none, "
    "but nothing enforces that. Start it without --keep-network, or by what takes the network "
    "away (PrivateNetwork=yes in the unit, a container with no network)"
)
_SECONDS: Final = 60.0


def expect_cut_off(halves: Sequence[str], *, keep_network: bool) -> None:
    """`BadInput` where the site service is to have no network and could not be cut off from it.

    Tried in a process of its own, which ends with it: whoever founds the site has threads.
    """
    if keep_network or SERVICE not in halves:
        return
    words = [sys.executable, "-I", "-m", "fedkd.deploy.offline"]
    tried = subprocess.run(  # noqa: S603  # our own words, no shell
        words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_SECONDS,
        check=False,
    )  # fmt: skip
    if tried.returncode != OFFLINE:
        raise still_connected(tried.stderr.strip() or f"status {tried.returncode}")


def still_connected(why: StillConnected | str) -> BadInput:
    """That the service does not start with a network, and what to do."""
    return BadInput(
        f"a site service that cannot be cut off from the network ({why})",
        "one without a network, whatever runs in it",
        "let systemd do it (PrivateNetwork=yes, as in the unit that ships), run it in a container "
        "with no network, or allow user namespaces; with --keep-network it starts all the same, "
        "nothing enforces it, and fedkd site status says so",
    )


def warnings_at_start(
    hospital: Hospital, who: Whose, halves: Sequence[str], *, keep_network: bool
) -> list[str]:
    """What a start with these halves leaves undone, for the people who start it."""
    me = os.geteuid()
    faces = me if who.user is None else who.user
    holds = me if SERVICE in halves else hospital.folder.stat().st_uid
    found = []
    if LETTERBOX in halves and faces == holds:
        found.append(ONE_USER)
    if SERVICE in halves and keep_network and not is_offline():
        found.append(CONNECTED)
    return found


def warnings_of(hospital: Hospital, service: Mapping[str, Any] | None) -> list[str]:
    """The same of what runs: by who made the two halves' sockets, and by the service's word."""
    if service is None:
        return []
    found = []
    try:
        faces = (hospital.letterbox / KNOCK).stat().st_uid
        if faces == hospital.socket.stat().st_uid:
            found.append(ONE_USER)
    except OSError:
        pass  # no letterbox runs, or in another container
    if service.get("network") != "none":
        found.append(CONNECTED)
    return found
