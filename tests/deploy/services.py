"""Real site services, each a process behind its socket, and a server that speaks to them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedkd.audit import Log
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.socket import Away, Frame, Kind, request
from fedkd.wire import Message, decode, encode, opened
from tests.deploy.federated import Federated, FederatedGrid

SECONDS = 300.0
"""Far longer than anything takes on a busy machine."""


def until(reached: Callable[[], Any], seconds: float = SECONDS, every: float = 0.1) -> Any:
    """What `reached` says once that is true."""
    end = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(every)
    return found


class Service:
    """One hospital's site service as a process of its own; what it says is in `log`."""

    def __init__(self, hospital: Hospital, log: Path) -> None:
        self.hospital, self.log = hospital, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(self.log.parent)},
            )  # fmt: skip
        until(self._answers)

    def command(self) -> list[str]:
        """The words that start it."""
        return [sys.executable, "-I", "-m", "fedkd.deploy.service", str(self.hospital.folder)]

    def kill(self) -> None:
        """Ends it as kill -9 does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def ask(self, letter: bytes) -> Frame:
        """The frame that comes back for a letter; `Away` where the service goes meanwhile."""
        return request(self.hospital.socket, Frame(Kind.ANSWER, letter))

    def said(self, message: Message | bytes) -> Message:
        """The message that comes back."""
        letter = message if isinstance(message, bytes) else encode(message)
        reply = self.ask(letter)
        assert reply.kind is Kind.ANSWERED, (reply, self.log.read_text())
        return decode(opened(reply.body)[1], 1 << 20)

    def entries(self, type: str) -> list[dict[str, Any]]:
        """The bodies of its log's entries of one type, oldest first."""
        with Log(self.hospital.site / "log.sqlite", self.hospital.name) as log:
            return [dict(entry.body) for entry in log.entries(type)]

    def charged(self, run: str) -> list[str]:
        """The keys under which a run's trainings were paid for: a second one has a number."""
        with Log(self.hospital.site / "log.sqlite", self.hospital.name) as log:
            keys = [entry.key for entry in log.entries("budget.charged")]
        return [key for key in keys if key.startswith(f"{run}/train/charge")]

    def released(self, run: str) -> list[dict[str, Any]]:
        return [it for it in self.entries("release.outputs") if it["run"] == run]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return request(self.hospital.socket, Frame(Kind.STATUS), 5.0).kind is Kind.STANDING
        except Away:
            return False


@contextmanager
def services(federated: Federated, kind: type[Service] = Service) -> Iterator[dict[str, Service]]:
    """Every hospital's service, running; afterwards none is."""
    folder = federated.server.folder.parent
    made = {
        site: kind(hospital, folder / f"{site}.log")
        for site, hospital in federated.hospitals.items()
    }
    try:
        for each in made.values():
            each.start()
        yield made
    finally:
        for each in made.values():
            each.kill()


class SocketGrid(FederatedGrid):
    """The in-process grid, each letter going to a service's socket; `letters` are (there, back).

    `between` may hold a letter back (it raises) before it reaches its site.
    """

    def __init__(
        self,
        federated: Federated,
        running: dict[str, Service],
        between: Callable[[str, bytes], None] = lambda site, letter: None,
    ) -> None:
        super().__init__(federated)
        self.letters: dict[str, list[tuple[bytes, bytes]]] = {site: [] for site in running}
        self.desks = {site: _Way(self, site, each, between) for site, each in running.items()}


class _Way:
    def __init__(
        self, grid: SocketGrid, site: str, service: Service, between: Callable[[str, bytes], None]
    ) -> None:
        self._grid, self._site, self._service, self._between = grid, site, service, between

    def handle(self, letter: bytes) -> bytes:
        self._between(self._site, letter)
        reply = self._service.ask(letter)
        if reply.kind is not Kind.ANSWERED:
            raise OSError(f"the service said {reply.body!r}")
        self._grid.letters[self._site].append((letter, reply.body))
        return reply.body


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own in `folder` (tmpfs, as root)."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(folder)],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this user may mount something here at all."""
    return os.geteuid() == 0 and subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True, check=False,
    ).returncode == 0  # fmt: skip
