"""Prints an evaluation: figures with their intervals, by site and together, and what it cost."""

from collections.abc import Iterator, Mapping
from typing import Any

SHORT = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "positive_predictive_value": "PPV",
    "negative_predictive_value": "NPV",
    "accuracy": "accuracy",
}
COLUMN = 22


def report(told: Mapping[str, Any]) -> Iterator[str]:
    """The lines that a person reads."""
    if told.get("rehearsal"):
        yield "REHEARSAL: rows drawn from declared ranges; no record was read, nothing was charged"
    yield f"student {told['model']} ({told['architecture']}); {told['counted']}"
    if told["kind"] == "data":
        yield f"on {told['data']}: {told['records']} records of {told['patients']} patients"
        yield f"AUROC {_share(told['auroc'])}"
    else:
        answered = [row for row in told["sites"] if row["answered"]]
        yield f"asked {len(told['sites'])} hospitals for epsilon {told['epsilon']:g}: " + (
            f"{len(answered)} answered"
        )
    yield ""
    rows = told.get("sites", ())
    if told["kind"] == "data" or any(row["answered"] and row["took_part"] for row in rows):
        yield from _figures("together", told["together"])
    for row in rows:
        if row["answered"]:
            mark = "" if row["took_part"] else " (took no part)"
            yield from _figures(row["site"] + mark, row["figures"])
    yield ""
    for row in told.get("sites", ()):
        yield _cost(row, deployed=told.get("deployed", False))
    yield f"intervals: {told['intervals']}"
    if told["kind"] == "data":
        yield "no hospital was asked, and nothing was charged"
    elif not told["private"]:
        yield "NOT PRIVATE: an open budget lets counts out as they are, and bounds nothing"
    yield f"logs: {'hold' if told['audit']['verified'] else 'DO NOT HOLD'}; left in evaluation.json"


def _figures(name: str, by_group: Mapping[str, Any]) -> Iterator[str]:
    for group, figures in sorted(by_group.items(), key=lambda item: item[0] != "all"):
        where = name if group == "all" else f"{name}, {group}"
        if "thresholds" in figures:
            for row in figures["thresholds"]:
                yield f"{where}, threshold {row['threshold']:g}: {_counts(row['counts'])}"
                shown = [f"{short} {_share(row[key])}" for key, short in SHORT.items()]
                yield "  " + "  ".join(shown)
            continue
        yield f"{where}: accuracy {_share(figures['accuracy'])}"
        for row in figures["classes"]:
            sensitivity, predictive = row["sensitivity"], row["positive_predictive_value"]
            yield f"  {row['class']}: sensitivity {_share(sensitivity)}  PPV {_share(predictive)}"


def _counts(counts: Mapping[str, Any]) -> str:
    said = []
    for name, count in counts.items():
        withheld = f" ({count['withheld']} withheld)" if count["withheld"] else ""
        said.append(
            f"{name.upper()} {count['value']:g} [{count['low']}, {count['high']}]{withheld}"
        )
    return ", ".join(said)


def _share(share: Mapping[str, Any]) -> str:
    value = "unknown" if share["value"] is None else f"{share['value']:.3f}"
    return f"{value} [{share['low']:.3f}, {share['high']:.3f}]"


def _cost(row: Mapping[str, Any], *, deployed: bool) -> str:
    site, cost = row["site"], row["cost"]
    why = "" if row["answered"] else f"no answer, {row['left_out']}; "
    if deployed and row.get("noise") != "none":
        charged = "charged there; " if row["answered"] else ""
        return f"{site}: {why}{charged}what is spent and left is the hospital's to know"
    if cost is None:
        return f"{site}: {why}an open budget"
    free = "free (asked before); " if row["answered"] and not cost["charged"] else ""
    return (
        f"{site}: {why}{free}epsilon {cost['spent_before']:.4g} spent before, {cost['spent']:.4g} "
        f"now, {cost['left']:.4g} left of {cost['budget']:g}"
    )
