"""Draws what privacy costs: the student's figures over a sweep, against the epsilon promised."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedkd.privacy.claim import Claim
from fedkd.privacy.risk import recognised
from fedkd.report import svg
from fedkd.report.claims import claims_of
from fedkd.report.compare import Interval, interval, labels_of
from fedkd.report.epsilon import claims_inside
from fedkd.report.load import Run, load

WIDTH, LEFT, RIGHT, GAP, HIGH = 760, 64, 24, 62, 250
BY_BUDGET = ("budget.epsilon", "budget.delta", "mechanism.epsilon")
"""Keys that move a point along a line, not to another line."""
STYLES = (
    (svg.BLUE, "circle", ""),
    (svg.ORANGE, "square", "7 4"),
    (svg.GREEN, "triangle", "2 4"),
    (svg.INK, "ring", "1 3"),
)
PANELS = (("accuracy", "accuracy"), ("auroc", "AUROC"))
TITLE = "The student against the epsilon promised to each patient"


@dataclass(frozen=True, slots=True)
class _Line:
    """Runs that differ in their budget and seed alone: for each epsilon, the runs' values."""

    name: str
    runs: Mapping[float, Sequence[Run]]

    def values(self, key: str) -> dict[float, list[float]]:
        found = {e: [run.summary["student"][key] for run in runs] for e, runs in self.runs.items()}
        return {e: its for e, its in found.items() if None not in its}


def write_utility(run_dirs: Sequence[Path]) -> Path | None:
    """Draws `utility.svg` beside the runs of a sweep; None where it swept no budget.

    At least two epsilons, each of runs all of whose sites have a whole claim.
    """
    drawn = draw_utility([load(folder) for folder in run_dirs])
    if drawn is None:
        return None
    drawing = run_dirs[0].parent / "utility.svg"
    drawing.write_text(drawn, encoding="utf-8")
    return drawing


def draw_utility(runs: Sequence[Run]) -> str | None:
    """Means over seeds with 95 % intervals (of two seeds: both ends); without privacy a level line.

    An epsilon is that of the least protected site; the claims travel inside the drawing.
    """
    claims = {run.folder.name: _all_claims(run) for run in runs if run.summary["private"]}
    told = {name: its for name, its in claims.items() if its}
    lines = _lines([run for run in runs if run.folder.name in told])
    epsilons = sorted({epsilon for line in lines for epsilon in line.runs})
    if len(epsilons) < 2:
        return None
    plain = [run for run in runs if not run.summary["private"]]
    shown = [panel for panel in PANELS if any(line.values(panel[0]) for line in lines)]
    words, parts = _words([it for its in told.values() for it in its.values()]), []
    if missing := len(claims) - len(told):
        words.append(f"Left out: {missing} runs in which a site's epsilon has no claim.")
    parts.append(svg.text(24, 30, TITLE, size=17, bold=True))
    parts += [svg.text(24, 56 + 18 * n, line, colour=svg.SOFT) for n, line in enumerate(words)]
    y = 64 + 18 * len(words)
    for n, line in enumerate(lines if len(lines) > 1 or plain else []):
        colour, shape, _ = STYLES[n % len(STYLES)]
        parts.append(svg.mark(30, y + 1.5, shape, colour=colour))
        parts.append(svg.text(42, y + 6, svg.shortened(line.name, 80)))
        y += 20
    if plain:
        parts.append(svg.line(22, y + 1.5, 38, y + 1.5, colour=svg.WARNING, width=2, dash="4 3"))
        parts.append(svg.text(42, y + 6, f"mechanism=none, NOT PRIVATE ({_seeds(plain)})"))
        y += 20
    top = y + 34
    width = (WIDTH - LEFT - RIGHT - GAP * (len(shown) - 1)) / len(shown)
    risks = _risks(told, lines)
    for n, (key, name) in enumerate(shown):
        box = _Box(LEFT + n * (width + GAP), top, width, epsilons)
        parts += _panel(box, key, name, lines, plain, risks)
    below = top + HIGH + 62
    risk = (
        "Under each epsilon: of 100 patients, at most so many are recognised at 1 % false alarms."
    )
    parts.append(svg.text(24, below + 24, risk, colour=svg.SOFT))
    described = "; ".join(_described(line, shown) for line in lines)
    inside = claims_inside(told)
    return svg.drawing(WIDTH, round(below) + 42, TITLE, described, parts, metadata=inside)


class _Box:
    """Where a panel is, and where an epsilon stands in it: on a scale of factors of two."""

    def __init__(self, left: float, top: float, width: float, epsilons: Sequence[float]) -> None:
        self.left, self.top, self.width, self.epsilons = left, top, width, epsilons
        self.bottom = top + HIGH

    def across(self, epsilon: float) -> float:
        low, high = math.log2(self.epsilons[0]), math.log2(self.epsilons[-1])
        share = (math.log2(epsilon) - low) / (high - low)
        return self.left + 22 + share * (self.width - 44)

    def ticks(self) -> list[float]:
        """Epsilons that are written out: not nearer to one another than their words are wide."""
        kept: list[float] = []
        for epsilon in self.epsilons:
            if not kept or self.across(epsilon) - self.across(kept[-1]) >= 40:
                kept.append(epsilon)
        return kept


def _panel(
    box: _Box,
    key: str,
    name: str,
    lines: Sequence[_Line],
    plain: Sequence[Run],
    risks: Mapping[float, float],
) -> list[str]:
    own = [line.values(key) for line in lines]
    level = [run.summary["student"][key] for run in plain]
    known = interval(level) if level and None not in level else None
    marks = [value for values in own for its in values.values() for value in its]
    means = {n: {e: _mean(its) for e, its in values.items()} for n, values in enumerate(own)}
    ends = [end for its in means.values() for it in its.values() for end in _ends(it)]
    low, high = svg.share_axis([*marks, *ends, *(_ends(known) if known else [])])

    def up(value: float) -> float:
        return box.bottom - (min(max(value, low), high) - low) / (high - low) * HIGH

    right = box.left + box.width
    parts = [svg.text(box.left, box.top - 14, f"student's {name}", bold=True)]
    for tick in svg.ticks(low, high):
        parts.append(svg.line(box.left, up(tick), right, up(tick)))
        parts.append(svg.text(box.left - 10, up(tick) + 4.5, f"{tick:.1f}", anchor="end"))
    for epsilon in box.ticks():
        x = box.across(epsilon)
        parts.append(svg.text(x, box.bottom + 22, f"{epsilon:g}", anchor="middle"))
        risk = f"{risks[epsilon]:.1f}"
        parts.append(svg.text(x, box.bottom + 40, risk, anchor="middle", colour=svg.SOFT, size=12))
    middle = box.left + box.width / 2
    parts.append(svg.text(middle, box.bottom + 62, "budget epsilon of a site", anchor="middle"))
    if known is not None:
        parts += _level(known, box.left, right, up)
    for n, values in enumerate(own):
        colour, shape, dash = STYLES[n % len(STYLES)]
        shift = (n - (len(own) - 1) / 2) * 7
        points = [(box.across(e) + shift, up(it.mean)) for e, it in sorted(means[n].items())]
        parts.append(svg.path(points, colour=colour, dash=dash))
        for epsilon, its in sorted(values.items()):
            x, it = box.across(epsilon) + shift, means[n][epsilon]
            low_end, high_end = _ends(it)
            title = f"{lines[n].name}, epsilon {epsilon:g}: {it.mean:.3f}, {it.n} seeds"
            if it.half is not None:
                parts.append(svg.line(x, up(low_end), x, up(high_end), colour=colour, width=2))
            else:
                parts.append(svg.line(x, up(min(its)), x, up(max(its)), colour=colour, width=1))
            parts.append(svg.mark(x, up(it.mean), shape, colour=colour, title=title))
    return parts


def _level(known: Interval, left: float, right: float, up: Callable[[float], float]) -> list[str]:
    at = up(known.mean)
    parts = [svg.line(left, at, right, at, colour=svg.WARNING, width=2, dash="4 3")]
    if known.half is not None:
        for end in _ends(known):
            y = up(end)
            parts.append(svg.line(left, y, right, y, colour=svg.WARNING, dash="1 4"))
    return parts


def _all_claims(run: Run) -> dict[str, Claim]:
    """By site; empty where a site that answered has no claim: its epsilon is unknown."""
    claims = claims_of(run.summary)
    whole = all(client["site"] in claims for client in run.summary["clients"])
    return claims if whole else {}


def _lines(runs: Sequence[Run]) -> list[_Line]:
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.condition_without(BY_BUDGET), []).append(run)
    names = labels_of([members[0] for members in grouped.values()], BY_BUDGET)
    lines = []
    for name, members in zip(names, grouped.values(), strict=True):
        by_epsilon: dict[float, list[Run]] = {}
        for run in members:
            promised = max(claim.epsilon for claim in claims_of(run.summary).values())
            by_epsilon.setdefault(promised, []).append(run)
        alone = f"mechanism={members[0].summary['mechanism']}"
        lines.append(_Line(name if len(grouped) > 1 else alone, by_epsilon))
    return lines


def _risks(told: Mapping[str, Mapping[str, Claim]], lines: Sequence[_Line]) -> dict[float, float]:
    """Of 100 patients, how many are recognised at most: the worst of all the sites' filters."""
    risks: dict[float, float] = {}
    for line in lines:
        for epsilon, runs in line.runs.items():
            for claim in (it for run in runs for it in told[run.folder.name].values()):
                risk = 100 * recognised(claim.epsilon, claim.delta, claim.filter)
                risks[epsilon] = max(risks.get(epsilon, 0.0), risk)
    return risks


def _words(claims: Sequence[Claim]) -> list[str]:
    """What is the same for all points, and what makes them less than a promise."""
    units = " and ".join(sorted({claim.unit for claim in claims}))
    filters = " and ".join(sorted({claim.filter for claim in claims}))
    delta = max(claim.delta for claim in claims)
    audits = "; ".join(sorted({claim.audit for claim in claims}))
    said = [f"For each {units}, at delta {delta:.2g} or less; filter {filters}; {audits}."]
    said.append("Means over seeds on the common test, with 95 % intervals (two seeds: both ends).")
    if any(claim.is_rehearsal for claim in claims):
        said.append("NOT PRIVATE yet: rehearsal noise, drawn from a seed.")
    return said


def _described(line: _Line, shown: Sequence[tuple[str, str]]) -> str:
    points = [
        f"epsilon {epsilon:g}: {name} {_mean(its).mean:.3f}"
        for key, name in shown
        for epsilon, its in sorted(line.values(key).items())
    ]
    return f"{line.name}: {', '.join(points)}"


def _mean(values: Sequence[float]) -> Interval:
    found = interval(values)
    if found is None:
        raise ValueError("found no run, expected at least one")
    return found


def _ends(it: Interval) -> tuple[float, float]:
    half = it.half or 0.0
    return max(0.0, it.mean - half), min(1.0, it.mean + half)


def _seeds(runs: Sequence[Run]) -> str:
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"
