"""Runs the same two apps on Flower's simulation engine, on Ray: many clients, several cores."""

import importlib.util
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import ServerApp

from fedkd.federation.flower import QUIET
from fedkd.knowledge import BadInput

RUN_VARIABLE = "FEDKD_SIMULATED_RUN"
"""Tells the workers of a simulation which run's sites they play."""
_MOST_TEMP: Final = 39
"""Bytes: a socket's address has 107 on Linux, and Ray puts 68 behind its temporary folder's."""


def run_on_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    run_folder: Path,
    count: int,
    run_config: Mapping[str, Any],
    app_root: Path,
) -> None:
    """Runs a ServerApp to its end on Ray, one actor a core; Ray is gone when this returns."""
    if importlib.util.find_spec("ray") is None:
        raise BadInput("no Ray", "Flower's simulation engine", "install it: pip install fedkd[ray]")
    # A private door of flwr 1.41: the public one is deprecated, and takes no configuration.
    import ray
    from flwr.common.constant import RUN_ID_NUM_BYTES, TASK_ID_NUM_BYTES
    from flwr.server.superlink.linkstate.utils import generate_rand_int_from_bytes
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supercore.telemetry import EventType

    run = Run.create_empty(generate_rand_int_from_bytes(RUN_ID_NUM_BYTES))
    run.primary_task_id = generate_rand_int_from_bytes(TASK_ID_NUM_BYTES)
    run.federation_id = NOOP_FEDERATION_ID
    TaskIdentity.task_id, TaskIdentity.run_id = 1, run.run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    context = Context(run.run_id, SUPERLINK_NODE_ID, {}, RecordDict(), dict(run_config))
    logging.getLogger("flwr").setLevel(logging.ERROR)
    paths = [str(app_root), *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = {**QUIET, "PYTHONPATH": os.pathsep.join(paths), RUN_VARIABLE: str(run_folder)}
    changed |= short_temp()
    before = {name: os.environ.get(name) for name in [*changed, "HOME"]}
    os.environ.update(changed)
    home = Path(tempfile.mkdtemp(prefix="fedkd-ray-"))
    try:
        # Ray 2.55 asks the addresses of three cloud providers who it is, its usage reports being
        # off; not if it finds this file, which it looks for in the user's home.
        (home / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")
        os.environ["HOME"] = str(home)
        _run_simulation(
            num_supernodes=count,
            exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
            client_app=client_app,
            server_app=server_app,
            server_app_context=context,
            run=run,
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": {
                    "num_cpus": os.cpu_count() or 1,
                    "include_dashboard": False,
                    "logging_level": logging.ERROR,
                    "log_to_driver": False,
                },
            },
        )
    finally:
        ray.shutdown()
        _remove(home)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def short_temp() -> dict[str, str]:
    """What tells Ray of a shorter place for its sockets than TMPDIR, where that is too long."""
    if "RAY_TMPDIR" in os.environ or len(os.fsencode(os.environ.get("TMPDIR", ""))) <= _MOST_TEMP:
        return {}
    return {"RAY_TMPDIR": "/tmp"}  # noqa: S108 - Ray's own choice where there is no TMPDIR


def _remove(folder: Path) -> None:
    """Takes `folder` away; Ray's processes may still write into it while they end."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
