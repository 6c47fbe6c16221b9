"""A hospital that is let in and lies: a run through real nodes goes on without it, and says so."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.keeping import command
from fedkd.deploy.preparing import Whose
from fedkd.deploy.server_folder import ServerFolder
from fedkd.federation.exchange import Exchange
from fedkd.knowledge import Answers, Array
from fedkd.knowledge.aggregate.median import median
from tests.deploy.federations import coordinator, fedkd, needs_nginx
from tests.deploy.hostile_site import ENORMOUS, LIES, OTHER, SITE
from tests.deploy.services import until
from tests.deploy.test_faults_at_the_gate import connection, joined
from tests.deploy.test_founding import AMERICAN, SCHEMA, Made

pytestmark = [pytest.mark.deploy, needs_nginx]
HONEST = (OTHER, "bob")
QUERIES = 20
BASE_BYTES = 480 << 20
"""What the server's part needs by itself, torch and Flower's runtime above all."""
HOSTILE = """
import os, sys
from dataclasses import replace
from pathlib import Path
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.preparing import Whose
from fedkd.deploy.starting import programs
from fedkd.deploy.supervising import Supervisor
hospital = Hospital(Path(sys.argv[1]))
folders = {"service": hospital.folder, "letterbox": hospital.letterbox}
hostile = {name: [sys.executable, "-m", "tests.deploy.hostile_site", name, str(folder)]
           for name, folder in folders.items()}
here = {"PYTHONPATH": os.getcwd()}
run = [replace(it, command=hostile.get(it.name, it.command), folder=Path.cwd(),
               environment={**it.environment, **here}) for it in programs(hospital, Whose())]
sys.exit(Supervisor(hospital.run, run).run())
"""
"""The supervisor of `fedkd site start`; of its programs Flower's node alone is what it was."""


@contextmanager
def running(hospital: Hospital) -> Iterator[None]:
    """A hospital's processes: what `fedkd site start` becomes, or an attacker's."""
    words = command(hospital, Whose())
    if hospital.name == SITE:
        words = [sys.executable, "-c", HOSTILE, str(hospital.folder)]
    with (hospital.run / "start.log").open("ab") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(120)


@dataclass
class Watched:
    """The most memory that Flower's ServerApp had, in bytes, looked up as it runs."""

    server: ServerFolder
    most: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        while not self.ended.wait(0.2):
            for path in Path("/proc").glob("[0-9]*"):
                self.most = max(self.most, self._of(path))

    def _of(self, path: Path) -> int:
        try:
            if b"flwr-serverapp" not in (path / "cmdline").read_bytes():
                return 0
            if f"{self.server.folder}".encode() not in (path / "environ").read_bytes():
                return 0
            lines = (path / "status").read_text().splitlines()
        except OSError:
            return 0
        peak = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
        return int(peak.split()[1]) << 10


@dataclass(frozen=True)
class Ran:
    folder: Path
    peak: int

    def entries(self, type: str) -> list[dict[str, Any]]:
        with Log(self.folder / "server" / "log.sqlite", "server") as log:
            return [dict(entry.body) for entry in log.entries(type)]

    def left_out(self) -> dict[str, dict[str, str]]:
        """By lie, who was left out, and why."""
        return {
            lie: entry["left_out"]
            for lie, entry in zip(LIES, self.entries("answers.admitted"), strict=True)
        }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """One rehearsal of as many rounds as there are lies."""
    place = tmp_path_factory.mktemp("hostile")
    server = coordinator(place, schema=SCHEMA)
    begun = fedkd("server", "start", server.folder, "--detach")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    try:
        with ExitStack() as stack:
            for site in (*HONEST, SITE):
                hospital = joined(server, site, place / site)
                made = Made.__new__(Made)
                made.hospital = hospital
                made.found(made.typed(AMERICAN, mechanism="none"))
                stack.enter_context(running(hospital))
            until(lambda: {connection(server, site) for site in (*HONEST, SITE)} == {"online"})
            watched = Watched(server)
            threading.Thread(target=watched.look, daemon=True).start()
            out = place / "run"
            done = fedkd(
                "run", "--federation", server.folder, "rehearsal=true", "query=synthetic",
                "generator=dictionary", f"query.size={QUERIES}", f"rounds={len(LIES)}",
                "student.model=logistic", "training.local_epochs=1", "training.lesson_epochs=1",
                "student.epochs=1", "mechanism=none", "aggregate=mean", f"out={out}", seconds=900,
            )  # fmt: skip
            watched.ended.set()
            assert done.returncode == 0, done.stdout + done.stderr
            yield Ran(out, watched.most)
    finally:
        fedkd("server", "stop", server.folder)


WHY = {
    "a pickle": "not a message of this protocol version",
    "cut short": "an array is longer than the message",
    "announced, not sent": "an array is longer than the message",
    "not a number": "an answer holds numbers that are no distributions",
    "negative": "an answer holds numbers that are no distributions",
    "off the simplex": "an answer holds numbers that are no distributions",
    "one row more": f"an answer is not float32 of shape [{QUERIES}, 2]",
    "enormous": "found more than the",
    "in another's name": "an answer for another site",
    "the first round's": "an answer for another round",
    "ahead of the server": "it says that it cosigned more of the server's log than there is",
}


def test_the_run_goes_on_and_the_log_says_who_was_left_out_and_why(ran: Ran) -> None:
    left_out = ran.left_out()
    assert list(left_out) == list(LIES)
    for lie, who in left_out.items():
        if lie in WHY:
            assert list(who) == [SITE], lie
            assert who[SITE].startswith(WHY[lie]), lie
        else:
            assert who == {}, lie
    for entry in ran.entries("aggregate.computed"):
        heard = set(entry["inputs"])
        assert heard == {*HONEST} | ({SITE} - set(entry["left_out"]))
    clients = json.loads((ran.folder / "summary.json").read_text())["clients"]
    noted = {one["site"]: [note["reason"] for note in one["left_out"]] for one in clients}
    assert len(noted[SITE]) == len(WHY)
    assert [noted[site] for site in HONEST] == [[], []]


def test_an_enormous_answer_costs_the_server_little_more_than_its_bytes(ran: Ran) -> None:
    """It came whole: Flower hands over a message as one. Nothing of it is copied or decoded."""
    assert 0 < ran.peak < BASE_BYTES + 4 * ENORMOUS


def test_poison_is_believed_by_the_mean_and_withstood_by_the_median(ran: Ran) -> None:
    """As the threat model says: a liar who is well formed is heard. One of three, near-IID."""
    place = list(LIES).index("surely wrong")
    admitted, combined = (
        ran.entries(type)[place] for type in ("answers.admitted", "aggregate.computed")
    )
    kept = Exchange(ran.folder / "exchange")
    said = {site: kept.distributions(named) for site, named in admitted["answers"].items()}
    assert set(said) == {*HONEST, SITE}
    consensus = kept.distributions(combined["output"]).probs
    honest = np.mean([said[site].probs for site in HONEST], axis=0)
    np.testing.assert_allclose(consensus, (2 * honest + said[SITE].probs) / 3, atol=1e-6)
    assert distance(consensus, honest) > 0.1  # the poison is in the lesson of everybody
    rule = median()
    _, robust = rule.combine(rule.init(), Answers.of(said))
    assert distance(robust.common.probs, honest) < distance(consensus, honest)
    sure = np.all([said[site].probs.argmax(1) == honest.argmax(1) for site in HONEST], axis=0)
    assert sure.any()
    assert (robust.common.probs.argmax(1) == honest.argmax(1))[sure].all()


def distance(one: Array, other: Array) -> float:
    """Mean total variation of two answers' rows."""
    return float(np.abs(one - other).sum(axis=1).mean() / 2)


def test_a_closed_run_has_its_student_and_its_logs_hold(ran: Ran) -> None:
    assert (ran.folder / "student.safetensors").exists()
    verified = fedkd("audit", "verify", ran.folder)
    assert "CONSISTENT" in verified.stdout, verified.stdout + verified.stderr
