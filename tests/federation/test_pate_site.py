"""A site whose shards answer together: what is paid, once a query, whatever crashes or asks."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.cli.run import Run
from fedkd.federation import together
from fedkd.federation.durable import read_json
from fedkd.federation.participant import Participant, open_participant
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.federation.stored import StoredAnswers
from fedkd.knowledge import BadInput, Public, QuerySet
from fedkd.wire import Answer, Closed, Message, Reason, Refusal, decode, encode
from tests.federation.officers import officer, signed
from tests.federation.small import Wiretap, conducted, finished, founded, question

PATE = ["mechanism=pate", "mechanism.shards=4"]
BUDGET = "budget.epsilon=8"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A founded federation with two batches paid. Nobody may change it."""
    return founded(tmp_path_factory.mktemp("pate") / "run", *PATE, BUDGET, "mechanism.batches=2")


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.sites["site-01"], tmp_path / "site-01"))


def said(folder: Path, run: Run, /, **changes: Any) -> Message:
    body = open_participant(folder, run.build).answer(encode(question(run, **changes)))
    return decode(body, 1 << 20)


def probs(message: Message) -> Any:
    assert isinstance(message, Answer)
    return message.coded["probs"]


def entries(folder: Path, type: str) -> list[dict[str, Any]]:
    with SiteFolder(folder).log("site-01") as log:
        return [dict(entry.body) for entry in log.entries(type)]


def events(folder: Path) -> list[str]:
    return [body["cost"]["event"] for body in entries(folder, "budget.charged")]


def spent(folder: Path) -> float:
    with SiteFolder(folder).log("site-01") as log:
        (opened,) = log.entries("budget.opened")
        return ledger_of(log, opened.body["population"]).spent()


def others(run: Run, number: int, kept: int = 0) -> dict[str, Any]:
    """What a question says of other queries than the run's: the first `kept` are the run's."""
    queries = run.cut().queries
    assert queries is not None
    inputs = np.random.default_rng(number).integers(0, 17, queries.inputs.shape)
    inputs = inputs.astype(queries.inputs.dtype)
    inputs[:kept] = queries.inputs[:kept]
    new = QuerySet(inputs, Public("other", "none", "none"))
    return {"about": new.digest, "origin": new.origin, "size": len(new), "queries": new.inputs}


def test_a_batch_is_paid_before_it_is_noised_and_kept_before_it_leaves(
    run: Run, site: Path
) -> None:
    answer = said(site, run)
    (charge,) = entries(site, "budget.charged")
    assert charge["cost"]["event"] == "ZCDp"
    assert charge["cost"]["rho"] == pytest.approx(1 / (2 * charge["plan"]["noise_multiplier"] ** 2))
    assert (charge["batch"], charge["queries"], charge["plan"]["batches"]) == (1, 12, 2)
    (opened,) = entries(site, "budget.opened")
    assert (opened["filter"], opened["unit"]) == ("rdp", "record")  # digits name no patients
    assert charge["plan"]["unit"] == "record"
    speaker, resident = entries(site, "train.local")
    assert (speaker["mechanism"], resident["mechanism"]) == ("pate", "stays at home")
    assert speaker["dp"]["noise"] == "reproducible, not private"
    assert speaker["dp"]["shards"] == 4
    (released,) = entries(site, "release.outputs")
    assert (released["model"], released["mechanism"]) == (speaker["output"], "pate")
    np.testing.assert_allclose(probs(answer).sum(axis=1), 1, atol=1e-6)
    with SiteFolder(site).log("site-01") as log:
        order = [entry.type for entry in log.entries()][-4:]
    assert order == ["budget.charged", "train.local", "train.local", "release.outputs"]
    assert 0 < spent(site) < 8


def test_the_same_queries_are_free_and_get_the_same_answer(run: Run, site: Path) -> None:
    first = said(site, run)
    before = spent(site)
    for number in (2, 3):
        np.testing.assert_array_equal(probs(said(site, run, round=number)), probs(first))
    np.testing.assert_array_equal(probs(said(site, run, run="b" * 16)), probs(first))  # other run
    assert spent(site) == before
    assert events(site) == ["ZCDp", "NoOp", "NoOp", "NoOp"]


def test_only_new_queries_are_charged_and_old_ones_keep_their_answer(run: Run, site: Path) -> None:
    first = probs(said(site, run))
    mixed = others(run, 1, kept=7)
    second = probs(said(site, run, round=2, **mixed))
    np.testing.assert_array_equal(second[:7], first[:7])
    assert [body["queries"] for body in entries(site, "budget.charged")] == [12, 5]
    assert events(site) == ["ZCDp", "ZCDp"]


def test_more_batches_than_paid_are_refused_and_old_queries_still_answered(
    run: Run, site: Path
) -> None:
    first = said(site, run)
    assert isinstance(said(site, run, round=2, **others(run, 1)), Answer)
    assert 7.99 < spent(site) <= 8
    exhausted = Reason.BUDGET_EXHAUSTED
    refused = said(site, run, round=3, **others(run, 2))
    assert refused == Refusal("site-01", run.id, 3, exhausted)
    assert said(site, run, run="c" * 16, **others(run, 3)) == Refusal(
        "site-01", "c" * 16, 1, exhausted
    )
    assert spent(site) <= 8
    np.testing.assert_array_equal(probs(said(site, run, round=4)), probs(first))


def test_a_plan_never_gives_more_batches_than_it_was_planned_for(tmp_path: Path) -> None:
    """Although the population's budget would cover more."""
    run = founded(tmp_path / "run", *PATE, BUDGET, "mechanism.epsilon=2")
    site = run.sites["site-01"]
    assert isinstance(said(site, run), Answer)
    refused = said(site, run, round=2, **others(run, 1))
    assert refused == Refusal("site-01", run.id, 2, Reason.BUDGET_EXHAUSTED)
    (charge,) = entries(site, "budget.charged")
    assert charge["plan"]["batches"] == 1
    assert spent(site) < 8
    assert isinstance(said(site, run, run="d" * 16, **others(run, 1)), Answer)  # a plan of its own


def test_a_closing_question_costs_nothing_and_asks_no_shard(run: Run, site: Path) -> None:
    about = question(run).about
    first = probs(said(site, run))
    lesson = {"closing": True, "round": 2, "lesson": _lesson(first, about)}
    assert isinstance(said(site, run, **lesson), Closed)
    assert events(site) == ["ZCDp"]


def _lesson(rows: Any, about: Any) -> Any:
    from fedkd.knowledge import Distributions

    return Distributions(rows, about)


# Crashes: whatever is lost was paid, and no query ever gets two answers.


class Died(BaseException):
    """Kills the process, as far as anybody can tell."""


def dies(*_: Any, **__: Any) -> Any:
    raise Died


MOMENTS = {
    "before the noise": (together, "rehearsal_noise"),
    "before the noised answer is kept": (StoredAnswers, "keep"),
    "before the answer is logged": (SiteFolder, "keep_outgoing"),
    "before the model learns": (Participant, "_learn"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_loses_budget_and_never_privacy(
    moment: str, run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = MOMENTS[moment]
    monkeypatch.setattr(owner, name, dies)
    with pytest.raises(Died):
        said(site, run)
    monkeypatch.undo()
    assert events(site) == ["ZCDp"], "paid before anything could be lost"
    assert not entries(site, "release.outputs")
    kept = [path.read_bytes() for path in sorted(site.glob("stored/*/*.npz"))]
    assert isinstance(said(site, run), Answer)
    lost = not kept
    assert events(site) == (["ZCDp", "ZCDp"] if lost else ["ZCDp", "NoOp"])
    again = [path.read_bytes() for path in sorted(site.glob("stored/*/*.npz"))]
    assert len(again) == 1
    if kept:
        assert again == kept, "what was noised stays as it is"
    assert spent(site) <= 8


def test_lost_batches_are_not_given_back(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        monkeypatch.setattr(StoredAnswers, "keep", dies)
        with pytest.raises(Died):
            said(site, run)
    monkeypatch.undo()
    assert said(site, run) == Refusal("site-01", run.id, 1, Reason.BUDGET_EXHAUSTED)
    assert 7.99 < spent(site) <= 8


def test_a_crash_before_the_charge_costs_nothing(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedkd.federation.paying import Purse

    monkeypatch.setattr(Purse, "pay_batch", dies)
    with pytest.raises(Died):
        said(site, run)
    monkeypatch.undo()
    assert spent(site) == 0
    assert not list(site.glob("stored/*/*.npz"))
    assert isinstance(said(site, run), Answer)
    assert events(site) == ["ZCDp"]


# Whole runs.


@pytest.mark.parametrize("answer", ["mean", "vote"])
def test_a_federation_of_trees_ends_within_its_budget(tmp_path: Path, answer: str) -> None:
    trees = "clients.models=[extra_trees]"
    run = founded(tmp_path / "run", *PATE, BUDGET, trees, f"mechanism.answer={answer}")
    finished(run, Wiretap(run))
    summary = read_json(run.folder / "summary.json")
    assert (summary["mechanism"], summary["private"]) == ("pate", True)
    for row in summary["clients"]:
        assert not row["left_out"]
        assert 7.99 < row["epsilon"] <= 8
        assert row["delta"] == 1e-5
    for name, folder in run.sites.items():
        with SiteFolder(folder).log(name) as log:
            costs = [entry.body["cost"]["event"] for entry in log.entries("budget.charged")]
        assert costs == ["ZCDp", "NoOp"]  # two rounds over the same queries


def test_an_exhausted_budget_ends_a_site_and_the_others_go_on(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", *PATE, BUDGET)
    with SiteFolder(run.sites["site-02"]).log("site-02") as log:
        (opened,) = log.entries("budget.opened")
        population, cost = opened.body["population"], {"event": "ZCDp", "rho": 50.0, "xi": 0.0}
        body = {"population": population, "cost": cost, "question": "an earlier run's"}
        log.append("earlier", "budget.charged", body)
    finished(run, Wiretap(run))
    rows = {row["site"]: row for row in read_json(run.folder / "summary.json")["clients"]}
    assert {told["reason"] for told in rows["site-02"]["left_out"]} == {"refused: budget_exhausted"}
    assert not rows["site-01"]["left_out"]
    assert not rows["site-03"]["left_out"]


def test_the_same_seed_gives_the_same_rehearsal(tmp_path: Path) -> None:
    students = []
    for name in ("one", "two"):
        run = founded(tmp_path / name, *PATE, BUDGET)
        finished(run, Wiretap(run))
        students.append((run.folder / "student.safetensors").read_bytes())
    assert students[0] == students[1]


def test_lasting_sites_share_a_budget_and_draw_from_the_operating_system(tmp_path: Path) -> None:
    lasting = [
        *PATE,
        f"sites.dir={tmp_path / 'sites'}",
        "sites.rehearsal=false",
        "mechanism.epsilon=1.9",
    ]
    first = signed(
        founded(tmp_path / "one", *lasting),
        officer(tmp_path),
        epsilon=2.0,
        mechanisms=["pate"],
        unit="record",
    )
    conducted(first)
    before = {
        name: SiteFolder(it).log(name).last("release.outputs") for name, it in first.sites.items()
    }
    second = founded(tmp_path / "two", *lasting)
    assert not conducted(second).left_out
    for name, folder in second.sites.items():
        with SiteFolder(folder).log(name) as log:
            assert ledger_of(log, name).spent() == pytest.approx(1.9, rel=1e-2)
            (last, said_before) = log.last("release.outputs"), before[name]
            assert last is not None
            assert said_before is not None
            assert last.body["digest"] == said_before.body["digest"], "no fresh noise"
            noise = {it.body["dp"]["noise"] for it in log.entries("train.local") if it.body["dp"]}
        assert noise == {"operating system"}
    keys = {(folder / "shards.key").read_bytes() for folder in second.sites.values()}
    assert len(keys) == 3
    site = second.sites["site-01"]
    twin = Path(shutil.copytree(site, tmp_path / "twin" / "site-01"))
    told = [probs(said(one, second, round=3, **others(second, 1))) for one in (site, twin)]
    assert (told[0] != told[1]).any(), "the same shards, key and seed, and other noise"
    assert 1.95 < spent(site) <= 2.0, "what is left pays noisier answers"


# What is refused.

WRONG = {
    "mechanism.shards=41": "41 shards for",
    "mechanism.shards=1": "shards",
    "mechanism.answer=median": "mean",
    "clients.cohort=auto": "off",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    words: str, tmp_path: Path
) -> None:
    with pytest.raises((BadInput, ValueError), match=WRONG[words]):
        founded(tmp_path / "run", *PATE, BUDGET, *words.split())
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_site_refuses_what_its_settings_were_changed_to(run: Run, site: Path) -> None:
    from fedkd.federation.durable import write_json

    kept = read_json(site / "site.json")
    for change in (
        {"mechanism": {**kept["mechanism"], "shards": 1000}},
        {"mechanism": {**_dp_training(), "steps": 2}, "model": _trees()},
    ):
        write_json(site / "site.json", {**kept, **change})
        assert said(site, run) == Refusal("site-01", run.id, 1, Reason.NOT_ACCEPTED)
        assert not entries(site, "budget.charged")
    assert "1000 shards" in (site / "errors.txt").read_text()


def _dp_training() -> dict[str, Any]:
    return {"_target_": "fedkd.privacy.mechanisms.dp_training.dp_training"}


def _trees() -> dict[str, Any]:
    return {"_target_": "sklearn.ensemble.ExtraTreesClassifier", "n_estimators": 5}
