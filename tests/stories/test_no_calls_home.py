"""Nothing in a run looks up a name or connects beyond this machine: not Flower, not Ray."""

import os
import subprocess
import sys
from pathlib import Path

LISTENER = '''"""Writes down every look-up and connection that leaves this machine."""
import os, socket, sys

_connect, _look_up = socket.socket.connect, socket.getaddrinfo


def _tell(what):
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{sys.argv[:1]} {what}\\n")


def connect(self, address):
    if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "::1", "localhost")):
        if address[0] not in OWN:
            _tell(address)
    return _connect(self, address)


def look_up(host, *more, **named):
    if host not in (None, "", "0.0.0.0", "::", *OWN):
        _tell(host)
    return _look_up(host, *more, **named)


OWN = {"127.0.0.1", "localhost", "::1", socket.gethostname()}
try:
    OWN |= {info[4][0] for info in _look_up(socket.gethostname(), None)}
except OSError:
    pass
_probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    _probe.connect(("192.0.2.1", 9))  # sends nothing: asks the kernel for this machine's address
    OWN.add(_probe.getsockname()[0])
except OSError:
    pass
finally:
    _probe.close()
OWN |= {"8.8.8.8"} if "ray" in " ".join(sys.argv) else set()  # Ray asks the kernel the same way
socket.socket.connect, socket.getaddrinfo = connect, look_up
'''
TINY = [
    "data=digits", "data.records=100", "data.test_size=50", "query.size=20", "clients.count=2",
    "clients.models=[logistic]", "rounds=1", "training.local_epochs=1",
    "training.lesson_epochs=1", "student.model=logistic", "student.epochs=1",
]  # fmt: skip


def calls(tmp_path: Path, code: str, *words: str) -> list[str]:
    (tmp_path / "sitecustomize.py").write_text(LISTENER)
    told = tmp_path / "calls.txt"
    told.touch()
    clean = {
        name: value
        for name, value in os.environ.items()
        if name
        not in ("RAY_USAGE_STATS_ENABLED", "FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK")
    }
    env = {**clean, "PYTHONPATH": str(tmp_path), "CALLS": str(told), "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=env, cwd=tmp_path, check=False, timeout=240, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return told.read_text().splitlines()


RUN = "import sys; from fedkd.cli import main; sys.exit(main(['simulate', *sys.argv[1:]]))"


def test_the_listener_hears_a_call(tmp_path: Path) -> None:
    code = (
        "import socket\ntry: socket.getaddrinfo('telemetry.example.org', 443)\nexcept OSError: pass"
    )
    assert "telemetry.example.org" in "".join(calls(tmp_path, code))


def test_a_run_in_this_process_calls_nobody_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    assert calls(tmp_path, RUN, *TINY, f"out={tmp_path / 'run'}") == []
    home = tmp_path / "home"
    assert not home.exists() or list(home.iterdir()) == []
