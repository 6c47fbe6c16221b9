"""Runs whole federations on this machine: one, or one for each point of a sweep."""

import importlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.cli.configuration import app_root, compose, sweep, swept_keys
from fedkd.cli.lines import say
from fedkd.knowledge import BadInput

if TYPE_CHECKING:
    from fedkd.cli.run import Run
    from fedkd.report import Run as Figures


def simulate(
    overrides: Sequence[str],
    *,
    multirun: bool = False,
    resume: Path | None = None,
    config_dir: Path | None = None,
    as_json: bool = False,
    debug: bool = False,
) -> int:
    """The command: runs, prints the table (or the summary), returns the exit code."""
    if multirun:
        return _sweep(overrides, config_dir, as_json)
    run, summary = simulate_one(overrides, resume=resume, config_dir=config_dir)
    if as_json:
        print(json.dumps(summary, indent=2))
        return 0
    from fedkd.report import show

    show(summary)
    print(f"\nleft in {_short(run.folder)}: summary.json, figures/, exchange/, audit/, sites/")
    print(f"next:   {_next_command(run)}")
    return 0


def simulate_one(
    overrides: Sequence[str], *, resume: Path | None = None, config_dir: Path | None = None
) -> tuple["Run", dict[str, Any]]:
    """One run from its configuration, or on from where it was cut off; its summary."""
    from fedkd.cli.run import new_folder, open_run, prepare
    from fedkd.report import read_summary

    if resume is None:
        config = compose(overrides, config_dir)
        say("fedkd: founding the hospitals")
        load_engine()
        run = prepare(new_folder(config["out"]), config, config_dir)
    else:
        run = _resumed(resume, overrides, open_run)
        say(f"fedkd: going on with {resume}")
        load_engine()
    summary = run.folder / "summary.json"
    if not summary.exists():
        _run_engine(run)
    return run, read_summary(summary)


def simulate_in_python(overrides: Mapping[str, Any], config_dir: Path | None) -> "Figures":
    """`fedkd.simulate`: the command's work, from Python values, without its table."""
    from fedkd.report import load

    run, _ = simulate_one(list(_as_overrides("", overrides)), config_dir=config_dir)
    return load(run.folder)


def _as_overrides(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _as_overrides(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}={_as_text(value)}"


def _as_text(value: Any) -> str:
    """A Python value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_as_text, value)) + "]"
    quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return str(value) if re.fullmatch(r"[A-Za-z_][\w-]*", str(value)) else f"'{quoted}'"


def _resumed(folder: Path, overrides: Sequence[str], open_run: Any) -> "Run":
    if overrides:
        raise BadInput(
            f"overrides with --resume: {' '.join(overrides)}",
            "none: a run goes on with the configuration that it began with",
        )
    if not (folder / "config.yaml").exists():
        raise BadInput(f"no run in {folder}", "the folder of a run (it holds config.yaml)")
    if not (folder / "run.json").exists():
        raise BadInput(
            f"a run in {folder} that was cut off before its first step",
            "one that had begun",
            "remove the folder and start again",
        )
    run: Run = open_run(str(folder))
    return run


def load_engine() -> None:
    """Imports what a run trains and travels with: seconds that are no run's own (`wall_s`)."""
    root = app_root()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    # fedkd.federation.flower comes before flwr: it turns the calls home off.
    for name in ("fedkd.federation.flower", "torch", "server.app", "clients.app"):
        importlib.import_module(name)
    logging.getLogger("flwr").setLevel(logging.ERROR)  # its own lines stay out of the terminal


def _run_engine(run: "Run") -> None:
    from clients.app import app as client_app
    from server.app import app as server_app

    run_config = {"out": str(run.folder)}
    if run.config["engine"] == "ray":
        from fedkd.federation.flower.ray import run_on_ray

        run_on_ray(server_app, client_app, run.sites_dir, len(run.sites), run_config, app_root())
        return
    from fedkd.federation.flower.inprocess import run_in_process

    nodes = [{"site": str(folder)} for folder in run.sites.values()]
    run_in_process(server_app, client_app, nodes, run_config, _prepare_cohorts(run))


def _prepare_cohorts(run: "Run") -> Any:
    if run.config["clients"]["cohort"] == "off":
        return None
    from fedkd.federation.cohorts import train_together
    from fedkd.federation.flower.letters import body_of
    from fedkd.federation.participant import MOST_QUESTION_BYTES

    def prepare(round: Sequence[tuple[Mapping[str, Any], Any]]) -> None:
        bodies = {
            Path(str(config["site"])): body_of(message, MOST_QUESTION_BYTES)
            for config, message in round
        }
        train_together(bodies, run.build)

    return prepare


def _sweep(overrides: Sequence[str], config_dir: Path | None, as_json: bool) -> int:
    """One run for each point, then one table and one figure over all of them."""
    from datetime import datetime

    from fedkd.report import sweep_table

    points = sweep(overrides, config_dir)
    keys = swept_keys(overrides, config_dir)
    for point in points:
        compose(point, config_dir)  # before the first run: a wrong point late is an hour lost
    named = [text.split("=", 1)[1] for text in overrides if text.startswith("out=")]
    base = Path(named[0]) if named else Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    folders = []
    for number, point in enumerate(points, start=1):
        say(f"run {number} of {len(points)}: {' '.join(point)}")
        rest = [text for text in point if not text.startswith("out=")]
        run, _ = simulate_one([*rest, f"out={base / f'{number:03d}'}"], config_dir=config_dir)
        folders.append(run.folder)
    sweep_table(folders)
    print(f"\nswept {', '.join(keys) or 'nothing'}; left in {base}")
    return 0


def _next_command(run: "Run") -> str:
    if not run.config["baselines"]["enabled"]:
        return f"fedkd simulate data={run.config['choices']['data']} baselines=true" + _path(run)
    return f"fedkd simulate -m data={run.config['choices']['data']} seed=0,1,2" + _path(run)


def _path(run: "Run") -> str:
    path = run.config["data"].get("path")
    return f" data.path={_short(Path(path))}" if path else ""


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
