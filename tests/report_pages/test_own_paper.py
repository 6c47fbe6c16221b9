"""A hospital's own page: what left it, and no link, picture or question that is not its own."""

from collections import Counter
from pathlib import Path

import pytest

from fedkd.report.building import Built, assembled, evidence_of
from fedkd.report.verify.drawing import CARD, PAGE, TEXT
from tests.report_pages.papers import Hospitals, built
from tests.report_pages.test_page import HOSTILE, Parsed

NAME = "site-02"


def own(rule: str, folder: Path) -> Built:
    """The paper of a hospital that refused once, from its log alone."""
    hospitals = Hospitals()
    refused = {"run": "run-1", "round": 7, "rule": rule}
    hospitals.sites[NAME].append("release.refused", refused)
    logs = hospitals.write(folder)
    (path,) = logs.rglob(f"{NAME}.sqlite")
    return assembled({NAME: evidence_of(NAME, path)})


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return own("budget", tmp_path_factory.mktemp("own"))


def test_every_link_of_it_leads_somewhere(paper: Built) -> None:
    found = Parsed(paper.files[PAGE])
    ids = Counter(found.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    assert {to[1:] for to in found.values("href") if to.startswith("#")} <= ids.keys()
    assert {answer.field.id for answer in paper.derived.answers} <= ids.keys()


def test_it_begins_with_what_left_and_what_was_refused(paper: Built) -> None:
    released = len(paper.derived.evidence.told("release.outputs"))
    assert released > 1
    for name in (PAGE, TEXT):
        said = paper.files[name].decode().replace("**", "")
        assert f"Let out: {released}" in said, name
        assert "Refused: 1" in said, name
        assert "budget, round 7 of run run-1" in said, name
        assert "no examination of this student" not in said, name
        assert "where the student comes from" not in said, name
    assert CARD not in paper.files
    assert paper.derived.answers[0].field.id == "g30.a.controller"


@pytest.mark.parametrize("nasty", HOSTILE)
def test_text_of_its_log_stays_text(nasty: str, tmp_path: Path) -> None:
    paper = own(nasty, tmp_path)
    tags = Counter(tag for tag, _ in Parsed(paper.files[PAGE]).elements)
    calm = Counter(tag for tag, _ in Parsed(own("calm", tmp_path / "b").files[PAGE]).elements)
    assert tags == calm


def taken_out(hospitals: Hospitals) -> None:
    """Patients of one hospital were taken out, after a model had learnt from them."""
    body = {
        "id": f"{NAME}/hearts",
        "reason": "objection",
        "patients": ["hmac-sha256:" + 64 * "0"],
        "from": "all training and counting after this entry",
        "models_before": ["sha256:" + 64 * "a"],
        "runs_before": ["run-1"],
    }
    hospitals.sites[NAME].append("dataset.withdrawn", body)


@pytest.mark.parametrize("whose", ["the hospital's own", "the run's"])
def test_an_exclusion_names_the_models_that_came_before(whose: str, tmp_path: Path) -> None:
    """In either paper once, also where nobody released a version."""
    hospitals = Hospitals()
    taken_out(hospitals)
    if whose == "the run's":
        hospitals.cosign_all()
        paper = built(hospitals, tmp_path)
    else:
        (path,) = hospitals.write(tmp_path).rglob(f"{NAME}.sqlite")
        paper = assembled({NAME: evidence_of(NAME, path)})
    for name in (PAGE, TEXT):
        said = paper.files[name].decode()
        assert "taken out of all that is learnt" in said, name
        assert "sha256:" + 64 * "a" in said, name
        assert "A student cannot forget" in said, name
    told = [one for one in paper.derived.statements if "cannot forget" in one.text]
    assert len(told) == 1
