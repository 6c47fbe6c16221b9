"""Drawings of privacy: each epsilon has its budget, its risk and its whole claim beside it."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fedkd.privacy.claim import Claim
from fedkd.report import compare, load_all, sweep_table, write_figures, write_utility
from fedkd.report.claims import NOT_PRIVATE
from fedkd.report.epsilon import epsilon_spent, even_ticks
from tests.report.test_figures import SVG, assert_readable

Make = Callable[..., dict[str, Any]]


def inside(drawing: str) -> Any:
    root = ElementTree.fromstring(drawing)  # noqa: S314 - our own
    return json.loads(root.findtext(f"{SVG}metadata") or "")


def bars(drawing: str) -> list[float]:
    return [
        float(it) for it in re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)"', drawing)
    ]


@pytest.mark.parametrize("count", [1, 3, 24, 25, 50])
def test_epsilon_can_be_read_from_one_site_to_fifty(private: Make, count: int) -> None:
    drawing = epsilon_spent(private(count))
    assert_readable(drawing)
    assert "3.96 of 4" in drawing
    assert "recognises at most 8.1" in " ".join(re.findall(r">([^<]*)<", drawing))
    assert len(inside(drawing)) == count
    for body in inside(drawing).values():
        Claim.from_json(body)


def test_a_bar_is_as_long_as_what_each_round_added(private: Make) -> None:
    run = private(1)
    (site,) = run["privacy"]["spent"]
    rounds = [{"round": 0, "epsilon": 0.99}, {"round": 1, "epsilon": 1.98},
              {"round": 2, "epsilon": 1.98}, {"round": 3, "epsilon": 3.96}]  # fmt: skip
    run["privacy"]["spent"][site] = rounds
    drawing = epsilon_spent(run)
    long = bars(drawing)[-3:]
    assert [round(it / sum(long), 2) for it in long] == [0.25, 0.25, 0.5]
    assert "before this run" in drawing
    assert "round 2" not in drawing  # which cost nothing
    assert_readable(drawing)


def test_a_site_without_a_claim_has_no_bar_and_says_why(private: Make) -> None:
    run = private(2)
    both = len(bars(epsilon_spent(run)))
    del run["privacy"]["claims"]["hospital-02"]
    run["privacy"]["without"] = {"hospital-02": "found no plan in charge 7"}
    drawing = epsilon_spent(run)
    assert "no claim: found no plan in charge 7" in drawing
    assert len(bars(drawing)) == both - 1
    assert "3.92" not in drawing
    run["privacy"]["claims"] = {}
    assert_readable(epsilon_spent(run))


def test_a_private_run_has_a_drawing_of_epsilon_and_any_other_says_not_private(
    private: Make, summary: Make, finished: Callable[..., Path], tmp_path: Path
) -> None:
    drawn = {it.stem: it.read_text() for it in write_figures(finished(tmp_path / "p", private()))}
    assert set(drawn) == {"accuracy", "bytes", "epsilon", "hospitals"}
    assert not any(NOT_PRIVATE in body for body in drawn.values())
    drawn = {it.stem: it.read_text() for it in write_figures(finished(tmp_path / "n", summary()))}
    assert set(drawn) == {"accuracy", "bytes", "hospitals"}
    for body in drawn.values():
        assert_readable(body)
        shown = [it.text for it in ElementTree.fromstring(body).iter(f"{SVG}text")]  # noqa: S314
        assert shown[-1] == NOT_PRIVATE


@pytest.mark.parametrize("most", [0.003, 0.5, 1, 1.9, 4, 8, 10, 97.3])
def test_ticks_are_few_even_and_reach_the_largest(most: float) -> None:
    marks = even_ticks(most)
    assert marks[0] == 0
    assert most <= marks[-1] <= 1.7 * most
    assert 3 <= len(marks) <= 8
    assert {round((b - a) / marks[1], 6) for a, b in pairwise(marks)} == {1.0}


@pytest.fixture
def sweep(
    tmp_path: Path, private: Make, summary: Make, finished: Callable[..., Path]
) -> list[Path]:
    """Epsilon 1, 2, 4 and 8, and without privacy, over three seeds: the student gets better."""
    folders = []
    for step, epsilon in enumerate((1.0, 2.0, 4.0, 8.0, None)):
        for seed in range(3):
            accuracy = 0.5 + 0.08 * step + 0.01 * seed
            student = {**summary()["student"], "accuracy": accuracy, "auroc": accuracy + 0.1}
            made = summary if epsilon is None else lambda e=epsilon, **k: private(3, e, **k)
            mechanism = "none" if epsilon is None else "dp_training"
            config = {
                "seed": seed,
                "budget": {"epsilon": epsilon, "delta": None},
                "mechanism": {"_target_": mechanism},
                "choices": {"mechanism": mechanism},
            }
            folder = tmp_path / f"{step}-{seed}"
            folders.append(finished(folder, made(seed=seed, student=student), json.dumps(config)))
    return folders


def test_a_sweep_of_budgets_ends_in_utility_against_epsilon(sweep: list[Path]) -> None:
    drawn = write_utility(sweep)
    assert drawn == sweep[0].parent / "utility.svg"
    drawing = drawn.read_text()
    assert_readable(drawing)
    shown = [it.text for it in ElementTree.fromstring(drawing).iter(f"{SVG}text")]  # noqa: S314
    for words in ("student's accuracy", "student's AUROC", "1", "2", "4", "8", "2.0", "3.4", "8.1",
                  "25.5", "mechanism=none, NOT PRIVATE (3 seeds)"):  # fmt: skip
        assert words in shown, words
    assert "epsilon 8: accuracy 0.750" in drawing
    assert "NOT PRIVATE yet: rehearsal noise" in drawing
    claims = inside(drawing)
    assert set(claims) == {folder.name for folder in sweep[:12]}
    assert {body["epsilon"] for own in claims.values() for body in own.values()} == {1, 2, 4, 8}


def test_an_epsilon_is_that_of_the_least_protected_site(sweep: list[Path]) -> None:
    for folder in sweep[:3]:
        path = folder / "summary.json"
        kept = json.loads(path.read_text())
        kept["privacy"]["claims"]["hospital-02"]["epsilon"] = 5.0
        path.write_text(json.dumps(kept))
    drawing = (write_utility(sweep) or Path()).read_text()
    assert "epsilon 5: accuracy 0.510" in drawing
    assert "epsilon 1: " not in drawing


def test_spread_is_drawn_for_two_seeds_and_for_three(sweep: list[Path]) -> None:
    thin = re.compile(r'stroke="#0072B2" stroke-width="1"')
    thick = re.compile(r'<line [^>]*stroke="#0072B2" stroke-width="2"')
    drawing = (write_utility(sweep) or Path()).read_text()
    assert (len(thin.findall(drawing)), len(thick.findall(drawing))) == (0, 8)
    two = [folder for folder in sweep if not folder.name.endswith("-2")]
    drawing = (write_utility(two) or Path()).read_text()
    assert (len(thin.findall(drawing)), len(thick.findall(drawing))) == (8, 0)
    assert_readable(drawing)


def test_a_sweep_of_one_budget_or_none_has_no_such_drawing(sweep: list[Path]) -> None:
    assert write_utility(sweep[:3]) is None
    assert write_utility(sweep[12:]) is None
    assert write_utility([*sweep[:3], *sweep[12:]]) is None


def test_a_run_without_a_whole_claim_is_left_out_of_the_drawing_and_it_is_said(
    sweep: list[Path],
) -> None:
    path = sweep[0] / "summary.json"
    kept = json.loads(path.read_text())
    del kept["privacy"]["claims"]["hospital-02"]
    kept["clients"][1]["epsilon"] = kept["clients"][1]["delta"] = None
    kept["privacy"]["without"] = {"hospital-02": "no plan"}
    path.write_text(json.dumps(kept))
    drawing = (write_utility(sweep) or Path()).read_text()
    assert "Left out: 1 runs" in drawing
    assert sweep[0].name not in inside(drawing)


def test_lines_of_a_sweep_are_told_apart_by_what_differs_beside_the_budget(
    sweep: list[Path],
) -> None:
    for folder in sweep[::3]:
        config = json.loads((folder / "config.yaml").read_text())
        config["mechanism"]["steps"] = 60
        (folder / "config.yaml").write_text(json.dumps(config))
    drawing = (write_utility(sweep) or Path()).read_text()
    assert "mechanism.steps=60" in drawing
    assert "budget.epsilon=" not in drawing
    assert_readable(drawing)


def test_a_comparison_carries_its_claims_and_says_what_is_not_private(sweep: list[Path]) -> None:
    found = compare(load_all(sweep))
    said = " ".join(" ".join(found.to_lines()).split())
    assert "budget.epsilon=4.0: at most epsilon 4 (delta 1e-05)" in said
    assert NOT_PRIVATE in said
    plain = found.to_json()["groups"]
    assert plain[-1]["privacy"] == [NOT_PRIVATE]
    assert plain[-1]["claims"] == {"0": {}, "1": {}, "2": {}}
    for body in plain[0]["claims"]["2"].values():
        assert Claim.from_json(body).epsilon == 1
    assert NOT_PRIVATE in found.to_csv()
    assert f"% {found.groups[-1].label}: {NOT_PRIVATE}" in found.to_latex()
    drawing = sweep_table(sweep, printed=False).read_text()
    assert NOT_PRIVATE in drawing
    assert NOT_PRIVATE not in sweep_table(sweep[:12], printed=False).read_text()
