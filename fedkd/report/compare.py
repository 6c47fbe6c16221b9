"""Compares runs, paired by seed: means, differences, and how sure one may be of them."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.knowledge import BadInput
from fedkd.report import svg
from fedkd.report.claims import NOT_PRIVATE, promises, wrapped
from fedkd.report.load import Run, load
from fedkd.report.units import size

FEWEST_PAIRS = 3
"""Below this no interval is given: two runs say next to nothing about their spread."""

# Quantile .975 of Student's t for 1 to 30 degrees of freedom (any table, such as NIST 1.3.6.7.2).
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that is compared: where it stands in a summary."""

    key: str
    name: str
    of: Callable[[Mapping[str, Any]], float | None]
    is_bytes: bool = False


def _hospitals(reduce: Callable[[list[float]], float], *keys: str) -> Any:
    """Over the hospitals: of one key, or of the second minus the first."""

    def of(summary: Mapping[str, Any]) -> float | None:
        rows = [[client[key] for key in keys] for client in summary["clients"]]
        if not rows or any(value is None for row in rows for value in row):
            return None
        return reduce([row[-1] - (row[0] if len(row) > 1 else 0.0) for row in rows])

    return of


def _average(values: list[float]) -> float:
    return sum(values) / len(values)


FIGURES = (
    Figure("student_accuracy", "student", lambda it: it["student"]["accuracy"]),
    Figure("student_auroc", "student AUROC", lambda it: it["student"]["auroc"]),
    Figure("hospital_accuracy", "mean hospital", _hospitals(_average, "accuracy")),
    Figure("hospital_gain", "gain on alone", _hospitals(_average, "local_accuracy", "accuracy")),
    Figure("hospital_worst", "worst hospital", _hospitals(min, "accuracy")),
    Figure("hospital_own_mix", "own mix", _hospitals(_average, "own_mix")),
    Figure("bytes", "bytes", lambda it: it["bytes_up"] + it["bytes_down"], is_bytes=True),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` values, with half the width of its 95 % interval; None below three."""

    mean: float
    half: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one configuration, by their seeds, and its differences from the first group."""

    label: str
    seeds: tuple[int, ...]
    means: Mapping[str, Interval | None]
    differences: Mapping[str, Interval | None]
    pairs: int
    privacy: tuple[str, ...]
    """What the runs promise a patient, or that they promise nothing."""
    claims: Mapping[int, Mapping[str, Any]]
    """By seed and site."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `fedkd compare` found: the first group is what the others are held against."""

    groups: tuple[Group, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "interval": "95 %, Student's t over seeds; none below 3",
            "baseline": self.groups[0].label,
            "groups": [
                {
                    "label": group.label,
                    "seeds": list(group.seeds),
                    "pairs": group.pairs,
                    "privacy": list(group.privacy),
                    "claims": {str(seed): dict(its) for seed, its in group.claims.items()},
                    "means": {key: _plain(it) for key, it in group.means.items()},
                    "differences": {key: _plain(it) for key, it in group.differences.items()},
                }
                for group in self.groups
            ],
        }

    def to_csv(self) -> str:
        """One line a group and figure."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            ["group", "figure", "n", "mean", "half_95", "pairs", "difference", "difference_half_95",
             "privacy"]
        )  # fmt: skip
        for group in self.groups:
            for key, mean in group.means.items():
                if mean is not None:
                    gap = group.differences.get(key)
                    row = [group.label, key, mean.n, *_cells(mean), gap.n if gap else ""]
                    gaps = _cells(gap) if gap else ["", ""]
                    writer.writerow([*row, *gaps, " ".join(group.privacy)])
        return out.getvalue()

    def to_latex(self) -> str:
        """A tabular for a paper (booktabs), differences from the first row in brackets."""
        figures = self._figures()
        lines = [
            "% 95 % intervals: Student's t over seeds, differences paired by seed.",
            "\\begin{tabular}{l" + "r" * len(figures) + "}",
            "\\toprule",
            " & ".join(["", *(_escaped(figure.name) for figure in figures)]) + " \\\\",
            "\\midrule",
        ]
        lines[1:1] = [f"% {group.label}: {said}" for group in self.groups for said in group.privacy]
        for group in self.groups:
            cells = [_latex_cell(group, figure) for figure in figures]
            lines.append(" & ".join([_escaped(group.label), *cells]) + " \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])

    def to_lines(self) -> list[str]:
        """Plain text: the groups' means, then the differences from the first."""
        figures = self._figures()
        rows = [["", "seeds", *(figure.name for figure in figures)]]
        for group in self.groups:
            means = [_written(group.means[figure.key], figure) for figure in figures]
            rows.append([group.label, str(len(group.seeds)), *means])
        lines = _aligned(rows)
        if len(self.groups) > 1:
            rows = [[f"minus {self.groups[0].label}", "pairs", *(f.name for f in figures)]]
            for group in self.groups[1:]:
                gaps = [_written(group.differences[f.key], f, signed=True) for f in figures]
                rows.append([group.label, str(group.pairs), *gaps])
            lines += ["", *_aligned(rows)]
        lines += ["", "Mean and half the width of the 95 % interval (Student's t over seeds)."]
        if any(len(group.seeds) < FEWEST_PAIRS for group in self.groups):
            lines.append(
                "Fewer than 3 seeds: no interval is given; run more, such as -m seed=0,1,2."
            )
        if any(not group.pairs for group in self.groups[1:]):
            lines.append("No seed in common with the first group: no difference is given.")
        return [*lines, "", *self._privacy()]

    def _privacy(self) -> list[str]:
        """What each group promises a patient; once where they all promise the same."""
        if len({group.privacy for group in self.groups}) == 1:
            return [line for one in self.groups[0].privacy for line in wrapped("privacy", one)]
        said = [f"{group.label}: {one}" for group in self.groups for one in group.privacy]
        return [line for one in said for line in wrapped("privacy", one)]

    def show(self) -> None:
        """Prints the lines."""
        for line in self.to_lines():
            print(line)

    def _figures(self) -> list[Figure]:
        return [it for it in FIGURES if any(group.means[it.key] for group in self.groups)]


def compare(runs: Sequence[Run]) -> Comparison:
    """Groups `runs` by configuration without the seed, in the order in which they come."""
    if not runs:
        raise BadInput("no run", "the folders of at least one")
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.condition, []).append(run)
    for members in grouped.values():
        _refuse_twice(members)
    labels = labels_of([members[0] for members in grouped.values()])
    by_seed = [{run.summary["seed"]: run.summary for run in it} for it in grouped.values()]
    return Comparison(
        tuple(
            _group(label, by_seed[0] if place else {}, own)
            for place, (label, own) in enumerate(zip(labels, by_seed, strict=True))
        )
    )


def interval(values: Sequence[float]) -> Interval | None:
    """Mean and half width of the 95 % t-interval; no width below three values, None for none."""
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n
    if n < FEWEST_PAIRS:
        return Interval(mean, None, n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Interval(mean, t_975(n - 1) * math.sqrt(variance / n), n)


def t_975(freedom: int) -> float:
    """Quantile .975 of Student's t; above 30 by its expansion (Abramowitz and Stegun, 26.7.5)."""
    if freedom <= len(T_975):
        return T_975[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def sweep_table(run_dirs: Sequence[Path], *, printed: bool = True) -> Path:
    """Prints one table of a sweep's runs, and draws it into `sweep.svg` beside them."""
    comparison = compare([load(folder) for folder in run_dirs])
    if printed:
        comparison.show()
    drawing = run_dirs[0].parent / "sweep.svg"
    drawing.write_text(draw_sweep(comparison), encoding="utf-8")
    return drawing


def draw_sweep(comparison: Comparison) -> str:
    """Student and mean hospital for each group, with their intervals; a row a group."""
    shown = (
        ("student_accuracy", "student", svg.BLUE, "circle", -5.0),
        ("hospital_accuracy", "mean hospital", svg.ORANGE, "square", 5.0),
    )
    bounds = [
        bound
        for group in comparison.groups
        for key, *_ in shown
        if (it := group.means[key]) is not None
        for bound in (max(0.0, it.mean - (it.half or 0)), min(1.0, it.mean + (it.half or 0)))
    ]
    low, high = svg.share_axis(bounds)
    names, right, top, row = 250, 736, 84, 34
    bottom = top + row * len(comparison.groups)

    def across(value: float) -> float:
        return names + 14 + (min(max(value, low), high) - low) / (high - low) * (right - names - 14)

    parts = [svg.text(24, 30, "Accuracy over the sweep", size=17, bold=True)]
    x = 24.0
    for _, name, colour, shape, _ in shown:
        parts += [svg.mark(x + 6, 53.5, shape, colour=colour), svg.text(x + 18, 58, name)]
        x += 40 + 7.6 * len(name)
    for tick in svg.ticks(low, high):
        parts.append(svg.line(across(tick), top, across(tick), bottom))
        parts.append(svg.text(across(tick), bottom + 20, f"{tick:.1f}", anchor="middle"))
    for place, group in enumerate(comparison.groups):
        middle = top + row * (place + 0.5)
        parts.append(svg.text(names, middle + 4.5, svg.shortened(group.label, 32), anchor="end"))
        for key, name, colour, shape, shift in shown:
            it = group.means[key]
            if it is None:
                continue
            y, half = middle + shift, it.half or 0.0
            ends = across(it.mean - half), across(it.mean + half)
            title = f"{group.label}, {name}: {it.mean:.3f} over {it.n} seeds"
            parts.append(svg.line(ends[0], y, ends[1], y, colour=colour, width=2))
            parts.append(svg.mark(across(it.mean), y, shape, colour=colour, title=title))
    parts.append(svg.text((names + right) / 2, bottom + 44, "accuracy", anchor="middle"))
    described = "; ".join(
        f"{group.label}: student {it.mean:.3f}"
        for group in comparison.groups
        if (it := group.means["student_accuracy"]) is not None
    )
    bare = [group for group in comparison.groups if NOT_PRIVATE in group.privacy]
    warning = NOT_PRIVATE if bare else ""
    title = "Accuracy over the sweep"
    return svg.drawing(760, bottom + 62, title, described, parts, warning=warning)


def _group(
    label: str, first: Mapping[int, Mapping[str, Any]], own: Mapping[int, Mapping[str, Any]]
) -> Group:
    pairs = sorted(first.keys() & own.keys())
    means, gaps = {}, {}
    for figure in FIGURES:
        values = [figure.of(own[seed]) for seed in sorted(own)]
        means[figure.key] = (
            None if None in values else interval([it for it in values if it is not None])
        )
        both = [(figure.of(own[seed]), figure.of(first[seed])) for seed in pairs]
        known = [a - b for a, b in both if a is not None and b is not None]
        gaps[figure.key] = interval(known) if len(known) == len(both) else None
    kept = {seed: (own[seed].get("privacy") or {}).get("claims", {}) for seed in sorted(own)}
    said = dict.fromkeys(line for seed in sorted(own) for line in promises(own[seed]))
    return Group(label, tuple(sorted(own)), means, gaps, len(pairs), tuple(said), kept)


def _refuse_twice(members: Sequence[Run]) -> None:
    seen: dict[int, Path] = {}
    for run in members:
        seed = run.summary["seed"]
        if seed in seen:
            raise BadInput(
                f"seed {seed} twice under one configuration ({seen[seed]} and {run.folder})",
                "one run a seed",
                "leave one of them out: repeated, a run would count as evidence twice",
            )
        seen[seed] = run.folder


def labels_of(runs: Sequence[Run], ignored: Sequence[str] = ()) -> list[str]:
    """What tells runs apart: the choices and keys whose values differ between them."""
    if len(runs) == 1:
        return [str(runs[0].summary["method"])]
    flat = [_flat(run.conditions) for run in runs]
    choices = [dict(run.config.get("choices") or {}) for run in runs]
    chosen = [key for key in _keys(choices) if _differ(choices, key)]
    values = [
        key
        for key in _keys(flat)
        if _differ(flat, key)
        and key not in ignored
        and key.split(".")[0] not in chosen
        and not _follows(key, chosen)
    ]
    labels = [
        ", ".join(
            [f"{key}={picked.get(key)}" for key in chosen]
            + [f"{key}={_short(own.get(key))}" for key in values[:3]]
        )
        for picked, own in zip(choices, flat, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({run.folder.name})" for label, run in zip(labels, runs, strict=True)]
    return labels


def _follows(key: str, chosen: Sequence[str]) -> bool:
    """A data yaml sets keys of other groups: what follows from the choice needs no mention."""
    return "data" in chosen and key.split(".", maxsplit=1)[0] in (
        "clients",
        "student",
        "training",
        "query",
    )


def _keys(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({key for table in tables for key in table})


def _differ(tables: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({repr(table.get(key)) for table in tables}) > 1


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


def _short(value: Any) -> str:
    return "null" if value is None else str(value).replace(" ", "")


def _plain(it: Interval | None) -> dict[str, Any] | None:
    return None if it is None else {"mean": it.mean, "half_95": it.half, "n": it.n}


def _cells(it: Interval) -> list[str]:
    return [f"{it.mean:.6g}", "" if it.half is None else f"{it.half:.6g}"]


def _written(it: Interval | None, figure: Figure, signed: bool = False) -> str:
    if it is None:
        return "-"
    if figure.is_bytes:
        sign = ("-" if it.mean < 0 else "+") if signed and it.mean else ""
        return f"{sign}{size(abs(it.mean))}"
    mean = round(it.mean, 3) + 0.0  # a negative zero becomes zero
    text = f"{mean:+.3f}" if signed else f"{mean:.3f}"
    return text if it.half is None else f"{text} ±{it.half:.3f}"


def _latex_cell(group: Group, figure: Figure) -> str:
    text = _written(group.means[figure.key], figure).replace("±", "$\\pm$")
    gap = group.differences[figure.key]
    if gap is not None:
        difference = _written(gap, figure, signed=True).replace("±", "$\\pm$")
        text += f" ({difference})"
    return _escaped(text) if figure.is_bytes else text


def _escaped(words: str) -> str:
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(it, f"\\{it}" if it in "&%$#_{}" else it) for it in words)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
