"""Trains the model that answers by noised, clipped gradients: its answers are then free."""

from typing import Annotated, Literal

from fedkd.knowledge import Array, BadInput, OneOf, Range
from fedkd.privacy.events import Cost
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.mechanism import Mechanism, PublicFacts, Rng, TrainingPlan
from fedkd.privacy.planning import noise_for_ledger, training_cost


def dp_training(
    steps: Annotated[int, Range(1, 1_000_000)] = 60,
    clip: Annotated[float, Range(1e-6, 1e6)] = 1.0,
    sampling_rate: Annotated[float, Range(1e-6, 1.0)] = 1.0,
    learning_rate: Annotated[float, Range(1e-6, 1e3)] = 0.5,
    optimizer: Annotated[str, OneOf(("sgd", "adam"))] = "sgd",
    momentum: Annotated[float, Range(0.0, 0.999)] = 0.9,
    weight_decay: Annotated[float, Range(0.0, 1.0)] = 0.0,
    unit: Annotated[str, OneOf(("patient", "record"))] = "patient",
) -> Mechanism:
    """Differentially private gradient descent (Abadi et al., 2016, 1607.00133), paid once.

    With a `sampling_rate` of 1 every step takes all patients (right for some thousands of them and
    fewer, and for linear models), charged exactly by the filter `gdp`; below 1 each step takes a
    Poisson sample, charged by `rdp`. Answers are post-processing of the trained model: they cost
    nothing, however many questions are asked. A `unit` of record protects single records only.
    """

    def cost_at(facts: PublicFacts, noise_multiplier: float) -> Cost:
        return training_cost(steps, sampling_rate, noise_multiplier)

    def plan(facts: PublicFacts, ledger: Ledger, epsilon: float | None) -> TrainingPlan:
        if ledger.unit != unit:
            raise BadInput(
                f"a plan that protects a {unit}", f"what the budget protects: a {ledger.unit}"
            )
        noise = noise_for_ledger(ledger, lambda noise: cost_at(facts, noise), epsilon)
        return TrainingPlan(
            patients=facts.patients,
            steps=steps,
            noise_multiplier=noise,
            clip=clip,
            sampling_rate=sampling_rate,
            learning_rate=learning_rate,
            optimizer=_optimizer(optimizer),
            momentum=momentum,
            weight_decay=weight_decay,
            unit="record" if unit == "record" else "patient",
        )

    def cost(facts: PublicFacts, planned: TrainingPlan | None) -> Cost:
        if planned is None:
            raise ValueError("found no plan, expected the one that is to be paid")
        return training_cost(planned.steps, planned.sampling_rate, planned.noise_multiplier)

    def answer_cost(facts: PublicFacts, queries: int) -> Cost:
        return {"event": "NoOp"}

    def release(said: Array, rng: Rng) -> Array:
        return said

    kind = "gdp" if sampling_rate == 1 else "rdp"
    return Mechanism("dp_training", True, kind, unit, cost_at, plan, cost, answer_cost, release)


def _optimizer(name: str) -> Literal["sgd", "adam"]:
    return "adam" if name == "adam" else "sgd"
