"""Draws a run: accuracy by round, hospitals before and after, bytes beside FedAvg, epsilon."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.report import svg
from fedkd.report.claims import warning_of
from fedkd.report.epsilon import epsilon_spent
from fedkd.report.metrics import read_metrics
from fedkd.report.summary import Summary, read_summary
from fedkd.report.units import share, size, times

WIDTH = 760


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart: the metric that it shows, and how it is told from the others."""

    key: str
    name: str
    colour: str
    shape: str
    dash: str = ""


CURVES = (
    Curve("student_accuracy", "student", svg.BLUE, "circle"),
    Curve("hospitals_accuracy", "mean hospital", svg.ORANGE, "square", "7 4"),
    Curve("consensus_accuracy", "consensus", svg.INK, "ring", "1 3"),
    Curve("agreement", "agreement of the sites", svg.GREEN, "triangle", "2 4"),
)


def write_figures(run_dir: Path, summary: Summary | None = None) -> list[Path]:
    """Writes `figures/*.svg` of a finished run, and returns the files; same run, same bytes.

    `summary`: the run's, where `summary.json` is yet to be written.
    """
    summary = read_summary(run_dir / "summary.json") if summary is None else summary
    rounds = read_metrics(run_dir / "metrics.jsonl")
    drawn = {"hospitals": hospitals(summary), "bytes": bytes_sent(summary)}
    if rounds:
        drawn["accuracy"] = accuracy_by_round(rounds, warning_of(summary))
    if summary["private"]:
        drawn["epsilon"] = epsilon_spent(summary)
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    files = []
    for name, body in sorted(drawn.items()):
        files.append(folder / f"{name}.svg")
        files[-1].write_text(body, encoding="utf-8")
    return files


def accuracy_by_round(rounds: Sequence[Mapping[str, Any]], warning: str = "") -> str:
    """Lines over the rounds; a round without a figure has no point."""
    curves = [curve for curve in CURVES if any(_has(line, curve.key) for line in rounds)]
    numbers = [int(line["round"]) for line in rounds]
    values = [line[curve.key] for curve in curves for line in rounds if _has(line, curve.key)]
    low, high = svg.share_axis(values)
    box = _Box(left=64, top=84, right=WIDTH - 24, bottom=360)
    across = _Scale(min(numbers), max(numbers), box.left + 16, box.right - 16)
    up = _Scale(low, high, box.bottom, box.top)
    parts = [svg.text(24, 30, "Accuracy by round", size=17, bold=True)]
    parts += _legend([(curve.name, curve.colour, curve.shape) for curve in curves], 24, 58)
    for tick in svg.ticks(low, high):
        parts.append(svg.line(box.left, up(tick), box.right, up(tick)))
        parts.append(svg.text(box.left - 10, up(tick) + 4.5, f"{tick:.1f}", anchor="end"))
    for tick in _round_ticks(numbers):
        parts.append(svg.text(across(tick), box.bottom + 22, str(tick), anchor="middle"))
    parts.append(svg.text((box.left + box.right) / 2, box.bottom + 46, "round", anchor="middle"))
    for curve in curves:
        points = [
            (across(line["round"]), up(line[curve.key]), line)
            for line in rounds
            if _has(line, curve.key)
        ]
        parts.append(
            svg.path([point[:2] for point in points], colour=curve.colour, dash=curve.dash)
        )
        for x, y, line in points if len(points) <= 60 else []:
            title = f"{curve.name}, round {line['round']}: {share(line[curve.key])}"
            parts.append(svg.mark(x, y, curve.shape, colour=curve.colour, title=title))
    last = [
        f"{curve.name} {share(line[curve.key])}"
        for curve in curves
        for line in rounds[-1:]
        if _has(line, curve.key)
    ]
    described = f"After round {numbers[-1]}: {', '.join(last) or 'no figures'}."
    height = round(box.bottom) + 66
    return svg.drawing(WIDTH, height, "Accuracy by round", described, parts, warning=warning)


def hospitals(summary: Summary) -> str:
    """A row a hospital: alone and now, on the common test and on its own mix of classes."""
    clients = summary["clients"]
    panels = (
        ("common test", "local_accuracy", "accuracy"),
        ("its own mix of classes", "local_own_mix", "own_mix"),
    )
    row = 24 if len(clients) <= 24 else 19
    top, names = 112, 158
    bottom = top + row * max(len(clients), 1)
    title = "Hospitals before and after"
    parts = [svg.text(24, 30, title, size=17, bold=True)]
    parts += _legend(
        [
            ("alone", svg.SOFT, "ring"),
            ("now", svg.BLUE, "circle"),
            ("now, and worse", svg.ORANGE, "square"),
        ],
        24,
        58,
    )
    gap = 52
    width = (WIDTH - names - 12 - gap - 28) / 2
    scales = []
    for place, (words, *keys) in enumerate(panels):
        known = [client[key] for client in clients for key in keys if client[key] is not None]
        low, high = svg.share_axis(known)
        left = names + 12 + place * (width + gap)
        scale = _Scale(low, high, left, left + width)
        scales.append(scale)
        parts.append(svg.text(left + width / 2, 92, words, anchor="middle", bold=True))
        for tick in svg.ticks(low, high):
            parts.append(svg.line(scale(tick), top - 8, scale(tick), bottom))
            parts.append(svg.text(scale(tick), bottom + 20, f"{tick:.1f}", anchor="middle"))
        parts.append(svg.text(left + width / 2, bottom + 44, "accuracy", anchor="middle"))
    for place, client in enumerate(clients):
        y = top + row * (place + 0.5)
        label = svg.shortened(client["site"], 19)
        parts.append(svg.text(names, y + 4.5, label, anchor="end", size=13 if row > 20 else 12))
        for scale, (words, before, after) in zip(scales, panels, strict=True):
            parts += _dumbbell(scale, y, client, words, client[before], client[after])
    better = sum(1 for client in clients if _gain(client, "local_accuracy", "accuracy") > 0)
    described = f"{better} of {len(clients)} hospitals are better on the common test than alone."
    warning = warning_of(summary)
    return svg.drawing(WIDTH, bottom + 62, title, described, parts, warning=warning)


def bytes_sent(summary: Summary) -> str:
    """Bars from zero: what the sites sent, what they got, and what FedAvg would have sent."""
    up, down, weights = summary["bytes_up"], summary["bytes_down"], summary["fedavg_bytes"]
    rows = [("sites to server", up, svg.BLUE), ("server to sites", down, svg.BLUE)]
    rows.append(("both ways", up + down, svg.BLUE))
    if weights is not None:
        rows.append(("FedAvg, both ways", weights, svg.ORANGE))
    title = "Bytes on the wire"
    widest = max(count for _, count, _ in rows)
    left, right, top, row = 158, WIDTH - 110, 84, 38
    parts = [svg.text(24, 30, title, size=17, bold=True)]
    parts.append(svg.text(24, 56, against_fedavg(up + down, weights), colour=svg.SOFT))
    for place, (words, count, colour) in enumerate(rows):
        y = top + row * place
        length = (right - left) * count / max(widest, 1)
        parts.append(svg.text(left - 10, y + 17, words, anchor="end"))
        parts.append(svg.bar(left, y, length, 24, colour=colour, title=f"{words}: {count} bytes"))
        parts.append(svg.text(left + max(length, 1) + 8, y + 17, size(count), bold=True))
    described = "; ".join(f"{words} {size(count)}" for words, count, _ in rows)
    height, warning = top + row * len(rows) + 12, warning_of(summary)
    return svg.drawing(WIDTH, height, title, described, parts, warning=warning)


def against_fedavg(ours: int, weights: int | None) -> str:
    """Says in words whether answers or weights are cheaper here: both happen."""
    if weights is None:
        return f"{size(ours)} both ways; what FedAvg would send was not counted"
    if ours < weights:
        factor = times(weights, ours)
        return f"{size(ours)} both ways; FedAvg would send {size(weights)}: {factor} times as much"
    if ours > weights:
        return (
            f"{size(ours)} both ways; a model this small is cheaper as weights: "
            f"{size(weights)} against {size(ours)}"
        )
    return f"{size(ours)} both ways, as much as FedAvg"


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class _Scale:
    """Puts [low, high] linearly on [start, end]; one single value stands in the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.end) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _legend(entries: Sequence[tuple[str, str, str]], x: float, y: float) -> list[str]:
    parts = []
    for name, colour, shape in entries:
        parts.append(svg.mark(x + 6, y - 4.5, shape, colour=colour))
        parts.append(svg.text(x + 18, y, name))
        x += 40 + 7.6 * len(name)
    return parts


def _dumbbell(
    scale: _Scale, y: float, client: Mapping[str, Any], words: str, before: Any, after: Any
) -> list[str]:
    if before is None and after is None:
        return [
            svg.text(
                (scale.start + scale.end) / 2,
                y + 4.5,
                "not known",
                anchor="middle",
                size=12,
                colour=svg.SOFT,
            )
        ]
    worse = before is not None and after is not None and after < before
    colour = svg.ORANGE if worse else svg.BLUE
    title = f"{client['site']}, {words}: alone {share(before)}, now {share(after)}"
    parts = []
    if before is not None and after is not None:
        parts.append(svg.line(scale(before), y, scale(after), y, colour=colour, width=2))
    if before is not None:
        parts.append(svg.mark(scale(before), y, "ring", colour=svg.SOFT, title=title))
    if after is not None:
        shape = "square" if worse else "circle"
        parts.append(svg.mark(scale(after), y, shape, colour=colour, title=title))
    return parts


def _round_ticks(numbers: Sequence[int]) -> list[int]:
    """Every round, or every fifth, tenth and so on, so that at most a dozen are written."""
    span = max(numbers) - min(numbers)
    stride = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if span / step <= 12)
    marks = [number for number in range(min(numbers), max(numbers) + 1) if number % stride == 0]
    return marks or [min(numbers)]


def _gain(client: Mapping[str, Any], before: str, after: str) -> float:
    if client[before] is None or client[after] is None:
        return 0.0
    return float(client[after] - client[before])


def _has(line: Mapping[str, Any], key: str) -> bool:
    return isinstance(line.get(key), int | float) and not isinstance(line.get(key), bool)
