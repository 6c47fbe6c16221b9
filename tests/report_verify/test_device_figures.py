"""Figures that a device's file asks for: shares at the released threshold, calibration, gaps."""

import copy
from pathlib import Path
from typing import Any

import pytest

from fedkd.report.building import Built, build
from fedkd.report.verify.judging import judge
from fedkd.report.verify.shares import bins, error_of, wilson
from tests.audit_verify.federation import RUN, SITES, digest
from tests.report_pages.papers import Hospitals

CELLS = [[50, 3], [20, 7], [12, 40]]
"""Patients by answer (below 0.3, below 0.6, above) and true class."""


def table(where: str, took_part: bool | None, cells: Any, group: str = "all") -> dict[str, Any]:
    return {"where": where, "took_part": took_part, "group": group, "cells": cells}


def body(**more: Any) -> dict[str, Any]:
    measured = [
        table("all", None, CELLS),
        table("all", None, [[1, 0], [2, 3], [0, 4]], "female"),
        table("all", None, [[0, 0], [0, 0], [0, 0]], "none of these"),
        table("h1", True, [[9, 1], [0, 0], [1, 9]]),
        table("Budapest", False, [[8, 2], [0, 0], [2, 8]]),
    ]
    return {
        "run": RUN, "model": digest("student 2"), "data": "hearts, test", "group": "sex",
        "thresholds": [0.3, 0.6], "classes": ["well", "ill"], "measured": measured,
        "figures": {"student": {"accuracy": 0.9}},
        "reliability": [
            {"low": 0.5, "high": 0.75, "count": 10, "right": 6, "confidence": 0.7},
            {"low": 0.75, "high": 1.0, "count": 30, "right": 27, "confidence": 0.86},
        ],
    } | more  # fmt: skip


def report(folder: Path, *evaluations: dict[str, Any], threshold: float | None = 0.6) -> Built:
    federation = Hospitals(evaluated=False)
    for one in evaluations:
        federation.server.append("evaluation.done", one)
    if threshold is not None:
        federation.server.append(
            "model.released",
            {"run": RUN, "model": digest("student 2"), "version": "1.0", "parent": None,
             "threshold": threshold},
        )  # fmt: skip
    return build(federation.write(folder))


def texts(built: Built, field: str, status: str = "COMPUTED") -> list[str]:
    said = built.derived.answer(field).statements
    return [one.text for one in said if one.status == status]


def test_shares_are_those_of_the_counts_at_the_released_threshold(tmp_path: Path) -> None:
    built = report(tmp_path, body())
    (whole,) = [it for it in texts(built, "a4.2g.metrics") if "sensitivity" in it]
    low, high, _ = wilson(40 / 50, 50)
    assert f"sensitivity 0.800 ({low:.3f} to {high:.3f}; 40 of 50)" in whole
    assert "specificity 0.854" in whole
    assert "70 of 82" in whole
    assert "PPV 0.769" in whole
    assert "NPV 0.875" in whole
    assert "version 1.0" in whole
    assert "Wilson (1927)" in whole
    (statement,) = [it for it in built.derived.statements if it.text == whole
                    and it.field == "a4.2g.metrics"]  # fmt: skip
    types = [built.derived.evidence.books[it.log].entries[it.index].type
             for it in statement.evidence]  # fmt: skip
    assert types == ["evaluation.done", "model.released"]
    by = texts(built, "a4.3.groups")
    assert any(it.startswith("h1, on") and "9 of 10" in it for it in by)
    assert any(it.startswith("sex female") and "4 of 7" in it for it in by)
    assert any(it.startswith("Budapest, a hospital that took no part") for it in by)
    assert not any("none of these" in it for it in by)
    assert texts(built, "a4.3.groups", "MISSING") == []
    assert built.derived.answer("a4.2g.discrimination").status == "COMPUTED"


def test_a_hospital_counts_its_own_patients_alone(tmp_path: Path) -> None:
    built = report(tmp_path, body(data="held-out patients of 2 sites"))
    (own,) = (it for it in texts(built, "a4.3.groups") if it.startswith("h1,"))
    assert "on its own held-out patients, at threshold 0.6" in own
    assert any("on held-out patients of 2 sites" in it for it in texts(built, "a4.2g.metrics"))


def test_what_changed_between_two_versions_is_said_of_both_entries(tmp_path: Path) -> None:
    federation = Hospitals(evaluated=False)
    for version, parent, threshold in (("1.1", None, 0.5), ("1.2", "1.1", 0.3), ("3", "2", 0.3)):
        told: dict[str, Any] = {"run": RUN, "model": digest("student 2"), "version": version}
        told |= {"parent": parent}
        told |= {"parent_model": digest("another run's") if version == "3" else None}
        told |= {"architecture": "mlp", "threshold": threshold, "preprocessing": digest("p")}
        federation.server.append("model.released", told)
    built = build(federation.write(tmp_path))
    said = {it.text: it.evidence for it in built.derived.answer("a4.6.changes").statements}
    changed = (
        "From version 1.1 to version 1.2: changed threshold; the same model, architecture, "
        "preprocessing. Threshold 0.5 before, 0.3 now."
    )
    assert len(said[changed]) == 2
    assert not any(text.startswith("From version 2") for text in said)  # its entry is elsewhere
    assert any("follows version 2 (sha256:" in text for text in said)


def test_another_threshold_has_other_figures_and_one_that_was_not_counted_none(
    tmp_path: Path,
) -> None:
    (at,) = [it for it in texts(report(tmp_path / "a", body(), threshold=0.3), "a15.1.level")
             if "sensitivity" in it]  # fmt: skip
    assert "47 of 50" in at
    built = report(tmp_path / "b", body(), threshold=0.45)
    assert not [it for it in texts(built, "a15.1.level") if "sensitivity" in it]
    (missing,) = texts(built, "a15.1.level", "MISSING")
    assert "not measured" in missing
    assert "The engineer could supply" in missing
    assert missing in built.files["index.html"].decode()


def test_what_was_not_measured_is_said_each_by_itself(tmp_path: Path) -> None:
    built = report(tmp_path, body(measured=[table("all", None, CELLS)]))
    missing = " ".join(texts(built, "a4.3.groups", "MISSING"))
    assert missing.count("not measured") == 3
    assert "took no part" in missing
    assert built.derived.answer("a4.2g.discrimination").status == "MISSING"


def test_a_hospital_that_has_a_log_here_did_take_part(tmp_path: Path) -> None:
    built = report(tmp_path, body(measured=[table(next(iter(SITES)), False, CELLS)]))
    assert not any("a hospital that took no part" in it for it in texts(built, "a4.3.groups"))


@pytest.mark.parametrize("cells", [[[1, 2]], "x", [[1, -2]] * 3, [[1, 2.5]] * 3, [[], [], []]])
def test_counts_of_another_shape_say_nothing(tmp_path: Path, cells: Any) -> None:
    built = report(tmp_path, body(measured=[table("all", None, cells), {"where": 3}, None]))
    assert not [it for it in texts(built, "a4.2g.metrics") if "sensitivity" in it]


def test_classes_are_held_against_the_others(tmp_path: Path) -> None:
    more = {"thresholds": [], "classes": ["a", "b", "c"],
            "measured": [table("all", None, [[5, 1, 0], [0, 6, 2], [1, 0, 7]])]}  # fmt: skip
    said = texts(report(tmp_path, body(**more), threshold=None), "a4.2g.metrics")
    assert any("accuracy 0.818" in it and "18 of 22" in it for it in said)
    (b,) = [it for it in said if "class b against the others" in it]
    assert "6 of 7" in b
    assert "13 of 15" in b


def test_the_bins_are_drawn_and_give_the_error(tmp_path: Path) -> None:
    found = bins(body())
    assert error_of(found) == pytest.approx((10 * 0.1 + 30 * 0.04) / 40)
    built = report(tmp_path, body())
    assert any("expected calibration error 0.055 over 40 answers in 2 bins" in it
               for it in texts(built, "a4.2g.metrics"))  # fmt: skip
    page = built.files["index.html"].decode()
    assert "reliability diagram" in page
    wrong = body()
    wrong["reliability"][0]["right"] = 11
    assert bins(wrong) == []


def test_every_paper_is_drawn_again_to_the_byte(tmp_path: Path) -> None:
    built = report(tmp_path / "logs", body(), copy.deepcopy(body(data="again")))
    for name, content in built.files.items():
        (tmp_path / name).write_bytes(content)
    assert judge(tmp_path / "index.html").verdict == "CONSISTENT"
    assert judge(tmp_path / "report.md").verdict == "CONSISTENT"


def test_entries_that_nobody_cosigned_are_shown_as_such(tmp_path: Path) -> None:
    built = report(tmp_path, body())  # the evaluation and the release came after the cosigning
    book = built.derived.evidence.books["server"]
    assert book.beyond is not None
    assert book.beyond >= 2
    said = f"the last {book.beyond} of {len(book.entries)} entries are not cosigned"
    assert said in built.files["index.html"].decode()
    assert said in built.files["report.md"].decode()
    sites = [built.derived.evidence.books[name].beyond for name in built.derived.evidence.sites]
    assert sites == [0] * len(sites)
