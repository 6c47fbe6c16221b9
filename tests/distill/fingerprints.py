"""Prints what bundled models answer after learning: run by two processes and compared."""

import hashlib
import json

import numpy as np

from fedkd.distill import LearningPlan
from fedkd.distill.laws import Toy
from fedkd.distill.losses.kl import kl
from fedkd.distill.models.cnn import cnn
from fedkd.distill.models.gradient_boosting import gradient_boosting
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.random_forest import random_forest


def fingerprint(factory, toy: Toy, **keys) -> str:
    plan = LearningPlan(epochs=3, batch=16, learning_rate=1e-3, loss=kl())
    model = factory(toy.space, np.random.default_rng(0), **keys)
    model = model.fit(toy.records, None, plan, np.random.default_rng(1))
    model = model.fit(toy.records, toy.lesson, plan, np.random.default_rng(2))
    return hashlib.sha256(model.probs(toy.lesson.queries.inputs).tobytes()).hexdigest()


if __name__ == "__main__":
    table, image = Toy.of("table"), Toy.of("image")
    found = {
        "mlp": fingerprint(mlp, table, dropout=0.2),
        "cnn": fingerprint(cnn, image),
        "random_forest": fingerprint(random_forest, table, trees=20),
        "gradient_boosting": fingerprint(gradient_boosting, table, rounds=5),
    }
    print(json.dumps(found))
