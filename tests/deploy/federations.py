"""Coordinators and hospitals to try: folders with real keys, and a coordinator that runs."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedkd.deploy.coordinator import invite
from fedkd.deploy.joining import Joined, join
from fedkd.deploy.server_folder import ServerFolder, make_server
from tests.deploy.ports import free_port

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None,
    reason="nginx is not installed on this machine",
)

SCHEMA = """\
# Typed by a person.
label: {column: outcome, classes: [well, ill], above: 0}
columns:
  age: {kind: numeric, low: 18, high: 100, unit: years} # at admission
  sex: {kind: categorical, categories: [0, 1]}
"""


def coordinator(folder: Path, name: str = "heart", schema: str = SCHEMA) -> ServerFolder:
    """A coordinator's folder on free ports of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "records.schema.yaml"
    path.write_text(schema)
    return make_server(
        folder / "federation",
        name=name,
        reached_at=f"localhost:{free_port()}",
        schema=path,
        superlink_port=free_port(),
    )


def enrolled(server: ServerFolder, site: str, folder: Path) -> Joined:
    """A hospital that was invited and has joined; the enrolment lies in its folder."""
    _, paper = invite(server, site)
    return join(paper, folder)


def fedkd(*words: object, seconds: float = 240.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedkd", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def told(*words: object) -> dict[str, object]:
    """What a command says with --json; it has to succeed."""
    done = fedkd(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


def raw(port: int, authority: Path, request: bytes, seconds: float = 5.0) -> bytes:
    """What comes back for exactly these bytes over TLS; a connection that stays open is left."""
    import ssl

    trust = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection(("127.0.0.1", port), seconds) as bare,
        trust.wrap_socket(bare, server_hostname="localhost") as secure,
    ):
        secure.sendall(request)
        secure.settimeout(seconds)
        came = b""
        try:
            while part := secure.recv(65_536):
                came += part
        except TimeoutError:
            pass
        return came


def ends(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether a process ends by itself in time."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
