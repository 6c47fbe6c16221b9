"""The lines of a run are read in order, whatever a crash left at their end."""

from pathlib import Path

import pytest

from fedkd.knowledge import BadInput
from fedkd.report import append_metrics, read_metrics


def test_what_was_appended_is_read_in_order_of_rounds(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for number in (2, 1, 3):
        append_metrics(file, {"round": number, "agreement": number / 10})
    assert [line["round"] for line in read_metrics(file)] == [1, 2, 3]


def test_a_round_that_was_done_again_counts_as_done_last(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append_metrics(file, {"round": 1, "agreement": 0.1})
    append_metrics(file, {"round": 1, "agreement": 0.2})
    assert read_metrics(file) == [{"round": 1, "agreement": 0.2}]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"round": 1}\n{"round": 2, "agre')
    assert read_metrics(file) == [{"round": 1}]


def test_no_file_means_no_rounds(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("line", ["{", "[]", "{}", "null", '{"round": "x"}'])
def test_a_line_that_is_no_round_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"round": 1}\n' + line + "\n")
    with pytest.raises(BadInput, match="line 2"):
        read_metrics(file)


def test_a_line_without_a_round_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        append_metrics(tmp_path / "metrics.jsonl", {"agreement": 1.0})
