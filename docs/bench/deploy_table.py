"""Prints the tables of what a deployment costs, of docs/benchmarks.md, from deploy.json."""

import json
from itertools import chain
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
SIDES = {
    "fedkd": "fedkd",
    "plain": "the plain Flower app",
    "plain, same waits": "the same, with our waits",
}


def rows_of_rounds(rounds: dict) -> list[tuple[str, ...]]:
    """A row for each model and side: seconds a round after the first one, and of the first."""
    rows: list[tuple[str, ...]] = [
        ("seconds a round, median (least to most)", "model", "first round", "later rounds",
         "fedkd / this"),
        ("---",) * 5,
    ]  # fmt: skip
    for name, found in rounds.items():
        for side, words in SIDES.items():
            runs = found["seconds"][side]
            later = list(chain.from_iterable(run[1:] for run in runs))
            ratio = f"**{found['ratio'][side]:.2f}**" if side in found["ratio"] else ""
            rows.append(
                (
                    words,
                    f"{name} ({found['model']})",
                    f"{median(run[0] for run in runs):.1f}",
                    f"{median(later):.2f} ({min(later):.2f} to {max(later):.2f})",
                    ratio,
                )
            )
    return rows


def rows_of_memory(memory: dict) -> list[tuple[str, ...]]:
    """A row for each kind of process at one site, the largest first."""
    rows: list[tuple[str, ...]] = [("memory at one site, MiB at most", "PSS", "RSS"), ("---",) * 3]
    for side, kinds in memory.items():
        largest = sorted(kinds.items(), key=lambda it: it[1]["pss_mib"], reverse=True)
        for kind, size in largest:
            where = SIDES[side]
            rows.append((f"{where}: {kind}", f"{size['pss_mib']:.0f}", f"{size['rss_mib']:.0f}"))
    return rows


def rows_of_nodes(nodes: dict) -> list[tuple[str, ...]]:
    """A row for each step; all sites of it answered every round."""
    rows: list[tuple[str, ...]] = [
        ("sites on two cores", "seconds of both rounds", "memory left, MiB"),
        ("---",) * 3,
    ]
    for step in nodes["steps"]:
        both = ", ".join(f"{one:.1f}" for one in step["seconds"])
        rows.append((str(step["sites"]), both, f"{step['available_mib']:,.0f}"))
    return rows


def table(kept: dict) -> str:
    """The three tables, in Markdown."""
    results = kept["results"]
    tables = (
        rows_of_rounds(results["rounds"]),
        rows_of_memory(results["memory"]),
        rows_of_nodes(results["nodes"]),
    )
    return "\n\n".join("\n".join("| " + " | ".join(row) + " |" for row in rows) for rows in tables)


if __name__ == "__main__":
    print(table(json.loads((HERE / "deploy.json").read_text())))
