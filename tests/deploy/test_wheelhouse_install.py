"""Sites without internet, from a wheelhouse: no index, hashes required, and then a rehearsal."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fedkd.audit.officer import new_key
from fedkd.cli.wheelhouse import check, make
from tests.deploy.federations import needs_nginx
from tests.deploy.ports import free_port
from tests.deploy.test_founding import AMERICAN, SCHEMA
from tests.stories.hospitals import kill_all_of

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]
CONTAINER = ROOT / "packaging/containers/Containerfile.site"
RUN = ["data=breast_cancer", "clients.count=2", "clients.models=[logistic]", "rounds=1",
       "query.size=50", "training.local_epochs=1", "student.epochs=1"]  # fmt: skip
REHEARSAL = ["rehearsal=true", "mechanism=dp_training", "rounds=1", "query.size=50",
             "training.local_epochs=1", "student.model=logistic", "student.epochs=1"]  # fmt: skip
QUIET = {**os.environ, "FEDKD_QUIET": "1", "OMP_NUM_THREADS": "1"}


def index_answers(folder):
    asked = ["download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", str(folder)]
    words = [sys.executable, "-m", "pip", *asked, "rfc8785==0.1.4"]
    return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The wheelhouse of this checkout, made once, and its signer's verifier key."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    if not index_answers(folder):
        pytest.skip("pip's index is not reachable from here")
    key = new_key(folder / "coordinator.key", "Coordinator")
    assert make(folder / "house", folder / "coordinator.key", ()) == 0
    return folder / "house", key.verifier().text()


def installed(house, list_, folder):
    """A fresh environment with what the container file installs by this list."""
    command = re.search(rf"pip (install .*{list_})$", CONTAINER.read_text(), re.MULTILINE)
    assert command is not None
    words = shlex.split(command[1].replace("/wheelhouse", str(house)))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--quiet"]
    subprocess.run(
        [*pip, *words, "--no-compile"], env={**QUIET, "PIP_CONFIG_FILE": os.devnull}, check=True
    )
    return folder / "bin" / "fedkd"


@pytest.fixture(scope="module")
def whole(house, tmp_path_factory):
    """What a coordinator or a site installs: its `fedkd`."""
    return installed(house[0], "requirements.txt", tmp_path_factory.mktemp("site") / "opt")


@pytest.fixture(scope="module")
def small(house, tmp_path_factory):
    """What the machine that faces the network installs."""
    return installed(house[0], "letterbox.txt", tmp_path_factory.mktemp("letterbox") / "opt")


def typed(fedkd, *words, where, expected=(0,)):
    """What a program of an installed environment prints."""
    done = subprocess.run(
        [fedkd, *map(str, words)], cwd=where, env=QUIET, capture_output=True, text=True,
        timeout=300, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode in expected, done.stdout + done.stderr
    return done.stdout


def test_a_site_without_an_index_installs_by_hashes_and_runs(house, whole, tmp_path):
    folder, key = house
    assert check(folder, key) == 0
    assert typed(whole, "--version", where=tmp_path).startswith("fedkd ")
    typed(whole, "simulate", *RUN, f"out={tmp_path / 'run'}", where=tmp_path)
    assert "student" in json.loads((tmp_path / "run/summary.json").read_text())


def test_a_letterbox_is_installed_without_torch_and_loads(small, tmp_path):
    program = (
        "import importlib.util, fedkd.deploy.letterbox; from fedkd.federation.flower import pinned;"
        "print([m for m in ('torch', 'pandas', 'opacus') if importlib.util.find_spec(m)])"
    )
    loaded = subprocess.run(
        [small.with_name("python"), "-c", program], cwd=tmp_path, env=QUIET,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "[]"
    started = subprocess.run(
        [small, "site", "start", tmp_path, "--only", "letterbox"], cwd=tmp_path, env=QUIET,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert started.returncode == 2
    assert "--only service" in started.stderr  # its settings come from the other half


def joined(fedkd, where, name):
    """A hospital that described its records, was founded, and is admitted."""
    folder = where / name
    typed(
        fedkd, "server", "invite", name, "--dir", "federation", "--out", f"{name}.in", where=where
    )
    typed(fedkd, "site", "join", f"{name}.in", "--dir", folder, where=where)
    typed(fedkd, "site", "init", folder, "--data", "records.csv", where=where)
    yaml = folder / "site.yaml"
    yaml.write_text(re.sub(r"\?\?\?(?=\s)", "of our own", yaml.read_text()))
    typed(fedkd, "site", "init", folder, where=where)
    enrolment = folder / f"{name}.enrolment"
    typed(fedkd, "server", "admit", enrolment, "--dir", "federation", "--yes", where=where)
    return folder


def wait_until_online(fedkd, where, names):
    """Until the coordinator sees these hospitals."""
    end = time.monotonic() + 240
    while True:
        told = json.loads(typed(fedkd, "server", "status", "federation", "--json", where=where))
        if set(names) <= {it["site"] for it in told["sites"] if it["connection"] == "online"}:
            return
        assert time.monotonic() < end, told
        time.sleep(0.5)


def program_of(state, name):
    """The Python that runs one of a supervisor's processes."""
    pid = json.loads(state.read_text())[name]["pid"]
    return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode())


@needs_nginx
def test_two_hospitals_rehearse_with_nothing_but_what_was_installed(whole, small, tmp_path):
    """The second one's letterbox is the small environment's, as on a machine of its own."""
    (tmp_path / "records.csv").write_text(AMERICAN)
    (tmp_path / "records.csv").chmod(0o600)
    (tmp_path / "records.schema.yaml").write_text(SCHEMA)
    words = ["server", "init", "federation", "--name", "heart", "--schema", "records.schema.yaml"]
    words += ["--address", f"localhost:{free_port()}", "--superlink-port", free_port()]
    folders = [tmp_path / name for name in ("north", "south")]
    try:
        typed(whole, *words, where=tmp_path)
        typed(whole, "server", "start", "federation", "--detach", where=tmp_path)
        north, south = (joined(whole, tmp_path, it.name) for it in folders)
        start = ["site", "start", "--detach"]
        typed(whole, *start, north, where=tmp_path)
        typed(whole, *start, south, "--only", "service", where=tmp_path)
        typed(small, *start, south, "--only", "letterbox", where=tmp_path)
        wait_until_online(whole, tmp_path, ("north", "south"))
        said = typed(whole, "run", *REHEARSAL, "--federation", "federation", where=tmp_path)
        assert "REHEARSAL" in said
        of_letterbox = south / "letterbox" / "home" / "state.json"
        assert program_of(of_letterbox, "node").parent == small.parent
        for state in (north / "run" / "state.json", south / "run" / "state.json"):
            assert program_of(state, "service").parent == whole.parent
        (run,) = (tmp_path / "federation" / "runs").iterdir()
        summary = json.loads((run / "summary.json").read_text())
        assert [(it["site"], it["messages"] > 0) for it in summary["clients"]] == [
            ("north", True), ("south", True),
        ]  # fmt: skip
        typed(whole, "audit", "verify", run, where=tmp_path)
        for folder in folders:
            typed(whole, "site", "stop", folder, where=tmp_path)
    finally:
        with suppress(AssertionError):
            typed(whole, "server", "stop", "federation", where=tmp_path)
        for folder in (*folders, tmp_path / "federation"):
            kill_all_of(folder)
