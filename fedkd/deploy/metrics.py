"""Serves figures to Prometheus, on loopback alone.

Text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/. The standard
library's server suffices for one reader every few seconds, and a hospital installs nothing more.
"""

import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import FrameType
from typing import Final

from fedkd.knowledge.bad_input import BadInput

HOST: Final = "127.0.0.1"
PATH: Final = "/metrics"
FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"
LEAST_PORT: Final = 1024
_NAMES: Final = (HOST, "localhost")
_IDLE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its samples: by label names and values, a number.

    `kind` is gauge or counter; a value that nobody knows is no sample.
    """

    name: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]
    kind: str = "gauge"


def one(name: str, help: str, value: float | bool | None, kind: str = "gauge") -> Metric:
    """A metric with one sample without labels, or none where the value is None."""
    return Metric(name, help, () if value is None else (({}, float(value)),), kind)


def text_of(metrics: Iterable[Metric]) -> str:
    """Metrics as Prometheus reads them; those without samples are left out."""
    lines = []
    for metric in metrics:
        if not metric.samples:
            continue
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.samples:
            named = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels.items())
            lines.append(f"{metric.name}{{{named}}} {value:.17g}" if named
                         else f"{metric.name} {value:.17g}")  # fmt: skip
    return "\n".join([*lines, ""])


def seconds_of(at: str | None) -> float | None:
    """An RFC 3339 time (UTC, whole seconds) as seconds since 1970; None where there is none."""
    if not at:
        return None
    return datetime.strptime(at[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()


def expect_port(port: int) -> int:
    """`port`, if metrics may be served there."""
    if not LEAST_PORT <= port <= 65_535:
        raise BadInput(f"--metrics {port}", f"a port from {LEAST_PORT} to 65535")
    return port


def expect_free(port: int) -> None:
    """`BadInput` where figures could not be served on `port`."""
    server(port, lambda: ()).server_close()


def serve(port: int, collect: Callable[[], Iterable[Metric]]) -> int:
    """Serves what `collect` says until SIGTERM or SIGINT; the exit code."""
    with server(port, collect) as serving:

        def stop(number: int, frame: FrameType | None) -> None:
            Thread(target=serving.shutdown, daemon=True).start()  # from here it would wait forever

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        serving.serve_forever()
    return 0


def server(port: int, collect: Callable[[], Iterable[Metric]]) -> HTTPServer:
    """The server, bound to loopback; `BadInput` where the port is taken. 0 takes a free one."""

    class Answers(BaseHTTPRequestHandler):
        timeout = _IDLE_SECONDS

        def do_GET(self) -> None:
            # Another name than this machine's own: a browser that was led here by somebody's page.
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            if host not in _NAMES or self.path != PATH:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                body = text_of(collect()).encode()
            except Exception as error:
                print(f"no figures: {type(error).__name__}: {error}", file=sys.stderr)
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", FORMAT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        def version_string(self) -> str:
            return "fedkd"

    try:
        return HTTPServer((HOST, port), Answers)
    except OSError as error:
        raise BadInput(
            f"port {port} of {HOST} for metrics ({error.strerror})", "one that is free"
        ) from None


def _escaped(said: str) -> str:
    return said.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
