"""The same two app objects on three engines, and the same student to the last bit on each."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.cli.configuration import compose
from fedkd.cli.run import prepare
from fedkd.cli.simulate import simulate_one
from tests.deploy.ports import free_port
from tests.stories.deployment import BIN, ROOT, Deployment
from tests.stories.forked import forked
from tests.stories.test_a_deployment_calls_nobody import heard, needs_namespace
from tests.stories.test_no_calls_home import RUN, calls
from tests.stories.test_no_calls_home import TINY as CALLING

FOUR = [
    "data=digits",
    "data.records=160",
    "data.test_size=100",
    "query.size=40",
    "clients.count=4",
    "clients.models=[mlp,cnn,random_forest,gradient_boosting]",
    "rounds=2",
    "training.local_epochs=2",
    "training.lesson_epochs=1",
    "student.epochs=2",
]
TWO = [word for word in FOUR if not word.startswith("clients")] + [
    "clients.count=2",
    "clients.models=[cnn,random_forest]",
]


def said(run: Path) -> dict[str, Any]:
    """What must not depend on the engine."""
    summary = json.loads((run / "summary.json").read_text())
    with Log(run / "server" / "log.sqlite", "server") as log:
        answers = [entry.body["answers"] for entry in log.entries("answers.admitted")]
    return {
        "student": (run / "student.safetensors").read_bytes(),
        "figures": summary["student"],
        "clients": summary["clients"],
        "bytes": (summary["bytes_up"], summary["bytes_down"]),
        "answers": answers,
    }


def in_process(tmp_path: Path, overrides: list[str]) -> dict[str, Any]:
    run = tmp_path / "in-process"
    assert forked(lambda: simulate_one([*overrides, f"out={run}"])) == 0
    return said(run)


@pytest.mark.slow
def test_ray_gives_the_same_student_and_leaves_no_process_behind(tmp_path: Path) -> None:
    run = tmp_path / "ray"
    assert forked(lambda: simulate_one([*FOUR, "engine=ray", f"out={run}"])) == 0
    assert said(run) == in_process(tmp_path, FOUR)
    assert left_behind(str(run)) == []


@pytest.mark.long
def test_a_deployment_over_tls_gives_the_same_student(tmp_path: Path) -> None:
    run, folder = tmp_path / "deployed", tmp_path / "deployment"
    run.mkdir()
    folder.mkdir()
    prepared = prepare(run, compose(TWO))  # a message costs seconds there, whatever the model
    with Deployment(folder, prepared.sites) as deployment:
        deployment.run(run)
        finished = deployment.wait_for(run / "summary.json")
        assert finished, deployment.logs()
    assert said(run) == in_process(tmp_path, TWO)
    assert left_behind(str(folder)) == []


@pytest.mark.long
def test_flwr_run_gives_the_same_student(tmp_path: Path) -> None:
    run, home = tmp_path / "run", tmp_path / "home"
    overrides = " ".join(TWO)
    env = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port := free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(port),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    try:
        subprocess.run(
            [str(BIN / "flwr"), "run", str(ROOT), "--stream",
             "--federation-config", "num-supernodes=2 client-resources-num-cpus=1",
             "--run-config", f'out="{run}" overrides="{overrides}"'],
            env=env, cwd=tmp_path, capture_output=True, timeout=240, check=True,
        )  # fmt: skip
        until = time.monotonic() + 30
        while not (run / "summary.json").exists() and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        end_all_of(f"FLWR_HOME={home}")  # Flower leaves a SuperLink behind: it is not ours to leave
    ours, theirs = said(run), in_process(tmp_path, TWO)
    assert ours == theirs


# Here and not beside their like: what starts Ray stays in one file, and so in one process.
@pytest.mark.slow
def test_a_run_on_ray_calls_nobody_by_python(tmp_path: Path) -> None:
    assert calls(tmp_path, RUN, *CALLING, "engine=ray", f"out={tmp_path / 'run'}") == []


@pytest.mark.slow
@needs_namespace
def test_a_run_on_ray_calls_nobody_in_a_network_of_its_own(tmp_path: Path) -> None:
    """Ray's own processes are no Python: here every packet is seen."""
    assert heard(tmp_path, "ray") == []


@pytest.mark.slow
@needs_namespace
def test_ray_as_it_comes_and_a_worker_of_it_are_heard(tmp_path: Path) -> None:
    said = " ".join(heard(tmp_path, "ray-probe"))
    assert "192.0.2.8 port 443" in said
    assert "169.254.169.254 port 80" in said  # whom it asks in which cloud it is


def end_all_of(setting: str) -> None:
    """Ends every process that was started with `setting` in its environment."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if setting.encode() in (path / "environ").read_bytes().split(b"\0"):
                os.kill(int(path.name), signal.SIGKILL)
        except (OSError, ProcessLookupError):
            continue


def left_behind(mark: str) -> list[str]:
    """Command lines of processes that still run and name `mark`, or are Ray's."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,stat,args"], check=True, capture_output=True, text=True
    )
    return [
        line
        for line in listed.stdout.splitlines()
        if (mark in line or "raylet" in line) and " Z" not in line and str(os.getpid()) not in line
    ]
