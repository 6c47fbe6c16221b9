"""Papers in Markdown: the report, the model card, the data sheets."""

import re
from pathlib import Path

import pytest
import yaml

from fedkd.report.building import Built
from fedkd.report.verify import catalogue
from fedkd.report.verify.cards import data_sheets, model_card
from fedkd.report.verify.drawing import TEXT
from fedkd.report.verify.plain import marked_down, seen
from fedkd.report.verify.shares import wilson
from tests.report_pages.papers import CARD, Hospitals, built

NASTY = ("# heading", "- item", "1. one", "[a](javascript:b)", "a\n\n# b", "`c`", "_d_", "<b>e</b>",
         "| f |", "***", "> g", "http://h.example", "&lt;", "---", "key: value", "\\")  # fmt: skip


def header(card: str) -> dict[str, object]:
    _, told, _ = card.split("---\n", 2)
    found = yaml.safe_load(told)
    assert isinstance(found, dict)
    return found


def test_every_field_is_in_the_text_once(plain: Built) -> None:
    text = plain.files[TEXT].decode()
    named = re.findall(r"^\*\*[A-Z]+\*\* `([^`]+)`", text, re.MULTILINE)
    assert named == [field.id for field in catalogue().fields]


def test_what_a_field_applies_to_is_said_beside_it(plain: Built) -> None:
    text = plain.files[TEXT].decode()
    for field in catalogue().fields:
        after = text.partition(f"`{field.id}`")[2].partition("###")[0]
        assert ("Applies: " in after) == bool(field.applies), field.id


def test_a_model_card_has_its_figures_in_the_header(plain: Built) -> None:
    told = header(model_card(plain.derived))
    assert told["datasets"] == ["digits", "hearts"]
    assert told["license"] == "unknown"
    (index,) = told["model-index"]  # type: ignore[misc]
    figures = {one["type"]: one["value"] for one in index["results"][0]["metrics"]}
    assert figures == {"accuracy": 0.9, "auroc": 0.95, "ece": 0.125, "macro_f1": 0.8}


def test_a_model_card_without_an_examination_claims_nothing(tmp_path: Path) -> None:
    derived = built(Hospitals(evaluated=False), tmp_path).derived
    assert "model-index" not in header(model_card(derived))
    assert "not measured; no examination" in model_card(derived)


def test_each_data_set_has_its_sheet(plain: Built) -> None:
    sheets = data_sheets(plain.derived)
    assert len(sheets) == 9
    sheet = sheets["data-sheet-site-02-site-02-hearts.md"]
    for said in ("- Licence: CC BY 4.0 (RECORDED)", "Size: 191 to train on, 21 for validation",
                 "NOT FOR FILING", "the hospital could make it"):  # fmt: skip
        assert said in sheet, said


def test_sheets_of_like_names_stay_apart(tmp_path: Path) -> None:
    sheets = data_sheets(built(Hospitals(("a-b", "a_b")), tmp_path).derived)
    assert len(sheets) == 7
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in sheets)


@pytest.mark.parametrize("nasty", NASTY)
def test_text_begins_nothing_in_markdown(nasty: str, tmp_path: Path) -> None:
    said = marked_down(nasty)
    assert "\n" not in said
    assert not re.match(r"#|[-+*=>]|\d+[.)](\s|$)", said)
    assert not re.search(r"(?<!\\)[`*\[\]<>|]", said)
    assert "://" not in said
    derived = built(
        Hospitals(card=dict.fromkeys(CARD, nasty), said=nasty, who=f"{nasty}!"), tmp_path
    ).derived
    told = header(model_card(derived))
    assert set(told) == {"model_name", "license", "library_name", "tags", "datasets", "notice",
                         "metrics", "model-index"}  # fmt: skip
    assert nasty in told["datasets"]  # type: ignore[operator]


def test_ordinary_text_is_left_as_it_is() -> None:
    for said in ("epsilon 0.8684 of 1, delta 1e-05", "site-01 (mlp)", "data_set", "0.8684", "a#b"):
        assert marked_down(said) == said


def test_what_cannot_be_seen_is_shown() -> None:
    assert seen("a\u202eb\u0000c\ud800d\u200be") == "a\\u202eb\\u0000c\\ud800d\\u200be"


@pytest.mark.parametrize(
    ("share", "of", "low", "high"),
    # Newcombe, 1998, Statistics in Medicine 17, 857 to 872, table I, method 3.
    [(81 / 263, 263, 0.2553, 0.3662), (15 / 148, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
     (1 / 29, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_intervals_are_wilsons(share: float, of: int, low: float, high: float) -> None:
    found = wilson(share, of)
    assert (round(found.low, 4), round(found.high, 4), found.of) == (low, high, of)
