"""What a federation costs beside bare training, and many small sites together beside one by one."""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedkd.cli.bench.small_sites import bare_loop, mlp_of, records_of
from fedkd.data import Records
from fedkd.distill import LearningPlan


def simulate(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Three comparisons in one run, in CPU seconds of one thread, printed as ratios."""
    results = {"small_sites": _small_sites(options["sites"], options["engine"])}
    results["whole_run"] = _whole_run(options["seconds"])
    return results


def _small_sites(sites: int, engine: str) -> dict[str, Any]:
    import torch

    from fedkd.distill import fit_cohort

    torch.set_num_threads(1)
    space, records = records_of(sites)
    plan = LearningPlan(epochs=5, batch=10, learning_rate=1e-3)
    starts = [mlp_of(space, site) for site in range(sites)]
    bare_loop(starts[:2], records[:2], plan)  # torch's first optimizer imports for a second
    fit_cohort(starts[:2], records[:2], None, plan, _rngs(2))
    loop = _cpu(lambda: bare_loop(starts, records, plan))
    fitted: dict[str, Any] = {}

    def one_by_one() -> None:
        rngs = _rngs(sites)
        fitted["alone"] = [
            start.fit(own, None, plan, rng)
            for start, own, rng in zip(starts, records, rngs, strict=True)
        ]

    def together() -> None:
        fitted["together"] = fit_cohort(starts, records, None, plan, _rngs(sites))

    alone, cohort = _cpu(one_by_one), _cpu(together)
    results: dict[str, Any] = {
        "sites": sites,
        "bare_torch_loop_cpu_s": loop,
        "one_by_one_cpu_s": alone,
        "together_cpu_s": cohort,
        "loop_over_together": loop / cohort,
        "largest_difference": _difference(fitted["alone"], fitted["together"], records),
    }
    print(f"{sites} sites, MLP on 8x8 images, about 30 records each, 5 epochs; CPU seconds")
    print(f"  bare torch loop, fused Adam   {loop:7.2f}")
    print(f"  fedkd, one by one             {alone:7.2f}   {alone / loop:5.2f} of the loop")
    print(f"  fedkd, together               {cohort:7.2f}   loop / together: {loop / cohort:.1f}")
    if engine == "both":
        wall, cpu = _on_flower(sites)
        results |= {"flower_engine_cpu_s": cpu, "flower_engine_wall_s": wall}
        results["flower_over_together"] = cpu / cohort
        print(
            f"  Flower's engine on Ray        {cpu:7.2f}   Flower / together: {cpu / cohort:.1f}"
            f"   ({wall:.1f} s of wall time, Ray's start included in neither)"
        )
    return results


def _rngs(sites: int) -> list[Any]:
    import numpy as np

    return [np.random.default_rng(1000 + site) for site in range(sites)]


def _difference(alone: list[Any], together: list[Any], records: list[Records]) -> float:
    import numpy as np

    gaps = [
        np.abs(a.probs(own.inputs) - b.probs(own.inputs)).max()
        for a, b, own in zip(alone, together, records, strict=True)
    ]
    return float(max(gaps))


def _cpu(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _on_flower(sites: int) -> tuple[float, float]:
    """The same training as a plain Flower app on Flower's own simulation engine: (wall, CPU)."""
    from fedkd.cli.bench.flower_loop import measured

    return measured(sites)


def _whole_run(seconds: float) -> dict[str, Any]:
    """A whole default-like run against a bare torch loop of the same steps, in the same window."""
    from fedkd.cli.bench.same_steps import bare_loop_cpu
    from fedkd.cli.simulate import simulate_one

    epochs = max(1, round(12 * seconds))
    overrides = [
        "data=digits", "clients.count=10", "clients.models=[cnn]", "data.validation=0.1",
        f"training.local_epochs={epochs}", f"training.lesson_epochs={epochs // 4}",
        f"student.epochs={epochs // 2}",
    ]  # fmt: skip
    os.environ["FEDKD_QUIET"] = "1"
    with tempfile.TemporaryDirectory() as base:
        cpu = time.process_time()
        run, summary = simulate_one([*overrides, f"out={base}/run"])
        cpu = time.process_time() - cpu
        loop = bare_loop_cpu(run)
    wall_share = summary["wall_s"] / summary["train_s"]
    print(f"a whole run, {summary['train_s']:.1f} s of training in {summary['wall_s']:.1f} s")
    print(f"  wall_s / train_s                        {wall_share:.3f}")
    print(f"  CPU seconds, run / bare loop            {cpu / loop:.3f}  ({cpu:.1f} / {loop:.1f})")
    print(f"  ({sys.platform}, {os.cpu_count()} cores, one thread)")
    return {
        "train_s": summary["train_s"],
        "wall_s": summary["wall_s"],
        "wall_over_train": wall_share,
        "cpu_s": cpu,
        "bare_loop_cpu_s": loop,
        "cpu_over_bare_loop": cpu / loop,
    }
