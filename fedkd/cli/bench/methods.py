"""What hospitals and student gain, over seeds, beside alone-as-long, FedAvg and pooled records."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from fedkd.knowledge import BadInput


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition of the table: its name, what it needs on disk, its overrides, its measure."""

    name: str
    needs: str
    overrides: tuple[str, ...]
    measure: str


CELLS = (
    Cell(
        "Fashion-MNIST, IID", "fashion_mnist", ("data=fashion_mnist", "partition=iid"), "accuracy"
    ),
    Cell(
        "Fashion-MNIST, Dirichlet 0.5",
        "fashion_mnist",
        ("data=fashion_mnist", "partition=dirichlet", "partition.alpha=0.5"),
        "accuracy",
    ),
    Cell("Heart disease, four hospitals", "heart_disease", ("data=heart_disease",), "auroc"),
)


def methods(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Runs every cell whose data are given, for every seed; finished runs are not run again."""
    seeds = options["seeds"]
    results = {}
    for number, cell in enumerate(CELLS, start=1):
        if number not in options["cells"]:
            continue
        if not options[cell.needs]:
            print(f"left out: {cell.name}; name its folder: {cell.needs}=...", file=sys.stderr)
            continue
        runs = [_run(cell, seed, options[cell.needs], folder) for seed in seeds]
        results[cell.name] = {"measure": cell.measure, **_rows(cell, runs)}
    if not results:
        raise BadInput(
            "no data set",
            "fashion_mnist=<folder> or heart_disease=<folder>",
            "docs/own-data.md says where they come from",
        )
    _show(results, seeds)
    return results


def _run(cell: Cell, seed: int, path: str, folder: Path) -> dict[str, Any]:
    import rfc8785

    from fedkd.cli.configuration import compose
    from fedkd.cli.overrides import quoted
    from fedkd.cli.simulate import simulate_one
    from fedkd.knowledge import digest_of_bytes
    from fedkd.report import read_summary

    overrides = [*cell.overrides, f"data.path={quoted(path)}", f"seed={seed}", "baselines=true"]
    named = digest_of_bytes(rfc8785.dumps(_json(compose(overrides)))).removeprefix("sha256:")
    run = folder / "cells" / named[:16]
    if not (run / "summary.json").exists():
        print(f"{cell.name}, seed {seed}", file=sys.stderr, flush=True)
        if (run / "config.yaml").exists():
            simulate_one([], resume=run)
        else:
            simulate_one([*overrides, f"out={quoted(str(run))}"])
    return read_summary(run / "summary.json")


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, list | tuple) else value


def _rows(cell: Cell, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    measure = cell.measure

    def hospitals(key: str) -> list[float]:
        return [fmean(row[key] for row in run["clients"] if row[key] is not None) for run in runs]

    now, alone = hospitals(measure), hospitals(f"local_{measure}")
    own = [key for key in ("own_mix", "own_auroc") if runs[0]["clients"][0][key] is not None]
    rows = {
        f"student, {measure}": [run["student"][measure] for run in runs],
        f"mean hospital now, {measure}": now,
        f"mean hospital alone as long, {measure}": alone,
        f"gain of the mean hospital, {measure}": [a - b for a, b in zip(now, alone, strict=True)],
        "student, accuracy": [run["student"]["accuracy"] for run in runs],
        "FedAvg, same rounds, accuracy": [run["fedavg_accuracy"] for run in runs],
        "FedAvg, best round, accuracy": [run["fedavg_best"]["accuracy"] for run in runs],
        "pooled, accuracy": [run["pooled_accuracy"] for run in runs],
    }
    for key in own:
        rows[f"gain on {key}"] = [
            a - b for a, b in zip(hospitals(key), hospitals(f"local_{key}"), strict=True)
        ]
    rows["bytes, both ways"] = [run["bytes_up"] + run["bytes_down"] for run in runs]
    rows["FedAvg bytes, same rounds"] = [run["fedavg_bytes"] for run in runs]
    rows["FedAvg bytes, best round"] = [run["fedavg_best"]["bytes"] for run in runs]
    return {name: _spread(values) for name, values in rows.items()}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    spread = stdev(values) if len(values) > 1 else math.nan
    return {
        "mean": fmean(values),
        "sd": None if math.isnan(spread) else spread,
        "values": list(values),
    }


def _show(results: Mapping[str, Any], seeds: Sequence[int]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    for name, rows in results.items():
        table = Table(title=f"{name} ({len(seeds)} seeds)", title_justify="left")
        table.add_column("figure")
        table.add_column("mean", justify="right")
        table.add_column("sd", justify="right")
        for row, spread in rows.items():
            if row == "measure":
                continue
            is_bytes = "bytes" in row
            show = (lambda x: f"{x / 1e6:.2f} MB") if is_bytes else (lambda x: f"{x:.3f}")
            sd = "-" if spread["sd"] is None else show(spread["sd"])
            table.add_row(row, show(spread["mean"]), sd)
        console.print(table)
