"""`fedkd laws` finds the part that breaks a law, and says which."""

import json
from pathlib import Path

import pytest

from fedkd.cli.laws import WHERE, laws, laws_of
from fedkd.knowledge import BadInput


@pytest.mark.parametrize("name", ["aggregate/mean", "filter/none", "codec/float32"])
def test_our_own_parts_keep_their_laws(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert laws(name, config_dir=None, as_json=False) == 0
    assert f"{name} keeps all" in capsys.readouterr().out


def test_a_rule_that_hears_the_first_site_alone_is_caught(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert laws("aggregate/half_blind", config_dir=own, as_json=True) == 1
    verdicts = json.loads(capsys.readouterr().out)["laws"]
    broken = {it["law"]: it["reason"] for it in verdicts if not it["held"]}
    assert "the order of sites does not matter" in broken
    assert all(broken.values())


def test_a_yaml_file_of_ones_own_is_a_part(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert laws(str(own / "aggregate" / "half_blind.yaml"), config_dir=None, as_json=False) == 1
    said = capsys.readouterr().out
    assert "BROKEN  the order of sites does not matter" in said
    assert "Traceback" not in said


def test_a_mechanism_of_ones_own_that_pays_nothing_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "of_the_ward.py").write_text(
        "from fedkd.privacy.mechanisms.none import none\n"
        "def free():\n"
        "    nothing = {'event': 'NoOp'}\n"
        "    return none()._replace(private=True, training_cost=lambda facts, plan: nothing,\n"
        "                           answer_cost=lambda facts, plan, queries: nothing)\n"
    )
    part = tmp_path / "mechanism" / "free.yaml"
    part.parent.mkdir()
    part.write_text("# Promises all and pays nothing.\n_target_: of_the_ward.free\nepsilon: null\n")
    assert laws(str(part), config_dir=None, as_json=True) == 1
    verdicts = json.loads(capsys.readouterr().out)["laws"]
    broken = {it["law"]: it["reason"] for it in verdicts if not it["held"]}
    assert list(broken) == ["a mechanism says whether it protects, and what pays for that"]
    assert "found no plan" in broken["a mechanism says whether it protects, and what pays for that"]


def test_a_part_without_laws_cannot_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert laws("query/public", config_dir=None, as_json=False) == 3
    assert "cannot tell" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("aggregate", "did you mean aggregate/<name>"),
        ("agregate/mean", "did you mean aggregate"),
        ("aggregate/meen", "did you mean aggregate=mean"),
        ("none.yaml", "no file"),
        ("", "group/name"),
    ],
)
def test_a_part_that_does_not_exist_is_answered_with_the_nearest(name: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        laws(name, config_dir=None, as_json=False)


def test_a_yaml_in_a_folder_that_names_no_group_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("_target_: fedkd.knowledge.aggregate.mean.mean\n")
    with pytest.raises(BadInput, match="named as the group"):
        laws(str(tmp_path / "mine.yaml"), config_dir=None, as_json=False)


@pytest.mark.parametrize("group", sorted(WHERE))
def test_every_kind_that_is_said_to_have_laws_has_some(group: str) -> None:
    assert laws_of(group)
