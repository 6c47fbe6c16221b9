"""Tries what a site is configured to do, on its own records, and keeps nothing of it."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fedkd.data import Records
from fedkd.distill import LearningPlan, as_classifier
from fedkd.federation.randomness import stream
from fedkd.federation.site import Build, SiteSettings
from fedkd.federation.speaking import check_speaker
from fedkd.knowledge import digest_of_bytes
from fedkd.privacy import Mechanism, TrainingPlan
from fedkd.privacy.noise import system_noise
from fedkd.wire import Answer, Closed, Considered, Present, Reason, Refusal, Ruling, encode

BATCH = 32
SEED = 0
"""Of a model that is thrown away; noise comes from the operating system."""
NOBODY = digest_of_bytes(b"")


@dataclass(frozen=True, slots=True)
class Tried:
    """One step of training: on how many rows, and how many seconds it took."""

    model: str
    rows: int
    seconds: float
    private: bool


def try_step(
    settings: SiteSettings, build: Build, records: Records, plan: TrainingPlan | None
) -> Tried:
    """Takes one step with the site's own model: a private one where `plan` is there.

    Without a plan a batch of records, or for a model without steps all of them. `BadInput` where
    the model does not fit the records or the mechanism.
    """
    mechanism: Mechanism = build(settings.mechanism)
    rng = stream(SEED, settings.name, 0, "initialise")
    fresh = as_classifier(build({**settings.model, "_partial_": True}), settings.space, rng)
    check_speaker(fresh, mechanism)
    if plan is not None and mechanism.speaker == "gradients":
        return _private_step(settings, fresh, records, plan)
    stepwise = fresh.weights() is not None
    part = records.take(np.arange(min(BATCH, len(records)))) if stepwise else records
    told = {name: settings.training[name] for name in ("learning_rate", "weight_decay")}
    learning = LearningPlan(epochs=1, batch=BATCH, **told)
    if stepwise:  # once untimed: what is loaded at the first step is no step
        fresh.fit(part, None, learning, stream(SEED, settings.name, 0, "local"))
    began = time.perf_counter()
    fresh.fit(part, None, learning, stream(SEED, settings.name, 0, "local"))
    return Tried(settings.model_name, len(part), time.perf_counter() - began, False)


def _private_step(
    settings: SiteSettings, fresh: Any, records: Records, plan: TrainingPlan
) -> Tried:
    from fedkd.distill.private import PrivateTraining, even_start, train_privately

    one = PrivateTraining(**asdict(replace(plan, steps=1)))
    noise, start = system_noise(), even_start(fresh)
    train_privately(start, records, one, noise, noise.uniforms)  # once untimed, as above
    began = time.perf_counter()
    train_privately(start, records, one, noise, noise.uniforms)
    return Tried(settings.model_name, len(records), time.perf_counter() - began, True)


def sizes_of_messages(settings: SiteSettings, build: Build, queries: int) -> Mapping[str, int]:
    """Bytes of each kind of message that this site sends, an answer about so many queries.

    Covers (heads of logs, signatures) come on top. Nothing is answered: the numbers are 1/C.
    """
    classes = len(settings.space.classes)
    name, spec = next(iter(settings.accepts.codecs.items()))
    probs = np.full((queries, classes), 1 / classes, dtype=np.float32)
    coded = build(spec).encode(probs)
    run, round = "0" * 16, 1
    return {
        "considered": len(encode(Considered(settings.name, run, NOBODY, Ruling.APPROVED))),
        "present": len(encode(Present(settings.name, run, "fedkd 0.0.0"))),
        "answer": len(encode(Answer(settings.name, run, round, NOBODY, NOBODY, name, coded))),
        "closed": len(encode(Closed(settings.name, run, round, NOBODY))),
        "refusal": len(encode(Refusal(settings.name, run, round, Reason.FAILED))),
    }
