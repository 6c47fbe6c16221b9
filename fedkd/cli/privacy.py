"""Says what a plan will cost before it runs, and what of a budget is spent and left."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedkd.audit import Log
from fedkd.federation.paying import ledger_of
from fedkd.knowledge import BadInput
from fedkd.privacy import Ledger
from fedkd.privacy.planning import (
    best_order,
    default_delta,
    epsilon_of_plan,
    expect_delta,
    solve_noise,
    steps_within,
)
from fedkd.privacy.risk import in_words

DONE = 0


def plan(
    *,
    patients: int,
    epsilon: float | None,
    delta: float | None,
    noise: float | None,
    steps: int,
    rate: float,
    as_json: bool,
) -> int:
    """Prints what `dp_training` costs or needs: no record is read for it.

    With `epsilon` alone the noise that it needs; with `noise` alone the epsilon that it means;
    with both how many steps they allow.
    """
    if epsilon is None and noise is None:
        raise BadInput("neither an epsilon nor a noise", "one of them, or both", "add --epsilon 4")
    delta = default_delta(patients) if delta is None else delta
    expect_delta(delta, patients)
    filter = "gdp" if rate == 1 else "rdp"
    order = None
    if epsilon is not None and filter == "rdp":
        order = best_order(steps, rate, epsilon, delta)
    told: dict[str, Any] = {"patients": patients, "delta": delta, "filter": filter, "order": order}
    if noise is None:
        assert epsilon is not None  # noqa: S101 - one of the two is there
        noise = solve_noise(filter, order, steps, rate, epsilon, delta)
    elif epsilon is None:
        epsilon = epsilon_of_plan(filter, order, steps, rate, noise, delta)
    else:
        steps = steps_within(filter, order, rate, noise, epsilon, delta)
    told |= {
        "epsilon": epsilon,
        "noise_multiplier": noise,
        "steps": steps,
        "sampling_rate": rate,
        "unit": "patient",
        "relation": "replace_special",
        "accuracy": None,
        "risk": in_words(epsilon, delta, filter),
    }
    if as_json:
        print(json.dumps(told, indent=2))
        return DONE
    sample = "all patients" if rate == 1 else f"{rate:g} of the patients, by chance"
    print(f"{patients} patients, delta {delta:.3g}, unit patient, filter {filter}")
    print(f"{steps} steps on {sample}, noise multiplier {noise:.4g}: epsilon {epsilon:.4g}")
    print(told["risk"])
    print("What accuracy to expect is unknown: no curve for such data is kept with this version.")
    return DONE


def status(path: Path, *, as_json: bool) -> int:
    """Prints each population's budget: opened, spent and left, as its site's log says."""
    rows = [
        {
            "site": site,
            **ledger.to_json(),
            "spent": ledger.spent() if ledger.epsilon is not None else None,
            "left": ledger.left() if ledger.epsilon is not None else None,
            "charges": len(ledger.charged),
            "risk": None
            if ledger.epsilon is None or ledger.delta is None
            else in_words(ledger.epsilon, ledger.delta, ledger.filter, ledger.unit),
        }
        for site, ledger in _ledgers(path)
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return DONE
    for row in rows:
        where = f"{row['site']:14} {row['population']}"
        if row["epsilon"] is None:
            print(f"{where}: NOT PRIVATE, an open budget that {row['charges']} charges went into")
            continue
        print(
            f"{where}: epsilon {row['epsilon']:g} at delta {row['delta']:.3g}, spent "
            f"{row['spent']:.4g}, left {row['left']:.4g} (unit {row['unit']}, filter "
            f"{row['filter']}, {row['charges']} charges)"
        )
        print(f"{'':14} {row['risk']}")
    return DONE


def _ledgers(path: Path) -> Iterator[tuple[str, Ledger]]:
    """Every ledger in a site's folder, or in those of a run's sites."""
    if (path / "run.json").exists():
        from fedkd.cli.run import open_run

        folders = open_run(str(path)).sites
    else:
        folders = {path.name: path}
    for site, folder in folders.items():
        if not (folder / "log.sqlite").exists():
            raise BadInput(f"no log in {folder}", "a run's folder, or a site's own")
        with Log(folder / "log.sqlite", site) as log:
            for opened in list(log.entries("budget.opened")):
                yield site, ledger_of(log, opened.body["population"])
