"""A federation whose processes all run, reached through a line that a test can cut."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedkd.audit import Log
from fedkd.deploy.approving import rule
from fedkd.deploy.consent import Shelf
from fedkd.deploy.hospital import Hospital
from fedkd.knowledge import BadInput
from tests.deploy.federated import SITES, Federated, table
from tests.deploy.federations import fedkd, free_port, told
from tests.deploy.services import until


class Line:
    """Forwards a port of loopback to another one, until it is cut; then the port is closed."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self._open: list[socket.socket] = []
        self._door: socket.socket | None = None

    def join(self) -> None:
        door = socket.create_server(("127.0.0.1", self.port))
        self._door = door
        threading.Thread(target=self._accept, args=(door,), daemon=True).start()

    def cut(self) -> None:
        """Nothing goes through any more, of what is on its way either."""
        if self._door is not None:
            with suppress(OSError):
                self._door.shutdown(socket.SHUT_RDWR)
            self._door.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _accept(self, door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = door.accept()
                try:
                    there = socket.create_connection(("127.0.0.1", self.target), 5)
                except OSError:
                    here.close()
                    continue
                there.settimeout(None)
                self._open += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while part := one.recv(1 << 16):
            other.sendall(part)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)


class Live:
    """Coordinator and hospitals as processes; entered, all are connected."""

    def __init__(self, folder: Path) -> None:
        rows = {site: [row for row in table(180) if row["clinic"] == site] for site in SITES}
        reached, bound = free_port(), free_port()
        self.folder = folder
        self.federated = Federated.made(folder / "all", rows, ports=(reached, free_port()))
        self.server, self.hospitals = self.federated.server, self.federated.hospitals
        path = self.server.folder / "server.yaml"
        lines = [
            f"listen: 127.0.0.1:{bound}" if line.startswith("listen:") else line
            for line in path.read_text().splitlines()
        ]
        path.write_text("\n".join(lines) + "\n")
        self.line = Line(reached, bound)
        self._runs: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Live":
        try:
            self.line.join()
            self.start_server()
            for site in self.hospitals:
                self.start(site)
            self.connected()
        except BaseException:
            print(self.logs())
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._runs:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.line.cut()
        for folder in (*(it.folder for it in self.hospitals.values()), self.server.folder):
            kill(folder)

    def start_server(self) -> None:
        done(fedkd("server", "start", self.server.folder, "--detach", seconds=200))

    def start(self, site: str, *words: str) -> None:
        done(fedkd("site", "start", self.hospitals[site].folder, "--detach", *words))

    def stop(self, site: str) -> None:
        done(fedkd("site", "stop", self.hospitals[site].folder))

    def standing(self, site: str) -> dict[str, Any]:
        return told("site", "status", self.hospitals[site].folder)

    def online(self) -> set[str]:
        status: Any = told("server", "status", self.server.folder)
        return {one["site"] for one in status["sites"] if one["connection"] == "online"}

    def connected(self, *sites: str, seconds: float = 120.0) -> None:
        until(lambda: set(sites or self.hospitals) <= self.online(), seconds, 1.0)

    def begin(self, *overrides: str, resume: Path | None = None) -> "Going":
        """`fedkd run`, begun; a new one is approved everywhere."""
        out = resume or self.server.folder / "runs" / f"run-{len(self._runs)}"
        words = ["--resume", resume] if resume else [*TERMS, *overrides, f"out={out}"]
        with (self.folder / f"{out.name}.out").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fedkd", "run", "--federation", str(self.server.folder),
                 *map(str, words)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._runs.append(process)
        going = Going(self, process, out)
        if resume is None:
            self.say_yes(out)
        return going

    def say_yes(self, out: Path) -> None:
        """A person at each hospital does, once the proposal is there."""
        until(lambda: (out / "proposal.sig").exists())
        import hashlib

        digest = "sha256:" + hashlib.sha256((out / "proposal.json").read_bytes()).hexdigest()
        for hospital in self.hospitals.values():
            shelf = Shelf(hospital)
            until(lambda shelf=shelf: shelf.path(digest).exists())
            rule(hospital, shelf.read(digest), self.federated.build, by="Ada", decline=None)

    def logs(self) -> str:
        """The end of what all processes wrote: for the message of a failing test."""
        paths = [*self.folder.rglob("*.log"), *self.folder.glob("*.out")]
        texts = [(path, path.read_text(errors="replace")[-1500:]) for path in sorted(paths)]
        return "\n".join(f"== {path.relative_to(self.folder)}\n{text}" for path, text in texts)


TERMS = (
    "query.size=30", "seed=7", "training.local_epochs=2", "training.lesson_epochs=1",
    "student.model=logistic", "student.epochs=2",
)  # fmt: skip


class Going:
    """A run that goes on in another process."""

    def __init__(self, live: Live, process: "subprocess.Popen[bytes]", out: Path) -> None:
        self.live, self.process, self.out = live, process, out

    @property
    def id(self) -> str:
        return str(json.loads((self.out / "run.json").read_text())["run"])

    def ended(self, seconds: float = 240.0, code: int | None = 0) -> None:
        self.process.wait(seconds)
        said = (self.live.folder / f"{self.out.name}.out").read_text(errors="replace")
        assert code is None or self.process.returncode == code, f"{said}\n{self.live.logs()}"

    def logged(self, what: str, seconds: float = 120.0) -> None:
        """Waits until the server's log has the entry `what` of this run."""

        def there() -> bool:
            assert self.process.poll() is None, self.live.logs()
            path = self.out / "server" / "log.sqlite"
            return path.exists() and has(path, "server", f"{self.id}/{what}")

        until(there, seconds, 0.05)

    def admitted(self) -> list[set[str]]:
        """Whose answers the server took, round by round."""
        with Log(self.out / "server" / "log.sqlite", "server") as log:
            return [set(entry.body["answers"]) for entry in log.entries("answers.admitted")]

    def left_out(self, site: str) -> dict[int, str]:
        summary = json.loads((self.out / "summary.json").read_text())
        (row,) = [it for it in summary["clients"] if it["site"] == site]
        return {each["round"]: each["reason"] for each in row["left_out"]}

    def released(self, site: str) -> list[int]:
        """The rounds that a site released answers in."""
        hospital = self.live.hospitals[site]
        with Log(hospital.site / "log.sqlite", site) as log:
            told = [entry.body for entry in log.entries("release.outputs")]
        return [it["round"] for it in told if it["run"] == self.id]


def has(path: Path, party: str, key: str) -> bool:
    try:
        with Log(path, party) as log:
            return log.entry(key) is not None
    except (OSError, BadInput):
        return False


def done(finished: "subprocess.CompletedProcess[str]") -> str:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


def processes_of(*words: str) -> list[int]:
    """The processes whose command line holds all these words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
                if all(word in line for word in words):
                    found.append(int(entry.name))
    return found


def kill(folder: Path) -> None:
    """SIGKILL to every process whose command line or environment names `folder`."""
    for _ in range(3):
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if f"{folder}".encode() in words:
                    os.kill(int(entry.name), signal.SIGKILL)
        time.sleep(0.2)


def service_process(hospital: Hospital) -> int:
    (pid,) = processes_of("fedkd.deploy.service", str(hospital.folder))
    return pid


def first_words(words: Sequence[str]) -> str:
    return " ".join(words)[:200]
