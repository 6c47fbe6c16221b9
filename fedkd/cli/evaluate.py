"""Evaluates a finished run's student: by a question to its sites, or on a set of one's own."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.audit import Log
from fedkd.cli.evaluated import report
from fedkd.cli.lines import say
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.evaluating import (
    Grouping,
    check_thresholds,
    digest_of_model,
    place_model,
)
from fedkd.federation.evaluation import (
    INTERVALS,
    Heard,
    figures_of,
    flat,
    hear,
    log_evaluation,
    owned,
    seen_of,
)
from fedkd.federation.measured import EVERYWHERE, of_question, reliability, tables
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput, Digest
from fedkd.privacy import Ledger
from fedkd.report.releasing import threshold_in_use
from fedkd.wire import WITHHELD, Evaluation, encode
from fedkd.wire.fields import MOST_THRESHOLDS

if TYPE_CHECKING:
    from fedkd.cli.run import Run
    from fedkd.federation.flower.asking import GridAsk

NAME = "evaluation.json"
VERSION = 1
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
    if data is None and run.elsewhere:
        raise BadInput(
            f"an evaluation of {path} that asks {', '.join(run.elsewhere)}",
            "hospitals whose folders are here: a deployed federation is not asked for counts yet",
            "--data tries the student on a labelled set of your own",
        )
    _expect_outsider(run, outsider, data)
    classes = run.dataset().space.classes
    if len(classes) == 2 and not asked:
        asked = (threshold_in_use(run.folder / "server" / "log.sqlite"),)
    check_thresholds(asked, len(classes))
    grouping = Grouping(run.dataset().schema, group)
    model = _model(run)
    load_engine()
    if data is None:
        told = _by_question(run, model, asked, epsilon or DEFAULT_EPSILON, sites, group, grouping)
    else:
        told = _on_own(run, model, asked, data, data_path, group, grouping, outsider)
    _keep(run.folder / NAME, told)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(report(told)))
    return (
        DONE if told["kind"] == "data" or any(it["answered"] for it in told["sites"]) else REFUSED
    )


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


# A question to the sites -------------------------------------------------------------------------


def _by_question(
    run: "Run",
    model: Digest,
    thresholds: tuple[float, ...],
    epsilon: float,
    sites: str | None,
    group: str | None,
    grouping: Grouping,
) -> dict[str, Any]:
    from fedkd.cli.conduct import server_log

    asked = _asked(run, sites)
    question = Evaluation(
        run=run.id,
        round=run.config["rounds"] + 2,  # after the closing question
        model=model,
        thresholds=thresholds,
        group=group,
        epsilon=float(epsilon),
    )
    before = _ledgers(run, asked)
    _expect_something_left(run, before, question)
    for site in asked:
        place_model(run.sites[site], run.folder / "student.safetensors", _kind(run))
    classes = run.dataset().space.classes
    answers = len(thresholds) + 1 if thresholds else len(classes)
    with server_log(run) as log:
        asking = _grid(run, log)
        say(f"asking {len(asked)} hospitals for counts")
        replies = asking(
            dict.fromkeys(asked, encode(question)), lambda reply: None, round=question.round
        )
        heard = hear(replies, question, (len(grouping.names), answers, len(classes)))
        together = _figures(list(heard.counts), heard, thresholds, classes, grouping)
        seen = {site: seen_of(counts) for site, counts in heard.counts.items()}
        measured = {
            "classes": list(classes),
            "measured": of_question(seen, grouping, thresholds, classes),
        }
        log_evaluation(log, question, heard, replies, flat(together["all"]), measured)
        _settle(run, asking)
    audit = _handed_over(run)
    after = _ledgers(run, asked)
    rows = []
    for site in asked:
        row: dict[str, Any] = {
            "site": site,
            "answered": site in heard.counts,
            "left_out": heard.left_out.get(site),
            "cost": _cost(before[site], after[site]),
        }
        if site in heard.counts:
            said = heard.counts[site]
            row |= {
                "noise": said.noise,
                "scale": said.scale,
                "floor": said.floor,
                "counts": _without_withheld(said.counts.tolist()),
                "figures": _figures([site], heard, thresholds, classes, grouping),
            }
        rows.append(row)
    return {
        **_head(run, model, thresholds, classes, group, grouping),
        "kind": "question",
        "question": question.key,
        "epsilon": question.epsilon,
        "private": all(said.noise != "none" for said in heard.counts.values()),
        "intervals": INTERVALS,
        "sites": rows,
        "together": together,
        "audit": audit,
    }


def _asked(run: "Run", sites: str | None) -> list[str]:
    if sites is None:
        return sorted(run.sites)
    named = sorted({name.strip() for name in sites.split(",")})
    for name in named:
        if name not in run.sites:
            raise BadInput(f"the site {name!r}", f"one of {', '.join(sorted(run.sites))}")
    return named


def _kind(run: "Run") -> str:
    return str(run.config["student"]["model"])


def _ledgers(run: "Run", sites: Sequence[str]) -> dict[str, Ledger | None]:
    """Each site's ledger: a simulation may look; in a deployment the site alone knows."""
    found: dict[str, Ledger | None] = {}
    for site in sites:
        folder = SiteFolder(run.sites[site])
        settings = folder.settings()
        with folder.log(settings.name) as log:
            opened = log.last("budget.opened")
            found[site] = None if opened is None else ledger_of(log, settings.population)
    return found


def _expect_something_left(
    run: "Run", ledgers: Mapping[str, Ledger | None], question: Evaluation
) -> None:
    """`BadInput` where no site's budget has anything left: unless an answer is there, and free."""
    for site, ledger in ledgers.items():
        if ledger is None or ledger.left() > 0:
            return
        with SiteFolder(run.sites[site]).log(site) as log:
            if log.entry(f"{question.key}/release") is not None:
                return
    raise BadInput(
        "no budget with anything left, at any site that is asked",
        "one that covers an evaluation",
        "what is spent never comes back: the next run leaves some, such as "
        "mechanism.epsilon=1 budget.epsilon=2",
    )


def _grid(run: "Run", log: Log) -> "GridAsk":
    """The way to the sites, as in a round: letters, relay and roll call."""
    from clients.app import app as client_app
    from fedkd.cli.conduct import relay_of
    from fedkd.federation.flower.asking import GridAsk
    from fedkd.federation.flower.inprocess import InProcessGrid

    nodes = [{"site": str(folder)} for folder in run.sites.values()]
    grid = InProcessGrid(client_app, nodes)
    asking = GridAsk(grid, run.config["deadline"], relay_of(run, log))
    asking.roll_call(run.id, sorted(run.sites))
    return asking


def _settle(run: "Run", asking: "GridAsk") -> None:
    """Brings the cosignatures over everybody's last entries, as at the end of a run."""
    asking.settle(run.id)
    if asking.relay is not None:
        asking.relay.keep_checkpoints(run.folder / "server")


def _handed_over(run: "Run") -> dict[str, Any]:
    from fedkd.cli.examine import hand_over

    return hand_over(run)


def _cost(before: Ledger | None, after: Ledger | None) -> dict[str, Any] | None:
    """What an evaluation cost: epsilons as the ledger's own filter counts them; None: no budget."""
    if before is None or after is None or after.epsilon is None:
        return None
    new = after.charged[len(before.charged) :]
    return {
        "charged": [dict(cost) for cost in new],
        "spent_before": before.spent(),
        "spent": after.spent(),
        "left": after.left(),
        "budget": after.epsilon,
        "delta": after.delta,
        "unit": after.unit,
        "filter": after.filter,
    }


def _figures(
    sites: Sequence[str],
    heard: Heard,
    thresholds: Sequence[float],
    classes: Sequence[str],
    grouping: Grouping,
) -> dict[str, Any]:
    seen = [seen_of(heard.counts[site]) for site in sites]
    found = {"all": figures_of(seen, thresholds, classes, None)}
    if len(grouping.names) > 1:
        for place, name in enumerate(grouping.names):
            found[name] = figures_of(seen, thresholds, classes, place)
    return found


def _without_withheld(counts: Any) -> Any:
    """Nested lists of counts, None in place of what was withheld."""
    if isinstance(counts, list):
        return [_without_withheld(one) for one in counts]
    return None if counts == WITHHELD else counts


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
        _settle(run, _grid(run, log))
    return {
        **_head(run, model, thresholds, classes, group, grouping),
        "kind": "data",
        "data": named,
        "outsider": outsider,
        "digest": dataset.digest,
        "records": sum(map(len, parts)),
        "patients": found.patients,
        "intervals": "95 %, Clopper-Pearson; AUROC: bootstrap of patients",
        "together": figures,
        "auroc": found.auroc._asdict(),
        "audit": _handed_over(run),
    }


def _head(
    run: "Run",
    model: Digest,
    thresholds: Sequence[float],
    classes: Sequence[str],
    group: str | None,
    grouping: Grouping,
) -> dict[str, Any]:
    return {
        "run": run.id,
        "model": model,
        "architecture": _kind(run),
        "classes": list(classes),
        "thresholds": list(thresholds),
        "group": group,
        "groups": list(grouping.names),
        "counted": "patients, each once: by the first of their rows",
    }


def _keep(path: Path, told: dict[str, Any]) -> None:
    """Adds an evaluation to the run's file, in place of an earlier one of the same question."""
    kept = read_json(path)["evaluations"] if path.exists() else []
    mark = ("kind", "question", "digest", "thresholds", "group", "outsider")

    def same(one: Mapping[str, Any]) -> bool:
        return all(one.get(key) == told.get(key) for key in mark)

    evaluations = [one for one in kept if not same(one)]
    write_json(path, {"version": VERSION, "evaluations": [*evaluations, told]})
