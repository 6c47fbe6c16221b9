"""Examines a finished simulation, and leaves what a reader opens."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from fedkd.audit import Log
from fedkd.cli.audit import all_hold
from fedkd.cli.claims import claimed, privacy_of
from fedkd.cli.parties import test_id
from fedkd.cli.run import versions
from fedkd.distill import Classifier, load_weights
from fedkd.federation.baselines import chosen_fedavg, pooled, weights_bytes
from fedkd.federation.checkpoint import Checkpoint, ServerFolder
from fedkd.federation.cohorts import fit_alike
from fedkd.federation.durable import write_bytes
from fedkd.federation.examination import (
    Examination,
    SiteExaminer,
    figures_of,
    pooled_validation,
)
from fedkd.federation.measured import by_place
from fedkd.knowledge.measures import accuracy
from fedkd.report import write_figures, write_summary

if TYPE_CHECKING:
    from fedkd.cli.run import Run


def examine(run: "Run", log: Log) -> dict[str, Any]:
    """The figures of a finished run; the test is opened once, at the end."""
    student = _student(run)
    if run.elsewhere:
        figures = _figures_here(run, student, log)
    else:
        figures = _figures(run, student, _examiners(run), log)
    return {**figures, "parameters": student.parameters}


def _student(run: "Run") -> Classifier:
    weights = load_weights(run.folder / "student.safetensors")
    student: Classifier = run.student().with_weights(weights)
    return student


def _examiners(run: "Run") -> dict[str, SiteExaminer]:
    return {site: SiteExaminer(folder, run.id, run.build) for site, folder in run.sites.items()}


def summarise(run: "Run", figures: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves what a reader opens in the run's folder; `summary.json` last."""
    state = ServerFolder(run.folder / "server").load()
    rows = "".join(json.dumps(row, sort_keys=True) + "\n" for row in state.metrics)
    write_bytes(run.folder / "metrics.jsonl", rows.encode())
    examiners = _examiners(run)
    one_way = weights_bytes(run.reference())
    trained = sum(it.seconds() for it in examiners.values() if it.took_part())
    asked = sum(row["asked"] for row in state.metrics)
    privacy = privacy_of(run)
    summary = {
        "method": f"distillation, {run.config['choices']['aggregate']} of answers",
        "data": run.config["choices"]["data"],
        "seed": run.config["seed"],
        "rounds": state.round,
        "mechanism": run.config["choices"]["mechanism"],
        "private": run.config["choices"]["mechanism"] != "none",
        "student": {
            **figures["student"],
            "parameters": figures["parameters"],
            "bytes": (run.folder / "student.safetensors").stat().st_size,
        },
        "privacy": privacy,
        "clients": [
            {**claimed(row, privacy), **_traffic(row, state)} for row in figures["clients"]
        ],
        "bytes_up": sum(state.traffic.up.values()),
        "bytes_down": sum(state.traffic.down.values()),
        "fedavg_bytes": None if one_way is None else 2 * one_way * asked,
        **figures["baselines"],
        "query_set": _query_set(run),
        "wall_s": run.wall_before + run.elapsed(),
        "train_s": trained + state.teach_seconds + figures["seconds"],
        "engine": run.config["engine"],
        "versions": versions(),
        "audit": hand_over(run),
    }
    write_figures(run.folder, summary)
    write_summary(run.folder / "summary.json", summary)
    return summary


def _figures(
    run: "Run", student: Classifier, examiners: Mapping[str, SiteExaminer], log: Log
) -> dict[str, Any]:
    """What the test says: from the log where it was said before, so that it is opened once."""
    examination = Examination(lambda: run.cut().test, log, run.id, test_id(run))
    if (said := examination.said()) is not None:
        return said
    took_part = {site: it for site, it in examiners.items() if it.took_part()}
    alone, alone_seconds = _alone(run, took_part)
    baselines, baseline_seconds = _baselines(run)
    test = examination.open()
    clients = []
    for site, examiner in examiners.items():
        row = dict.fromkeys(NOT_THERE)
        row |= {"site": site, "model": examiner.settings.model_name, **examiner.spent()}
        if site in took_part:
            now = examiner.resident().probs(test.inputs)
            row |= examiner.row(test, alone[site].probs(test.inputs), now)
        clients.append(row)
    answers = student.probs(test.inputs)
    figures = {
        "student": figures_of(answers, test.labels),
        "clients": clients,
        "baselines": _compared(baselines, test),
        "seconds": alone_seconds + baseline_seconds,
    }
    updated = log.last("student.updated")
    measured = by_place(answers, test, list(run.sites), run.dataset().space.classes)
    examination.done(figures, None if updated is None else updated.body["output"], measured)
    return figures


def _figures_here(run: "Run", student: Classifier, log: Log) -> dict[str, Any]:
    """What a coordinator can say: of the student, on labelled records of its own if it has any.

    How a hospital's own model does, and on how many records, is the hospital's to know.
    """
    absent = run.absent()
    clients = [
        {
            **dict.fromkeys(NOT_THERE),
            "site": site,
            "model": None,
            "left_out": [{"round": 0, "reason": absent[site]}] if site in absent else [],
        }
        for site in run.elsewhere
    ]
    told: dict[str, Any] = {"clients": clients, "baselines": _compared({}, None), "seconds": 0.0}
    names = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")
    if not run.config["data"].get("path"):
        return {**told, "student": dict.fromkeys(names)}
    examination = Examination(lambda: run.cut().test, log, run.id, test_id(run))
    if (said := examination.said()) is not None:
        return said
    test = examination.open()
    answers = student.probs(test.inputs)
    figures = {**told, "student": figures_of(answers, test.labels)}
    updated = log.last("student.updated")
    measured = by_place(answers, test, list(run.elsewhere), run.dataset().space.classes)
    examination.done(figures, None if updated is None else updated.body["output"], measured)
    return figures


NOT_THERE = (
    "records", "local_accuracy", "local_balanced_accuracy", "local_auroc", "local_own_mix",
    "local_own_auroc", "accuracy", "balanced_accuracy", "auroc", "own_mix", "own_auroc",
    "epsilon", "delta",
)  # fmt: skip


def _alone(run: "Run", examiners: Mapping[str, SiteExaminer]) -> tuple[dict[str, Any], float]:
    """Each site's own model, trained alone for as long."""
    began = time.perf_counter()
    tasks = {site: it.alone_task(run.config["rounds"]) for site, it in examiners.items()}
    if run.config["clients"]["cohort"] == "off":
        fitted = {
            site: start.fit(records, None, plan, rng)
            for site, (start, records, plan, rng) in tasks.items()
        }
    else:
        fitted = fit_alike(tasks)
    return fitted, time.perf_counter() - began


def _baselines(run: "Run") -> tuple[dict[str, Any], float]:
    """Pooled and FedAvg models, chosen on validation; nothing where they are not asked for."""
    options = run.config["baselines"]
    if not options["enabled"]:
        return {}, 0.0
    from fedkd.distill import LearningPlan

    began = time.perf_counter()
    training, config = run.config["training"], run.config
    plan = LearningPlan(
        epochs=training["local_epochs"] + training["lesson_epochs"] * config["rounds"],
        batch=training["batch"],
        learning_rate=training["learning_rate"],
        weight_decay=training["weight_decay"],
    )
    rates = options["fedavg_learning_rates"] or [plan.learning_rate, 3 * plan.learning_rate]
    sites = run.sites
    validation = pooled_validation(list(sites.values()))
    made: dict[str, Any] = {"pooled": pooled(run.reference(), sites, plan, seed=config["seed"])}
    if validation is not None:
        made["fedavg"] = chosen_fedavg(
            run.reference(),
            sites,
            plan,
            validation,
            rounds=config["rounds"],
            most_rounds=options["fedavg_rounds"],
            learning_rates=rates,
            local_epochs=options["fedavg_local_epochs"],
            seed=config["seed"],
        )
    return made, time.perf_counter() - began


def _compared(made: Mapping[str, Any], test: Any) -> dict[str, Any]:
    def on_test(model: Any) -> float:
        return accuracy(model.probs(test.inputs), test.labels)

    fedavg = made.get("fedavg")
    return {
        "pooled_accuracy": on_test(made["pooled"]) if "pooled" in made else None,
        "fedavg_accuracy": on_test(fedavg.model) if fedavg else None,
        "fedavg_best": {
            "accuracy": on_test(fedavg.best_model),
            "round": fedavg.best_round,
            "bytes": fedavg.best_bytes,
        }
        if fedavg
        else None,
    }


def _traffic(row: Mapping[str, Any], state: Checkpoint) -> dict[str, Any]:
    site = row["site"]
    return {
        "messages": state.traffic.messages.get(site, 0),
        "bytes_up": state.traffic.up.get(site, 0),
        "bytes_down": state.traffic.down.get(site, 0),
        "left_out": [*row.get("left_out", ()), *state.left_out.get(site, [])],
    }


def _query_set(run: "Run") -> dict[str, Any]:
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        posed = log.last("queries.posed")
    if posed is None:
        raise FileNotFoundError("queries.posed")
    kind = run.config["query"]["kind"]
    return {"kind": kind, "size": posed.body["count"], "digest": posed.body["digest"]}


def hand_over(run: "Run") -> dict[str, Any]:
    """Hands each party's log over into `audit/`, and says whether all of them hold."""
    folder = run.folder / "audit"
    folder.mkdir(exist_ok=True)
    paths = {"server": run.folder / "server" / "log.sqlite"}
    paths |= {site: path / "log.sqlite" for site, path in run.sites.items()}
    entries, root = 0, None
    for party, path in paths.items():
        with ExitStack() as open_logs:
            log = open_logs.enter_context(Log(path, party))
            log.export(folder / f"{party}.sqlite")
            log.export_policy(folder / f"{party}.policy")
            kept = run.folder / "server" / f"{party}.checkpoint"
            if kept.exists():
                write_bytes(folder / kept.name, kept.read_bytes())
            entries += len(log)
            if party == "server" and (note := log.checkpoint()) is not None:
                root = note.checkpoint().root.hex()
    return {"entries": entries, "root": root, "verified": all_hold(folder)}
