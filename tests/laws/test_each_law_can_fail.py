"""Each law is broken by a part with one planted fault: a law that nothing breaks says nothing."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from fedkd.distill.generators.generator import Generator
from fedkd.distill.generators.laws import GENERATOR_LAWS
from fedkd.distill.generators.procedural import procedural
from fedkd.knowledge import (
    Aggregator,
    BadInput,
    Consensus,
    Distributions,
    Filter,
    Kept,
    Public,
    QuerySet,
)
from fedkd.knowledge.aggregate.mean import consensus_of, mean, voices
from fedkd.knowledge.aggregate.median import median
from fedkd.knowledge.filter.none import none
from fedkd.knowledge.laws import AGGREGATE_LAWS, FILTER_LAWS, LawBroken
from fedkd.wire import Codec, Malformed
from fedkd.wire.codecs.float32 import float32
from fedkd.wire.laws import CODEC_LAWS


def rule(combine, withstands=0.0, init=dict):
    return Aggregator(init, combine, withstands)


def taught(answers, probs, memory=None):
    return memory or {}, consensus_of(probs, answers)


def summed_with_silence(memory, answers):
    return taught(answers, answers.probs.sum(axis=0))


def first_site_counts_double(memory, answers):
    weights = np.where(np.arange(len(answers.sites)) == 0, 2, 1)[:, None] * voices(answers)
    return taught(answers, np.einsum("pq,pqc->qc", weights, answers.probs))


def not_normalised(memory, answers):
    return memory, Consensus(Distributions(answers.probs.sum(axis=0) + 1, answers.about))


def about_something_else(memory, answers):
    common = mean().combine(memory, answers)[1].common
    return memory, Consensus(Distributions(common.probs, "sha256:" + "0" * 64))


def least_likely(memory, answers):
    return taught(answers, 1 - mean().combine(memory, answers)[1].common.probs.astype(float))


def overwrites(memory, answers):
    answers.probs.setflags(write=True)
    answers.probs[0] = answers.probs[-1][::-1]
    return mean().combine(memory, answers)


def remembers_in_place(memory, answers):
    memory["rounds"] = memory.get("rounds", 0) + 1
    return mean().combine(memory, answers)


def tosses_coins(memory, answers):
    common = mean().combine(memory, answers)[1].common.probs
    return taught(answers, common + 1e-3 * np.random.default_rng().random(common.shape))


def guesses_where_nobody_spoke(memory, answers):
    common = mean().combine(memory, answers)[1].common.probs.copy()
    common[~answers.answered.any(axis=0)] = np.eye(common.shape[1])[0]
    return taught(answers, common)


def keeps_a_mean_and_promises_a_median(memory, answers):
    return mean().combine(memory, answers)


ON_SIMPLEX, UNANIMOUS, ORDER, UNTOUCHED, SAME, NOBODY, SILENCE, LIARS = AGGREGATE_LAWS
AGGREGATORS = [
    (ON_SIMPLEX, rule(not_normalised)),
    (ON_SIMPLEX, rule(about_something_else)),
    (ON_SIMPLEX, rule(lambda memory, answers: 1 / 0)),
    (UNANIMOUS, rule(least_likely)),
    (ORDER, rule(first_site_counts_double)),
    (UNTOUCHED, rule(overwrites)),
    (UNTOUCHED, rule(remembers_in_place)),
    (SAME, rule(tosses_coins)),
    (NOBODY, rule(guesses_where_nobody_spoke)),
    (SILENCE, rule(summed_with_silence)),
    (LIARS, rule(keeps_a_mean_and_promises_a_median, withstands=0.45)),
    (LIARS, median()._replace(withstands=0.9)),
    (LIARS, median()._replace(withstands=-0.1)),
]


def filtered(keep):
    return Filter(dict, keep)


def drops(memory, answers):
    keep = np.arange(len(answers.sites)) > 0
    if not keep.any():
        return memory, Kept(answers, {})
    return memory, Kept(answers.only(keep), {answers.sites[0]: "it came first"})


def drops_in_silence(memory, answers):
    kept = drops(memory, answers)[1]
    return memory, Kept(kept.answers, dict.fromkeys(kept.left_out, " "))


def loses(memory, answers):
    return memory, Kept(drops(memory, answers)[1].answers, {})


def drops_all(memory, answers):
    return memory, Kept(answers.only(np.zeros(len(answers.sites), dtype=bool)), {})


def both(memory, answers):
    return memory, Kept(answers, {answers.sites[0]: "a doubt"})


def mends(memory, answers):
    better = dataclasses.replace(answers, probs=np.full_like(answers.probs, 1 / 5))
    return memory, Kept(better, {})


def spoils(memory, answers):
    answers.weights.setflags(write=True)
    answers.weights[0] += 1
    return memory, Kept(answers, {})


def counts_in_place(memory, answers):
    memory["rounds"] = 1
    return memory, Kept(answers, {})


HONEST, REASONS, SOME, WORDS = FILTER_LAWS
FILTERS = [
    (HONEST, filtered(drops)),
    (REASONS, filtered(drops_in_silence)),
    (REASONS, filtered(loses)),
    (REASONS, filtered(both)),
    (SOME, filtered(drops_all)),
    (WORDS, filtered(mends)),
    (WORDS, filtered(spoils)),
    (WORDS, filtered(counts_in_place)),
]

CODEC = float32()


def halves(probs):
    return {"probs": probs.astype(np.float16).astype(np.float32)}


def ints(probs):
    return {"probs": (probs * 255).astype(np.int32)}


def stamped(probs):
    return {"probs": probs, "stamp": np.random.default_rng().random(1)}


def trusting(arrays, queries, classes):
    if set(arrays) != {"probs"} or arrays["probs"].shape != (queries, classes):
        raise Malformed("another shape")
    if arrays["probs"].dtype != np.float32:
        raise Malformed("another type")
    return arrays["probs"]


def careless(arrays, queries, classes):
    return CODEC.decode({"probs": arrays["probs"]}, queries, classes)


def shapeless(arrays, queries, classes):
    return CODEC.decode(arrays, *arrays["probs"].shape) if arrays.keys() == {"probs"} else None


def raising(arrays, queries, classes):
    return arrays["nothing of the kind"]


ROUND_TRIP, TRAVELS, WEIGHS, SPELLING, REFUSED, HOSTILE = CODEC_LAWS
CODECS = [
    (ROUND_TRIP, CODEC._replace(encode=halves)),
    (ROUND_TRIP, CODEC._replace(decode=raising)),
    (ROUND_TRIP, CODEC._replace(encode=ints)),
    (TRAVELS, Codec(ints, lambda arrays, q, c: np.full((q, c), 1 / c), CODEC.raw_bytes, 1.0)),
    (WEIGHS, CODEC._replace(raw_bytes=lambda queries, classes: queries * classes)),
    (SPELLING, CODEC._replace(encode=stamped)),
    (REFUSED, CODEC._replace(decode=careless)),
    (REFUSED, CODEC._replace(decode=shapeless)),
    (HOSTILE, CODEC._replace(decode=trusting)),
]


def generator(change, space=None, schema=None, init=lambda seed: {"seed": seed}, **more):
    """The procedural generator with `change` made to each set that it poses."""
    if space is None or space.kind != "image":
        raise BadInput("a table", "images")
    honest = procedural(space=space, priors=["noise"])

    def pose(memory, student, count):
        _, queries = honest.pose(memory, student, count)
        return memory, change(queries, memory)

    return Generator(init, pose, **more)


def same(queries, memory):
    return queries


def outside(queries, memory):
    return QuerySet(np.full_like(queries.inputs, 200), queries.origin)


def doubles(queries, memory):
    return QuerySet(queries.inputs.astype(np.float64), queries.origin)


def one_short(queries, memory):
    return QuerySet(queries.inputs[: max(1, len(queries) - 1)], queries.origin)


def unseeded(queries, memory):
    order = np.random.default_rng().permutation(len(queries))
    return QuerySet(queries.inputs[order], queries.origin)


def counting(queries, memory):
    memory["posed"] = memory.get("posed", 0) + 1
    return queries


def one_query_again_and_again(queries, memory):
    return QuerySet(np.repeat(queries.inputs[:1], len(queries), axis=0), queries.origin)


def called_public(queries, memory):
    return QuerySet(queries.inputs, Public("found", "unknown", "sha256:"))


def another_seed(queries, memory):
    return QuerySet(queries.inputs, dataclasses.replace(queries.origin, seed=1))


def without_code(queries, memory):
    return QuerySet(queries.inputs, dataclasses.replace(queries.origin, code="v1"))


def learns_in_secret(memory, queries, consensus, student):
    return {"seed": memory["seed"] + 1}


def reads_records(space=None, schema=None):
    from sklearn.datasets import load_digits

    return generator(same, space, schema, learn=lambda *_: load_digits())


def accepts_nothing(space=None, schema=None):
    raise BadInput("this", "that")


def crashes(space=None, schema=None):
    raise KeyError("x")


IN_SPACE, AGAIN, SEEDS, VARIED, SAID, INDEPENDENT, NO_SOURCE = GENERATOR_LAWS
GENERATORS = [
    (IN_SPACE, partial(generator, outside)),
    (IN_SPACE, partial(generator, doubles)),
    (IN_SPACE, partial(generator, one_short)),
    (IN_SPACE, accepts_nothing),
    (IN_SPACE, crashes),
    (AGAIN, partial(generator, unseeded)),
    (AGAIN, partial(generator, counting)),
    (SEEDS, partial(generator, same, init=lambda seed: {"seed": seed % 2})),
    (VARIED, partial(generator, one_query_again_and_again)),
    (SAID, partial(generator, called_public)),
    (SAID, partial(generator, another_seed)),
    (SAID, partial(generator, without_code)),
    (INDEPENDENT, partial(generator, same, learn=learns_in_secret)),
    (NO_SOURCE, reads_records),
]


def cases(kind, laws, parts):
    return [
        pytest.param(laws[law], part, id=f"{kind} {n}: {law}")
        for n, (law, part) in enumerate(parts)
    ]


EVERY = [
    *cases("aggregate", AGGREGATE_LAWS, AGGREGATORS),
    *cases("filter", FILTER_LAWS, FILTERS),
    *cases("codec", CODEC_LAWS, CODECS),
    *cases("generator", GENERATOR_LAWS, GENERATORS),
]


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize(("law", "part"), EVERY)
def test_a_planted_fault_breaks_its_law(law, part):
    with pytest.raises(LawBroken, match=r"\w"):
        law(part)


@pytest.mark.parametrize(
    ("laws", "parts"),
    [
        (AGGREGATE_LAWS, AGGREGATORS),
        (FILTER_LAWS, FILTERS),
        (CODEC_LAWS, CODECS),
        (GENERATOR_LAWS, GENERATORS),
    ],
    ids=["aggregate", "filter", "codec", "generator"],
)
def test_every_law_has_a_fault_that_breaks_it(laws, parts):
    assert {law for law, _ in parts} == set(laws)


def test_the_parts_under_the_faults_keep_the_laws():
    for laws, part in (
        (AGGREGATE_LAWS, mean()),
        (FILTER_LAWS, none()),
        (CODEC_LAWS, CODEC),
    ):
        for law in laws.values():
            law(part)
    for sentence, law in GENERATOR_LAWS.items():
        if sentence != NO_SOURCE:  # this module's own imports are the planted fault
            law(partial(generator, same))


def test_a_broken_law_says_what_was_found():
    assert issubclass(LawBroken, AssertionError)
    with pytest.raises(LawBroken, match="found inputs"):
        GENERATOR_LAWS[IN_SPACE](partial(generator, outside))
