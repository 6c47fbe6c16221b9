"""Says in words why Flower's node and the coordinator did not come together."""

import re
from typing import Final

from fedkd.deploy.hospital_proxy import remedy
from fedkd.federation.flower.node import ENDS, PROXY, REFUSED

_CHECK: Final = "fedkd site check --network HOSPITAL/invitation.json tells more"
_TLS: Final = {
    "certificate has expired": (
        "the coordinator's certificate has expired, by this machine's clock: is that right? Then "
        "the coordinator makes a new one (fedkd server rotate)"
    ),
    "certificate is not yet valid": (
        "the coordinator's certificate does not hold yet, by this machine's clock: set it (NTP)"
    ),
    "hostname mismatch": (
        "the coordinator's certificate is for another address than the invitation's: ask the "
        "coordinator (fedkd server rotate)"
    ),
    "ip address mismatch": (
        "the coordinator's certificate is for another address than the invitation's: ask the "
        "coordinator (fedkd server rotate)"
    ),
    "certificate_verify_failed": (
        "the certificate there is not trusted: it is by another authority than the federation's. "
        "Nothing was sent. Somebody on the way opens the connection (TLS inspection): ask the "
        "network's people to exempt {place} from it, for this machine, and do not install their "
        "authority. If nobody there does, the federation was made anew, or ca.crt here is not the "
        "invitation's: telephone the coordinator"
    ),
    "wrong_version_number": (
        "what answers at the coordinator's address speaks no TLS: nothing was sent. Compare host "
        "and port with the coordinator"
    ),
}
"""What OpenSSL says, in lower case, the special before the general; and what it means here, with
the coordinator's host and port as {place}."""
ANYWHERE: Final = "the coordinator's host and port"
_LATER: Final = (
    ENDS, REFUSED, "SuperNode ID:", "Connection successful", "Starting Flower SuperNode",
    "Exit Code:",
)  # fmt: skip
"""What a node's log says once something else than its proxy decides how it stands."""


def untrusted(tail: str, place: str = ANYWHERE) -> str | None:
    """Why TLS to `place` failed, by the end of the node's log; None where it did not."""
    said = tail.lower()
    found = next((words for mark, words in _TLS.items() if mark in said), None)
    return None if found is None else f"{found.format(place=place)} ({_CHECK})"


def without_tunnel(tail: str, place: str) -> str:
    """What the hospital's own proxy answers to a node that asks for `place`, and what to do.

    By the end of the node's log; "" where that is not what it waits for.
    """
    _, mark, after = tail.rpartition(PROXY)
    if not mark or any(later in after for later in _LATER):
        return ""
    said = re.match(r"\d{3}\b", after)
    status = int(said.group()) if said else 0
    found = f"answers CONNECT by {status}" if status else "does not answer CONNECT as one does"
    return (
        f"the hospital's proxy {found}: {remedy(status, place)}. It is tried again by itself "
        f"({_CHECK})"
    )
