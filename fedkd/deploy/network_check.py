"""Tries the way from a hospital to its federation before there are any data: name to SuperLink.

Nothing is sent but a handshake and one empty request. Every step says what was found and whom to
ask for what; steps that an earlier one prevents are named as not tried.
"""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse

from cryptography import x509

from fedkd.deploy.hospital_proxy import Proxy, ProxyRefused, connect_through
from fedkd.deploy.verdicts import Verdict, not_tried, passed, problem
from fedkd.knowledge import BadInput

SECONDS = 10.0
"""How long each step waits: a firewall that drops packets answers never."""
MOST_BEHIND, MOST_AHEAD = 300.0, 5.0
"""Seconds by which a SuperNode's clock may differ, else Flower refuses its signed time.

flwr 1.41, superlink/routers/fleet/node_auth.py: -5 < age < 305.
"""
SOON_DAYS = 30
PATH = "/v1/fleet/pull-messages"
"""What a federation's proxy lets through: the SuperLink refuses an empty request by itself."""
FLOWERS = (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNAUTHORIZED)
"""What a SuperLink says to an empty request: that it is no protocol buffer, or nobody's.

flwr 1.41, supercore/protobuf/translation.py and superlink/routers/fleet/node_auth.py.
"""
BEHIND = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""What a proxy says by itself where the one behind it does not answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a hospital has to reach, and by whose authority it is known: `ca` is PEM."""

    host: str
    port: int
    ca: str

    @property
    def shown(self) -> str:
        """Host and port, as a firewall's ticket writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> x509.Certificate:
        """The federation's own authority."""
        return x509.load_pem_x509_certificate(self.ca.encode())


@dataclass(frozen=True, slots=True)
class Way:
    """What was found of the way: verdicts in order, addresses of the target, and our own."""

    verdicts: tuple[Verdict, ...]
    addresses: tuple[str, ...] = ()
    source: str | None = None


def check_network(target: Target, proxy: Proxy | None, seconds: float = SECONDS) -> Way:
    """Tries name, port or proxy, certificate, clock and what is behind, in this order."""
    verdicts: list[Verdict] = []
    first = (proxy.host, proxy.port) if proxy else (target.host, target.port)
    addresses, verdict = _resolve(first[0], "of the proxy" if proxy else "")
    verdicts.append(verdict)
    if not addresses:
        return Way((*verdicts, *_rest("port", "the name is not known")))
    line, verdict = _reach(first, proxy, target, seconds)
    verdicts.append(verdict)
    ours = () if proxy else addresses
    if line is None:
        return Way((*verdicts, *_rest("direction", "the port was not reached")), ours)
    with line:
        source = str(line.getsockname()[0])
        verdicts.append(_direction(line, target, proxy))
        if proxy is not None:
            refused = _through(line, proxy, target)
            verdicts.append(refused)
            if refused.outcome != "passed":
                rest = _rest("certificate", "the proxy did not let us through")
                return Way((*verdicts, *rest), ours, source)
        verdicts.extend(_secure(line, target, proxy, seconds))
    return Way(tuple(verdicts), ours, source)


def without_way(error: BadInput) -> Way:
    """What is said where the environment names a proxy that cannot be used: nothing is tried."""
    wrong = problem("proxy", f"found {error.found}, expected {error.expected}", error.remedy)
    return Way((wrong, *_rest(STEPS[0], "the proxy cannot be used")))


STEPS = ("name", "port", "direction", "certificate", "clock", "server")


def _rest(first: str, why: str) -> Iterator[Verdict]:
    """The steps from `first` on, which `why` prevents."""
    for step in STEPS[STEPS.index(first) :]:
        yield not_tried(step, why)


def _resolve(host: str, whose: str) -> tuple[tuple[str, ...], Verdict]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a name"
        return (), problem(
            "name",
            f"{host} {whose} does not resolve ({reason})".replace("  ", " "),
            "ask the network's people why this machine cannot resolve it: no DNS, or a name that "
            "only a proxy resolves (then set HTTPS_PROXY)",
        )
    addresses = tuple(dict.fromkeys(str(row[4][0]) for row in found))
    tail = f" ({whose.removeprefix('of ')}, which resolves the federation's name)" if whose else ""
    return addresses, passed("name", f"{host} is {', '.join(addresses)}{tail}")


def _reach(
    place: tuple[str, int], proxy: Proxy | None, target: Target, seconds: float
) -> tuple[socket.socket | None, Verdict]:
    host, port = place
    shown = f"{host}:{port}"
    ticket = f"outbound TCP from this machine to {shown}"
    no_proxy = "" if proxy else "; if the hospital has an HTTP proxy, set HTTPS_PROXY to it"
    began = time.perf_counter()
    try:
        line = socket.create_connection(place, timeout=seconds)
    except TimeoutError:
        why = f"no answer from {shown} in {seconds:g} s: on the way, a firewall drops what is sent"
    except ConnectionRefusedError:
        why = f"{shown} refuses: a firewall rejects it, or nothing listens there"
    except OSError as error:
        why = f"{shown} cannot be reached ({error.strerror or error})"
    else:
        took = (time.perf_counter() - began) * 1000
        whose = "the proxy " if proxy else ""
        return line, passed("port", f"{whose}{shown} answers, in {took:.0f} ms")
    fix = f"ask the network's people to allow {ticket}{no_proxy}"
    if not proxy:
        fix += "; ask the coordinator whether its server runs (fedkd server status)"
    return None, problem("port", why, fix)


def _direction(line: socket.socket, target: Target, proxy: Proxy | None) -> Verdict:
    source = line.getsockname()[0]
    way = f" through {proxy.shown}" if proxy else ""
    return passed(
        "direction",
        f"outbound only, {source} to {target.shown}{way}: nothing has to be let in",
    )


def _through(line: socket.socket, proxy: Proxy, target: Target) -> Verdict:
    try:
        connect_through(line, proxy, target.host, target.port)
    except ProxyRefused as error:
        return problem("proxy", f"{proxy.shown}: {error.found}", error.fix)
    return passed("proxy", f"{proxy.shown} connects to {target.shown} (CONNECT)")


def _secure(
    line: socket.socket, target: Target, proxy: Proxy | None, seconds: float
) -> Iterator[Verdict]:
    """Handshake and a request; the chain counts against the federation's own authority alone."""
    trust = ssl.create_default_context(cadata=target.ca)
    trust.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        secure = trust.wrap_socket(line, server_hostname=target.host)
    except ssl.SSLCertVerificationError as error:
        leaf = _shown_leaf(target, proxy, seconds)
        yield why_untrusted(target, leaf, error.verify_message, datetime.now(UTC))
        yield from _rest("clock", "the certificate is not the federation's")
        return
    except (ssl.SSLError, OSError) as error:
        yield _no_handshake(target, error)
        yield from _rest("clock", "there was no handshake")
        return
    with secure:
        leaf = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
        until = leaf.not_valid_after_utc
        days = (until - datetime.now(UTC)).days
        yield passed(
            "certificate",
            f"{secure.version()}, signed by the federation's own authority, until "
            f"{until:%Y-%m-%d}; nobody reads on the way",
            ""
            if days >= SOON_DAYS
            else f"{days} days left: the coordinator has to renew it (fedkd server rotate)",
        )
        yield from _asked(secure, target)


def _no_handshake(target: Target, error: OSError) -> Verdict:
    reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return problem(
            "certificate",
            f"{target.shown} answers, but not with TLS",
            "the port is another one's, or a page of the hospital's network stands in between: "
            "compare host and port with the coordinator",
        )
    return problem(
        "certificate",
        f"the connection to {target.shown} was cut in the TLS handshake ({reason})",
        f"ask the network's people to exempt {target.shown} from TLS inspection and from filters "
        "by server name",
    )


def _shown_leaf(target: Target, proxy: Proxy | None, seconds: float) -> x509.Certificate | None:
    """The certificate that is shown to us, trusted or not: to say whose it is, nothing else."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    place = (proxy.host, proxy.port) if proxy else (target.host, target.port)
    with (
        suppress(OSError, ValueError, ProxyRefused),
        socket.create_connection(place, timeout=seconds) as line,
    ):
        if proxy:
            connect_through(line, proxy, target.host, target.port)
        with anybody.wrap_socket(line, server_hostname=target.host) as secure:
            return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
    return None


def why_untrusted(
    target: Target, leaf: x509.Certificate | None, reason: str, now: datetime
) -> Verdict:
    """What a certificate that did not hold means, and whom to ask for what."""
    if leaf is None:
        return _no_handshake(target, ConnectionError(0, reason))
    authority = target.authority
    issuer = leaf.issuer.rfc4514_string() or "nobody named"
    try:
        leaf.verify_directly_issued_by(authority)
    except Exception:  # a wrong name, a wrong signature, a kind of key it cannot check: not theirs
        return _of_another(target, issuer, leaf.issuer == authority.subject)
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now < begins:
        found = f"the certificate holds from {begins:%Y-%m-%d %H:%M} UTC, this clock says "
        found += f"{now:%Y-%m-%d %H:%M}"
        return problem("certificate", found, "set this machine's clock (NTP), then check again")
    if now > ends:
        return problem(
            "certificate",
            f"the federation's certificate ended on {ends:%Y-%m-%d %H:%M} UTC, this clock says "
            f"{now:%Y-%m-%d %H:%M}",
            "is this machine's clock right? Then the coordinator has to renew it: "
            "fedkd server rotate",
        )
    return problem(
        "certificate",
        f"signed by the federation's authority, but not for {target.host} ({reason})",
        "ask the coordinator for the address that is in its certificate, or for a certificate "
        "with this one: fedkd server rotate",
    )


def _of_another(target: Target, issuer: str, same_name: bool) -> Verdict:
    if same_name:
        return problem(
            "certificate",
            f"signed by an authority that bears the federation's name ({issuer}) with another key",
            "the coordinator made a new authority, or somebody stands in between: telephone the "
            "coordinator, and join again only with a new invitation",
        )
    return problem(
        "certificate",
        f"the chain was issued by another authority: {issuer}. Somebody on the way opens the "
        "connection (TLS inspection), and could read and change what is sent",
        f"ask the network's people to exempt {target.shown} from TLS inspection, for this machine; "
        "do not install their authority here: Flower's safety rests on this connection",
    )


def _asked(secure: ssl.SSLSocket, target: Target) -> Iterator[Verdict]:
    """The clock by the answer to one empty request, and whether the SuperLink gave that answer."""
    before = time.time()
    try:
        head = f"POST {PATH} HTTP/1.1\r\nHost: {target.shown}\r\nContent-Length: 0\r\n"
        secure.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = HTTPResponse(secure)
        answer.begin()
        said, status = answer.getheader("Date"), answer.status
        answer.close()
    except (OSError, HTTPException):
        yield problem(
            "clock",
            f"{target.shown} shook hands and then answered no request",
            "ask the coordinator whether its server runs: fedkd server status",
        )
        yield not_tried("server", "no request was answered")
        return
    try:
        theirs = parsedate_to_datetime(said or "").timestamp() + 0.5  # cut to a whole second
        yield clock_verdict((before + time.time()) / 2 - theirs)
    except (TypeError, ValueError):
        yield problem(
            "clock",
            f"{target.shown} says no time (no Date in its answer)",
            "what answers is no proxy of a federation: compare host and port with the coordinator",
        )
    yield _behind(target, status)


def _behind(target: Target, status: int) -> Verdict:
    if status in BEHIND:
        return problem(
            "server",
            f"the proxy at {target.shown} answers, and nobody behind it ({status})",
            "ask the coordinator to look at fedkd server status: its SuperLink is down, or has a "
            "certificate that ended",
        )
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return problem(
            "server",
            f"the proxy at {target.shown} answers that it is busy ({status}): more is asked at a "
            "time than it takes",
            "check again in a minute; if that lasts, ask the coordinator who asks so much "
            "(nginx/logs in its folder)",
        )
    if status not in FLOWERS:
        return problem(
            "server",
            f"what answers at {target.shown} is no SuperLink ({status}), though its certificate "
            "is the federation's",
            "compare host and port with the coordinator, and ask it to look at its proxy's "
            "configuration and at fedkd server status",
        )
    return passed("server", f"the SuperLink answers that an empty request is none ({status})")


def clock_verdict(ahead: float) -> Verdict:
    """What a clock means that goes so many seconds ahead of the federation's."""
    how = "ahead of" if ahead > 0 else "behind"
    found = f"{abs(ahead):.0f} s {how} the federation's"
    fix = "set this machine's clock by a time server (NTP): Flower refuses a site that is more "
    fix += f"than {MOST_AHEAD:.0f} s ahead or {MOST_BEHIND:.0f} s behind"
    if -MOST_BEHIND <= ahead <= MOST_AHEAD:
        near = ahead > MOST_AHEAD / 2 or ahead < -MOST_BEHIND / 2
        return passed("clock", found, fix if near else "")
    return problem("clock", found, fix)
