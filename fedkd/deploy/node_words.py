"""Says in words why Flower's node and the coordinator's TLS did not come together."""

from typing import Final

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
        "what answers at the coordinator's address is known by another authority than the "
        "federation's: somebody on the way opens the connection, the federation was made anew, or "
        "ca.crt here is not the invitation's. Nothing was sent; telephone the coordinator"
    ),
    "wrong_version_number": (
        "what answers at the coordinator's address speaks no TLS: nothing was sent. Compare host "
        "and port with the coordinator"
    ),
    "ssl/tls handshake error": "the TLS handshake with the coordinator failed: nothing was sent",
}
"""What OpenSSL says, in lower case, the special before the general; and what it means here."""


_GRACEFUL: Final = "SuperNode terminated gracefully"
MEANWHILE: Final = (
    "the node was told to end, or the coordinator takes its key no longer (401): revoked, or this "
    f"machine's clock is wrong ({_CHECK})"
)


def refused_meanwhile(tail: str) -> str | None:
    """What to say of a connected node that ended itself, as Flower's does when it is refused."""
    return MEANWHILE if _GRACEFUL in tail else None


def untrusted(tail: str) -> str | None:
    """Why TLS failed, by the end of the node's log; None where it did not."""
    said = tail.lower()
    found = next((words for mark, words in _TLS.items() if mark in said), None)
    return None if found is None else f"{found} ({_CHECK})"
