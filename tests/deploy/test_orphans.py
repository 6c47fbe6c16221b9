"""A proxy whose master was killed leaves workers that hold the port: the next start ends them."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fedkd.deploy import proxy
from tests.deploy.federations import coordinator, needs_nginx

pytestmark = [pytest.mark.deploy, needs_nginx]


def test_workers_of_a_killed_proxy_are_ended(tmp_path: Path) -> None:
    server = coordinator(tmp_path)
    server.write_proxy(server.settings())
    command = proxy.command(server.folder)
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    second = None
    try:
        time.sleep(1)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert proxy.end_orphans(server.folder)
        time.sleep(0.5)
        second = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(1)
        assert second.poll() is None
        assert proxy.end_orphans(tmp_path / "another") == []
    finally:
        if second is not None:
            second.terminate()
            second.wait()
        with suppress(ProcessLookupError):
            first.kill()
        proxy.end_orphans(server.folder)
