"""docs/deploy.md, word by word: its blocks, typed in a terminal at each of three machines."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from fedkd.data.sources.heart_disease import DICTIONARY
from tests.deploy.federations import needs_nginx
from tests.deploy.ports import free_port
from tests.stories.hospitals import HEART_DISEASE, kill_all_of

pytestmark = [
    pytest.mark.long,
    needs_nginx,
    pytest.mark.skipif(not HEART_DISEASE.exists(), reason="the heart disease data are not here"),
]
GUIDE = Path(__file__).parents[2] / "docs" / "deploy.md"
BLOCK = re.compile(r"<!-- at: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
FEW = "query.size=60 training.local_epochs=2 student.model=logistic student.epochs=2"
"""What the reader need not wait for."""


class Typed(NamedTuple):
    """One line of the guide, and the machine at which it is typed."""

    machine: str
    line: str


def lines() -> Iterator[Typed]:
    """Every line of the guide's blocks that belong to a first run."""
    for machine, block in BLOCK.findall(GUIDE.read_text()):
        for line in block.strip().splitlines():
            yield Typed(machine, line)


class Terminal:
    """A person's terminal: says yes where it is asked, and keeps what it showed."""

    def __init__(self, folder: Path, line: str) -> None:
        self.line, self.shown = line, ""
        self._master, slave = pty.openpty()
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._process = subprocess.Popen(
            ["bash", "-c", line], cwd=folder, env={**environment, "FEDKD_QUIET": "1"},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def wait(self, expected: int = 0, seconds: float = 300.0) -> str:
        """Until the line has ended, as is expected; what was shown."""
        until = time.monotonic() + seconds
        while self.look():
            assert time.monotonic() < until, f"{self.line}\n{self.shown}"
        code = self._process.wait(30)
        os.close(self._master)
        assert code == expected, f"{self.line} ended with {code}\n{self.shown}"
        return self.shown

    def look(self) -> bool:
        """Takes what is shown now and answers it; False once there will be no more."""
        ready, _, _ = select.select([self._master], [], [], 0.5)
        if ready:
            try:
                self.shown += os.read(self._master, 1 << 16).decode(errors="replace")
            except OSError:  # the other side is closed
                return False
            if self.shown.endswith("[y/N]: "):
                os.write(self._master, b"y\n")
        return bool(ready) or self._process.poll() is None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)


class Reader:
    """Somebody who follows the guide; what is sent by mail is brought from machine to machine."""

    def __init__(self, folder: Path) -> None:
        self.machines = {name: folder / name for name in ("coordinator", "hospital", "officer")}
        for machine in self.machines.values():
            machine.mkdir(parents=True)
        self.told = {
            "federation.example.org:443":
                f"localhost:{free_port()} --superlink-port {free_port()}",
        }  # fmt: skip
        self.waiting: list[Terminal] = []

    def type(self, typed: Typed) -> None:
        """Types one line, with what this reader knows in place of the guide's examples."""
        self.before(typed)
        line = typed.line
        for example, own in self.told.items():
            line = line.replace(example, own)
        if "DIGEST" in line:
            line = line.replace("DIGEST", self.proposed())
        terminal = Terminal(self.machines[typed.machine], line)
        if "--wait" in line:  # it asks people, who have to answer at their own machine
            self.waiting.append(terminal)
            return
        unsigned = typed.line == "fedkd site check hospital"
        shown = terminal.wait(expected=int(unsigned))
        assert not unsigned or re.findall(r"PROBLEM +(\w+)", shown) == ["cost"], shown
        self.after(typed, shown)

    def before(self, typed: Typed) -> None:
        """Brings what came by mail, and does what the text around the block says."""
        coordinator, hospital, officer = self.machines.values()
        mail = [
            ("fedkd site check --network", coordinator / "north.invitation", hospital),
            ("fedkd server admit", hospital / "hospital" / "north.enrolment", coordinator),
            ("fedkd keys sign", hospital / "papers", officer),
            ("fedkd privacy budget install", officer / "papers", hospital),
            ("fedkd privacy budget install", officer / "dpo.pub", hospital),
        ]
        for words, what, where in mail:
            if typed.line.startswith(words):
                subprocess.run(["cp", "-r", what, where], check=True)
        if typed.line == "fedkd site check hospital":
            self.fill_in(hospital / "hospital" / "site.yaml")

    def after(self, typed: Typed, shown: str) -> None:
        if typed.line == "fedkd site init hospital":
            (found,) = set(re.findall(r"--patients (\d+)", shown))
            self.told["--patients 300"] = f"--patients {found}"
        assert ("rehearsal=true" in typed.line) <= ("REHEARSAL" in shown), shown

    def fill_in(self, path: Path) -> None:
        """Every ??? gets an answer; it is all that the guide asks to be changed."""
        text = path.read_text()
        assert "???" in text
        path.write_text(re.sub(r"\?\?\?(?=\s)", "of our own", text))

    def proposed(self) -> str:
        """The newest proposal's digest, as the hospital's list shows it."""
        until = time.monotonic() + 120
        while True:
            shown = Terminal(self.machines["hospital"], "fedkd site approve hospital").wait()
            found = re.findall(r"^(\w{12})  pending", shown, re.MULTILINE)
            if found:
                return str(found[-1])
            assert time.monotonic() < until, shown
            for terminal in self.waiting:
                terminal.look()

    def end(self) -> None:
        for terminal in self.waiting:
            terminal.kill()
        for machine in self.machines.values():
            kill_all_of(machine)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    found = Reader(tmp_path)
    schema = {k: v for k, v in yaml.safe_load(DICTIONARY.read_text()).items() if k != "card"}
    (found.machines["coordinator"] / "heart.schema.yaml").write_text(
        yaml.safe_dump(schema, sort_keys=False)
    )
    records = HEART_DISEASE / "processed.cleveland.data"
    shutil.copy(records, found.machines["hospital"] / "records.csv")
    try:
        yield found
    finally:
        found.end()


def test_the_guide_leads_from_nothing_to_a_first_run(reader: Reader) -> None:
    reader.told["--federation federation"] = f"{FEW} --federation federation"
    for typed in lines():
        reader.type(typed)
        if "--by" in typed.line:
            (run,) = reader.waiting
            assert "student" in run.wait()
    runs = reader.machines["coordinator"] / "federation" / "runs"
    _, run = sorted(runs.iterdir(), key=lambda it: it.stat().st_ctime)
    assert json.loads((run / "summary.json").read_text())["rounds"] == 5
    for command in (f"fedkd audit verify {run}", f"fedkd report build {run}"):
        Terminal(runs, command).wait()
