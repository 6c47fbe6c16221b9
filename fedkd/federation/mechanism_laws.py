"""The laws of a privacy mechanism with the private training that it plans: all that it keeps."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TypeAlias

import numpy as np

from fedkd.data import Records
from fedkd.distill.models.logistic import logistic
from fedkd.distill.private import PrivateTraining, train_privately
from fedkd.knowledge import Array, Space
from fedkd.knowledge.laws import expect
from fedkd.privacy import Mechanism, PublicFacts, TrainingPlan
from fedkd.privacy.attacks import lower_bound_mu, lower_bound_mu_of_sample
from fedkd.privacy.events import canonical
from fedkd.privacy.laws import ALPHA, FACTS, PRIVACY_LAWS, mu_of, plan_of
from fedkd.privacy.noise import rehearsal_noise

# K canaries, R rows of each, D = K inputs, one output a class.

CANARIES = 400
"""In one training, half of them in it."""
TRAININGS = 30
ROWS = 3
"""A patient has several rows: it is not they that are clipped."""
STEPS = 4
NOISE = 2.0
"""As so many steps add up, neighbours are one deviation apart: 20 % less noise shows best."""
LONG = 1000.0
"""How much longer than the clip a canary's input is, so that of its gradient nothing is lost."""
SLOW = 1e-4
"""A learning rate at which no canary is learnt: its gradient stays longer than the clip."""
SEEN = 0.5
"""The smallest sample that is tried: below it, few canaries are in a step."""

Train: TypeAlias = Callable[..., Any]


def training_keeps_its_claim(
    mechanism: Mechanism, seed: int = 0, trainings: int = TRAININGS, train: Train = train_privately
) -> None:
    """Canaries in the real private training are told from absent ones no better than is paid.

    Each canary is a patient whose gradient would be far longer than the clip, and at right angles
    to all others: one training shows each of them beside noise of its own, so that those in it and
    those left out are independent releases of two neighbouring data sets. What the optimizer makes
    of the noised sums is free, so that plain steps stand for any.
    """
    plan = plan_of(mechanism, FACTS[0])
    if not isinstance(plan, TrainingPlan):
        return
    sampled = plan.sampling_rate < 1
    plan = replace(
        plan,
        patients=CANARIES,
        steps=1 if sampled else STEPS,
        noise_multiplier=1.0 if sampled else NOISE,
        sampling_rate=max(plan.sampling_rate, SEEN),
        learning_rate=SLOW,
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
    )
    seen = [_canaries(plan, [seed, number], train) for number in range(trainings)]
    left, right = (np.concatenate(side) for side in zip(*seen, strict=True))
    cost = canonical(mechanism.training_cost(PublicFacts(CANARIES, 2), plan))
    if cost["event"] == "SelfComposed" and cost["count"] == 1:
        cost = cost["of"]
    if cost["event"] == "PoissonSampled":
        claim = mu_of(cost["of"])
        bound = lower_bound_mu_of_sample(left, right, ALPHA, cost["rate"])
    else:
        claim, bound = mu_of(cost), lower_bound_mu(left, right, ALPHA)
    found = f"found mu at least {bound:.3g} in a training that is paid as {claim:.3g}"
    expect(bound <= claim, found)


def _canaries(plan: TrainingPlan, seed: list[int], train: Train) -> tuple[Array, Array]:
    """How far a training went towards each canary: those left out [K / 2], and those in [K / 2]."""
    coin, noise, sampling = (np.random.default_rng([*seed, stream]) for stream in range(3))
    taken = np.zeros(CANARIES, dtype=bool)
    taken[coin.permutation(CANARIES)[: CANARIES // 2]] = True
    far = LONG * max(1.0, plan.clip)
    space = Space("table", (CANARIES,), "float32", -far, far, ("no", "yes"))
    rows = np.repeat(np.flatnonzero(taken), 1 if plan.unit == "record" else ROWS)
    inputs = (far * np.eye(CANARIES, dtype=np.float32))[rows]
    patients = rows.astype(np.int64)
    records = Records(inputs, np.zeros(len(rows), dtype=np.int64), patients)
    fresh = logistic(space, coin)
    start = fresh.with_weights({name: 0 * array for name, array in (fresh.weights() or {}).items()})
    trained = train(
        start,
        records,
        PrivateTraining(**asdict(plan)),
        rehearsal_noise(noise),
        rehearsal_noise(sampling).uniforms,
    )
    (moved,) = (array for array in trained.weights().values() if array.ndim == 2)  # [2, K]
    towards = (moved[0] - moved[1]).astype(np.float64)
    return towards[~taken], towards[taken]


MECHANISM_LAWS: dict[str, Callable[[Mechanism], None]] = {
    **PRIVACY_LAWS,
    "no attack on the private training refutes what it costs": training_keeps_its_claim,
}
