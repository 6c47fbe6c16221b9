"""A federation that runs on loopback and is small: a coordinator, and hospitals behind lines."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedkd.audit import Log
from fedkd.cli.run import open_run
from fedkd.deploy.approving import rule
from fedkd.deploy.consent import Shelf
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.keeping import command
from fedkd.deploy.preparing import Whose, prepare_letterbox
from fedkd.deploy.starting import NODE, SERVICE, connection_of
from fedkd.deploy.supervising import state_of, stop
from fedkd.federation.building import Workshop
from fedkd.knowledge import digest_of_bytes
from tests.deploy.federated import RUN, Federated
from tests.deploy.ports import free_port
from tests.deploy.services import Service, until
from tests.stories.hospitals import SHORT, Hospitals

SECONDS = 300.0
CLOCKED = Path(__file__).with_name("clocked.py")
_PART = 1 << 16


class Line:
    """A TCP line to a port of loopback: whole, cut (nobody listens), or dead behind its door."""

    def __init__(self, to: int) -> None:
        self.port, self._to = free_port(), to
        self._dead = False
        self._listener: socket.socket | None = None
        self._ends: set[socket.socket] = set()
        self._changing = threading.Lock()
        self.mend()

    def cut(self) -> None:
        """Nobody listens any more, and what was connected is not."""
        with self._changing:
            if self._listener is not None:
                with suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
            self._hang_up()

    def deaden(self) -> None:
        """Whoever connects is let in, heard once, and hung up on: a TLS handshake is cut short."""
        with self._changing:
            self._dead = True
            self._hang_up()

    @contextmanager
    def led_to(self, port: int) -> Iterator[None]:
        """Somebody else answers."""
        before = self._lead_to(port)
        try:
            yield
        finally:
            self._lead_to(before)

    def mend(self) -> None:
        """Everything goes through again."""
        with self._changing:
            self._dead = False
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port))
                threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _lead_to(self, port: int) -> int:
        with self._changing:
            before, self._to = self._to, port
            self._hang_up()
        return before

    def _hang_up(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                with self._changing:
                    if listener is not self._listener:  # cut since
                        near.close()
                        return
                    self._ends.add(near)  # before anything is read of how the line is now
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            if self._dead:
                near.recv(_PART)
            else:
                with socket.create_connection(("127.0.0.1", self._to)) as far:
                    back = threading.Thread(target=_pump, args=(far, near), daemon=True)
                    back.start()
                    _pump(near, far)
                    back.join()
        with self._changing:
            self._ends.discard(near)


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Carries bytes one way until either end is closed; then neither end lives."""
    with suppress(OSError):
        while part := source.recv(_PART):
            target.sendall(part)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class Live(Hospitals):
    """Hospitals of made-up patients, founded at once, each behind a line of its own."""

    terms = (*RUN, "report=false")

    def __init__(
        self,
        folder: Path,
        rows: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        mechanism: Any = "none",
        **paper_keys: Any,
    ) -> None:
        super().__init__(folder, dict.fromkeys(rows, ()), mechanism=mechanism, paper=paper_keys)
        self._patients = rows
        self.lines: dict[str, Line] = {}

    def start(
        self, site: str, node: Mapping[str, str] | None = None, holding: Path | None = None
    ) -> None:
        """What `fedkd site start` turns into; `node` is more of its node's environment.

        A node that is `holding` does as a file in that folder says (`holding_node.py`).
        """
        hospital = Hospital(self.sites[site])
        prepare_letterbox(hospital, Whose())
        words = self.words_of(site)
        if node or holding:
            words = [sys.executable, str(CLOCKED), str(hospital.folder), json.dumps(node or {})]
            words += [] if holding is None else [str(holding)]
        with (hospital.run / "start.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, **SHORT}, start_new_session=True,
                )
            )  # fmt: skip

    def words_of(self, site: str) -> list[str]:
        """The words that start its processes."""
        return command(Hospital(self.sites[site]), Whose())

    def stop(self, site: str) -> None:
        """As `fedkd site stop`."""
        stop(Hospital(self.sites[site]).run)

    def connected(self, *sites: str, seconds: float = SECONDS) -> None:
        """Waits until these sites say that they are connected."""
        for site in sites:
            until(lambda site=site: self.is_connected(site), seconds)

    def is_connected(self, site: str) -> bool:
        """As `fedkd site status` says it."""
        return connection_of(Hospital(self.sites[site]).letterbox) is True

    def process(self, site: str, name: str = NODE) -> Mapping[str, Any]:
        """What a site's supervisor says of one of its processes."""
        told: Mapping[str, Any] = state_of(Hospital(self.sites[site]).run).get(name) or {}
        return told

    def log(self, site: str) -> Service:
        """A site's log, to be read."""
        return Service(Hospital(self.sites[site]), self.folder / "unused")

    def say_yes(self, out: Path, *sites: str, seconds: float = SECONDS) -> None:
        """At each hospital a person approves the run once its proposal is there."""
        until((out / "proposal.json").exists, seconds)
        digest = digest_of_bytes((out / "proposal.json").read_bytes())
        for site in sites or self.sites:
            hospital = Hospital(self.sites[site])
            until(Shelf(hospital).path(digest).exists, seconds)
            rule(hospital, Shelf(hospital).read(digest), Workshop(), by="Ada", decline=None)

    @contextmanager
    def frozen(self, site: str) -> Iterator[None]:
        """The site's service stands still, as on a machine that swaps: a round waits for it."""
        pid = self.process(site, SERVICE)["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: stands_still(pid), every=0.01)
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _found(self) -> None:
        ports = (free_port(), free_port())
        Federated.made(
            self.folder, self._patients, mechanism=self.mechanism, ports=ports, **self.paper
        )
        for site, folder in self.sites.items():
            self.lines[site] = Line(ports[0])
            paper = Hospital(folder).invitation
            said = json.loads(paper.read_bytes())
            said["address"] = f"127.0.0.1:{self.lines[site].port}"
            paper.write_text(json.dumps(said))
        self.start_server()

    def _end(self) -> None:
        super()._end()
        for line in self.lines.values():
            line.cut()


def stands_still(pid: int) -> bool:
    """Whether no thread of a process goes on: each stops by itself, once it was told (proc(5))."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    try:
        return {stat.read_text().rpartition(") ")[2][0] for stat in stats} == {"T"}
    except OSError:  # a thread has ended just now
        return False


def admitted(out: Path) -> dict[int, dict[str, str]]:
    """By round, what was taken of whom in a run: the digest of each site's answer."""
    with Log(out / "server" / "log.sqlite", "server") as log:
        entries = log.entries("answers.admitted")
        return {entry.body["round"]: dict(entry.body["answers"]) for entry in entries}


def left_out(out: Path) -> dict[int, dict[str, str]]:
    """By round, who was left out of a run, and why."""
    with Log(out / "server" / "log.sqlite", "server") as log:
        entries = log.entries("answers.admitted")
        return {entry.body["round"]: dict(entry.body["left_out"]) for entry in entries}


def named(out: Path) -> str:
    """The id of a run."""
    return open_run(str(out)).id
