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
        "the certificate there is not trusted: it is by another authority than the federation's. "
        "Somebody on the way opens the connection, the federation was made anew, or "
        "ca.crt here is not the invitation's. Nothing was sent; telephone the coordinator"
    ),
    "wrong_version_number": (
        "what answers at the coordinator's address speaks no TLS: nothing was sent. Compare host "
        "and port with the coordinator"
    ),
}
"""What OpenSSL says, in lower case, the special before the general; and what it means here."""


def untrusted(tail: str) -> str | None:
    """Why TLS failed, by the end of the node's log; None where it did not."""
    said = tail.lower()
    found = next((words for mark, words in _TLS.items() if mark in said), None)
    return None if found is None else f"{found} ({_CHECK})"
