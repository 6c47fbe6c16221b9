"""A site's claim is what its own log says; where the log is silent, there is none."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.erasing import apply_rule
from fedkd.audit.retention import spelled
from fedkd.cli import main
from fedkd.cli.run import Run
from fedkd.federation.claiming import (
    attacks_in_words,
    claim_of_site,
    noise_source,
    spent_by_round,
)
from fedkd.federation.durable import read_json
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.privacy.claim import Claim, NoClaim
from tests.federation.small import Wiretap, finished, founded

PRIVATE = ["mechanism=dp_training", "mechanism.steps=5", "budget.epsilon=2"]
PATE = ["mechanism=pate", "mechanism.shards=4", "mechanism.batches=2", "budget.epsilon=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished private federation. Nobody may change it."""
    run = founded(tmp_path_factory.mktemp("claims") / "run", *PRIVATE)
    finished(run, Wiretap(run))
    return run


@pytest.fixture
def site(run: Run, tmp_path: Path) -> SiteFolder:
    return SiteFolder(Path(shutil.copytree(run.sites["site-01"], tmp_path / "site-01")))


def claimed(site: SiteFolder) -> Claim:
    with site.log("site-01") as log:
        return claim_of_site(site, log, site.settings().population)


def test_a_claim_is_what_the_log_says(run: Run, site: SiteFolder) -> None:
    claim = claimed(site)
    with site.log("site-01") as log:
        ledger = ledger_of(log, claim.population)
        (plan,) = [it.body["plan"] for it in log.entries("budget.charged") if "plan" in it.body]
        note = log.checkpoint()
    assert note is not None
    head = note.checkpoint()
    assert (claim.epsilon, claim.delta, claim.spent) == (2, ledger.delta, ledger.spent())
    (use,) = claim.uses
    assert (use.noise_multiplier, use.clip, use.steps) == (plan["noise_multiplier"], 1.0, 5)
    assert (use.run, claim.runs, use.mechanism) == (run.id, (run.id,), "dp_training")
    assert claim.units == plan["patients"]
    assert claim.is_rehearsal
    assert (claim.evidence.origin, claim.evidence.size) == (head.origin, head.size)
    assert claim.evidence.root == head.root.hex()


def test_a_rehearsal_that_has_drawn_no_noise_yet_is_one_already(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", *PRIVATE)
    claim = claimed(SiteFolder(run.sites["site-01"]))
    assert claim.is_rehearsal
    assert (claim.spent, claim.uses, claim.runs) == (0, (), ("none yet",))


def test_a_summary_holds_each_sites_claim_beside_its_epsilon(run: Run) -> None:
    summary = read_json(run.folder / "summary.json")
    assert set(summary["privacy"]["claims"]) == set(run.sites)
    for client in summary["clients"]:
        claim = Claim.from_json(summary["privacy"]["claims"][client["site"]])
        assert client["epsilon"] == claim.spent <= claim.epsilon == 2
        rounds = summary["privacy"]["spent"][client["site"]]
        assert [told["round"] for told in rounds] == [1, 2]
        assert {told["epsilon"] for told in rounds} == {claim.spent}  # answers are free
    drawing = (run.folder / "figures" / "epsilon.svg").read_text()
    assert "rehearsal noise" in drawing


def test_a_charge_that_names_no_plan_is_no_claim(run: Run, tmp_path: Path) -> None:
    """The epsilon of that site is null, and the reason is said; the others keep theirs."""
    own = founded(tmp_path / "run", *PRIVATE)
    with SiteFolder(own.sites["site-02"]).log("site-02") as log:
        (opened,) = log.entries("budget.opened")
        cost = {"event": "Gaussian", "noise_multiplier": 10.0}
        body = {"population": opened.body["population"], "cost": cost, "question": "an earlier"}
        log.append("earlier", "budget.charged", body)
    finished(own, Wiretap(own))
    summary = read_json(own.folder / "summary.json")
    rows = {row["site"]: row for row in summary["clients"]}
    assert (rows["site-02"]["epsilon"], rows["site-02"]["delta"]) == (None, None)
    assert "no plan in charge" in summary["privacy"]["without"]["site-02"]
    assert rows["site-01"]["epsilon"] is not None
    assert "no claim: found no plan" in (own.folder / "figures" / "epsilon.svg").read_text()


def test_what_was_erased_is_not_taken_for_good_news(site: SiteFolder) -> None:
    finding = {
        "attack": "lira", "pairs": 9, "auc": 1.0, "tpr": 1.0, "refutes": True,
        "epsilon_at_least": 3.25,
    }  # fmt: skip
    body = {
        "run": "r", "who": "privacy attack", "what": "what was found", "kinds": ["lira"],
        "shadows": 16, "seed": 0, "alpha": 0.01, "findings": [finding],
    }  # fmt: skip
    with site.log("site-01") as log:
        log.append("r/attack/1/found", "access.performed", body)
    assert claimed(site).audit.startswith("REFUTED by lira")
    later = datetime.now(UTC) + timedelta(days=400)
    with site.log("site-01") as log:
        for kind in ("access.performed", "train.local"):
            assert apply_rule(log, kind, spelled(later), "after a year", later).indices
        otherwise = "; a retention rule erased records that may say otherwise"
        assert attacks_in_words(log) == f"not known to be attacked{otherwise}"
        assert noise_source(log, rehearsal=False).startswith("not known: a retention rule")
        silent = {**body, "findings": [{**finding, "refutes": False, "epsilon_at_least": 0.0}]}
        log.append("r/attack/2/found", "access.performed", silent)
        assert attacks_in_words(log).endswith(f"nothing{otherwise}")


def test_what_another_run_spent_is_shown_as_before_this_one(site: SiteFolder, run: Run) -> None:
    population = site.settings().population
    with site.log("site-01") as log:
        spent = ledger_of(log, population).spent()
        assert spent_by_round(log, population, "another run") == [{"round": 0, "epsilon": spent}]


def test_each_batch_of_answers_is_spent_in_its_round(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", *PATE)
    finished(run, Wiretap(run))
    privacy = read_json(run.folder / "summary.json")["privacy"]
    for site in run.sites:
        claim = Claim.from_json(privacy["claims"][site])
        (use,) = claim.uses
        assert (use.mechanism, use.steps, use.run) == ("pate", 1, run.id)
        assert "4 disjoint shards" in use.sensitivity
        assert isinstance(claim.order, int | float)
        assert claim.filter == "rdp"
        assert privacy["spent"][site][-1]["epsilon"] == claim.spent < claim.epsilon


def test_an_open_budget_is_no_claim(tmp_path: Path) -> None:
    run = founded(tmp_path / "run")
    site = SiteFolder(run.sites["site-01"])
    with site.log("site-01") as log, pytest.raises(NoClaim, match="open budget"):
        claim_of_site(site, log, site.settings().population)
    finished(run, Wiretap(run))
    summary = read_json(run.folder / "summary.json")
    assert summary["privacy"]["statement"].startswith("NOT PRIVATE")
    assert not summary["privacy"]["claims"]
    assert not (run.folder / "figures" / "epsilon.svg").exists()
    for drawing in (run.folder / "figures").iterdir():
        assert "NOT PRIVATE" in drawing.read_text()


# What an officer reads.


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_the_status_carries_the_claim(
    run: Run, site: SiteFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Any] = json.loads(told(["privacy", "status", str(run.folder), "--json"], capsys))
    assert [row["site"] for row in rows] == sorted(run.sites)
    for row in rows:
        claim = Claim.from_json(row["claim"])
        assert row["epsilon"] == claim.epsilon == 2
        assert row["spent"] == claim.spent
        assert row["left"] < 0.01
        assert (row["paid"], row["charges"], row["no_claim"]) == (1, 3, None)
        assert "at most 3.4" in row["risk"]
    said = " ".join(told(["privacy", "status", str(site.folder)], capsys).split())
    for words in ("Of 100 patients", "rehearsal noise, drawn from a seed", "NOT charged",
                  "one unit", "not covered", "two hospitals add up", "not attacked"):  # fmt: skip
        assert words in said


def test_the_status_gives_no_epsilon_without_a_claim(
    site: SiteFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with site.log("site-01") as log:
        population = site.settings().population
        cost = {"event": "Gaussian", "noise_multiplier": 1e6}
        body = {"population": population, "cost": cost, "question": "by hand"}
        log.append("by hand", "budget.charged", body)
    (row,) = json.loads(told(["privacy", "status", str(site.folder), "--json"], capsys))
    assert [row[key] for key in ("epsilon", "delta", "spent", "left", "risk", "claim")] == [
        None
    ] * 6
    assert "no plan" in row["no_claim"]
    said = told(["privacy", "status", str(site.folder)], capsys)
    assert "no claim, and so no epsilon: found no plan" in " ".join(said.split())
    assert said.splitlines()[1].split()[1:6] == ["-"] * 5


def test_an_open_budget_is_called_not_private(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = founded(tmp_path / "run")
    said = told(["privacy", "status", str(run.folder)], capsys)
    assert said.startswith("NOT PRIVATE: an open budget")
    for row in json.loads(told(["privacy", "status", str(run.folder), "--json"], capsys)):
        assert (row["private"], row["epsilon"], row["claim"]) == (False, None, None)


def test_a_plan_says_the_same_in_words_and_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["privacy", "plan", "--patients", "303", "--epsilon", "1"]
    plan = json.loads(told([*words, "--json"], capsys))
    assert (plan["epsilon"], plan["filter"]) == (1, "gdp")
    said = told(words, capsys)
    for number in (f"{plan['noise_multiplier']:.4g} times the clip",
                   f"{plan['steps']} on all patients", "below 1/303", "at most 2.0",
                   "No record was read"):  # fmt: skip
        assert number in " ".join(said.split())
    back = ["privacy", "plan", "--patients", "303", "--noise", repr(plan["noise_multiplier"])]
    assert json.loads(told([*back, "--json"], capsys))["epsilon"] == pytest.approx(1, rel=1e-6)
    both = [*back, "--epsilon", "1", "--json"]
    assert json.loads(told(both, capsys))["steps"] == plan["steps"]


def test_a_sweep_of_budgets_ends_in_that_figure_and_none_runs_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.federation.small import TINY

    words = ["simulate", "-m", *[word for word in TINY if word != "rounds=2"], "rounds=1"]
    swept = ["mechanism=dp_training,none", "budget.epsilon=1,8", f"out={tmp_path / 'sweep'}"]
    said = told([*words, *swept], capsys)
    assert "utility against epsilon, in" in said
    assert (tmp_path / "sweep" / "utility.svg").exists()
    runs = [read_json(path) for path in sorted((tmp_path / "sweep").glob("*/summary.json"))]
    assert [run["mechanism"] for run in runs] == ["dp_training", "dp_training", "none"]
    assert "NOT PRIVATE: mechanism=none" in " ".join(said.split())
