"""What private training costs beside plain training of the same steps, and replaying a ledger."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from fedkd.data import Records
    from fedkd.distill.models.torch_classifier import TorchClassifier
    from fedkd.distill.private import PrivateTraining

CHARGES = 10_000
ORDERS = (2, 8, 32, 128, 1024)


class Case(NamedTuple):
    """A training: its model, on what, for how long; `target` is the most that it may cost."""

    name: str
    model: str
    image: bool
    patients: int
    steps: int
    sampling_rate: float
    target: float


CASES = (
    Case("linear, 6,000 images, all patients in a step", "logistic", True, 6000, 100, 1.0, 2.0),
    Case("linear, table of 200 patients, all in a step", "logistic", False, 200, 300, 1.0, 2.0),
    Case("MLP, table of 200 patients, all in a step", "mlp", False, 200, 300, 1.0, 3.0),
    Case("MLP, 6,000 images, a tenth in a step", "mlp", True, 6000, 60, 0.1, 3.0),
    Case("CNN, 6,000 images, a tenth in a step", "cnn", True, 6000, 30, 0.1, 3.0),
)


def speed(repeats: int) -> dict[str, Any]:
    """CPU seconds of one thread, each private training beside a plain one, in turns."""
    print("private training / plain training of the same steps, CPU; median (least to most)")
    trainings = [_compared(case, repeats) for case in CASES]
    return {"trainings": trainings, "replay": _replayed()}


def _compared(case: Case, repeats: int) -> dict[str, Any]:
    import numpy as np
    import torch

    from fedkd.distill.models.cnn import cnn
    from fedkd.distill.models.logistic import logistic
    from fedkd.distill.models.mlp import mlp
    from fedkd.distill.private import PrivateTraining, train_privately
    from fedkd.privacy.noise import NoiseSource, rehearsal_noise, system_noise

    torch.set_num_threads(1)
    records, space = _records(case)
    factories: dict[str, Any] = {"logistic": logistic, "mlp": mlp, "cnn": cnn}
    model: TorchClassifier = factories[case.model](space, np.random.default_rng(0))
    plan = PrivateTraining(
        patients=case.patients, steps=case.steps, noise_multiplier=3.0, optimizer="sgd",
        learning_rate=0.01, sampling_rate=case.sampling_rate,
    )  # fmt: skip

    def private(noise: NoiseSource) -> Callable[[], object]:
        return lambda: train_privately(model, records, plan, noise, noise.uniforms)

    sides: dict[str, Callable[[], object]] = {
        "plain": lambda: _plain(model, records, plan),
        "private": private(system_noise()),
        "rehearsal": private(rehearsal_noise(np.random.default_rng(1))),
    }
    for work in sides.values():
        work()  # torch imports for a second when it is first used
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            cpu[name].append(_cpu(work))
    result: dict[str, Any] = {"name": case.name, "target": case.target, "steps": case.steps}
    result["plain_cpu_s"] = median(cpu["plain"])
    for name in ("private", "rehearsal"):
        ratios = sorted(a / b for a, b in zip(cpu[name], cpu["plain"], strict=True))
        result[name] = {"ratio": median(ratios), "least": ratios[0], "most": ratios[-1]}
    found = result["private"]
    print(
        f"  {case.name:<46}{found['ratio']:5.2f} ({found['least']:.2f} to {found['most']:.2f})"
        f"   with noise from a seed {result['rehearsal']['ratio']:.2f}",
        flush=True,
    )
    return result


def _records(case: Case) -> "tuple[Records, Any]":
    import numpy as np

    from fedkd.data import Records
    from fedkd.knowledge import Space

    rng = np.random.default_rng(0)
    if case.image:
        classes = tuple(f"class {number}" for number in range(10))
        space = Space("image", (28, 28), "uint8", 0, 255, classes, 73.0, 90.0)
    else:
        space = Space("table", (32,), "float32", -4.0, 4.0, ("no", "yes"))
    inputs = rng.uniform(space.low, space.high, (case.patients, *space.shape))
    labels = rng.integers(len(space.classes), size=case.patients)
    return Records(inputs.astype(space.dtype), labels, None), space


def _plain(model: "TorchClassifier", records: "Records", plan: "PrivateTraining") -> None:
    """What anybody would write: the same steps on as many rows, by one backward pass each."""
    import torch
    from torch.nn.functional import cross_entropy

    module = model.module().train()
    inputs = torch.from_numpy(model.space.scaled(records.inputs))
    labels = torch.from_numpy(records.labels.copy())
    optimizer = torch.optim.SGD(
        module.parameters(), plan.learning_rate, momentum=plan.momentum, fused=True
    )
    lot = torch.Generator().manual_seed(0)
    for _ in range(plan.steps):
        given, expected = inputs, labels
        if plan.sampling_rate < 1:
            rows = torch.rand(len(inputs), generator=lot) < plan.sampling_rate
            given, expected = inputs[rows], labels[rows]
        loss = cross_entropy(module(given), expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _replayed() -> dict[str, Any]:
    """Replaying charges of which no two are alike: full batches, and samples at several orders."""
    import numpy as np

    from fedkd.privacy import Ledger, events

    rng = np.random.default_rng(0)
    noises = rng.uniform(5, 50, CHARGES).tolist()
    rates = rng.uniform(0.001, 0.1, CHARGES).tolist()
    full = [events.gaussian(noise) for noise in noises]
    sampled = [
        events.self_composed(20, events.poisson_sampled(rate, events.gaussian(noise)))
        for rate, noise in zip(rates, noises, strict=True)
    ]
    ledger = Ledger("rehearsal", 8.0, 1e-5, filter="gdp")
    found: dict[str, float] = {"gdp": _cpu(lambda: ledger.replay(full))}
    for order in ORDERS:
        # An order that nobody had yet: nothing is remembered from an earlier turn.
        opened = Ledger("rehearsal", 1000.0, 1e-5, filter="rdp", order=order)
        found[f"rdp, order {order}"] = _cpu(partial(opened.replay, sampled))
    print(f"replaying {CHARGES:,} distinct charges, CPU seconds")
    print("  " + "   ".join(f"{name}: {seconds:.2f}" for name, seconds in found.items()))
    return {"charges": CHARGES, "cpu_s": found, "target": 2.0}


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
