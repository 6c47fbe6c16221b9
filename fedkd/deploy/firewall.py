"""Writes the ticket by which a hospital asks its own network's people for one outbound port."""

import socket
import textwrap
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes

from fedkd.deploy.hospital_proxy import Proxy
from fedkd.deploy.network_check import Target, Way
from fedkd.deploy.verdicts import SPELT
from fedkd.federation.flower.node import HEARTBEAT_SECONDS, POLL_SECONDS

WIDTH = 88
REQUEST_KB = 1.0
"""Of a request that finds nothing, both ways: 860 and 150 bytes, as nginx counts them."""
IDLE = (
    f"a request every {POLL_SECONDS:g} seconds and a sign of life every {HEARTBEAT_SECONDS:g}, "
    f"about {REQUEST_KB:g} kB each: {REQUEST_KB / POLL_SECONDS:g} kB a second"
)
"""What goes over the line while there is nothing to do."""


def ticket(  # what the people who read it need, and no secret: no token, no password
    target: Target, federation: str, site: str, proxy: Proxy | None, way: Way
) -> str:
    """The text of the ticket: what, from where, to where, which way, why, and how to try it."""
    print_ = target.authority.fingerprint(hashes.SHA256()).hex(":")
    rows = [
        ("from", f"{socket.gethostname()}{f' ({way.source})' if way.source else ''}"),
        ("to", f"{target.shown}{_addresses(way)}"),
        ("protocol", "TCP; TLS 1.2 or 1.3; HTTP/1.1 inside"),
        ("direction", "outbound only. Nothing connects to us, and no port is opened here"),
        (
            "proxy",
            proxy.shown if proxy else "none known; an HTTP proxy that allows CONNECT will do",
        ),
        ("inspection", f"none: please exempt {target.host} (see below)"),
        ("how often", f"{IDLE}, while the service runs"),
        ("how much", "a few kB to some MB in a round of a training run; it may take minutes"),
        (
            "idle",
            "one connection is kept, and opened anew when it is cut: no long timeout is needed",
        ),
    ]
    reasons = (
        f"The site {site} takes part in the federation {federation}. Its machine asks the "
        "coordinator for questions, and answers with predictions of a model on made-up or public "
        "cases. Patient records stay on the machine; what leaves is listed by `fedkd site sent`.",
        "TLS inspection has to be off for this destination, because both sides are known by the "
        "federation's own authority, which is in no list of public ones. A connection that is "
        "opened on the way is refused by our software, on purpose. The authority's certificate has "
        f"the SHA-256 fingerprint {print_}.",
        "No other destination is needed: the software calls no other host, and is installed "
        "from a folder that was brought by hand.",
    )
    found = [
        f"  {SPELT[verdict.outcome]:9} {verdict.check}: {verdict.found}" for verdict in way.verdicts
    ]
    lines = [
        f"Request: allow one outbound connection ({federation}, {site})",
        f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by fedkd site check --network",
        "",
        *(line for what, said in rows for line in _row(what, said)),
        "",
        *(line for one in reasons for line in (*textwrap.wrap(one, WIDTH), "")),
        "What was found from this machine:",
        *found,
        "",
        "To try it, from this machine:",
        f"  {_trial(target, proxy)}",
        "It should say: Verification: OK. The file ca.crt holds the federation's authority:",
        "",
        target.ca.strip(),
    ]
    return "\n".join(lines) + "\n"


def _trial(target: Target, proxy: Proxy | None) -> str:
    through = f" -proxy {proxy.host}:{proxy.port}" if proxy else ""
    return (
        f"openssl s_client -connect {target.shown}{through} -servername {target.host} "
        "-CAfile ca.crt -verify_return_error </dev/null"
    )


def _addresses(way: Way) -> str:
    return f" (today {', '.join(way.addresses)})" if way.addresses else ""


def _row(what: str, said: str) -> list[str]:
    return textwrap.wrap(said, WIDTH, initial_indent=f"  {what:<11}", subsequent_indent=" " * 13)
