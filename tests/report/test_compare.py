"""Runs are paired by seed, and no interval is given where there is too little to tell."""

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedkd.knowledge import BadInput
from fedkd.report import compare, load, load_all, sweep_table
from fedkd.report.compare import draw_sweep, interval, t_975

Make = Callable[..., dict[str, Any]]
RUN_TO_RUN = (0.0, 0.05, -0.03, 0.02)


@pytest.fixture
def sweep(tmp_path: Path, summary: Make, finished: Callable[..., Path]) -> Path:
    """Two rules over four seeds: seeds differ by far more than the rules, by 0.02, do."""
    for rule, gain in (("mean", 0.0), ("median", 0.02)):
        for seed, luck in enumerate(RUN_TO_RUN):
            student = {**summary()["student"], "accuracy": 0.7 + luck + gain + 0.001 * (seed % 2)}
            config = f"seed: {seed}\nout: x{seed}\naggregate: {{_target_: {rule}}}\n"
            config += f"choices: {{aggregate: {rule}}}\n"
            folder = tmp_path / f"{rule}-{seed}"
            finished(folder, summary(seed=seed, student=student), config)
    return tmp_path


def test_runs_that_differ_in_their_seed_alone_are_one_group(sweep: Path) -> None:
    comparison = compare(load_all([sweep]))
    assert [group.label for group in comparison.groups] == ["aggregate=mean", "aggregate=median"]
    assert comparison.groups[1].seeds == (0, 1, 2, 3)


def test_pairing_by_seed_shows_a_difference_that_means_hide(sweep: Path) -> None:
    first, second = compare(load_all([sweep])).groups
    means = [group.means["student_accuracy"] for group in (first, second)]
    gap = second.differences["student_accuracy"]
    assert means[0] is not None
    assert means[1] is not None
    assert gap is not None
    assert means[0].half is not None
    assert means[0].half > 0.02
    assert gap.mean == pytest.approx(0.02)
    assert gap.half == pytest.approx(0.0, abs=1e-9)


def test_only_seeds_in_common_are_paired(sweep: Path) -> None:
    folders = [*sorted(sweep.glob("mean-*"))[:2], *sorted(sweep.glob("median-*"))[1:]]
    first, second = compare(load_all(folders)).groups
    assert (len(first.seeds), len(second.seeds), second.pairs) == (2, 3, 1)
    gap = second.differences["student_accuracy"]
    assert gap is not None
    assert gap.mean == pytest.approx(0.02)
    assert gap.half is None


def test_without_a_seed_in_common_no_difference_is_given(sweep: Path) -> None:
    comparison = compare(load_all([sweep / "mean-0", sweep / "median-1"]))
    assert comparison.groups[1].differences["student_accuracy"] is None
    assert any("No seed in common" in line for line in comparison.to_lines())


def test_below_three_seeds_no_interval_is_given_and_it_is_said(sweep: Path) -> None:
    comparison = compare(load_all(sorted(sweep.glob("*-0")) + sorted(sweep.glob("*-1"))))
    said = "\n".join(comparison.to_lines())
    assert "±" not in said
    assert "no interval" in said


def test_a_seed_that_comes_twice_is_not_counted_as_evidence_twice(sweep: Path) -> None:
    with pytest.raises(BadInput, match="seed 0 twice"):
        compare(load_all([sweep / "mean-0", sweep / "mean-0"]))


def test_a_figure_that_a_run_lacks_is_not_averaged_over_the_others(
    sweep: Path, summary: Make, finished: Callable[..., Path]
) -> None:
    student = {**summary()["student"], "auroc": None}
    config = (sweep / "mean-0" / "config.yaml").read_text()
    finished(sweep / "mean-9", summary(seed=9, student=student), config)
    group = compare(load_all(sorted(sweep.glob("mean-*")))).groups[0]
    assert group.means["student_auroc"] is None
    assert group.means["student_accuracy"] is not None


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=60))
def test_an_interval_is_the_one_of_the_library(values: list[float]) -> None:
    ours = interval(values)
    assert ours is not None
    assert ours.half is not None
    scale = float(stats.sem(values))
    assert ours.mean == pytest.approx(float(np.mean(values)), abs=1e-9)
    expected = float(stats.t.ppf(0.975, len(values) - 1)) * scale
    assert ours.half == pytest.approx(expected, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("freedom", [*range(1, 32), 40, 100, 10_000])
def test_the_quantiles_of_t_are_the_librarys(freedom: int) -> None:
    assert t_975(freedom) == pytest.approx(float(stats.t.ppf(0.975, freedom)), rel=5e-4)


def test_csv_has_a_line_for_each_group_and_figure(sweep: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(compare(load_all([sweep])).to_csv())))
    row = next(
        it for it in rows if (it["group"], it["figure"]) == ("aggregate=median", "student_accuracy")
    )
    assert float(row["difference"]) == pytest.approx(0.02)
    assert row["n"] == row["pairs"] == "4"


def test_latex_escapes_what_latex_reads(
    sweep: Path, summary: Make, finished: Callable[..., Path]
) -> None:
    config = "choices: {aggregate: log_mean}\naggregate: {_target_: log_mean}\n"
    finished(sweep / "z-0", summary(), config)
    latex = compare(load_all([sweep])).to_latex()
    assert "log\\_mean" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 1
    rows = [line for line in latex.splitlines() if line.endswith("\\\\")]
    assert len({line.count("&") for line in rows}) == 1


def test_json_names_the_baseline_and_how_intervals_were_made(sweep: Path) -> None:
    plain = compare(load_all([sweep])).to_json()
    assert plain["baseline"] == "aggregate=mean"
    assert "Student's t" in plain["interval"]
    assert math.isclose(plain["groups"][1]["differences"]["student_accuracy"]["mean"], 0.02)


def test_no_difference_is_written_without_a_sign_of_loss(sweep: Path) -> None:
    assert "-0.000" not in "\n".join(compare(load_all([sweep])).to_lines())


def test_a_sweep_leaves_one_table_and_one_drawing(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = sweep_table(sorted(path for path in sweep.iterdir() if path.is_dir()))
    assert drawing == sweep / "sweep.svg"
    assert "aggregate=median: student 0.730" in drawing.read_text()
    assert "aggregate=median" in capsys.readouterr().out


def test_a_drawing_of_one_group_stands(sweep: Path) -> None:
    assert "</svg>" in draw_sweep(compare([load(sweep / "mean-0")]))


def test_a_run_is_read_as_tables(sweep: Path) -> None:
    run = load(sweep / "mean-0")
    assert list(run.clients["site"])[:2] == ["hospital-01", "hospital-02"]
    assert list(run.metrics["round"]) == [1, 2, 3]
    assert run.config["choices"]["aggregate"] == "mean"


@pytest.mark.parametrize("missing", ["summary.json", "config.yaml", "."])
def test_a_folder_that_is_no_run_is_refused(sweep: Path, missing: str) -> None:
    folder = sweep / "mean-0"
    if missing == ".":
        folder = sweep / "nothing"
    else:
        (folder / missing).unlink()
    with pytest.raises(BadInput, match="run"):
        load(folder)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(BadInput):
        compare([])
