"""Writes the reverse proxy's configuration: the fleet interface alone comes in, over TLS.

Flower's SuperLink serves three interfaces on one port, and the control interface, with which runs
are started, asks nobody who they are (flwr 1.41). So the SuperLink listens on loopback, and nginx
lets through what a registered SuperNode needs, by exact paths, and nothing else.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from fedkd.federation.durable import write_bytes
from fedkd.federation.flower.node import HEARTBEAT_SECONDS, POLL_SECONDS
from fedkd.knowledge import BadInput

FLEET: Final = (
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "get-fab",
    "get-run",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "send-node-heartbeat",
)
"""What a SuperNode with a registered key calls (flwr 1.41, 1.42). register-node and unregister-node
are for SuperNodes without a key of their own, which there are none of."""
PUSHING: Final = "push-object"
MOST_BODY, MOST_PART = "256k", "6m"
"""The largest request, and one of `PUSHING`: Flower sends arrays in parts of 5 MiB."""
MOST_OF_ONE, MOST_OF_ALL, MOST_PUSHING = 64, 256, 96
"""Requests at a time: from one address, from everybody, and those of `PUSHING` from everybody.

With the sizes above they bound what strangers fill, 0.6 GiB: the proxy knows no keys.
"""
_CIPHERS: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"
)
"""Of TLS 1.2 (RFC 9325, 4.2); those of 1.3 are all sound."""
_INSTALL: Final = (
    "install it from the distribution: apt install nginx-light, dnf install nginx or "
    "apk add nginx; its own service may stay off (systemctl disable --now nginx)"
)

_CONF: Final = """\
# Made by fedkd server init, and again at each start from server.yaml: what you change is lost.
# nginx -p {folder}/ -c nginx.conf
daemon off;
worker_processes 1;
pid nginx.pid;
error_log logs/error.log warn;

events {{
    worker_connections 1024;
}}

http {{
    # Who asked, when, what for, and what came of it; no body, no header with a key.
    log_format told escape=json '{{"time":"$time_iso8601","from":"$remote_addr",'
        '"request":"$request","status":$status,"in":$request_length,'
        '"out":$bytes_sent,"seconds":$request_time,"tls":"$ssl_protocol"}}';
    access_log logs/access.log told;
    server_tokens off;
    default_type text/plain;

    # Bodies stay in memory: no answer of a hospital lies on this disk on its way through. Whoever
    # may connect sends some, and no key is looked at before they end: so they are small, and few.
    client_max_body_size {most};
    client_body_buffer_size {most};
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    proxy_max_temp_file_size 0;
    proxy_buffers 16 64k;
    proxy_buffer_size 64k;
    proxy_busy_buffers_size 128k;
    large_client_header_buffers 4 8k;

    # A SuperNode asks every {poll:g} seconds over a connection that it keeps, and says every
    # {heartbeat:g} that it lives; what finds nothing is answered at once.
    client_header_timeout 30s;
    client_body_timeout 60s;
    send_timeout 60s;
    keepalive_timeout 75s;
    reset_timedout_connection on;
    limit_conn_zone $binary_remote_addr zone=from:1m;
    limit_conn_zone $server_port zone=all:64k;
    limit_conn_zone $server_port zone=pushing:64k;
    limit_conn from {of_one};
    limit_conn all {of_all};

    server {{
        listen {listen} ssl;
        server_name _;

        ssl_certificate {keys}/server.crt;
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers {ciphers};
        ssl_prefer_server_ciphers on;
        ssl_session_cache shared:fedkd:1m;
        ssl_session_tickets off;

        # The path as it was sent, letter by letter, before anything is decoded or shortened: a
        # path with a dot, a percent sign or a second slash is none of these.
        if ($request_uri !~ "^/v1/fleet/({fleet})$") {{
            return 404;
        }}

        if ($request_method != POST) {{
            return 404;
        }}

        proxy_http_version 1.1;
        proxy_set_header Host localhost;
        proxy_set_header Connection "";
        proxy_set_header Upgrade "";
        proxy_set_header Forwarded "";
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto https;
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_ssl_verify on;
        proxy_ssl_verify_depth 1;
        proxy_ssl_trusted_certificate {keys}/ca.crt;
        proxy_ssl_server_name on;
        proxy_ssl_name localhost;
        proxy_connect_timeout 5s;
        proxy_read_timeout 120s;
        proxy_send_timeout 120s;
        proxy_next_upstream off;

        location / {{
            return 404;
        }}

        location = /v1/fleet/{push} {{
            client_max_body_size {most_part};
            client_body_buffer_size {most_part};
            limit_conn from {of_one};
            limit_conn all {of_all};
            limit_conn pushing {pushing};
            proxy_pass https://127.0.0.1:{port};
        }}

        location ~ "^/v1/fleet/({fleet})$" {{
            proxy_pass https://127.0.0.1:{port};
        }}
    }}
}}
"""


def nginx_conf(folder: Path, *, listen: str, port: int, key: Path | None = None) -> str:
    """The configuration for the proxy of the federation in `folder`, in front of loopback `port`.

    `listen` is HOST:PORT as nginx takes it, `key` where the certificate's key lies, if elsewhere.
    `BadInput` for a folder whose name nginx cannot read.
    """
    folder = folder.resolve()
    if any(mark in str(folder) for mark in " \t\n'\"\\;{}$#"):
        raise BadInput(f"the folder {folder}", "a path without spaces, quotes, braces, $, # and ;")
    return _CONF.format(
        folder=folder / "nginx",
        keys=folder / "keys",
        key=key or folder / "keys" / "server.key",
        listen=listen,
        port=port,
        fleet="|".join(FLEET),
        push=PUSHING,
        most=MOST_BODY,
        most_part=MOST_PART,
        of_one=MOST_OF_ONE,
        of_all=MOST_OF_ALL,
        pushing=MOST_PUSHING,
        ciphers=_CIPHERS,
        poll=POLL_SECONDS,
        heartbeat=HEARTBEAT_SECONDS,
    )


def write_conf(folder: Path, *, listen: str, port: int, key: Path | None = None) -> Path:
    """Writes nginx/nginx.conf, with the folders that it names; returns it."""
    place = folder / "nginx"
    for each in (place, place / "logs", place / "temp"):
        each.mkdir(mode=0o700, exist_ok=True)
    conf = nginx_conf(folder, listen=listen, port=port, key=key)
    write_bytes(place / "nginx.conf", conf.encode())
    return place / "nginx.conf"


def nginx() -> str:
    """Where nginx is; `BadInput` says how to install it."""
    found = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))
    if found is None:
        raise BadInput("no nginx on this machine", "the reverse proxy nginx", _INSTALL)
    return found


_PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/homebrew/bin")


def command(folder: Path) -> list[str]:
    """What starts the proxy in the foreground."""
    place = (folder / "nginx").resolve()
    return [nginx(), "-p", f"{place}/", "-c", str(place / "nginx.conf")]


def expect_valid(folder: Path) -> None:
    """`BadInput` where nginx refuses its configuration (a port below 1024, a wrong address)."""
    done = subprocess.run(  # noqa: S603 - our own words, no shell
        [*command(folder), "-t"], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "[emerg]" in line] or [done.stderr]
        raise BadInput(
            f"a configuration that nginx refuses: {said[0].strip()}",
            "one that it takes",
            "look at address, listen and superlink_port in server.yaml",
        )


def forget(folder: Path) -> None:
    """Takes away the number that a proxy which was killed left behind."""
    (folder / "nginx" / "nginx.pid").unlink(missing_ok=True)


def came_up(folder: Path, process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Waits until a proxy has its port, or has ended; False where it takes longer.

    What was left of one that was killed was forgotten before.
    """
    until = time.monotonic() + seconds
    while not _written_by(folder, process.pid) and process.poll() is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _written_by(folder: Path, pid: int) -> bool:
    # With its port in hand, nginx writes its number down; `nginx -t` leaves an empty file.
    try:
        return (folder / "nginx" / "nginx.pid").read_text() == f"{pid}\n"
    except OSError:
        return False


def reload(pid: int) -> None:
    """Tells a running proxy to take its certificate and configuration again; no request is lost."""
    os.kill(pid, signal.SIGHUP)
