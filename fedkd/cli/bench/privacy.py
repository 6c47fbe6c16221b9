"""What privacy costs a student, what it hides from attackers, and what it costs in time."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.cli.bench.methods import _json, _spread
from fedkd.knowledge import BadInput


@dataclass(frozen=True, slots=True)
class Cell:
    """One federation: what it needs on disk, its overrides, and at which epsilons it is run.

    `private` are overrides for the runs with a budget alone, `plain` for the run without.
    """

    name: str
    needs: str | None
    overrides: tuple[str, ...]
    measure: str
    epsilons: tuple[float | None, ...]
    private: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    seeds: int | None = None


# 6,000 training records a site. Under a mechanism the residents have no part in what is measured.
FASHION = (
    "data=fashion_mnist", "clients.count=4", "data.records=26668", "data.validation=0.1",
    "rounds=1", "student.epochs=60",
)  # fmt: skip
AT_HOME = ("training.local_epochs=1", "training.lesson_epochs=1")
CELLS = (
    Cell(
        "Heart disease, four hospitals",
        "heart_disease",
        ("data=heart_disease",),
        "auroc",
        (1, 2, 4, 8, None),
    ),
    Cell(
        "Breast cancer, one site",
        None,
        ("data=breast_cancer", "clients.count=1"),
        "auroc",
        (1, 4, None),
    ),
    Cell(
        "Fashion-MNIST, four sites of 6,000, linear",
        "fashion_mnist",
        (*FASHION, "clients.models=[logistic]", "student.model=logistic"),
        "accuracy",
        (1, 4, None),
        AT_HOME,
        ("training.lesson_epochs=1",),
    ),
    Cell(
        "Fashion-MNIST, four sites of 6,000, small CNN",
        "fashion_mnist",
        (*FASHION, "clients.models=[cnn]", "student.model=cnn"),
        "accuracy",
        (1, 4, None),
        (*AT_HOME, "mechanism.sampling_rate=0.1", "mechanism.steps=400"),
        ("training.lesson_epochs=1",),
        2,  # its runs are as long as all the others together
    ),
)
LEAKY = (
    Cell(
        "Heart disease, four hospitals", "heart_disease", ("data=heart_disease",), "auroc",
        (1, 4, None),
    ),
    # A network that learns its 240 records by heart: 100 passes.
    Cell(
        "Fashion-MNIST, three sites of 240, MLP",
        "fashion_mnist",
        (
            "data=fashion_mnist", "clients.count=3", "data.records=800", "data.validation=0.1",
            "rounds=1", "query.size=300", "data.test_size=2000", "clients.models=[mlp]",
            "training.local_epochs=100", "training.lesson_epochs=1", "student.model=mlp",
        ),
        "accuracy",
        (1, 4, None),
    ),
)  # fmt: skip
ATTACKED = 2
"""Sites of a federation that are attacked: the first ones, by name."""


def privacy(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The parts that were asked for; finished runs and attacks are not run again."""
    os.environ["FEDKD_QUIET"] = "1"
    results: dict[str, Any] = {}
    if "utility" in options["parts"]:
        results["utility"] = _utility(options, folder)
    if "leakage" in options["parts"]:
        results["leakage"] = _leakage(options, folder)
    if "speed" in options["parts"]:
        from fedkd.cli.bench.private_speed import speed

        results["speed"] = speed(options["repeats"])
    return results


def _given(cells: Sequence[Cell], options: Mapping[str, Any]) -> Iterator[Cell]:
    found = False
    for number, cell in enumerate(cells, start=1):
        if cells is CELLS and number not in options["cells"]:
            continue
        if cell.needs is not None and not options[cell.needs]:
            print(f"left out: {cell.name}; name its folder: {cell.needs}=...", file=sys.stderr)
            continue
        found = True
        yield cell
    if not found:
        raise BadInput(
            "no data set",
            "fashion_mnist=<folder> or heart_disease=<folder>",
            "docs/own-data.md says where they come from",
        )


def _run(
    cell: Cell, epsilon: float | None, seed: int, options: Mapping[str, Any], folder: Path
) -> tuple[Path, dict[str, Any]]:
    import rfc8785

    from fedkd.cli.configuration import compose
    from fedkd.cli.overrides import quoted
    from fedkd.cli.simulate import simulate_one
    from fedkd.knowledge import digest_of_bytes
    from fedkd.report import read_summary

    overrides = [*cell.overrides, f"seed={seed}"]
    if cell.needs is not None:
        overrides.append(f"data.path={quoted(options[cell.needs])}")
    if epsilon is None:
        overrides += cell.plain
    else:
        overrides += ["mechanism=dp_training", f"budget.epsilon={epsilon:g}", *cell.private]
    named = digest_of_bytes(rfc8785.dumps(_json(compose(overrides)))).removeprefix("sha256:")
    run = folder / "cells" / named[:16]
    if not (run / "summary.json").exists():
        print(f"{cell.name}, epsilon {_called(epsilon)}, seed {seed}", file=sys.stderr, flush=True)
        if (run / "config.yaml").exists():
            simulate_one([], resume=run)
        else:
            simulate_one([*overrides, f"out={quoted(str(run))}"])
    return run, read_summary(run / "summary.json")


def _called(epsilon: float | None) -> str:
    return "none" if epsilon is None else f"{epsilon:g}"


# Utility.


def _utility(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """For each federation and epsilon: the student on the common test, over the seeds."""
    results = {}
    for cell in _given(CELLS, options):
        seeds = options["seeds"][: cell.seeds]
        summaries = {
            epsilon: [_run(cell, epsilon, seed, options, folder)[1] for seed in seeds]
            for epsilon in cell.epsilons
        }
        first = summaries[cell.epsilons[0]][0]
        _expect_kept(cell, summaries)
        results[cell.name] = {
            "measure": cell.measure,
            "data": first["data"],
            "seeds": seeds,
            "classes": _classes(cell, options),
            "model": sorted({row["model"] for row in first["clients"]}),
            "patients": {row["site"]: row["records"] for row in first["clients"]},
            "by_epsilon": {
                _called(epsilon): _spread([run["student"][cell.measure] for run in runs])
                for epsilon, runs in summaries.items()
            },
        }
        _show_utility(cell.name, results[cell.name])
    return results


def _classes(cell: Cell, options: Mapping[str, Any]) -> int:
    from fedkd.cli.configuration import compose
    from fedkd.cli.overrides import quoted
    from fedkd.cli.run import dataset_of

    path = [] if cell.needs is None else [f"data.path={quoted(options[cell.needs])}"]
    return len(dataset_of(compose([*cell.overrides, *path])["data"]).space.classes)


def _expect_kept(cell: Cell, summaries: Mapping[float | None, Sequence[dict[str, Any]]]) -> None:
    """A figure counts only where every site answered and spent no more than its budget."""
    for epsilon, runs in summaries.items():
        for row in (row for run in runs for row in run["clients"]):
            spent = row["epsilon"]
            if row["left_out"] or (epsilon is not None and not (spent and spent <= epsilon)):
                raise RuntimeError(
                    f"found {row['site']} left out or with {spent} spent of {epsilon} in "
                    f"{cell.name}, expected every site within its budget"
                )


def _show_utility(name: str, rows: Mapping[str, Any]) -> None:
    shown = [
        f"{epsilon}: {spread['mean']:.3f}" + (f" ± {spread['sd']:.3f}" if spread["sd"] else "")
        for epsilon, spread in rows["by_epsilon"].items()
    ]
    print(f"{name}, student, {rows['measure']}, by epsilon\n  " + "   ".join(shown), flush=True)


# Leakage.


def _leakage(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What attacks find at a plain run's sites and at a private one's, on the same records."""
    seed, results = options["seeds"][0], {}
    for cell in _given(LEAKY, options):
        by_epsilon = {}
        for epsilon in cell.epsilons:
            run, summary = _run(cell, epsilon, seed, options, folder)
            names = sorted(row["site"] for row in summary["clients"])[:ATTACKED]
            found = _attacked(run, names, options["shadows"], seed)
            by_epsilon[_called(epsilon)] = {
                "student": summary["student"][cell.measure],
                "sites": found["sites"],
                "worst": _worst(found["sites"]),
            }
        results[cell.name] = {
            "measure": cell.measure, "seed": seed, "shadows": options["shadows"],
            "by_epsilon": by_epsilon,
        }  # fmt: skip
        _show_leakage(cell.name, by_epsilon)
    return results


def _attacked(run: Path, sites: Sequence[str], shadows: int, seed: int) -> dict[str, Any]:
    """The report of `fedkd privacy attack`, kept beside the run."""
    from fedkd.cli.attack import attack

    kept = run.with_name(f"{run.name}-attack-{shadows}-{seed}.json")
    if not kept.exists():
        print(f"attacking {', '.join(sites)}", file=sys.stderr, flush=True)
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            attack(run, kind=None, shadows=shadows, seed=seed, as_json=True, sites=sites)
        report = json.loads(told.getvalue())
        kept.write_text(json.dumps({"sites": report["sites"]}, indent=2, sort_keys=True) + "\n")
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def _worst(sites: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By attack: the largest figure at any site, which is what a hospital has to fear."""
    worst: dict[str, dict[str, float]] = {}
    for site in sites:
        for found in site["findings"]:
            figures = worst.setdefault(found["attack"], {})
            for name in ("auc", "tpr", "epsilon_at_least"):
                if isinstance(found.get(name), int | float):
                    figures[name] = max(figures.get(name, 0.0), found[name])
    return worst


def _show_leakage(name: str, by_epsilon: Mapping[str, Any]) -> None:
    print(f"{name}: what attacks find, by epsilon (largest of the attacked sites)")
    for epsilon, row in by_epsilon.items():
        figures = "   ".join(
            f"{attack} AUC {found['auc']:.2f}" for attack, found in row["worst"].items()
        )
        print(f"  {epsilon:5} student {row['student']:.3f}   {figures}", flush=True)
