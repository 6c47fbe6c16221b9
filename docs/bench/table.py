"""Prints the table of docs/benchmarks.md and README.md from methods.json, so that none is typed."""

import json
from pathlib import Path

HERE = Path(__file__).parent
CELLS = ("Fashion-MNIST, IID", "Fashion-MNIST, Dirichlet 0.5", "Heart disease, four hospitals")
MEGABYTE = 1e6


def table(kept: dict) -> str:
    """The rows, one a line, in Markdown."""
    results = [kept["results"][cell] for cell in CELLS]

    def row(what: str, shown: list[str]) -> str:
        return f"| {what} | {' | '.join(shown)} |"

    def of(name: str) -> list[str]:
        return [_figure(result.get(name.format(measure=result["measure"]))) for result in results]

    students = of("student, {measure}")
    students[2] += f"; accuracy {_figure(results[2]['student, accuracy'])}"
    rows = [
        row(
            "3 seeds, mean ± sd",
            [f"{cell} ({it['measure']})" for cell, it in zip(CELLS, results, strict=True)],
        ),
        row("---", ["---"] * len(CELLS)),
        row("student", students),
        row("mean hospital now", of("mean hospital now, {measure}")),
        row(
            "mean hospital alone, trained for as long", of("mean hospital alone as long, {measure}")
        ),
        row("**gain of the mean hospital**", of("gain of the mean hospital, {measure}")),
        row("gain on the hospital's own class mix", of("gain on own_mix")),
        row("gain on the hospital's own held-out records, AUROC", of("gain on own_auroc")),
        row("FedAvg, same number of rounds, accuracy", of("FedAvg, same rounds, accuracy")),
        row("FedAvg, best round, accuracy", of("FedAvg, best round, accuracy")),
        row("all records pooled, accuracy", of("pooled, accuracy")),
        row(
            "bytes of the federation, both ways", [_bytes(it["bytes, both ways"]) for it in results]
        ),
        row(
            "bytes of FedAvg: same rounds; best round",
            [
                "; ".join(
                    _bytes(it[f"FedAvg bytes, {which}"]) for which in ("same rounds", "best round")
                )
                for it in results
            ],
        ),
    ]
    return "\n".join(rows).replace("auroc", "AUROC")


def _figure(spread: dict | None) -> str:
    return "-" if spread is None else f"{spread['mean']:.3f} ± {spread['sd']:.3f}"


def _bytes(spread: dict) -> str:
    return f"{spread['mean'] / MEGABYTE:.2f} MB"


if __name__ == "__main__":
    print(table(json.loads((HERE / "methods.json").read_text())))
