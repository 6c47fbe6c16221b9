"""A coordinator and a hospital that run for real look up no name and call no other machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.federations import needs_nginx

ROOT = Path(__file__).parents[2]
ALONE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


LISTENS = (
    "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).bind(('lo', 0)); "
    "socket.create_connection(('192.0.2.7', 443), 2)"
)
"""All that `tests.stories.silence` needs of the system; nobody answers there, and at once."""
ROUTED = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo src 127.0.0.1"


def may_be_alone() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    tried = f'{ROUTED} && "$0" -I -c "$1"'
    done = subprocess.run(
        [*ALONE, "sh", "-c", tried, sys.executable, LISTENS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "ConnectionRefusedError" in done.stderr


needs_namespace = pytest.mark.skipif(
    not may_be_alone(), reason="no network namespace of one's own here"
)
pytestmark = [pytest.mark.long, needs_namespace]


def heard(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.stories.silence", str(folder), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    calls: list[str] = json.loads(done.stdout.splitlines()[-1])
    return calls


def test_a_call_is_heard_and_so_is_flower_as_it_comes(tmp_path: Path) -> None:
    said = " ".join(heard(tmp_path, "probe"))
    assert "192.0.2.7 port 443" in said
    assert "telemetry\\x06flower" in said


@needs_nginx
def test_a_server_a_site_and_a_run_call_nobody(tmp_path: Path) -> None:
    assert heard(tmp_path) == []
