"""Small real servers on loopback: TLS, CONNECT proxies, and one that intercepts."""

import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate

import trustme


@contextmanager
def listening(serve):
    """A listener on loopback that gives each connection to `serve`; yields its port."""
    with ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        door.settimeout(0.05)
        ended = threading.Event()

        def answered(line):
            with suppress(OSError), line:
                line.settimeout(5)
                serve(line)

        def loop():
            while not ended.is_set():
                try:
                    line, _ = door.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                threading.Thread(target=answered, args=(line,), daemon=True).start()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield door.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def context_of(leaf):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def request_of(line):
    """The head of a request, as text."""
    got = b""
    while b"\r\n\r\n" not in got and (more := line.recv(4096)):
        got += more
    return got.decode()


def federation(authority, *, host="localhost", ahead=0.0, date=True, status=401, **of_leaf):
    """What a federation does with an empty request: TLS, a refusal, a date."""
    context = context_of(authority.issue_cert(host, **of_leaf))

    def serve(line):
        with context.wrap_socket(line, server_side=True) as secure:
            request_of(secure)
            said = f"Date: {formatdate(time.time() + ahead, usegmt=True)}\r\n" if date else ""
            secure.sendall(f"HTTP/1.1 {status} No\r\n{said}Content-Length: 0\r\n\r\n".encode())

    return listening(serve)


def pump(one, other):
    with suppress(OSError):
        while more := one.recv(65536):
            other.sendall(more)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)


def connect_proxy(seen, *, password=None, refuse=None, hosts=None):
    """An HTTP proxy that knows CONNECT alone; `seen` collects the heads of requests.

    `refuse` is a status, or what says at each request which, if any. `hosts` are addresses that it
    knows by name.
    """

    def serve(line):
        head = request_of(line)
        seen.append(head)
        method, place, _ = head.split("\r\n")[0].split(" ")
        refused = refuse() if callable(refuse) else refuse
        if refused or method != "CONNECT":
            line.sendall(f"HTTP/1.1 {refused or '405 No'}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        if password and password not in head:
            line.sendall(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n")
            return
        host, port = place.rsplit(":", 1)
        try:
            there = socket.create_connection(((hosts or {}).get(host, host), int(port)), timeout=5)
        except OSError:
            line.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            return
        with there:
            line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(there, line), daemon=True)
            back.start()
            pump(line, there)
            back.join()

    return listening(serve)


def intercepting_proxy(name="Example Hospital TLS Inspection", read=None):
    """A CONNECT proxy that answers in the place of whoever was asked for, by its own authority.

    `read` collects what it could read.
    """
    authority = trustme.CA(organization_name=name)

    def serve(line):
        place = request_of(line).split(" ")[1]
        line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        context = context_of(authority.issue_cert(place.rsplit(":", 1)[0]))
        with context.wrap_socket(line, server_side=True) as secure:
            head = request_of(secure)
            if read is not None:
                read.append(head)

    return listening(serve)
