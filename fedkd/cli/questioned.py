"""Asks hospitals for counts over any grid, logs what came, and tells it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.audit import Log
from fedkd.cli.lines import say
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.evaluating import Grouping
from fedkd.federation.evaluation import (
    INTERVALS,
    Heard,
    figures_of,
    flat,
    hear,
    log_evaluation,
    seen_of,
)
from fedkd.federation.measured import of_question
from fedkd.knowledge import Digest
from fedkd.wire import WITHHELD, Evaluation, encode

if TYPE_CHECKING:
    from fedkd.cli.run import Run
    from fedkd.federation.flower.asking import GridAsk

NAME = "evaluation.json"
VERSION = 1


def question_of(
    run: "Run", model: Digest, thresholds: tuple[float, ...], group: str | None, epsilon: float
) -> Evaluation:
    """What hospitals are asked about a finished run's student."""
    return Evaluation(
        run=run.id,
        round=run.config["rounds"] + 2,  # after the closing question
        model=model,
        thresholds=thresholds,
        group=group,
        epsilon=float(epsilon),
    )


def shape_of(
    question: Evaluation, grouping: Grouping, classes: Sequence[str]
) -> tuple[int, int, int]:
    """Of the counts that answer: groups, answers, true classes."""
    answers = len(question.thresholds) + 1 if question.thresholds else len(classes)
    return len(grouping.names), answers, len(classes)


def ask_for_counts(
    run: "Run",
    log: Log,
    asking: "GridAsk",
    question: Evaluation,
    grouping: Grouping,
    asked: Sequence[str],
    *,
    outsiders: Collection[str] = (),
    absent: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Asks these sites, logs the evaluation and brings cosignatures over it; what it came to.

    `outsiders` took no part in the run and are summed with nobody; `absent` are sites that are not
    asked any more, and why.
    """
    classes = run.dataset().space.classes
    say(f"asking {len(asked)} hospitals for counts")
    replies = asking(
        dict.fromkeys(asked, encode(question)), lambda reply: None, round=question.round
    )
    heard = hear(replies, question, shape_of(question, grouping, classes))
    heard = Heard(heard.counts, heard.payloads, {**(absent or {}), **heard.left_out})
    inside = [site for site in heard.counts if site not in outsiders]
    together = _figures(inside, heard, question.thresholds, classes, grouping)
    seen = {site: seen_of(counts) for site, counts in heard.counts.items()}
    measured = {
        "classes": list(classes),
        "measured": of_question(seen, grouping, question.thresholds, classes, outsiders),
    }
    log_evaluation(log, question, heard, replies, flat(together["all"]), measured)
    settle(run, asking)
    rows = []
    for site in sorted({*asked, *heard.left_out}):
        row: dict[str, Any] = {
            "site": site,
            "took_part": site not in outsiders,
            "answered": site in heard.counts,
            "left_out": heard.left_out.get(site),
            "cost": None,
        }
        if site in heard.counts:
            said = heard.counts[site]
            row |= {
                "noise": said.noise,
                "scale": said.scale,
                "floor": said.floor,
                "counts": _without_withheld(said.counts.tolist()),
                "figures": _figures([site], heard, question.thresholds, classes, grouping),
            }
        rows.append(row)
    return {
        **head(run, question.model, question.thresholds, classes, question.group, grouping),
        "kind": "question",
        "question": question.key,
        "epsilon": question.epsilon,
        "private": all(said.noise != "none" for said in heard.counts.values()),
        "intervals": INTERVALS,
        "sites": rows,
        "together": together,
    }


def settle(run: "Run", asking: "GridAsk") -> None:
    """Brings the cosignatures over everybody's last entries, as at the end of a run."""
    asking.settle(run.id)
    if asking.relay is not None:
        asking.relay.keep_checkpoints(run.folder / "server")


def handed_over(run: "Run") -> dict[str, Any]:
    """Each party's log that is here, handed over anew, and whether they hold."""
    from fedkd.cli.examine import hand_over

    return hand_over(run)


def head(
    run: "Run",
    model: Digest,
    thresholds: Sequence[float],
    classes: Sequence[str],
    group: str | None,
    grouping: Grouping,
) -> dict[str, Any]:
    """What every evaluation tells first."""
    return {
        "run": run.id,
        "model": model,
        "architecture": run.config["student"]["model"],
        "classes": list(classes),
        "thresholds": list(thresholds),
        "group": group,
        "groups": list(grouping.names),
        "counted": "patients, each once: by the first of their rows",
    }


def keep(path: Path, told: Mapping[str, Any]) -> None:
    """Adds an evaluation to the run's file, in place of an earlier one of the same question."""
    kept = read_json(path)["evaluations"] if path.exists() else []
    mark = ("kind", "question", "digest", "thresholds", "group", "outsider")

    def same(one: Mapping[str, Any]) -> bool:
        return all(one.get(key) == told.get(key) for key in mark)

    evaluations = [one for one in kept if not same(one)]
    write_json(path, {"version": VERSION, "evaluations": [*evaluations, told]})


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
