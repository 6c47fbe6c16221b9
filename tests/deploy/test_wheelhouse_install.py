"""A site without internet, from a wheelhouse: no index, hashes required, and then a run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fedkd.audit.officer import new_key
from fedkd.cli.wheelhouse import check, make

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = ROOT / "packaging/containers/Containerfile.site"
RUN = ["data=breast_cancer", "clients.count=2", "clients.models=[logistic]", "rounds=1",
       "query.size=50", "training.local_epochs=1", "student.epochs=1"]  # fmt: skip
QUIET = {**os.environ, "FEDKD_QUIET": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


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


@pytest.mark.deploy
def test_a_site_without_an_index_installs_by_hashes_and_runs(house, tmp_path):
    folder, key = house
    assert check(folder, key) == 0
    fedkd = installed(folder, "requirements.txt", tmp_path / "site")
    said = subprocess.run(
        [fedkd, "--version"], cwd=tmp_path, env=QUIET, capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("fedkd ")
    subprocess.run(
        [fedkd, "simulate", *RUN, f"out={tmp_path / 'run'}"], cwd=tmp_path, env=QUIET,
        capture_output=True, timeout=200, check=True,
    )  # fmt: skip
    assert "student" in json.loads((tmp_path / "run/summary.json").read_text())


@pytest.mark.deploy
def test_a_letterbox_is_installed_without_torch_and_loads(house, tmp_path):
    fedkd = installed(house[0], "letterbox.txt", tmp_path / "letterbox")
    program = (
        "import importlib.util, fedkd.deploy.letterbox; from fedkd.federation.flower import pinned;"
        "print([m for m in ('torch', 'pandas', 'opacus') if importlib.util.find_spec(m)])"
    )
    loaded = subprocess.run(
        [fedkd.with_name("python"), "-c", program], cwd=tmp_path, env=QUIET,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "[]"
    started = subprocess.run(
        [fedkd, "site", "start", tmp_path, "--only", "letterbox"], cwd=tmp_path, env=QUIET,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert started.returncode == 2
    assert "--only service" in started.stderr  # its settings come from the other half
