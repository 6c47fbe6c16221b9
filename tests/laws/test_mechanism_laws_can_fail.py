"""Each law of a mechanism is broken by one with a planted fault, and kept where it has none."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from fedkd.distill.private import train_privately
from fedkd.federation.mechanism_laws import MECHANISM_LAWS, training_keeps_its_claim
from fedkd.knowledge.laws import LawBroken
from fedkd.privacy.events import NO_OP, gaussian, self_composed, zcdp
from fedkd.privacy.laws import answers_keep_their_claim, mu_of
from fedkd.privacy.mechanisms.dp_training import dp_training
from fedkd.privacy.mechanisms.none import NON_PRIVATE, none
from fedkd.privacy.mechanisms.pate import pate
from fedkd.privacy.noise import NoiseSource
from fedkd.privacy.planning import training_cost

PUBLIC, CHARGED, MORE, FITS, LEAVES, SAYS, WORST, TRAINED = MECHANISM_LAWS
SAMPLED = {"sampling_rate": 0.1, "steps": 20}


# A price that sees more than public facts


def counts_what_was_said(made):
    """The price of PATE by its votes: the next answer costs less where shards agreed."""
    told = []

    def release(said, plan, noise):
        told.append(float(said.max()))
        return made.release(said, plan, noise)

    def answer_cost(facts, plan, queries):
        return zcdp(0.1 / (1 + len(told)))

    return made._replace(release=release, answer_cost=answer_cost)


def reads_records(made):
    records = np.arange(100.0)

    def answer_cost(facts, plan, queries):
        return gaussian(float(records.mean()))

    return made._replace(answer_cost=answer_cost)


def is_given_records(made):
    def answer_cost(facts, plan, queries, records=(1, 2, 3)):
        return NO_OP

    return made._replace(answer_cost=answer_cost)


def plans_at_random(made):
    lot = np.random.default_rng()

    def plan(facts, ledger, epsilon):
        found = made.plan(facts, ledger, epsilon)
        return replace(found, noise_multiplier=found.noise_multiplier + lot.random())

    return made._replace(plan=plan)


# A price that is none, or the wrong way round


def priced(made, cost):
    return made._replace(training_cost=lambda facts, plan: cost(plan))


def forgets(made, field, value):
    """The price of a plan with another number in it than its own."""
    return priced(made, lambda plan: made.training_cost(None, replace(plan, **{field: value})))


def noise_is_dear(plan):
    return training_cost(plan.steps, 1, 100 / plan.noise_multiplier)


def fewer_queries_cost_more(facts, plan, queries):
    return zcdp(1 / (2 * plan.noise_multiplier**2) / queries)


def batches_cost_once(facts, noise):
    return zcdp(1 / (2 * noise**2))


# Plans that do not fit


def with_noise(made, factor):
    def plan(facts, ledger, epsilon):
        found = made.plan(facts, ledger, epsilon)
        return replace(found, noise_multiplier=factor * found.noise_multiplier)

    return made._replace(plan=plan)


def deaf_to_its_own_epsilon(made):
    return made._replace(plan=lambda facts, ledger, epsilon: made.plan(facts, ledger, None))


def deaf_to_what_is_spent(made):
    def plan(facts, ledger, epsilon):
        return made.plan(facts, replace(ledger, charged=()), epsilon)

    return made._replace(plan=plan)


# What leaves


def not_normalised(said, plan, noise):
    return 2 * pate().release(said, plan, noise)


def one_too_few(said, plan, noise):
    return said[1:]


def own_noise(said, plan, noise):
    moved = said + 1e-3 * np.random.default_rng().random(said.shape)
    return moved / moved.sum(axis=1, keepdims=True)


def in_place(said, plan, noise):
    said[0] = said[0, ::-1]
    return said


# Noise that is too small


class Shrunk(NoiseSource):
    """Whole numbers of so much of the variance that was asked for."""

    @classmethod
    def of(cls, noise, share):
        made = cls(noise.normals, noise.bits, noise.reproducible)
        object.__setattr__(made, "_whole", (noise, share))
        return made

    def discrete_gaussians(self, variance, count):
        noise, share = self.__dict__["_whole"]
        return noise.discrete_gaussians(variance * share, count)


def with_variance(made, share):
    """A mechanism whose noise has a share of its variance, by the number of queries [Q]."""

    def release(said, plan, noise):
        return made.release(said, plan, Shrunk.of(noise, share(said.shape[1])))

    return made._replace(release=release)


def weak(queries):
    return Fraction(64, 100)  # a deviation of 80 %


def forgets_two(queries):
    return Fraction(1, 2)  # sensitivity 1 for two classes that both change


def forgets_queries(queries):
    return Fraction(1, queries)  # sensitivity of one answer for all of them


def pair_that_is_too_close(facts, queries):
    left, right = pate().worst_pair(facts, queries)
    return left, 0.9 * left + 0.1 * right


def pair_of_many_patients(facts, queries):
    left, right = pate().worst_pair(facts, queries)
    return left, np.concatenate([right[:1], left[1:-1], right[-1:]])[:, :, ::-1]


def pair_that_is_one(facts, queries):
    left, _ = pate().worst_pair(facts, queries)
    return left, left


FAULTS = [
    (PUBLIC, counts_what_was_said(pate())),
    (PUBLIC, reads_records(dp_training())),
    (PUBLIC, is_given_records(dp_training())),
    (PUBLIC, plans_at_random(dp_training())),
    (CHARGED, priced(dp_training(), lambda plan: {"event": "Gaussian", "noise_multiplier": 0.0})),
    (CHARGED, priced(dp_training(), lambda plan: {"event": "NonPrivateDpEvent"})),
    (CHARGED, dp_training(**SAMPLED)._replace(filter="gdp")),
    (MORE, priced(dp_training(), noise_is_dear)),
    (MORE, forgets(dp_training(), "noise_multiplier", 1.0)),
    (MORE, priced(dp_training(), lambda plan: training_cost(1000 // plan.steps, 1, 3.0))),
    (MORE, pate()._replace(answer_cost=fewer_queries_cost_more)),
    (FITS, with_noise(dp_training(), 0.99)),
    (FITS, with_noise(dp_training(**SAMPLED), 0.99)),
    (FITS, with_noise(pate(), 0.99)),
    (FITS, with_noise(dp_training(), 2.0)),
    (FITS, deaf_to_its_own_epsilon(dp_training())),
    (FITS, deaf_to_what_is_spent(pate())),
    (FITS, pate(batches=4)._replace(cost_at=batches_cost_once)),
    (LEAVES, pate()._replace(release=not_normalised)),
    (LEAVES, none()._replace(release=one_too_few)),
    (LEAVES, dp_training()._replace(release=own_noise)),
    (LEAVES, none()._replace(release=in_place)),
    (SAYS, none()._replace(training_cost=lambda facts, plan: NO_OP)),
    (SAYS, none()._replace(private=True)),
    (SAYS, dp_training()._replace(answer_cost=lambda facts, plan, queries: NON_PRIVATE)),
    (SAYS, pate()._replace(speaker="ordinary")),
    (SAYS, pate()._replace(answer_cost=lambda facts, plan, queries: NO_OP)),
    (SAYS, priced(dp_training(), lambda plan: NO_OP)),
    (SAYS, pate()._replace(worst_pair=None)),
    (WORST, pate()._replace(worst_pair=pair_that_is_too_close)),
    (WORST, pate()._replace(worst_pair=pair_of_many_patients)),
    (WORST, pate()._replace(worst_pair=pair_that_is_one)),
    (WORST, with_variance(pate(answer="mean"), weak)),
    (WORST, with_variance(pate(answer="vote"), weak)),
    (WORST, with_variance(pate(answer="mean"), forgets_two)),
    (WORST, with_variance(pate(answer="vote"), forgets_two)),
    (WORST, with_variance(pate(answer="mean"), forgets_queries)),
    (WORST, with_variance(pate(answer="vote"), forgets_queries)),
    (TRAINED, forgets(dp_training(), "noise_multiplier", 2.5)),
    (TRAINED, forgets(dp_training(), "steps", 2)),
]


@pytest.mark.parametrize(
    ("law", "made"),
    [pytest.param(law, made, id=f"{n}: {law}") for n, (law, made) in enumerate(FAULTS)],
)
def test_a_planted_fault_breaks_its_law(law, made):
    with pytest.raises(LawBroken, match=r"\w"):
        MECHANISM_LAWS[law](made)


def test_every_law_has_a_fault_that_breaks_it():
    assert {law for law, _ in FAULTS} == set(MECHANISM_LAWS)


@pytest.mark.parametrize("law", MECHANISM_LAWS)
@pytest.mark.parametrize(
    "made",
    [
        pate(answer="vote"),
        pate(shards=201, batches=7, unit="record"),
        dp_training(**SAMPLED),
        dp_training(unit="record", clip=0.01),
    ],
    ids=["vote", "batches", "sampled", "records"],
)
def test_other_mechanisms_than_the_yamls_keep_the_laws(law, made):
    MECHANISM_LAWS[law](made)


# The private training itself, with a fault in it


def weak_noise(model, records, plan, noise, sampling):
    return train_privately(model, records, plan, lambda count: 0.8 * noise(count), sampling)


def unclipped(model, records, plan, noise, sampling):
    loose = replace(plan, clip=4 * plan.clip, noise_multiplier=plan.noise_multiplier / 4)
    return train_privately(model, records, loose, noise, sampling)


def clipped_by_rows(model, records, plan, noise, sampling):
    loose = replace(plan, unit="record", patients=3 * plan.patients)
    return train_privately(model, records, loose, noise, sampling)


def everybody(model, records, plan, noise, sampling):
    return train_privately(model, records, replace(plan, sampling_rate=1.0), noise, sampling)


def one_step_more(model, records, plan, noise, sampling):
    """A step without noise, such as a last look at the records."""
    quiet = replace(plan, steps=1)
    first = train_privately(model, records, plan, noise, sampling)
    return train_privately(first, records, quiet, np.zeros, sampling)


@pytest.mark.parametrize("made", [{}, SAMPLED], ids=["all patients", "samples"])
@pytest.mark.parametrize("train", [weak_noise, unclipped, clipped_by_rows, one_step_more])
def test_a_fault_in_the_training_is_found(train, made):
    with pytest.raises(LawBroken, match="found mu at least"):
        training_keeps_its_claim(dp_training(**made), train=train)


def test_a_sample_that_takes_everybody_is_found():
    with pytest.raises(LawBroken, match="found mu at least"):
        training_keeps_its_claim(dp_training(**SAMPLED), train=everybody)


# False alarms, and what a claim is


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize(
    "law",
    [
        partial(answers_keep_their_claim, pate(answer="vote"), releases=1000),
        partial(answers_keep_their_claim, pate(answer="mean"), releases=1000),
        partial(training_keeps_its_claim, dp_training(), trainings=4),
        partial(training_keeps_its_claim, dp_training(**SAMPLED), trainings=4),
    ],
    ids=["vote", "mean", "training", "sampled"],
)
def test_a_true_claim_stands_whatever_the_seed(law, seed):
    law(seed=seed)


def test_a_claim_adds_up_in_squares():
    assert mu_of(self_composed(4, gaussian(2.0))) == pytest.approx(1.0)
    assert mu_of(zcdp(0.5)) == pytest.approx(1.0)
    both = {"event": "Composed", "of": [gaussian(1.0), zcdp(0.5), NO_OP]}
    assert mu_of(both) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("cost", [NON_PRIVATE, {"event": "ZCDp", "rho": 1.0, "xi": 1.0}])
def test_a_claim_that_no_attack_tests_is_none(cost):
    with pytest.raises(LawBroken, match="no attack here tests"):
        mu_of(cost)
