"""Trains the model that answers by noised, clipped gradients: its answers are then free."""

from typing import Annotated, Literal

from fedkd.knowledge import Array, BadInput, OneOf, Range
from fedkd.privacy.events import Cost
from fedkd.privacy.learning_rate import derived_learning_rate
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.mechanism import Mechanism, Plan, PublicFacts, TrainingPlan, unit_of
from fedkd.privacy.noise import NoiseSource
from fedkd.privacy.planning import noise_for_ledger, training_cost


def dp_training(
    steps: Annotated[int, Range(1, 1_000_000)] = 100,
    clip: Annotated[float, Range(1e-6, 1e6)] = 1.0,
    sampling_rate: Annotated[float, Range(1e-6, 1.0)] = 1.0,
    learning_rate: Annotated[float, Range(1e-6, 1e3)] | None = None,
    optimizer: Annotated[str, OneOf(("sgd", "adam"))] = "sgd",
    momentum: Annotated[float, Range(0.0, 0.999)] = 0.9,
    weight_decay: Annotated[float, Range(0.0, 1.0)] = 0.0,
    unit: Annotated[str, OneOf(("patient", "record"))] = "patient",
    learns_from_lessons: bool = False,
) -> Mechanism:
    """Differentially private gradient descent (Abadi et al., 2016, 1607.00133), paid once.

    With a `sampling_rate` of 1 every step takes all patients (right for some thousands of them and
    fewer, and for linear models), charged exactly by the filter `gdp`; below 1 each step takes a
    Poisson sample, charged by `rdp`. Answers are post-processing of the trained model: they cost
    nothing, however many questions are asked. A `unit` of record protects single records only.

    With `learns_from_lessons` the speaker also learns from each consensus, which holds nothing that
    was not let out: it costs nothing, and a federation may come to agree on nothing (Shumailov et
    al., 2024, 10.1038/s41586-024-07566-y, on models that learn from models).

    A `learning_rate` of None is derived from the plan's own noise (`derived_learning_rate`).
    """

    def cost_at(facts: PublicFacts, noise_multiplier: float) -> Cost:
        return training_cost(steps, sampling_rate, noise_multiplier)

    def plan(facts: PublicFacts, ledger: Ledger, epsilon: float | None) -> TrainingPlan:
        if ledger.unit != unit:
            raise BadInput(
                f"a plan that protects a {unit}", f"what the budget protects: a {ledger.unit}"
            )
        noise = noise_for_ledger(ledger, lambda noise: cost_at(facts, noise), epsilon)
        rate = learning_rate
        if rate is None:
            rate = derived_learning_rate(
                optimizer,
                momentum,
                patients=facts.patients,
                steps=steps,
                sampling_rate=sampling_rate,
                noise_multiplier=noise,
                clip=clip,
            )
        return TrainingPlan(
            patients=facts.patients,
            steps=steps,
            noise_multiplier=noise,
            clip=clip,
            sampling_rate=sampling_rate,
            learning_rate=rate,
            optimizer=_optimizer(optimizer),
            momentum=momentum,
            weight_decay=weight_decay,
            unit=unit_of(unit),
        )

    def cost(facts: PublicFacts, planned: Plan | None) -> Cost:
        if not isinstance(planned, TrainingPlan):
            raise ValueError(f"found {planned!r}, expected the training that is to be paid")
        return training_cost(planned.steps, planned.sampling_rate, planned.noise_multiplier)

    def answer_cost(facts: PublicFacts, planned: Plan | None, queries: int) -> Cost:
        return {"event": "NoOp"}

    def release(said: Array, planned: Plan | None, noise: NoiseSource) -> Array:
        return said

    return Mechanism(
        name="dp_training",
        private=True,
        filter="gdp" if sampling_rate == 1 else "rdp",
        unit=unit_of(unit),
        speaker="gradients",
        cost_at=cost_at,
        plan=plan,
        training_cost=cost,
        answer_cost=answer_cost,
        release=release,
        worst_pair=None,
        learns=learns_from_lessons,
    )


def _optimizer(name: str) -> Literal["sgd", "adam"]:
    return "adam" if name == "adam" else "sgd"
