"""Finds the hospital's own HTTP proxy in the environment, and asks it for a tunnel.

By HTTPS_PROXY and NO_PROXY, which a letterbox hands on, and Flower's transport (httpx) reads.
"""

import base64
import socket
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from fedkd.knowledge import BadInput


class ProxyRefused(OSError):
    """A proxy that gives no tunnel: what it said, and whom to ask for what."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found, self.fix = found, fix


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; its password is shown nowhere."""

    host: str
    port: int
    user: str = ""
    password: str = ""

    @property
    def shown(self) -> str:
        """The proxy without its password."""
        return f"http://{self.user + '@' if self.user else ''}{self.host}:{self.port}"

    @property
    def header(self) -> str:
        """The line by which it knows us (RFC 7617), or nothing."""
        if not self.user:
            return ""
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return f"Proxy-Authorization: Basic {pair}\r\n"


def proxy_for(host: str) -> Proxy | None:
    """The proxy that the environment names for an HTTPS connection to `host`; None: go directly.

    `BadInput` for one that Flower's transport cannot use.
    """
    text = getproxies().get("https")
    if not text or proxy_bypass(host):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme == "https" and parts.hostname:
        raise BadInput(
            f"a proxy https://{parts.hostname} in HTTPS_PROXY, to be spoken to over TLS",
            "http://HOST:PORT",
            "that is not supported: what is sent has TLS of its own inside the proxy's tunnel. Set "
            "HTTPS_PROXY=http://HOST:PORT, and ask the network's people for a port of their proxy "
            "that takes CONNECT without TLS",
        )
    if parts.scheme != "http" or not parts.hostname or not port:
        raise BadInput(
            f"a proxy {parts.scheme}://{parts.hostname or ''} in HTTPS_PROXY",
            "http://HOST:PORT",
            "ask the network's people for their HTTP proxy that allows CONNECT",
        )
    return Proxy(parts.hostname, port, unquote(parts.username or ""), unquote(parts.password or ""))


def connect_through(line: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Asks the proxy at the other end of `line` for a tunnel (RFC 9110, 9.3.6).

    `ProxyRefused` where it gives none.
    """
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    answer = HTTPResponse(line, method="CONNECT")
    try:
        line.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{proxy.header}\r\n".encode())
        answer.begin()
    except (OSError, HTTPException) as error:
        raise ProxyRefused(
            f"no answer to CONNECT {place} ({type(error).__name__})",
            "is it an HTTP proxy that allows CONNECT? Ask the network's people",
        ) from None
    finally:
        answer.close()
    if 200 <= answer.status < 300:
        return
    raise ProxyRefused(
        f"CONNECT {place} is answered by {answer.status}", remedy(answer.status, place)
    )


def remedy(status: int, place: str) -> str:
    """Whom to ask for what, where a proxy answers CONNECT to `place` by `status`."""
    if status == 407:
        return (
            "it wants a name and password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT (Basic), or "
            f"ask the network's people to let this machine through to {place} without"
        )
    if status in (502, 503, 504):
        return (
            f"the proxy does not reach {place}: ask the network's people to allow it, and the "
            "coordinator whether its server runs"
        )
    return f"ask the network's people to allow CONNECT to {place} from this machine"
