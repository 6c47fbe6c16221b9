"""Starts programs for a comparison, ends them whatever happens, and weighs them (Linux)."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

END_SECONDS = 30.0


class Processes:
    """Programs by name; each has a session of its own, and its log in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def begin(
        self,
        name: str,
        command: Sequence[object],
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Starts `command`; nothing is typed into it."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603 - our own words, no shell
                [str(word) for word in command],
                env=None if environment is None else dict(environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.running[name]

    def said(self, name: str) -> str:
        """The end of what a program wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-1500:]

    def end(self, *names: str) -> None:
        """Ends these, or all, in the opposite order of their start; all are told before waiting."""
        ending = [name for name in reversed(self.running) if not names or name in names]
        for name in ending:
            self.running[name].terminate()
        for name in ending:
            process = self.running.pop(name)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def under(roots: Sequence[int]) -> list[int]:
    """These processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int((path / "stat").read_text().rpartition(") ")[2].split()[1])
            children.setdefault(parent, []).append(int(path.name))
    found = list(roots)
    for process in found:
        found += children.get(process, [])
    return found


def mib(process: int) -> tuple[float, float] | None:
    """(PSS, RSS) in MiB: pages that several share are divided among them in PSS (proc(5))."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    sizes = {line.split(":")[0]: line.split(":")[1].split()[0] for line in lines if ":" in line}
    if "Pss" not in sizes:
        return None
    return int(sizes["Pss"]) / 1024, int(sizes["Rss"]) / 1024


def kind_of(process: int) -> str | None:
    """What a process is, by its command line; None once it is gone."""
    try:
        words = (Path("/proc") / str(process) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    for mark, kind in _KINDS.items():
        if mark in words:
            return kind
    return None


_KINDS: Mapping[str, str] = {
    "fedkd.deploy.service": "service",
    "fedkd.deploy.letterbox": "letterbox",
    "flwr-clientapp": "message process",
    "flower-superexec": "SuperExec",
    "fedkd.federation.flower.node": "SuperNode",
    "flower-supernode": "SuperNode",
    "fedkd.deploy.keeping": "supervisor",
}


class Weighed:
    """Weighs a site's processes while it is entered: the most of each kind, and of all at once."""

    def __init__(self, roots: Callable[[], Sequence[int]], seconds: float = 0.2) -> None:
        self.most: dict[str, dict[str, float]] = {}
        self._roots, self._seconds = roots, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._seconds):
            sums: dict[str, list[float]] = {"all": [0.0, 0.0]}
            for process in under(self._roots()):
                kind, size = kind_of(process), mib(process)
                if size is not None:
                    self._note(kind or "other", size)
                    sums["all"] = [sums["all"][0] + size[0], sums["all"][1] + size[1]]
            self._note("all", (sums["all"][0], sums["all"][1]))

    def _note(self, kind: str, size: tuple[float, float]) -> None:
        before = self.most.get(kind, {"pss_mib": 0.0, "rss_mib": 0.0})
        self.most[kind] = {
            "pss_mib": max(before["pss_mib"], size[0]),
            "rss_mib": max(before["rss_mib"], size[1]),
        }


def available_mib() -> float:
    """Memory that this machine can still give away."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return float("inf")
