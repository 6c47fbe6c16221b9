"""Evaluates a finished run's student: by a question to its sites, or on a set of one's own."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.audit import Log
from fedkd.cli.evaluated import report
from fedkd.cli.questioned import NAME, handed_over, head, keep, question_of
from fedkd.federation.evaluating import Grouping, check_thresholds, digest_of_model
from fedkd.federation.evaluation import figures_of, flat, owned
from fedkd.federation.measured import EVERYWHERE, reliability, tables
from fedkd.federation.rounds import NoQuorum
from fedkd.knowledge import BadInput, Digest
from fedkd.report.releasing import threshold_in_use
from fedkd.wire import Evaluation
from fedkd.wire.fields import MOST_THRESHOLDS

if TYPE_CHECKING:
    from fedkd.cli.run import Run

DEFAULT_EPSILON = 1.0
DONE, REFUSED = 0, 1


def evaluate(
    path: Path,
    *,
    data: str | None,
    data_path: Path | None,
    thresholds: Sequence[float],
    epsilon: float | None,
    sites: str | None,
    group: str | None,
    as_json: bool,
    outsider: str | None = None,
    federation: Path | None = None,
    wait_s: float = 600.0,
) -> int:
    """Prints how the student does, and keeps it in the run; exit code 1 where no site answered.

    `BadInput` for what does not fit, before anything is asked, charged or written.
    """
    from fedkd.cli.run import open_run
    from fedkd.cli.simulate import load_engine
    from fedkd.report import load

    load(path)  # a finished run, or it is refused
    asked = _thresholds(thresholds)
    if data is None:
        _expect_epsilon(epsilon)
    elif epsilon is not None or sites is not None:
        raise BadInput(
            f"--data {data} with {'--epsilon' if epsilon is not None else '--sites'}",
            "one or the other: a set of your own costs nothing and asks nobody",
        )
    if data is None and data_path is not None:
        raise BadInput(f"--data-path {data_path} without --data", "--data NAME beside it")
    run = open_run(str(path))
    if federation is not None:
        _expect_of(run, federation, data)
    _expect_outsider(run, outsider, data)
    classes = run.dataset().space.classes
    if len(classes) == 2 and not asked:
        asked = (threshold_in_use(run.folder / "server" / "log.sqlite"),)
    check_thresholds(asked, len(classes))
    grouping = Grouping(run.dataset().schema, group)
    model = _model(run)
    load_engine()
    if data is None:
        question = question_of(run, model, asked, group, epsilon or DEFAULT_EPSILON)
        try:
            told = _by_question(run, question, grouping, sites, wait_s)
        except NoQuorum as error:
            return _not_ended(run, str(error), as_json=as_json)
    else:
        told = _on_own(run, model, asked, data, data_path, group, grouping, outsider)
        keep(run.folder / NAME, told)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(report(told)))
    return (
        DONE if told["kind"] == "data" or any(it["answered"] for it in told["sites"]) else REFUSED
    )


def _not_ended(run: "Run", why: str, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"out": str(run.folder), "why": why}, indent=2))
    else:
        print(f"the evaluation did not end: {why}", file=sys.stderr)  # also where it is quiet
        print("the same command goes on: the proposal stays, and a yes holds", file=sys.stderr)
    return REFUSED


def _by_question(
    run: "Run", question: Evaluation, grouping: Grouping, sites: str | None, wait_s: float
) -> dict[str, Any]:
    from fedkd.cli.deployed import DeployedRun

    if isinstance(run, DeployedRun):
        from fedkd.cli.evaluate_deployed import ask_deployed

        return ask_deployed(run, question, grouping, sites, wait_s)
    from fedkd.cli.evaluate_sites import ask_here

    told = ask_here(run, question, grouping, sites)
    keep(run.folder / NAME, told)
    return told


def _expect_of(run: "Run", federation: Path, data: str | None) -> None:
    """Takes the coordinator's folder where it is now; `BadInput` where it is asked for nothing."""
    from fedkd.cli.deployed import DeployedRun
    from fedkd.deploy.server_folder import ServerFolder

    if data is not None or not isinstance(run, DeployedRun):
        raise BadInput(
            f"--federation {federation} with "
            + (f"--data {data}" if data is not None else f"a simulation in {run.folder}"),
            "a run of a deployed federation, whose hospitals are asked",
            "leave --federation out",
        )
    run.coordinator = ServerFolder.opened(federation).folder


def _thresholds(given: Sequence[float]) -> tuple[float, ...]:
    for one in given:
        if not 0 < one < 1:  # NaN neither
            raise BadInput(f"threshold {one:g}", "a number above 0 and below 1")
    if len(set(given)) < len(given) or len(given) > MOST_THRESHOLDS:
        raise BadInput(
            f"thresholds {', '.join(f'{one:g}' for one in given)}",
            f"at most {MOST_THRESHOLDS}, each once",
        )
    return tuple(sorted(float(one) for one in given))


def _expect_epsilon(epsilon: float | None) -> None:
    if epsilon is not None and not (math.isfinite(epsilon) and epsilon > 0):
        raise BadInput(
            f"epsilon {epsilon:g}", "a finite number above 0", f"such as {DEFAULT_EPSILON:g}"
        )


def _expect_outsider(run: "Run", outsider: str | None, data: str | None) -> None:
    if outsider is None:
        return
    if data is None:
        raise BadInput(f"--outsider {outsider} without --data", "--data, that hospital's records")
    if not outsider.strip() or outsider in (EVERYWHERE, *run.sites, *run.elsewhere):
        raise BadInput(
            f"--outsider {outsider!r}",
            f"the name of a hospital that took no part, so none of {', '.join(run.sites)}",
        )


def _model(run: "Run") -> Digest:
    """The student's digest, which the server's log must know."""
    path = run.folder / "student.safetensors"
    if not path.is_file():
        raise BadInput(f"no {path.name} in {run.folder}", "the student of the run")
    digest = digest_of_model(path)
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        updated = log.last("student.updated")
    known = None if updated is None or updated.said is None else updated.said["output"]
    if digest != known:
        raise BadInput(
            f"a model {digest} in {path}",
            f"{known}, the student that the server's log names",
            "restore student.safetensors from server/, or from a copy",
        )
    return digest


# A labelled set of the coordinator's own ---------------------------------------------------------


def _on_own(
    run: "Run",
    model: Digest,
    thresholds: tuple[float, ...],
    data: str,
    data_path: Path | None,
    group: str | None,
    grouping: Grouping,
    outsider: str | None,
) -> dict[str, Any]:
    from fedkd.cli.conduct import server_log
    from fedkd.cli.evaluate_sites import grid_of, settle
    from fedkd.cli.own_data import owned_dataset
    from fedkd.distill import load_weights

    dataset = owned_dataset(run, data, data_path)
    classes = dataset.space.classes
    student = run.student().with_weights(load_weights(run.folder / "student.safetensors"))
    parts = [part for part in (dataset.records, dataset.test) if part is not None]
    found = owned(student, parts, thresholds, grouping, len(classes))
    figures = {"all": figures_of(found.seen, thresholds, classes, None)}
    if len(grouping.names) > 1:
        for place, name in enumerate(grouping.names):
            figures[name] = figures_of(found.seen, thresholds, classes, place)
    whose = ", the coordinator's own" if outsider is None else f" of {outsider}"
    named = dataset.card.name + whose
    metrics = flat(figures["all"])
    if found.auroc.value is not None:
        metrics["auroc"] = found.auroc.value
    with server_log(run) as log:
        registered = {
            "id": named,
            "role": "evaluation",
            "card": dataset.card.to_json(),
            "records": sum(map(len, parts)),
        }
        key = f"{run.id}/dataset/{dataset.digest}" + (f"/{outsider}" if outsider else "")
        log.append(key, "dataset.registered", registered)
        body = {
            "run": run.id,
            "model": model,
            "data": named,
            "digest": dataset.digest,
            "patients": found.patients,
            "thresholds": list(thresholds),
            "group": group,
            "figures": {"student": metrics},
            "classes": list(classes),
            "outsider": outsider,
            "measured": tables(
                found.seen,
                grouping,
                where=outsider or EVERYWHERE,
                took_part=None if outsider is None else False,
            ),
            "reliability": reliability(found.probs, found.labels),
        }
        key = f"{run.id}/evaluation/{dataset.digest}/{list(thresholds)}/{group}/{outsider}"
        log.append(key, "evaluation.done", body)
        settle(run, grid_of(run, log))
    return {
        **head(run, model, thresholds, classes, group, grouping),
        "kind": "data",
        "data": named,
        "outsider": outsider,
        "digest": dataset.digest,
        "records": sum(map(len, parts)),
        "patients": found.patients,
        "intervals": "95 %, Clopper-Pearson; AUROC: bootstrap of patients",
        "together": figures,
        "auroc": found.auroc._asdict(),
        "audit": handed_over(run),
    }
