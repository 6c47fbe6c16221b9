"""The table says what was won and what was lost, in lines that fit a screen."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from fedkd.report import show, table
from fedkd.report.figures import against_fedavg
from fedkd.report.units import size

Make = Callable[..., dict[str, Any]]


def text(summary: dict[str, Any]) -> str:
    return "\n".join(table(summary))


def test_five_hospitals_take_under_thirty_lines_with_everything_in_them(
    summary: Make, client: Make
) -> None:
    late = [{"round": 1, "reason": "answered after the deadline"}]
    full = summary(
        clients=[client(place, own_auroc=0.8, left_out=late) for place in range(5)],
        pooled_accuracy=0.85,
        fedavg_accuracy=0.81,
        fedavg_best={"accuracy": 0.82, "round": 14, "bytes": 4_000_000},
        fedavg_bytes=461_760,
    )
    lines = table(full)
    assert len(lines) < 30
    said = "\n".join(lines)
    for words in ("hospital-05", "0.776", "pooled", "FedAvg", "round 14", "AUROC now", "left out"):
        assert words in said


def test_a_run_that_protects_nobody_says_so(summary: Make, private: Make) -> None:
    assert text(summary()).splitlines()[-1].startswith("NOT PRIVATE: mechanism=none")
    assert "mechanism=none" not in text(private())


def test_a_private_run_shows_what_each_hospital_spent_and_the_risk_beside_it(private: Make) -> None:
    said = " ".join(text(private()).split())
    assert "3.96 of 4" in said
    assert "at most epsilon 4 (delta 1e-05), ever, for each patient" in said
    assert "recognises at most 8.1 at one false alarm in 100" in said
    assert "not attacked" in said
    assert "rehearsal noise, drawn from a seed" in said
    assert max(map(len, text(private()).splitlines())) <= 100


def test_hospitals_with_other_budgets_are_told_apart(private: Make, claim: Any) -> None:
    run = private()
    other = claim(0, epsilon=8.0, spent=run["clients"][0]["epsilon"])
    run["privacy"]["claims"]["hospital-01"] = other.to_json()
    said = " ".join(text(run).split())
    assert "hospital-01: at most epsilon 8" in said
    assert "hospital-02, hospital-03: at most epsilon 4" in said


def test_an_epsilon_without_a_claim_is_not_shown_and_the_reason_is(private: Make) -> None:
    run = private()
    del run["privacy"]["claims"]["hospital-02"]
    run["privacy"]["without"] = {"hospital-02": "found no plan in charge 7"}
    said = text(run)
    assert "3.92" not in said
    assert "no claim       hospital-02: found no plan in charge 7" in said
    run["privacy"]["claims"] = {}
    assert "No claim: no site's epsilon" in text(run)
    assert "3.96" not in text(run)


def test_a_figure_that_is_not_there_is_a_dash_and_no_mean_is_made_of_the_rest(
    summary: Make, client: Make
) -> None:
    said = text(summary(clients=[client(0, accuracy=None), client(1)]))
    assert " - " in said
    assert "mean hospital" not in said


def test_lines_of_baselines_are_there_only_where_they_were_made(summary: Make) -> None:
    said = text(summary())
    assert "pooled" not in said
    assert "FedAvg         accuracy" not in said


@pytest.mark.parametrize("hospitals", [13, 50])
def test_of_many_hospitals_the_best_median_and_worst_are_shown_and_it_is_said(
    summary: Make, hospitals: int
) -> None:
    said = text(summary(hospitals))
    shown = [line for line in table(summary(hospitals)) if line.startswith("hospital-")]
    assert len(shown) == 3
    assert shown[0].startswith("hospital-01")
    assert shown[2].startswith(f"hospital-{hospitals}")
    assert f"Of {hospitals} hospitals" in said


def test_twelve_hospitals_are_all_shown(summary: Make) -> None:
    assert sum(line.startswith("hospital-") for line in table(summary(12))) == 12


def test_answers_that_cost_less_than_weights_say_by_how_much() -> None:
    said = against_fedavg(20_000, 46_800_000)
    assert said == "20 kB both ways; FedAvg would send 46.8 MB: 2,340 times as much"


def test_answers_that_cost_more_than_weights_say_so_too() -> None:
    said = against_fedavg(40_000, 19_240)
    assert said.endswith("a model this small is cheaper as weights: 19 kB against 40 kB")


def test_what_was_not_counted_is_not_claimed() -> None:
    assert "not counted" in against_fedavg(40_000, None)


@pytest.mark.parametrize(
    ("count", "written"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (19_240, "19 kB"), (999_400, "999 kB"),
     (999_999, "1.0 MB"), (46_800_000, "46.8 MB"), (2.3e9, "2.3 GB"), (None, "-")],
)  # fmt: skip
def test_bytes_are_written_for_people(count: int | None, written: str) -> None:
    assert size(count) == written


def test_reasons_for_being_left_out_are_said_once_with_their_rounds(
    summary: Make, client: Make
) -> None:
    rounds = [{"round": number, "reason": "was late"} for number in (1, 2, 3, 7)]
    said = text(summary(rounds=8, clients=[client(0, left_out=rounds), client(1)]))
    assert "hospital-01: was late (rounds 1-3, 7)" in said


def test_the_question_after_the_last_round_is_called_closing(summary: Make, client: Make) -> None:
    rounds = [{"round": number, "reason": "was late"} for number in (2, 4)]
    said = text(summary(rounds=3, clients=[client(0, left_out=rounds), client(1)]))
    assert "hospital-01: was late (round 2 and closing)" in said


def test_fifty_hospitals_left_out_do_not_fill_the_screen(summary: Make, client: Make) -> None:
    late = [{"round": 1, "reason": "was late"}]
    lines = table(summary(clients=[client(place, left_out=late) for place in range(50)]))
    assert len(lines) < 30
    assert any("45 more" in line for line in lines)


def test_without_a_terminal_the_same_lines_are_printed(summary: Make) -> None:
    out = io.StringIO()
    show(summary(), Console(file=out, width=40))
    assert out.getvalue().splitlines() == table(summary())


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_terminal_never_cuts_a_figure_short(summary: Make, client: Make, width: int) -> None:
    out = io.StringIO()
    clients = [client(place, own_auroc=0.812, local_own_auroc=0.8) for place in range(5)]
    show(summary(clients=clients), Console(file=out, width=width, force_terminal=True))
    drawn = [line for line in out.getvalue().splitlines() if line.startswith("│")]
    assert len(drawn) == 5
    assert not any("…" in line for line in drawn)
    assert all("0.720" in line for line in drawn[:1])


def test_a_name_with_markup_in_it_is_printed_as_it_is(summary: Make, client: Make) -> None:
    out = io.StringIO()
    named = summary(clients=[client(0, site="[red]ward[/red]")])
    show(named, Console(file=out, width=140, force_terminal=True))
    assert "[red]ward[/red]" in out.getvalue()


@pytest.mark.parametrize(("width", "whole"), [(140, True), (86, False)])
def test_a_models_name_is_whole_where_there_is_room(
    summary: Make, client: Make, width: int, whole: bool
) -> None:
    out = io.StringIO()
    named = summary(clients=[client(0, model="gradient_boosting"), client(1)])
    show(named, Console(file=out, width=width, force_terminal=True))
    assert ("gradient_boosting" in out.getvalue()) is whole
    assert "gradient_boosting" in text(named)
