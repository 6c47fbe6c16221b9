"""The laws that every aggregation rule and every filter of sites keeps, as plain functions.

`LAWS[sentence](part)` raises `LawBroken` where the sentence does not hold. All draws have fixed
seeds: a part that keeps a law today keeps it tomorrow.
"""

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from fedkd.knowledge.answers import Aggregator, Answers, Consensus, Filter, Kept, Memory
from fedkd.knowledge.digests import Array, Digest, digest_of_bytes
from fedkd.knowledge.distributions import normalised

# P participants, Q queries, C classes.

ABOUT: Digest = digest_of_bytes(b"the queries of the laws")
CLOSE = 1e-5
"""Consensuses travel in float32: two ways of adding up differ by less than this."""


class LawBroken(AssertionError):
    """A part that does not do what every part of its kind does."""


def expect(holds: bool | np.bool_, found: str) -> None:
    """Raises `LawBroken`, saying what was found, unless `holds`."""
    if not holds:
        raise LawBroken(found)


def skewed(participants: int, queries: int = 40, classes: int = 5, seed: int = 0) -> Array:
    """Answers [P, Q, C] of sites that agree on nothing, exact zeros and ones among them."""
    rng = np.random.default_rng([1, seed, participants])
    probs = rng.dirichlet(np.full(classes, 0.1), size=(participants, queries))
    certain = rng.random((participants, queries)) < 0.2
    probs[certain] = np.eye(classes)[rng.integers(classes, size=int(certain.sum()))]
    return normalised(probs)


def near_iid(participants: int, queries: int = 40, classes: int = 5, seed: int = 0) -> Array:
    """Answers [P, Q, C] of honest sites alike: each query has one clear winner, around 0.6."""
    rng = np.random.default_rng([2, seed, participants])
    winner = rng.integers(classes, size=queries)
    common = (
        0.4 * rng.dirichlet(np.full(classes, 3.0), size=queries) + 0.5 * np.eye(classes)[winner]
    )
    said = common * np.exp(0.1 * rng.standard_normal((participants, queries, classes)))
    return normalised(said)


def answers_of(
    probs: Array, weights: Array | None = None, answered: Array | None = None
) -> Answers:
    """The answers `probs` [P, Q, C] of sites named in order, equally weighted unless said."""
    participants, queries, _ = probs.shape
    return Answers(
        tuple(f"site-{number:03d}" for number in range(participants)),
        probs,
        np.ones(participants) if weights is None else weights,
        np.ones((participants, queries), dtype=bool) if answered is None else answered,
        ABOUT,
    )


def _some_answers() -> Iterator[Answers]:
    for participants in (1, 2, 7):
        yield answers_of(skewed(participants))
        yield answers_of(near_iid(participants))
    rng = np.random.default_rng(3)
    yield answers_of(skewed(7), rng.integers(1, 100, size=7).astype(float))
    yield answers_of(skewed(7), answered=rng.random((7, 40)) < 0.5)


def _consensus(rule: Aggregator, answers: Answers) -> Consensus:
    try:
        return rule.combine(rule.init(), answers)[1]
    except Exception as error:
        raise LawBroken(f"found {type(error).__name__} ({error}), expected a consensus") from error


def _on_the_simplex(rule: Aggregator) -> None:
    for answers in _some_answers():
        consensus = _consensus(rule, answers)
        every = [consensus.common, *(consensus.by_site or {}).values()]
        shape = answers.probs.shape[1:]
        for said in every:  # a `Distributions` is on the simplex, or it is none
            expect(said.probs.shape == shape, f"found {said.probs.shape}, expected {shape}")
            expect(said.about == answers.about, "found a consensus about another query set")


def _unanimous(rule: Aggregator) -> None:
    for participants in (1, 2, 7):
        said = near_iid(1, queries=200)
        answers = answers_of(np.repeat(said, participants, axis=0))
        moved = _consensus(rule, answers).common.probs.argmax(axis=1) != said[0].argmax(axis=1)
        expect(not moved.any(), f"{moved.sum()} of 200 argmaxes moved with {participants} sites")


def _order(rule: Aggregator) -> None:
    order = np.random.default_rng(4).permutation(7)
    for answers in _some_answers():
        if len(answers.sites) != len(order):
            continue
        other = answers_of(answers.probs[order], answers.weights[order], answers.answered[order])
        one, two = (_consensus(rule, each).common.probs for each in (answers, other))
        gap = float(np.abs(one - two).max())
        expect(gap < CLOSE, f"found a consensus that differs by {gap:.2g} in another order")


def _untouched(rule: Aggregator) -> None:
    for answers in _some_answers():
        memory = rule.init()
        before = _bytes_of(answers), copy.deepcopy(memory)
        rule.combine(memory, answers)
        expect(_bytes_of(answers) == before[0], "found answers changed by the rule")
        expect(_same(memory, before[1]), "found a memory changed by the rule, expected a new one")


def _bytes_of(answers: Answers) -> list[bytes]:
    return [part.tobytes() for part in (answers.probs, answers.weights, answers.answered)]


def _same(one: Memory, two: Memory) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


def _deterministic(rule: Aggregator) -> None:
    for answers in _some_answers():
        one, two = (_consensus(rule, answers).common.probs for _ in range(2))
        expect(one.tobytes() == two.tobytes(), "found two consensuses of the same answers")


def _nobody(rule: Aggregator) -> None:
    answered = np.ones((7, 40), dtype=bool)
    answered[:, ::3] = False
    row = _consensus(rule, answers_of(skewed(7), answered=answered)).common.probs[::3]
    gap = float(np.abs(row - 1 / row.shape[1]).max())
    expect(gap < CLOSE, f"found {gap:.2g} from uniform where nobody answered")


def _silence(rule: Aggregator) -> None:
    said = skewed(7)
    without_two = _consensus(rule, answers_of(said[2:])).common.probs
    answered = np.ones(said.shape[:2], dtype=bool)
    answered[:2] = False
    for silent in (np.full_like(said[:2], 1 / said.shape[2]), skewed(2, seed=1)):
        probs = np.concatenate([silent, said[2:]])
        gap = np.abs(
            _consensus(rule, answers_of(probs, answered=answered)).common.probs - without_two
        )
        expect(gap.max() < CLOSE, f"found {gap.max():.2g} moved by sites that did not answer")


def _liars(rule: Aggregator) -> None:
    share = rule.withstands
    expect(0 <= share < 0.5, f"found a promise to withstand {share}, expected less than half")
    if not share:
        return
    for participants in (5, 10, 20):
        honest = near_iid(participants, queries=200)
        truth = honest.mean(axis=0).argmax(axis=1)
        count = int(share * participants + 1e-9)
        for name, lie in _lies(honest):
            probs = honest.copy()
            probs[:count] = lie
            moved = _consensus(rule, answers_of(probs)).common.probs.argmax(axis=1) != truth
            found = f"{count} of {participants} sites that say {name} moved {moved.sum()} argmaxes"
            expect(not moved.any(), found)


def _lies(honest: Array) -> Iterator[tuple[str, Array]]:
    mean = honest.mean(axis=0)
    ranked = mean.argsort(axis=1)
    classes = np.eye(mean.shape[1])
    yield "the least likely class", classes[ranked[:, 0]]
    yield "the runner-up", classes[ranked[:, -2]]
    yield "always the first class", np.broadcast_to(classes[0], mean.shape)
    yield "nothing", np.full_like(mean, 1 / mean.shape[1])


AGGREGATE_LAWS: dict[str, Callable[[Aggregator], None]] = {
    "a consensus lies on the simplex": _on_the_simplex,
    "a unanimous answer keeps its argmax": _unanimous,
    "the order of sites does not matter": _order,
    "answers and memory are left untouched": _untouched,
    "the same answers give the same consensus": _deterministic,
    "a query that nobody answered gets the uniform distribution": _nobody,
    "a site that did not answer a query does not count": _silence,
    "the promised share of liars among near-IID sites moves no argmax": _liars,
}


def _kept(rule: Filter, answers: Answers) -> Kept:
    try:
        return rule.keep(rule.init(), answers)[1]
    except Exception as error:
        raise LawBroken(f"found {type(error).__name__} ({error}), expected who is kept") from error


def _suspicious_answers() -> Iterator[Answers]:
    yield from _some_answers()
    honest = near_iid(10)
    for _, lie in _lies(honest):
        probs = honest.copy()
        probs[::4] = lie
        yield answers_of(probs)
        yield answers_of(np.repeat(lie[None], 3, axis=0))
    yield answers_of(np.stack([honest[0], np.roll(honest[0], 1, axis=1)]))


def _honest_stay(rule: Filter) -> None:
    for participants in (1, 2, 3, 5, 10, 20):
        for seed in range(5):
            left_out = _kept(rule, answers_of(near_iid(participants, seed=seed))).left_out
            found = f"left out {', '.join(left_out)} of {participants} honest near-IID sites"
            expect(not left_out, found)


def _reasons(rule: Filter) -> None:
    for answers in _suspicious_answers():
        kept = _kept(rule, answers)
        staying, gone = set(kept.answers.sites), set(kept.left_out)
        expect(not staying & gone, "found a site both kept and left out")
        expect(staying | gone == set(answers.sites), "found a site lost, or one from nowhere")
        spoken = all(isinstance(why, str) and why.strip() for why in kept.left_out.values())
        expect(spoken, "found a site left out without a reason")


def _some_stay(rule: Filter) -> None:
    for answers in _suspicious_answers():
        expect(len(_kept(rule, answers).answers.sites) >= 1, "found nobody kept")


def _words_stay(rule: Filter) -> None:
    for answers in _suspicious_answers():
        before, memory = _bytes_of(answers), rule.init()
        remembered = copy.deepcopy(memory)
        kept = rule.keep(memory, answers)[1].answers
        expect(_bytes_of(answers) == before, "found answers changed by the filter")
        expect(_same(memory, remembered), "found a memory changed by the filter")
        expect(kept.about == answers.about, "found answers about another query set")
        place = [answers.sites.index(site) for site in kept.sites if site in answers.sites]
        expect(all(a < b for a, b in pairwise(place)), "found sites in another order")
        same = len(place) == len(kept.sites) and _bytes_of(kept) == _bytes_of(
            answers.only(np.isin(np.arange(len(answers.sites)), place))
        )
        expect(same, "found a kept site's answers changed")


FILTER_LAWS: dict[str, Callable[[Filter], None]] = {
    "nobody is left out among honest near-IID sites": _honest_stay,
    "every site is kept, or left out with a reason": _reasons,
    "at least one site is kept": _some_stay,
    "answers and memory are left untouched": _words_stay,
}
