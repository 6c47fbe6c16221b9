"""A drawing is well-formed, says what it shows, and nothing in it lies on anything else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fedkd.report import write_figures
from fedkd.report.figures import accuracy_by_round, bytes_sent, hospitals
from fedkd.report.svg import share_axis, ticks

Make = Callable[..., dict[str, Any]]
SVG = "{http://www.w3.org/2000/svg}"


def boxes(drawing: str) -> list[tuple[str, float, float, float, float]]:
    """Every text with a box that is generous: 0.62 of the size for a letter."""
    found = []
    for text in ElementTree.fromstring(drawing).iter(f"{SVG}text"):  # noqa: S314 - our own
        words, size = text.text or "", float(text.get("font-size", "13"))
        x, y, width = float(text.get("x", 0)), float(text.get("y", 0)), 0.62 * size * len(words)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor", "")]
        found.append((words, left, y - 0.75 * size, left + width, y + 0.2 * size))
    return found


def assert_readable(drawing: str) -> None:
    root = ElementTree.fromstring(drawing)  # noqa: S314 - our own
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title")
    assert root.findtext(f"{SVG}desc")
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    texts = boxes(drawing)
    for words, left, top, right, bottom in texts:
        assert left >= 0, words
        assert right <= width, words
        assert top >= 0, words
        assert bottom <= height, words
    for place, (words, left, top, right, bottom) in enumerate(texts):
        for other, left2, top2, right2, bottom2 in texts[place + 1 :]:
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, f"{words} lies on {other}"
    sizes = [int(size) for size in re.findall(r'font-size="(\d+)"', drawing)]
    assert min(sizes) >= 12


@pytest.mark.parametrize("count", [1, 4, 5, 24, 25, 50])
def test_hospitals_can_be_read_from_one_to_fifty(summary: Make, count: int) -> None:
    drawing = hospitals(summary(count))
    assert_readable(drawing)
    assert drawing.count("hospital-") >= count


def test_long_names_of_hospitals_stay_inside(summary: Make, client: Make) -> None:
    name = "Universitätsklinikum Schleswig-Holstein <Campus> & Lübeck"
    drawing = hospitals(summary(clients=[client(place, site=name) for place in range(4)]))
    assert_readable(drawing)
    assert "&lt;Campus&gt; &amp; Lübeck" in drawing


def test_a_hospital_that_lost_has_another_shape_and_not_only_another_colour(
    summary: Make, client: Make
) -> None:
    won = hospitals(summary(clients=[client(0, local_own_mix=None, own_mix=None)]))
    lost = hospitals(summary(clients=[client(0, accuracy=0.1, local_own_mix=None, own_mix=None)]))
    assert won.count('height="9"') == 1  # the legend alone
    assert lost.count('height="9"') == 2


def test_a_hospital_without_figures_is_said_to_be_unknown(summary: Make, client: Make) -> None:
    none = dict.fromkeys(("accuracy", "local_accuracy", "own_mix", "local_own_mix"))
    drawing = hospitals(summary(clients=[client(0, **none)]))
    assert drawing.count("not known") == 2
    assert_readable(drawing)


@pytest.mark.parametrize("rounds", [1, 2, 3, 12, 13, 100, 1000])
def test_rounds_can_be_read_however_many(rounds: int) -> None:
    lines = [
        {"round": number, "student_accuracy": 0.5, "hospitals_accuracy": None, "agreement": 1.0}
        for number in range(1, rounds + 1)
    ]
    drawing = accuracy_by_round(lines)
    assert_readable(drawing)
    assert "mean hospital" not in drawing
    assert f"After round {rounds}: student 0.500" in drawing


def test_four_curves_share_a_legend_without_touching() -> None:
    keys = ("student_accuracy", "hospitals_accuracy", "consensus_accuracy", "agreement")
    assert_readable(accuracy_by_round([{"round": 1, **dict.fromkeys(keys, 0.5)}]))


@pytest.mark.parametrize("weights", [None, 0, 10, 200_000, 10**12])
def test_bytes_can_be_read_beside_any_other(summary: Make, weights: int | None) -> None:
    assert_readable(bytes_sent(summary(fedavg_bytes=weights)))


def test_bars_are_as_long_as_what_they_say(summary: Make) -> None:
    drawing = bytes_sent(summary(1, bytes_up=100, bytes_down=300, fedavg_bytes=800))
    widths = [float(it) for it in re.findall(r'<rect x="158" y="[\d.]+" width="([\d.]+)"', drawing)]
    assert [round(it / widths[-1], 2) for it in widths] == [0.12, 0.38, 0.5, 1.0]


@pytest.mark.parametrize(
    ("values", "axis"),
    [([], (0.0, 1.0)), ([0.0], (0.0, 0.2)), ([1.0], (0.8, 1.0)), ([0.71, 0.78], (0.6, 0.8)),
     ([0.1, 0.95], (0.0, 1.0)), ([0.5], (0.4, 0.6))],
)  # fmt: skip
def test_an_axis_is_round_and_holds_its_values(
    values: list[float], axis: tuple[float, float]
) -> None:
    assert share_axis(values) == pytest.approx(axis)
    marks = ticks(*share_axis(values))
    assert marks[0] == pytest.approx(axis[0])
    assert len(marks) >= 2


def test_the_same_run_gives_the_same_bytes(
    tmp_path: Path, summary: Make, finished: Callable[..., Path]
) -> None:
    folder = finished(tmp_path / "run", summary(fedavg_bytes=1000))
    first = {path.name: path.read_bytes() for path in write_figures(folder)}
    again = {path.name: path.read_bytes() for path in write_figures(folder)}
    assert set(first) == {"accuracy.svg", "bytes.svg", "hospitals.svg"}
    assert first == again


def test_a_run_without_rounds_has_no_curve(
    tmp_path: Path, summary: Make, finished: Callable[..., Path]
) -> None:
    folder = finished(tmp_path / "run", summary(), rounds=[])
    assert {path.name for path in write_figures(folder)} == {"bytes.svg", "hospitals.svg"}


def test_figures_may_be_drawn_before_the_summary_is_written(summary: Make, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    drawn = write_figures(tmp_path, summary())
    assert [file.name for file in drawn] == ["bytes.svg", "hospitals.svg"]
    assert not (tmp_path / "summary.json").exists()
