"""The coordinator's part in an evaluation: hears counts, sums them, and says how sure that is.

P sites, G groups, B answers, C true classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedkd.audit import Log
from fedkd.data import Records
from fedkd.distill import Classifier
from fedkd.federation.asking import Reply
from fedkd.federation.evaluating import Grouping
from fedkd.knowledge import Array, Digest, digest_of_bytes
from fedkd.knowledge.measures import auroc
from fedkd.privacy.count_limits import NoiseLaw, Share, Tally, share
from fedkd.privacy.counts import cells, once_each
from fedkd.wire import WITHHELD, Counts, Evaluation, Malformed, Refusal, decode

MOST_BYTES = 1 << 21
ALPHA = 0.05
RESAMPLES = 500


class Seen(NamedTuple):
    """Counts [G, B, C] as they came, `WITHHELD` among them, the law of their noise, the floor."""

    counts: Array
    law: NoiseLaw
    floor: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back, by site: counts, the digests of the bodies, and why others are left out."""

    counts: Mapping[str, Counts]
    payloads: Mapping[str, Digest]
    left_out: Mapping[str, str]


def hear(replies: Iterable[Reply], question: Evaluation, shape: tuple[int, int, int]) -> Heard:
    """Goes through the replies to `question`; a wrong one is left out, and never stops the others.

    The round is not compared: a site that was asked the same before sends what it kept.
    """
    counts: dict[str, Counts] = {}
    payloads: dict[str, Digest] = {}
    left_out: dict[str, str] = {}
    for reply in replies:
        if reply.body is None:
            left_out[reply.site] = reply.failure or "no reply"
            continue
        found = _counts(reply.site, reply.body, question, shape)
        if isinstance(found, str):
            left_out[reply.site] = found
        else:
            counts[reply.site], payloads[reply.site] = found, digest_of_bytes(reply.body)
    return Heard(counts, payloads, left_out)


def _counts(
    site: str, body: bytes, question: Evaluation, shape: tuple[int, int, int]
) -> Counts | str:
    try:
        message = decode(body, MOST_BYTES)
    except Malformed as error:
        return str(error)
    if isinstance(message, Refusal):
        return f"refused: {message.reason}"
    if not isinstance(message, Counts):
        return "a reply that is no counts"
    if (message.site, message.run) != (site, question.run):
        return "counts of another site or run"
    if (message.question, message.model) != (question.key, question.model):
        return "counts for another question or model"
    return message if message.counts.shape == shape else "counts of another shape"


def seen_of(said: Counts) -> Seen:
    """What of a site's answer figures are made of."""
    return Seen(said.counts, NoiseLaw(said.noise, said.scale), said.floor)


def log_evaluation(
    log: Log,
    question: Evaluation,
    heard: Heard,
    replies: Sequence[Reply],
    figures: Mapping[str, float],
    measured: Mapping[str, Any],
) -> None:
    """Writes down, at the server, what was asked, who said what, and what came of it.

    `measured` are the tables that shares with their intervals are read from.
    """
    heads = {it.site: it.head for it in replies if it.head and it.site in heard.counts}
    body = {
        "run": question.run,
        "round": question.round,
        "question": question.key,
        "model": question.model,
        "data": f"held-out patients of {len(heard.counts)} sites",
        "thresholds": list(question.thresholds),
        "group": question.group,
        "epsilon": question.epsilon,
        "answers": dict(heard.payloads),
        "left_out": dict(heard.left_out),
        "checkpoints": {site: {"size": n, "root": root} for site, (n, root) in heads.items()},
        "figures": {"student": dict(figures)},
        **measured,
    }
    # Asked again, others may answer: that is another evaluation of the same question.
    named = digest_of_bytes(repr(sorted(body.items())).encode())
    log.append(f"{question.run}/evaluation/{named}", "evaluation.done", body)


# Figures ---------------------------------------------------------------------------------------


def tally(seen: Iterable[Seen], group: int | None, where: Array) -> Tally:
    """The sum of the cells marked in `where` [B, C], of one group or (None) of all of them."""
    total, laws, withheld = 0, list[NoiseLaw](), list[tuple[int, NoiseLaw]]()
    for counts, law, floor in seen:
        groups = counts if group is None else counts[group : group + 1]
        cells = groups[:, where].ravel()
        shown = cells[cells != WITHHELD]
        total += int(shown.sum())
        laws += [law] * len(shown)
        withheld += [(floor, law)] * (len(cells) - len(shown))
    return Tally(total, tuple(laws), tuple(withheld))


def figures_of(
    seen: Sequence[Seen], thresholds: Sequence[float], classes: Sequence[str], group: int | None
) -> dict[str, Any]:
    """What the counts say: at each threshold of two classes, or of the class that is said."""
    if thresholds:
        rows = [
            {"threshold": at, **_at_threshold(seen, place, len(thresholds) + 1, group)}
            for place, at in enumerate(thresholds)
        ]
        return {"thresholds": rows}
    return _of_classes(seen, classes, group)


def _at_threshold(
    seen: Sequence[Seen], place: int, answers: int, group: int | None
) -> dict[str, Any]:
    reaches, second = np.arange(answers)[:, None] > place, np.array([[False, True]])
    cells = {
        "tp": reaches & second,
        "fp": reaches & ~second,
        "tn": ~reaches & ~second,
        "fn": ~reaches & second,
    }
    sums = {name: tally(seen, group, where) for name, where in cells.items()}
    tp, fp, tn, fn = sums.values()
    return {
        "counts": {name: _count(one) for name, one in sums.items()},
        "sensitivity": _plain(share(tp, fn, ALPHA)),
        "specificity": _plain(share(tn, fp, ALPHA)),
        "positive_predictive_value": _plain(share(tp, fp, ALPHA)),
        "negative_predictive_value": _plain(share(tn, fn, ALPHA)),
        "accuracy": _plain(share(tp + tn, fp + fn, ALPHA)),
    }


def _of_classes(seen: Sequence[Seen], classes: Sequence[str], group: int | None) -> dict[str, Any]:
    same = np.eye(len(classes), dtype=bool)
    rows = []
    for place, name in enumerate(classes):
        said = np.zeros_like(same)
        said[place] = True
        true = said.T
        hits = tally(seen, group, said & true)
        rows.append(
            {
                "class": name,
                "sensitivity": _plain(share(hits, tally(seen, group, true & ~said), ALPHA)),
                "specificity": _plain(
                    share(
                        tally(seen, group, ~said & ~true), tally(seen, group, said & ~true), ALPHA
                    )
                ),
                "positive_predictive_value": _plain(
                    share(hits, tally(seen, group, said & ~true), ALPHA)
                ),
                "negative_predictive_value": _plain(
                    share(
                        tally(seen, group, ~said & ~true), tally(seen, group, true & ~said), ALPHA
                    )
                ),
            }
        )
    right, wrong = tally(seen, group, same), tally(seen, group, ~same)
    return {"accuracy": _plain(share(right, wrong, ALPHA)), "classes": rows}


def _count(one: Tally) -> dict[str, Any]:
    low, high = one.limits(ALPHA)
    return {"value": one.middle, "low": low, "high": high, "withheld": len(one.withheld)}


def _plain(found: Share) -> dict[str, Any]:
    return found._asdict()


def flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures by name, without intervals, for a list of metrics."""
    found: dict[str, float] = {}
    for row in figures.get("thresholds", ()):
        for name in ("sensitivity", "specificity", "accuracy"):
            value = row[name]["value"]
            if value is not None:
                found[f"{name} at {row['threshold']:g}"] = value
    if "classes" in figures and figures["accuracy"]["value"] is not None:
        found["accuracy"] = figures["accuracy"]["value"]
    return found


# A labelled set of the coordinator's own -------------------------------------------------------


class Owned(NamedTuple):
    """A model on records that the coordinator owns: exact counts, and the area under the curve.

    `probs` [N, C] and `labels` [N] are of the patients that were counted.
    """

    seen: tuple[Seen, ...]
    patients: int
    auroc: Share
    probs: Array
    labels: Array


def owned(
    model: Classifier,
    parts: Sequence[Records],
    thresholds: tuple[float, ...],
    grouping: Grouping,
    classes: int,
) -> Owned:
    """Counts the patients of `parts` as a site does: of each one the first row, without noise.

    The AUROC's interval is the 95 % percentile one of `RESAMPLES` bootstraps of patients (Efron,
    1979, Bootstrap methods: another look at the jackknife), with a fixed seed.
    """
    seen, all_probs, all_labels = [], [], []
    for records in parts:
        chosen = records.take(once_each(records.patients, len(records)))
        probs = model.probs(chosen.inputs)
        codes = grouping.codes(chosen.inputs)
        counts = cells(probs, chosen.labels, thresholds, codes, len(grouping.names))
        seen.append(Seen(counts, NoiseLaw("none", 0.0), 1))
        all_probs.append(probs)
        all_labels.append(chosen.labels)
    probs, labels = np.concatenate(all_probs), np.concatenate(all_labels)
    return Owned(tuple(seen), len(labels), _bootstrapped(probs, labels), probs, labels)


def _bootstrapped(probs: Array, labels: Array) -> Share:
    rng, found = np.random.default_rng(0), list[float]()
    value = auroc(probs, labels)
    for _ in range(RESAMPLES if value is not None else 0):
        rows = rng.integers(len(labels), size=len(labels))
        again = auroc(probs[rows], labels[rows])
        if again is not None:
            found.append(again)
    if not found:
        return Share(value, 0.0, 1.0)
    low, high = np.quantile(found, [ALPHA / 2, 1 - ALPHA / 2])
    return Share(value, float(low), float(high))


INTERVALS = (
    "95 %, for chance and noise together: every share that the counts do not speak against, given "
    "the noise's public law (score test, exact quantiles of the noise; a withheld count is "
    "anything from 0 to one below its floor); of counts: for noise alone; without noise "
    "Clopper-Pearson"
)
"""How the intervals come about, in one sentence for a reader."""
