"""The officer's commands as they are typed: a key, a paper, its installation, a patient out."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedkd.cli import main
from tests.federation.officers import lasting_at
from tests.federation.small import founded

SITE = "site-01"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = founded(tmp_path / "run", "mechanism=dp_training", *lasting_at(tmp_path / "sites"))
    monkeypatch.chdir(tmp_path)
    return run.sites[SITE]


def told(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    capsys.readouterr()
    assert main(words) == code
    said = capsys.readouterr()
    return said.out if code == 0 else said.err


def as_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(told([*words, "--json"], capsys))


def test_from_a_key_to_a_budget_and_to_a_raise(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = as_json(["keys", "new", "dpo.key", "--name", "Ada Example"], capsys)
    assert as_json(["keys", "show", "dpo.key"], capsys)["fingerprint"] == key["fingerprint"]
    Path("dpo.pub").write_text(key["vkey"] + "\n")
    assert key["fingerprint"] in told(["keys", "show", "dpo.pub"], capsys)
    assert "PRIVATE" not in told(["keys", "show", "dpo.key"], capsys)
    assert "never written over" in told(["keys", "new", "dpo.key", "--name", "x"], capsys, 2)

    new = ["privacy", "budget", "new", "first", "--population", SITE, "--patients", "30"]
    assert "epsilon 1" in told(new, capsys)
    assert "there already" in told(new, capsys, 2)
    install = ["privacy", "budget", "install", str(site), "first/budget.yaml"]
    assert "without a signature" in told([*install, "--officer", "dpo.pub"], capsys, 2)
    signing = told(["keys", "sign", "first/budget.yaml", "--key", "dpo.key"], capsys)
    assert "signed by Ada Example, as a privacy budget" in signing
    # The paper does not say how samples are drawn: what any (1, delta) lets through is more.
    assert "recognises at most 2.7" in signing
    assert "--officer VKEY" in told(install, capsys, 2)
    installing = told([*install, "--officer", key["vkey"]], capsys)
    assert "its officer's key is pinned" in installing
    assert "recognises at most 2.0" in installing, "the site's ledger is gdp's"
    assert "held already" in told(install, capsys)

    shown = as_json(["privacy", "budget", "show", str(site)], capsys)
    assert shown["officer"]["fingerprint"] == key["fingerprint"]
    (first,) = shown["papers"]
    assert (first["epsilon"], shown["left"]) == (1.0, 1.0)

    paper = Path("first/budget.yaml").read_text()
    Path("first/budget.yaml").write_text(paper + "# a note\n")
    assert "signed again, by the officer" in told(install, capsys, 2)
    raised = paper.replace("epsilon: 1.0", "epsilon: 2.0")
    raised = raised.replace("replaces: null", f"replaces: {first['paper']}")
    Path("first/budget.yaml").write_text(raised)
    as_json(["keys", "sign", "first/budget.yaml", "--key", "dpo.key"], capsys)
    assert "raises epsilon from 1 to 2; the log says why" in told(install, capsys)
    text = told(["privacy", "budget", "show", str(site)], capsys)
    assert "2. sha256:" in text
    assert "(holds now)" in text
    (row,) = as_json(["privacy", "status", str(site)], capsys)
    assert row["epsilon"] == 2.0
    lowered = raised.replace("epsilon: 2.0", "epsilon: 1.5")
    digest = as_json(["privacy", "budget", "show", str(site)], capsys)["papers"][1]["paper"]
    Path("first/budget.yaml").write_text(lowered.replace(first["paper"], digest))
    told(["keys", "sign", "first/budget.yaml", "--key", "dpo.key"], capsys)
    assert "lowers epsilon from 2 to 1.5, and 1.5 is left" in told(install, capsys)


def test_what_is_no_paper_is_not_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, paper = tmp_path / "dpo.key", tmp_path / "budget.yaml"
    told(["keys", "new", str(key), "--name", "Ada"], capsys)
    sign = ["keys", "sign", str(paper), "--key", str(key)]
    assert "cannot be read" in told(sign, capsys, 2)
    paper.write_text("epsilon: 1\n")
    assert "no population in budget.yaml" in told(sign, capsys, 2)
    assert not (tmp_path / "budget.yaml.sig").exists()
    told(["privacy", "budget", "new", str(tmp_path / "d"), "--population", "p", "--patients", "9"],
         capsys)  # fmt: skip
    other = ["keys", "sign", str(tmp_path / "d" / "budget.yaml"), "--key", str(paper)]
    assert "no key in" in told(other, capsys, 2)


def test_a_site_without_a_paper_says_how_to_get_one(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"fedkd privacy budget install {site}" in told(
        ["privacy", "budget", "show", str(site)], capsys
    )
    assert as_json(["privacy", "budget", "show", str(site)], capsys)["papers"] == []


def test_the_status_of_a_site_without_a_budget_says_so(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(["privacy", "status", str(site)], capsys)
    assert "No budget was opened here yet" in said
    assert "fedkd privacy budget new" in said
    assert as_json(["privacy", "status", str(site)], capsys) == []


def test_patients_are_taken_out_by_words_and_by_a_file(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ids.txt").write_text("3\n\n4\n")
    words = ["privacy", "exclude", "1", "--site", str(site), "--file", "ids.txt"]
    done = as_json([*words, "--reason", "objection"], capsys)
    assert (done["new"], done["rows"]) == (["1", "3", "4"], 3)
    assert "cannot forget" in done["note"]
    assert "3 were out before" in told(words, capsys)
    assert "without a record here: P-1" in told(
        ["privacy", "exclude", "P-1", "--site", str(site)], capsys, 2
    )
    said = told(["privacy", "exclude", "P-1", "--site", str(site), "--ids-may-be-absent"], capsys)
    assert "1 have no record here" in said
    assert "no id" in told(["privacy", "exclude", "--site", str(site)], capsys, 2)
    assert "cannot be read" in told([*words, "--file", "nothing.txt"], capsys, 2)
    assert "no site.json" in told(["privacy", "exclude", "1", "--site", "nowhere"], capsys, 2)
