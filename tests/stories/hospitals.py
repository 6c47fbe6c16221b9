"""Four hospitals and a coordinator as people would run them: commands, files sent by hand."""

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import yaml

from fedkd.cli.run import dataset_of, open_run
from fedkd.data.sources.heart_disease import DICTIONARY, HOSPITALS
from fedkd.federation.flower.node import HEARTBEAT_VARIABLE
from tests.deploy.ports import free_port

HEART_DISEASE = Path(__file__).parents[3] / "shared" / "data" / "heart-disease"
SEED = 11
SIMULATED = ("data=heart_disease", f"data.path={HEART_DISEASE}", f"seed={SEED}")
TERMS = (
    "rounds=3", "query.size=200", "training.local_epochs=6", "training.lesson_epochs=2",
    "training.batch=32", "student.model=mlp", "student.epochs=6", "student.batch=32",
    "student.learning_rate=0.003",
)  # fmt: skip
"""What one run asks, simulated or deployed."""


SHORT = {HEARTBEAT_VARIABLE: "10"}
"""The least that Flower takes: a node that was killed is let in again after two of them."""


def fedkd(
    *words: object,
    seconds: float = 240.0,
    check: bool = True,
    more: Mapping[str, str] | None = None,
) -> str:
    """What a command prints; it has to succeed. `more` is added to its environment."""
    done = subprocess.run(
        [sys.executable, "-m", "fedkd", *map(str, words)],
        capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False,
        env={**os.environ, **(more or {})},
    )  # fmt: skip
    said = done.stdout + done.stderr
    if check:
        assert done.returncode == 0, f"fedkd {' '.join(map(str, words))}\n{said}"
    return said


def told(*words: object) -> Any:
    """What a reading command says with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "fedkd", *map(str, words), "--json"],
        capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def simulated(folder: Path, *overrides: str) -> Path:
    """A finished simulation of the four hospitals."""
    fedkd("simulate", *SIMULATED, *TERMS, *overrides, f"out={folder}", seconds=600)
    return folder


def rows_dealt(run: Path) -> dict[str, list[str]]:
    """The lines of the hospitals' files that a simulation dealt to each, in its order."""
    lines = [
        line
        for hospital in HOSPITALS
        for line in (HEART_DISEASE / f"processed.{hospital}.data").read_text().splitlines()
        if line.strip()
    ]
    opened = open_run(str(run))
    whole, cut = dataset_of(opened.config["data"]).records, opened.cut()
    assert len(whole) == len(lines)
    places: dict[bytes, list[int]] = {}
    for number, (row, label) in enumerate(zip(whole.inputs, whole.labels, strict=True)):
        places.setdefault(row.tobytes() + label.tobytes(), []).append(number)
    private = cut.private
    return {
        site: [
            lines[places[private.inputs[at].tobytes() + private.labels[at].tobytes()].pop()]
            for at in rows
        ]
        for site, rows in cut.sites.items()
    }


class Hospitals:
    """A federation on this machine's loopback; entered, its coordinator runs, left, nothing does.

    Everything is done by commands; `say_yes` is the people at the hospitals.
    """

    terms: Sequence[str] = TERMS

    def __init__(
        self,
        folder: Path,
        rows: Mapping[str, Sequence[str]],
        *,
        mechanism: Any = "none",
        paper: Mapping[str, Any],
        policy: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.federation, self.keys = folder / "coordinator", folder / "officer.key"
        self.rows, self.mechanism, self.paper = rows, mechanism, paper
        self.policy, self.more = policy or {}, more or {}
        self.sites = {site: folder / site for site in sorted(rows)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Hospitals":
        try:
            self._found()
            at_once(self.start, self.sites)
            self.connected(*self.sites)
        except BaseException:
            print(self.logs())
            self._end()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            print(self.logs())
        self._end()

    def start_server(self) -> None:
        """The coordinator's SuperLink and proxy."""
        fedkd("server", "start", self.federation, "--detach")

    def start(self, site: str) -> None:
        """A hospital's service and letterbox."""
        fedkd("site", "start", self.sites[site], "--detach", more=SHORT)

    def connected(self, *sites: str, seconds: float = 300.0) -> None:
        """Waits until the coordinator sees these sites connected."""
        until = time.monotonic() + seconds
        while True:
            there = self.connections()
            if all(there[site] == "online" for site in sites):
                return
            assert time.monotonic() < until, f"{there}\n{self.logs()}"
            time.sleep(0.2)

    def connections(self) -> dict[str, str | None]:
        """By site, what the coordinator says of its connection; None: it does not know just now."""
        status = told("server", "status", self.federation)
        return {one["site"]: one["connection"] for one in status["sites"]}

    def run(self, *overrides: str, seconds: float = 600.0, resume: Path | None = None) -> Path:
        """A whole run; the people at the hospitals say yes once they are asked."""
        process, out = self.begin(*overrides, resume=resume)
        if resume is None and "rehearsal=true" not in overrides:
            self.say_yes(out)
        return self.ended(process, out, seconds=seconds)

    def cut_off_in_round(self, number: int, *overrides: str, site: str) -> Path:
        """A run that loses a site and the server in round `number`; then both are back."""
        process, out = self.begin(*overrides)
        self.say_yes(out)
        log, until = out / "server" / "log.sqlite", time.monotonic() + 300
        while not logged(log, f"/{number}/posed"):
            assert process.poll() is None, self.logs()
            assert time.monotonic() < until, self.logs()
            time.sleep(0.05)
        kill_all_of(self.federation, self.sites[site])  # at once: no round goes on meanwhile
        process.wait(timeout=120)
        assert not (out / "student.safetensors").exists()
        self.start_server()
        self.start(site)
        self.connected(*self.sites)
        return out

    def begin(
        self, *overrides: str, resume: Path | None = None
    ) -> "tuple[subprocess.Popen[bytes], Path]":
        """Starts `fedkd run`; returns its process and the run's folder."""
        if resume is not None:
            words: list[object] = ["run", "--resume", resume, "--federation", self.federation]
            out = resume
        else:
            out = self.federation / "runs" / f"run-{len(list(self._runs()))}"
            words = ["run", "--federation", self.federation, *self.terms, *overrides, f"out={out}"]
        log = (self.folder / f"{out.name}.out").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "fedkd", *map(str, words)],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        log.close()
        self._processes.append(process)
        return process, out

    def evaluated(self, run: Path, *words: object, seconds: float = 600.0) -> dict[str, Any]:
        """What `fedkd evaluate` keeps; people say yes, with the model that was sent to them."""
        log = (self.folder / f"{run.name}.evaluation.out").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "fedkd", "evaluate", str(run), *map(str, words)],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        log.close()
        self._processes.append(process)
        until = time.monotonic() + seconds
        while not (papers := list(run.glob("evaluations/*/proposal.json"))):
            assert process.poll() is None, self.logs()
            assert time.monotonic() < until, self.logs()
            time.sleep(0.2)
        self.say_yes(papers[0].parent, "--model", run / "student.safetensors")
        process.wait(timeout=seconds)
        assert process.returncode == 0, self.logs()
        told: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
        return told

    def _runs(self) -> list[Path]:
        folder = self.federation / "runs"
        return sorted(folder.iterdir()) if folder.exists() else []

    def say_yes(self, out: Path, *words: object, seconds: float = 300.0) -> None:
        """At each hospital a person approves, with these words, once the proposal is there."""
        until, proposal = time.monotonic() + seconds, out / "proposal.json"

        def says_yes(site: str) -> None:
            while not (proposal.exists() and (path := self._on_the_shelf(site, proposal)).exists()):
                assert time.monotonic() < until, f"no proposal at {site}\n{self.logs()}"
                time.sleep(0.3)
            said = (*words, "--yes", "--by", "Ada Example")
            fedkd("site", "approve", self.sites[site], path.stem, *said)

        at_once(says_yes, self.sites)

    def _on_the_shelf(self, site: str, proposal: Path) -> Path:
        digest = hashlib.sha256(proposal.read_bytes()).hexdigest()
        return self.sites[site] / "proposals" / f"{digest}.json"

    def ended(
        self, process: "subprocess.Popen[bytes]", out: Path, *, seconds: float = 1200.0
    ) -> Path:
        """Waits for a run to end well."""
        process.wait(timeout=seconds)
        said = (self.folder / f"{out.name}.out").read_text(errors="replace")
        assert process.returncode == 0, f"{said}\n{self.logs()}"
        return out

    def kill_site(self, site: str) -> None:
        """Ends everything that runs for a hospital, as kill -9 does."""
        kill_all_of(self.sites[site])

    def kill_server(self) -> None:
        """Ends everything that runs for the coordinator, as kill -9 does."""
        kill_all_of(self.federation)

    def logs(self) -> str:
        """The end of what all processes wrote: for the message of a failing test."""
        paths = [*self.folder.rglob("*.log"), *self.folder.glob("*.out")]
        texts = [(path, path.read_text(errors="replace")[-3000:]) for path in sorted(paths)]
        errors = self.folder.glob("*/*/errors.txt")
        texts += [(path, path.read_text(errors="replace")[-3000:]) for path in errors]
        return "\n".join(f"== {path.relative_to(self.folder)}\n{text}" for path, text in texts)

    def _found(self) -> None:
        """The coordinator runs, and every hospital has joined and is admitted."""
        self._coordinator()
        at_once(self._joined, self.sites)

    def _coordinator(self) -> None:
        self.folder.mkdir(parents=True)
        schema = self.folder / "heart.schema.yaml"
        typed = yaml.safe_load(DICTIONARY.read_text())
        schema.write_text(
            yaml.safe_dump({k: v for k, v in typed.items() if k != "card"}, sort_keys=False)
        )
        fedkd(
            "server", "init", self.federation, "--name", "Hearts",
            "--address", f"localhost:{free_port()}", "--schema", schema,
            "--superlink-port", free_port(),
        )  # fmt: skip
        self._officer()
        self.start_server()

    def _officer(self) -> None:
        made = told("keys", "new", self.keys, "--name", "Ada Example")
        self.keys.with_suffix(".vkey").write_text(made["vkey"] + "\n")

    def _joined(self, site: str) -> None:
        folder, by_hand = self.sites[site], self.folder / "by-hand"
        by_hand.mkdir(exist_ok=True)
        invitation = by_hand / f"{site}.invitation"
        fedkd("server", "invite", site, "--dir", self.federation, "--out", invitation)
        fedkd("site", "join", invitation, "--dir", folder)
        records = folder / "records.csv"
        records.write_text("\n".join(self.rows[site]) + "\n")
        fedkd("site", "init", folder, "--data", records)
        self._site_yaml(site)
        fedkd("site", "init", folder)
        self._paper(site)
        enrolment = next(folder.glob("*.enrolment"))
        fedkd("server", "admit", enrolment, "--dir", self.federation, "--yes")

    def _site_yaml(self, site: str) -> None:
        path = self.sites[site] / "site.yaml"
        typed = yaml.safe_load(path.read_text())
        typed["card"] = {
            "name": "heart-disease", "version": "1", "modality": "table", "licence": "CC BY 4.0",
            "legal_basis": "published research data", "origin": site,
        }  # fmt: skip
        typed["mechanism"], typed["validation"], typed["model"] = self.mechanism, 0.1, "mlp"
        typed["training"] = {"learning_rate": 0.003, "weight_decay": 0.01, "steps": "records"}
        typed["policy"] = {**typed["policy"], "smallest_training_set": 20, **self.policy}
        typed |= self.more
        if self.mechanism == "none":
            typed["seed"] = SEED
        path.write_text(yaml.safe_dump(typed, sort_keys=False))

    def _paper(self, site: str) -> None:
        papers = self.folder / "by-hand" / site
        fedkd(
            "privacy", "budget", "new", papers, "--population", site, "--patients",
            len(self.rows[site]),
        )  # fmt: skip
        path = papers / "budget.yaml"
        typed = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**typed, **self.paper}, sort_keys=False))
        fedkd("keys", "sign", path, "--key", self.keys)
        fedkd(
            "privacy", "budget", "install", self.sites[site] / "site", path,
            "--officer", self.keys.with_suffix(".vkey"),
        )  # fmt: skip

    def _end(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        kill_all_of(*self.sites.values(), self.federation)


def at_once(what: Callable[[str], None], sites: Iterable[str]) -> None:
    """The same at each hospital, two at a time: people do not wait for each other."""
    with ThreadPoolExecutor(2) as people:
        list(people.map(what, sites))


def logged(log: Path, ending: str) -> bool:
    """Whether a party's log, which may be written to, has an entry whose key ends like this."""
    if not log.exists():
        return False
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as read:
        rows = read.execute("SELECT key FROM entries").fetchall()
        return any(str(key).endswith(ending) for (key,) in rows)
    return False


def children_of(process: Path) -> list[str]:
    """The process ids of what `process`, a folder of /proc, has started."""
    return (process / "task" / process.name / "children").read_text().split()


def kill_all_of(*folders: Path) -> None:
    """SIGKILL to every process whose command line or environment names one of these `folders`, and
    its children; returns once none is left.

    Those of nginx name nothing, and would hold the port of a master that was killed. One that waits
    for a disk lives on for a while, with its locks; one that was forked meanwhile is found later.
    """
    marks, seen_none, until = [f"{folder}".encode() for folder in folders], 0, time.monotonic() + 60
    while seen_none < 2:
        left = [pid for process in Path("/proc").iterdir() for pid in _named_in(process, marks)]
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        seen_none = 0 if left else seen_none + 1
        assert time.monotonic() < until, f"{left} cannot be killed"
        time.sleep(0.1)


def _named_in(process: Path, marks: Sequence[bytes]) -> list[int]:
    """`process`, a folder of /proc, and its children where it is another one that names a mark."""
    if not process.name.isdigit() or int(process.name) == os.getpid():
        return []
    with suppress(OSError):
        words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        if any(mark in words for mark in marks):  # none is left of what has ended
            return [int(pid) for pid in (process.name, *children_of(process))]
    return []
