"""A hospital decides body by body what a report may show, and sees all that ever left it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.cli import main
from fedkd.report.building import build
from fedkd.report.disclosing import BANDS, band, read_bundle
from fedkd.report.verify.catalogue import catalogue
from fedkd.report.verify.judging import judge


@pytest.fixture
def site(run: Path) -> Path:
    return run / "sites" / "site-01"


def disclosed(site: Path, tmp_path: Path, *edits: tuple[str, str]) -> Path:
    form, bundle = tmp_path / "form.yaml", tmp_path / "site-01.bundle"
    told = ["site", "disclose", str(site), "--form", str(form)]
    assert main(told) == 0
    text = form.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    form.write_text(text)
    assert main([*told, "--by", "Dr. Noor", "--out", str(bundle)]) == 0
    return bundle


def test_counts_leave_in_bands_and_what_is_kept_back_is_said(
    run: Path, site: Path, tmp_path: Path
) -> None:
    bundle = disclosed(site, tmp_path)
    party, log = read_bundle(bundle)
    built = build(run, {party: log})
    said = [one.text for one in built.derived.answer("a4.2d.datasets").statements]
    assert any("in bands, as site-01 says: 1 to 9" in text or "10 to 19" in text for text in said)
    assert any(text.startswith("WITHHELD BY site-01") for text in said)
    with Log(site / "log.sqlite", "site-01") as kept:
        registered = kept.last("dataset.registered")
    assert registered is not None
    exact = registered.body["records"]["train"]
    assert str(registered.index) not in log["open"]
    assert f'"train":{exact}' not in bundle.read_text()


def test_a_person_opens_more_and_the_log_says_that_no_epsilon_covers_it(
    run: Path, site: Path, tmp_path: Path
) -> None:
    bundle = disclosed(site, tmp_path, (": band", ": open"), (": keep", ": open"))
    party, log = read_bundle(bundle)
    built = build(run, {party: log})
    assert not [one for one in built.derived.statements if one.status == "WITHHELD"]
    with Log(site / "log.sqlite", "site-01") as kept:
        told = kept.last("access.performed")
    assert told is not None
    assert told.body["who"] == "Dr. Noor"
    assert told.body["covered_by_epsilon"] is False
    assert told.body["entries"]


def test_a_bundle_in_a_report_verifies_and_an_edited_one_does_not(
    run: Path, site: Path, tmp_path: Path
) -> None:
    bundle, out = disclosed(site, tmp_path), tmp_path / "report"
    told = ["report", "build", str(run), "--with", str(bundle), "--out", str(out)]
    assert main(told) == 0
    # What is in bands is that, and what is kept is withheld: neither is an open question.
    found = judge(out / "evidence.json")
    assert found.verdict == "CONSISTENT"
    (lineage,) = [it.why for it in found.findings if it.name == "lineage"]
    assert "WITHHELD BY site-01" in lineage
    edited = json.loads(bundle.read_bytes())
    opened = edited["log"]["open"]
    key = next(key for key, one in opened.items() if "covered_by_epsilon" in one["body"])
    opened[key]["body"]["who"] = "Somebody"
    from fedkd.audit.verify import canonical

    bundle.write_bytes(canonical(edited))
    assert main(told) == 1
    assert judge(out / "evidence.json").verdict == "REFUTED"


def test_a_data_set_in_bands_is_a_source_by_its_sites_word(
    run: Path, site: Path, tmp_path: Path
) -> None:
    bundle = disclosed(site, tmp_path, ("keep  # train.local", "open  # train.local"))
    party, log = read_bundle(bundle)
    built = build(run, {party: log})
    (said,) = built.derived.answer("a4.2d.provenance").statements
    assert said.status == "COMPUTED"
    assert "site-01/digits (as site-01 says), site-02/digits," in said.text
    (tmp_path / "closed").mkdir()
    kept, log = read_bundle(disclosed(site, tmp_path / "closed"))
    (said,) = build(run, {kept: log}).derived.answer("a4.2d.provenance").statements
    assert (said.status, said.text[:19]) == ("WITHHELD", "WITHHELD BY site-01")


@pytest.mark.parametrize(
    ("form", "said"),
    [("bodies: {0: maybe}", "maybe"), ("bodies: {99999: open}", "99999"), ("x: 1", "no bodies")],
)
def test_a_form_that_is_none(site: Path, tmp_path: Path, form: str, said: str, capsys: Any) -> None:
    path = tmp_path / "form.yaml"
    path.write_text(form)
    told = ["site", "disclose", str(site), "--form", str(path), "--by", "Dr. Noor"]
    assert main([*told, "--out", str(tmp_path / "x.bundle")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.bundle").exists()


def test_nobody_discloses_without_a_name(site: Path, tmp_path: Path) -> None:
    form = tmp_path / "form.yaml"
    told = ["site", "disclose", str(site), "--form", str(form)]
    assert main(told) == 0
    assert main(told) == 2


def test_a_band_holds_its_count_and_no_other_bands() -> None:
    for low, high in zip(BANDS, (*BANDS[1:], None), strict=True):
        assert band(low) == band(high - 1 if high else low + 10**9)
        assert high is None or band(high) != band(low)


def test_everything_that_left_is_shown(site: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main(["site", "sent", str(site), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kinds = [row["kind"] for row in told["sent"]]
    assert kinds.count("Answer") == 2
    assert len(told["sent"]) == len(list((site / "outbox").glob("*.bin")))
    answer = next(row for row in told["sent"] if row["kind"] == "Answer")
    assert main(["site", "sent", str(site), "--values", answer["digest"]]) == 0
    rows = capsys.readouterr().out.split()
    assert len(rows) == 8
    assert all(abs(sum(map(float, row.split(","))) - 1) < 1e-5 for row in rows)


def test_a_body_that_was_taken_away_or_changed_is_found(
    site: Path, tmp_path: Path, capsys: Any
) -> None:
    with Log(site / "log.sqlite", "site-01") as log:
        released = log.last("release.outputs")
    assert released is not None
    path = site / "outbox" / f"{released.body['payload'].removeprefix('sha256:')}.bin"
    other = Path(shutil.copy(path, tmp_path))
    path.unlink()
    assert main(["site", "sent", str(site)]) == 1
    assert "MISSING" in capsys.readouterr().out
    path.write_bytes(other.read_bytes()[:-1] + b"x")
    assert main(["site", "sent", str(site)]) == 2


def test_a_hospital_makes_its_own_paper_from_its_log_alone(
    site: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["site", "report", str(site), "--out", str(tmp_path / "paper")]) == 0
    assert "NOT PRIVATE" in capsys.readouterr().out
    assert (tmp_path / "paper" / "index.html").is_file()
    text = (tmp_path / "paper" / "report.md").read_text()
    assert text.startswith(f"# What {site.name} did, from its own log alone\n")
    assert "**RECORDED** `g30.g.measures`" in text
    assert "**COMPUTED** `g35.7a.description`" in text
    assert main(["report", "verify", str(tmp_path / "paper")]) == 0


def test_a_hospitals_own_paper_asks_of_the_hospital_alone(
    site: Path, tmp_path: Path, capsys: Any
) -> None:
    """What left and what was refused stand in it one by one; the provider's fields in one line."""
    with Log(site / "log.sqlite", site.name) as log:
        log.append("refused/x", "release.refused", {"run": "r-1", "round": 3, "rule": "budget"})
        released = [entry.at for entry in log.entries("release.outputs")]
    paper = tmp_path / "paper"
    paper.mkdir()
    (paper / "data-sheet-of-an-earlier-paper.md").write_text("old")
    assert main(["site", "report", str(site), "--out", str(paper)]) == 0
    said = capsys.readouterr().out
    assert "which are not the hospital's to answer" in said
    assert "in round 3 of run r-1: budget." in said
    assert len(released) == 2
    for at in released:
        assert f"at {at}: 8 distributions went to server, under mechanism none." in said
    told = json.loads((paper / "report.json").read_bytes())
    fields = {one["id"] for one in told["fields"]}
    assert len(fields) + len(told["elsewhere"]) == len(catalogue().fields)
    assert not fields & set(told["elsewhere"])
    assert {catalogue().field(id).asks for id in told["elsewhere"]} == {
        "the provider", "the engineer",
    }  # fmt: skip
    own = [catalogue().field(id) for id in fields]
    assert {one.asks for one in own if not one.of_data_protection} == {"the hospital"}
    assert not {"a4.1a.purpose", "nist.govern", "a53.annex11"} & fields
    assert {path.name for path in paper.iterdir()} == {
        "evidence.json", "index.html", "report.json", "report.md",
        f"data-sheet-{site.name}-{site.name}-digits.md",
    }  # fmt: skip
    assert main(["report", "verify", str(paper)]) == 0
    # The run's own report counts refusals, and does not list every release.
    assert not any(
        "went to server" in one.text for one in build(site.parents[1]).derived.statements
    )
