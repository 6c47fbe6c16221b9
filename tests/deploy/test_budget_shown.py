"""What a hospital is shown of a budget that bounds something: to a person, a program, a watcher."""

import json

import pytest

from fedkd.cli.app import run as fedkd
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.metrics import text_of
from fedkd.deploy.preparing import Whose, prepare_letterbox
from fedkd.deploy.site_metrics import site_metrics
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from tests.deploy.conftest import PRIVATE
from tests.deploy.federated import SITES, Federated, approve, table, taken_in
from tests.deploy.test_standing import parsed, serving

EPSILON = 1.0
"""What the officer signed; a run may cost half of it."""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """One of three after a private run, its letterbox ready."""
    rows = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
    keys = {"epsilon": EPSILON, "mechanisms": ["dp_training"]}
    place = tmp_path_factory.mktemp("budget") / "all"
    made = Federated.made(place, rows, mechanism=PRIVATE, **keys)
    run = made.proposed("mechanism=dp_training", "rounds=1")
    taken_in(made, run)
    approve(made, run)
    made.conducted(run)
    found = made.hospitals["north"]
    prepare_letterbox(found, Whose())
    return found


@pytest.fixture(scope="module")
def figures(hospital: Hospital) -> tuple[float, float, int]:
    """Spent and left, epsilon, and how often was charged: by the site's own ledger."""
    with SiteFolder(hospital.site).log(hospital.name) as log:
        ledger = ledger_of(log, hospital.name)
        return ledger.spent(), ledger.left(), len(ledger.charged)


def test_the_run_cost_a_part_of_it(figures: tuple[float, float, int]) -> None:
    spent, left, charges = figures
    assert spent == pytest.approx(PRIVATE["epsilon"])
    assert 0 < left < EPSILON
    assert charges >= 1


def test_a_person_is_shown_what_is_spent_and_what_is_left(
    hospital: Hospital, figures: tuple[float, float, int], capsys: pytest.CaptureFixture[str]
) -> None:
    spent, left, charges = figures
    capsys.readouterr()
    assert fedkd(["site", "status", str(hospital.folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"real epsilon {spent:.3f} spent of 1, {left:.3f} left, {charges} charges" in shown


def test_a_program_is_told_the_same(
    hospital: Hospital, figures: tuple[float, float, int], capsys: pytest.CaptureFixture[str]
) -> None:
    spent, left, charges = figures
    capsys.readouterr()
    assert fedkd(["site", "status", str(hospital.folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["real"]["budget"]
    assert told["epsilon"] == EPSILON
    assert told["delta"] > 0
    assert (told["spent"], told["left"], told["charges"]) == (spent, left, charges)


def test_a_watcher_is_told_the_same(hospital: Hospital, figures: tuple[float, float, int]) -> None:
    with serving(hospital):
        found = parsed(text_of(site_metrics(hospital.letterbox)))
    names = ("epsilon_spent", "epsilon_left", "charges")
    told = [found[f'fedkd_site_{name}{{folder="real"}}'] for name in names]
    assert told == pytest.approx(figures)
