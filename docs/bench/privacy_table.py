"""Prints the tables of what privacy costs and hides, of docs/benchmarks.md, from privacy.json."""

import json
from pathlib import Path

HERE = Path(__file__).parent
EPSILONS = ("1", "2", "4", "8", "none")
ATTACKS = ("loss", "lira", "poisoned", "distillation")
TARGETS = {
    "Heart disease, four hospitals": "0.83 at 1, 0.86 at 4",
    "Breast cancer, one site": "0.98 at 1",
    "Fashion-MNIST, four sites of 6,000, linear": "0.75 at 1, 0.80 at 4",
}


def utility(kept: dict) -> str:
    """The student by epsilon, a federation a line, in Markdown."""
    head = "student on the common test, mean ± sd of seeds"
    lines = [_row([head, *(f"epsilon {it}" for it in EPSILONS[:-1]), "not private", "goal"])]
    lines.append(_row(["---"] * (len(EPSILONS) + 2)))
    cells = kept["results"]["utility"]
    for name in [*TARGETS, *(name for name in cells if name not in TARGETS)]:
        cell = cells[name]
        seeds = "seeds " + ", ".join(map(str, cell["seeds"]))
        measure = cell["measure"].replace("auroc", "AUROC")
        shown = [_figure(cell["by_epsilon"].get(epsilon)) for epsilon in EPSILONS]
        model = ", ".join(cell["model"])
        lines.append(
            _row([f"{name} ({model}, {measure}, {seeds})", *shown, TARGETS.get(name, "-")])
        )
    return "\n".join(lines)


def leakage(kept: dict) -> str:
    """What attacks find at the worst of the attacked sites: AUC, and found at 1 % false alarms."""
    rows = [_row(["AUC; found at 1 % false alarms", "student", *ATTACKS, "largest lower bound"])]
    rows.append(_row(["---"] * (len(ATTACKS) + 3)))
    for name, cell in kept["results"]["leakage"].items():
        for epsilon, found in reversed(cell["by_epsilon"].items()):
            who = "not private" if epsilon == "none" else f"epsilon {epsilon}"
            shown = [
                f"{worst['auc']:.2f}; {worst['tpr']:.2f}" if worst else "-"
                for worst in (found["worst"].get(attack) for attack in ATTACKS)
            ]
            bounds = [it["epsilon_at_least"] for it in found["worst"].values()]
            rows.append(
                _row([f"{name}, {who}", f"{found['student']:.3f}", *shown, f"{max(bounds):.2f}"])
            )
    return "\n".join(rows)


def speed(kept: dict) -> str:
    """What the same steps cost, and replaying, in CPU seconds of one thread."""
    found = kept["results"]["speed"]
    rows = [
        _row(["CPU of one thread; median (least to most)", "measured", "goal"]),
        _row(["---"] * 3),
    ]
    for case in found["trainings"]:
        times, seeded = case["private"], case["rehearsal"]
        rows.append(
            _row(
                [
                    f"private / plain training, {case['name']}",
                    f"**{times['ratio']:.2f}** ({times['least']:.2f} to {times['most']:.2f}); "
                    f"noise from a seed: {seeded['ratio']:.2f}",
                    f"below {case['target']:g}",
                ]
            )
        )
    replay = found["replay"]
    by_order = sorted(replay["cpu_s"].items(), key=lambda it: (len(it[0]), it[0]))
    seconds = ", ".join(f"{name}: {value:.2f}" for name, value in by_order)
    rows.append(
        _row(
            [
                f"replaying {replay['charges']:,} distinct charges, seconds",
                seconds,
                f"below {replay['target']:g}",
            ]
        )
    )
    return "\n".join(rows)


def table(kept: dict) -> str:
    """All three, one below the other."""
    return "\n\n".join((utility(kept), leakage(kept), speed(kept)))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(spread: dict | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['mean']:.3f}" + (f" ± {spread['sd']:.3f}" if spread["sd"] else "")


if __name__ == "__main__":
    print(table(json.loads((HERE / "privacy.json").read_text())))
