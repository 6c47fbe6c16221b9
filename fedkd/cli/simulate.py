"""Runs whole federations on this machine: one, or one for each point of a sweep."""

import importlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.cli.configuration import (
    app_root,
    compose,
    read_config,
    sweep,
    swept_keys,
)
from fedkd.cli.lines import say
from fedkd.cli.overrides import quoted, typed
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
) -> int:
    """The command: runs, prints the table (or the summary), returns the exit code."""
    if multirun and resume is not None:
        raise BadInput(
            f"-m with --resume {resume}",
            "one of them",
            "a sweep that was cut off goes on when its command is given again with the same out=",
        )
    if multirun:
        return _sweep(overrides, config_dir, as_json)
    run, summary = simulate_one(overrides, resume=resume, config_dir=config_dir)
    if as_json:
        print(json.dumps(summary, indent=2))
        return 0
    from fedkd.report import show

    show(summary)
    report = "report/, " if (run.folder / "report").is_dir() else ""
    left = f"summary.json, {report}figures/, exchange/, audit/, sites/"
    print(f"\nleft in {_short(run.folder)}: {left}")
    print(f"next:   {_next_command(run)}")
    return 0


def simulate_one(
    overrides: Sequence[str], *, resume: Path | None = None, config_dir: Path | None = None
) -> tuple["Run", dict[str, Any]]:
    """One run from its configuration, or on from where it was cut off; its summary."""
    if resume is None:
        return _completed(_founded(compose(overrides, config_dir), config_dir))
    run = _resumed(resume, overrides, config_dir)
    with _whole(resume):
        return _completed(run)


def _founded(config: dict[str, Any], config_dir: Path | None) -> "Run":
    from fedkd.cli.places import new_folder
    from fedkd.cli.run import prepare

    say("fedkd: founding the hospitals")
    load_engine()
    return prepare(new_folder(config["out"]), config, config_dir)


def _completed(run: "Run") -> tuple["Run", dict[str, Any]]:
    from fedkd.report import read_summary

    summary = run.folder / "summary.json"
    if not summary.exists():
        run.expect_papers()
        try:
            _run_engine(run)
        except BaseException:
            _hand_over_what_there_is(run)
            raise
    _leave_report(run)
    return run, read_summary(summary)


def _leave_report(run: "Run") -> None:
    """The compliance report of a finished run, where it is wanted and not there yet.

    It is nobody's export: that is remembered once somebody builds it (`fedkd report build`).
    """
    folder = run.folder / "report"
    if not run.config.get("report", True) or (folder / "evidence.json").exists():
        return
    from fedkd.report.building import build, leave

    leave(build(run.folder), folder)


def _hand_over_what_there_is(run: "Run") -> None:
    """A run that failed leaves its logs, too; why it failed is what its user has to hear of."""
    from fedkd.cli.examine import hand_over

    try:
        hand_over(run)
    except Exception as error:  # a full disk, for example, which may be why it failed
        say(f"fedkd: the logs are not in {_short(run.folder / 'audit')}: {type(error).__name__}")
        return
    folder = _short(run.folder)
    say(f"left in {folder}: audit/, sites/; fedkd simulate --resume {folder} goes on with it")


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
    """A Python value in Hydra's grammar; a text is quoted, so that "null" stays one."""
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        value = value.tolist()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_as_text, value)) + "]"
    return quoted(str(value))


def _resumed(folder: Path, overrides: Sequence[str], config_dir: Path | None = None) -> "Run":
    from fedkd.cli.run import open_run

    if config_dir is not None:
        raise BadInput(
            f"--config-dir {config_dir} with --resume",
            "none: a run remembers the folder that it began with",
        )
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
    with _whole(folder):
        run = open_run(str(folder))
    say(f"fedkd: going on with {folder}")
    load_engine()
    return run


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Says so where a run's folder is no longer what the run left."""
    from fedkd.audit import UnknownFormat

    try:
        yield
    except (json.JSONDecodeError, KeyError, FileNotFoundError, UnknownFormat) as error:
        what = error if isinstance(error, UnknownFormat) else f"{type(error).__name__}: {error}"
        raise BadInput(
            f"a run in {folder} that is damaged, or of another version ({what})",
            "its folder as the run left it",
            "restore it from a copy, or start a new run",
        ) from error


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

        run_on_ray(server_app, client_app, run.folder, len(run.sites), run_config, app_root())
        return
    from fedkd.federation.flower.inprocess import run_in_process

    nodes = [{"site": str(folder)} for folder in run.sites.values()]
    run_in_process(server_app, client_app, nodes, run_config, _prepare_cohorts(run))


def _prepare_cohorts(run: "Run") -> Any:
    if run.config["clients"]["cohort"] == "off":
        return None
    from fedkd.federation.cohorts import train_together
    from fedkd.federation.flower.letters import letter_of
    from fedkd.federation.participant import MOST_QUESTION_BYTES

    def prepare(round: Sequence[tuple[Mapping[str, Any], Any]]) -> None:
        bodies = {
            Path(str(config["site"])): letter_of(message, MOST_QUESTION_BYTES)
            for config, message in round
        }
        train_together(bodies, run.build)

    return prepare


def _sweep(overrides: Sequence[str], config_dir: Path | None, as_json: bool) -> int:
    """One run for each point, then one table and one figure over those that finished.

    The same command again goes on with it: a point that finished is not run again, one that was
    cut off is resumed.
    """
    from fedkd.federation.rounds import NoQuorum
    from fedkd.report import read_summary, sweep_table, write_utility

    points = _without_idle_budgets(sweep(overrides, config_dir))
    # All before the first run: a wrong point late is an hour lost.
    configs = [compose(point, config_dir) for point in points]
    base = _base(configs)
    folders = [base / f"{number:03d}" for number in range(1, len(points) + 1)]
    for folder, config in zip(folders, configs, strict=True):
        _refuse_another(folder, config)
    finished = []
    for number, (folder, config) in enumerate(zip(folders, configs, strict=True), start=1):
        say(f"run {number} of {len(points)}: {' '.join(points[number - 1])}")
        try:
            _point({**config, "out": str(folder)}, folder, config_dir)
        except NoQuorum as error:
            print(f"run {number} ended without a quorum: {error}", file=sys.stderr)
        else:
            finished.append(folder)
    figures = []
    if finished:
        figures = [sweep_table(finished, printed=not as_json), write_utility(finished)]
    if as_json:
        print(json.dumps([read_summary(folder / "summary.json") for folder in finished], indent=2))
    else:
        swept = ", ".join(swept_keys(overrides, config_dir)) or "nothing"
        print(f"\nswept {swept}; left in {_short(base)}")
        for what, figure in zip(("the sweep", "utility against epsilon"), figures, strict=False):
            if figure is not None:
                print(f"figure: {what}, in {_short(figure)}")
    return 0 if len(finished) == len(points) else 1


def _without_idle_budgets(points: Sequence[Sequence[str]]) -> list[list[str]]:
    """The points of a sweep over mechanisms, in which `none` has no budget and comes once.

    So that `mechanism=dp_training,none budget.epsilon=1,4` ends in private runs beside one that is
    not: a budget bounds nothing without a mechanism, and is refused where nothing else is swept.
    """
    mechanisms = {word for point in points for word in point if word.startswith("mechanism=")}
    kept = []
    for point in points:
        words = list(point)
        if "mechanism=none" in words and len(mechanisms) > 1:
            words = [word for word in words if not word.startswith(("budget.", "mechanism."))]
        if words not in kept:
            kept.append(words)
    return kept


def _base(configs: Sequence[Mapping[str, Any]]) -> Path:
    """The folder of a sweep's runs."""
    named = {config["out"] for config in configs}
    if len(named) > 1:
        raise BadInput(
            f"several values of out ({', '.join(map(str, sorted(named, key=str)))})",
            "one folder for the whole sweep: each run gets a numbered one in it",
        )
    out = named.pop()
    base = Path(out) if out else Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    if (base / "config.yaml").exists() or (base.exists() and not base.is_dir()):
        what = "a folder that holds a run" if base.is_dir() else "a file"
        raise BadInput(f"out={base}, {what}", "a folder for the runs of the sweep")
    return base


def _point(config: dict[str, Any], folder: Path, config_dir: Path | None) -> None:
    """One run of a sweep: made, gone on with, or left as it is where it finished before."""
    if (folder / "summary.json").exists():
        say(f"fedkd: finished before, in {folder}")
    elif (folder / "run.json").exists():
        simulate_one([], resume=folder)
    else:
        # Cut off before its first step: nothing but the configuration, which is the same, is there.
        (folder / "config.yaml").unlink(missing_ok=True)
        _completed(_founded(config, config_dir))


def _refuse_another(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises `BadInput` unless `folder` is free, or holds a run of the configuration."""
    from fedkd.cli.places import anchored, new_folder

    if not (folder / "config.yaml").exists():
        new_folder(str(folder))
    elif {**read_config(folder / "config.yaml"), "out": None} != {
        **anchored(dict(config)),
        "out": None,
    }:
        raise BadInput(
            f"{folder}, which holds a run of another configuration",
            "a free folder, or the same point of the same sweep",
            "choose another out=...",
        )


def _next_command(run: "Run") -> str:
    data = f"data={run.config['choices']['data']}"
    words = [data, "baselines=true"]
    if (mechanism := run.config["choices"]["mechanism"]) != "none":
        words = ["-m", data, f"mechanism={mechanism}", "budget.epsilon=1,2,4,8", "seed=0,1,2"]
    elif run.config["baselines"]["enabled"]:
        words = ["-m", data, "seed=0,1,2"]
    if path := run.config["data"].get("path"):
        words.append(typed("data.path", _short(Path(path))))
    if run.config_dir is not None:
        words += ["--config-dir", shlex.quote(_short(run.config_dir))]
    return " ".join(["fedkd simulate", *words])


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
