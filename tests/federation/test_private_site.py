"""A site under a mechanism: what is paid, when, for what, and what may ever steer an answer."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.app import run as fedkd
from fedkd.cli.run import Run
from fedkd.federation.durable import read_arrays, read_json, write_arrays
from fedkd.federation.participant import open_participant
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput, Distributions
from fedkd.wire import Answer, Closed, Message, Reason, Refusal, decode, encode
from tests.federation.small import Wiretap, conducted, finished, founded, question

PRIVATE = ["mechanism=dp_training", "mechanism.steps=5", "budget.epsilon=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A founded private federation. Nobody may change it."""
    return founded(tmp_path_factory.mktemp("private") / "run", *PRIVATE)


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.sites["site-01"], tmp_path / "site-01"))


def said(folder: Path, run: Run, **changes: Any) -> Message:
    body = open_participant(folder, run.build).answer(encode(question(run, **changes)))
    return decode(body, 1 << 20)


def probs(message: Message) -> Any:
    assert isinstance(message, Answer)
    return message.coded["probs"]


def entries(folder: Path, type: str) -> list[dict[str, Any]]:
    with SiteFolder(folder).log("site-01") as log:
        return [dict(entry.body) for entry in log.entries(type)]


def spent(folder: Path) -> float:
    with SiteFolder(folder).log("site-01") as log:
        (opened,) = log.entries("budget.opened")
        return ledger_of(log, opened.body["population"]).spent()


def uniform(run: Run, about: str) -> Distributions:
    return Distributions(np.full((12, 10), 0.1, dtype=np.float32), about)


def test_training_is_paid_before_it_happens_and_answers_are_free(run: Run, site: Path) -> None:
    assert isinstance(said(site, run), Answer)
    training, answer = entries(site, "budget.charged")
    assert training["cost"]["event"] == "SelfComposed"
    assert training["plan"]["steps"] == 5
    assert training["plan"]["patients"] == len(SiteFolder(site).train())
    assert answer["cost"] == {"event": "NoOp"}
    with SiteFolder(site).log("site-01") as log:
        told = [entry.type for entry in log.entries()][4:]
    assert told[:3] == ["budget.charged", "budget.charged", "train.local"]
    speaker, resident = entries(site, "train.local")
    assert (speaker["mechanism"], resident["mechanism"]) == ("dp_training", "stays at home")
    assert speaker["dp"]["filter"] == "gdp"
    assert speaker["dp"]["noise"] == "reproducible, not private"
    assert entries(site, "release.outputs")[0]["model"] == speaker["output"]
    assert 1.99 < spent(site) <= 2.0


def test_more_questions_cost_nothing_more(run: Run, site: Path) -> None:
    first = said(site, run)
    before = spent(site)
    about = question(run).about
    for number in (2, 3):
        assert isinstance(said(site, run, round=number, lesson=uniform(run, about)), Answer)
    assert spent(site) == before
    assert len(entries(site, "train.local")) == 1 + 3  # one speaker, a resident each round
    np.testing.assert_array_equal(probs(said(site, run)), probs(first))


def test_no_lesson_record_or_resident_steers_an_answer(
    run: Run, site: Path, tmp_path: Path
) -> None:
    """The speaker is there; then everything else at the site is changed. It says the same."""
    first = probs(said(site, run))
    other = Path(shutil.copytree(site, tmp_path / "other" / "site-01"))
    train = read_arrays(other / "train.npz")
    labels = np.roll(train["labels"], 1)
    write_arrays(other / "train.npz", {**train, "inputs": train["inputs"] * 0, "labels": labels})
    validation = read_arrays(other / "validation.npz")
    write_arrays(other / "validation.npz", {n: a[:1] for n, a in validation.items()})
    about = question(run).about
    lesson = uniform(run, about)
    again = probs(said(other, run, round=2, lesson=lesson))
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(probs(said(site, run, round=2, lesson=lesson)), first)
    assert entries(site, "train.local")[-1]["output"] != entries(other, "train.local")[-1]["output"]


def test_a_speaker_is_what_the_private_training_made_and_nothing_else(
    run: Run, site: Path, tmp_path: Path
) -> None:
    """Whatever the records are, a speaker under this much noise says nearly the same."""
    first = said(site, run)
    kept = read_json(site / "speakers" / f"{run.id}.json")
    assert kept["digest"] == entries(site, "release.outputs")[0]["model"]
    weights = site / "speakers" / f"{run.id}.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(bytes(body))
    assert said(site, run, round=2) == Refusal("site-01", run.id, 2, Reason.FAILED)
    np.testing.assert_array_equal(probs(said(site, run)), probs(first))  # as it was released


def test_an_exhausted_budget_ends_a_site_and_the_others_go_on(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", *PRIVATE)
    with SiteFolder(run.sites["site-02"]).log("site-02") as log:
        (opened,) = log.entries("budget.opened")
        population = opened.body["population"]
        cost = {"event": "Gaussian", "noise_multiplier": 1.0}
        body = {"population": population, "cost": cost, "question": "an earlier run's"}
        log.append("earlier", "budget.charged", body)
    grid = Wiretap(run)
    finished(run, grid)
    rows = {row["site"]: row for row in read_json(run.folder / "summary.json")["clients"]}
    refused = "refused: budget_exhausted"
    assert {told["reason"] for told in rows["site-02"]["left_out"]} == {refused}
    for other in ("site-01", "site-03"):
        assert not rows[other]["left_out"]
        assert 0 < rows[other]["epsilon"] <= 2.0
        assert 0 < rows[other]["delta"] <= 1e-5


def test_two_runs_of_one_population_share_its_budget(tmp_path: Path) -> None:
    lasting = f"sites.dir={tmp_path / 'sites'}"
    first = founded(tmp_path / "one", *PRIVATE, lasting, "mechanism.epsilon=1.9")
    conducted(first)
    second = founded(tmp_path / "two", *PRIVATE, lasting, "mechanism.epsilon=1.9", "rounds=1")
    state = conducted(second)
    assert not state.left_out, "what is left pays a noisier training"
    for name, folder in second.sites.items():
        with Log(folder / "log.sqlite", name) as log:
            assert len(list(log.entries("budget.opened"))) == 1
            ledger = ledger_of(log, f"rehearsal:{name}")
            plans = [it.body["plan"] for it in log.entries("budget.charged") if "plan" in it.body]
            noise = [it.body["dp"]["noise"] for it in log.entries("train.local") if it.body["dp"]]
        assert ledger.spent() <= 2.0
        assert plans[1]["noise_multiplier"] > plans[0]["noise_multiplier"]
        assert noise == ["reproducible, not private"] * 2  # until it is no rehearsal


def test_the_same_seed_gives_the_same_rehearsal(tmp_path: Path) -> None:
    students = []
    for name in ("one", "two"):
        run = founded(tmp_path / name, *PRIVATE)
        finished(run, Wiretap(run))
        students.append((run.folder / "student.safetensors").read_bytes())
    assert students[0] == students[1]


def test_a_closing_question_makes_nobody_pay_for_an_answer(run: Run, site: Path) -> None:
    said(site, run)
    count = len(entries(site, "budget.charged"))
    lesson = uniform(run, question(run).about)
    assert isinstance(said(site, run, round=2, closing=True, lesson=lesson), Closed)
    assert len(entries(site, "budget.charged")) == count


@pytest.mark.parametrize("left", [True, False])
def test_a_closing_question_makes_nobody_pay_for_a_training_that_nobody_hears(
    run: Run, site: Path, left: bool
) -> None:
    """A site that never answered in this run, with a budget or without: the lesson is free."""
    if not left:
        with SiteFolder(site).log("site-01") as log:
            (opened,) = log.entries("budget.opened")
            cost = {"event": "Gaussian", "noise_multiplier": 1.0}
            body = {"population": opened.body["population"], "cost": cost, "question": "another"}
            log.append("earlier", "budget.charged", body)
    before = spent(site)
    lesson = uniform(run, question(run).about)
    assert isinstance(said(site, run, round=2, closing=True, lesson=lesson), Closed)
    assert spent(site) == before
    assert not (site / "speakers").exists()
    came, taught = entries(site, "train.local")
    assert (came["lesson"], taught["lesson"]) == (None, lesson.digest)
    assert {came["mechanism"], taught["mechanism"]} == {"stays at home"}
    with SiteFolder(site).log("site-01") as log:
        assert len(list(log.entries("budget.charged"))) == (0 if left else 1)


def test_a_federation_in_which_a_site_was_never_asked_is_traced_and_reported(
    tmp_path: Path,
) -> None:
    """Only the closing question reaches it: nothing is charged there, and nothing made up."""
    run = founded(tmp_path / "run", *PRIVATE, "clients.fraction=0.6", "rounds=1")
    finished(run, Wiretap(run))
    summary = read_json(run.folder / "summary.json")
    assert summary["audit"]["verified"]
    charged = {name: charges(folder, name) for name, folder in run.sites.items()}
    assert sorted(charged.values()) == [0, 2, 2]
    (silent,) = (name for name, count in charged.items() if count == 0)
    rows = {row["site"]: row for row in summary["clients"]}
    assert rows[silent]["epsilon"] == 0
    assert not rows[silent]["left_out"]
    assert fedkd(["report", "build", str(run.folder)]) == 0
    assert fedkd(["privacy", "status", str(run.sites[silent])]) == 0
    assert fedkd(["audit", "trace", str(run.folder)]) == 0


def charges(folder: Path, name: str) -> int:
    with Log(folder / "log.sqlite", name) as log:
        return len(list(log.entries("budget.charged")))


WRONG = {
    "clients.models=[random_forest]": "gradients",
    "clients.cohort=auto": "off",
    "budget.delta=0.1": "below 1/",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_private_is_refused_before_anything_is_read(
    words: str, tmp_path: Path
) -> None:
    with pytest.raises((BadInput, ValueError), match=WRONG[words]):
        founded(tmp_path / "run", *PRIVATE, *words.split())


def test_a_mechanism_without_a_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"budget\.epsilon"):
        founded(tmp_path / "run", "mechanism=dp_training")


def test_a_speaker_learns_from_lessons_only_where_it_is_asked_to(tmp_path: Path) -> None:
    """Free, since a lesson holds nothing that was not let out; and still no record steers it."""
    run = founded(tmp_path / "run", *PRIVATE, "mechanism.learns_from_lessons=true")
    site = run.sites["site-01"]
    first = probs(said(site, run))
    paid = spent(site)
    other = Path(shutil.copytree(site, tmp_path / "other" / "site-01"))
    train = read_arrays(other / "train.npz")
    write_arrays(other / "train.npz", {**train, "labels": np.roll(train["labels"], 1)})
    lesson = uniform(run, question(run).about)
    taught = probs(said(site, run, round=2, lesson=lesson))
    assert np.abs(taught - 0.1).max() < np.abs(first - 0.1).max(), "the lesson says nothing"
    assert spent(site) == paid
    np.testing.assert_array_equal(probs(said(other, run, round=2, lesson=lesson)), taught)
    now = entries(site, "train.local")[-2:]
    (entry,) = [one for one in now if one["inputs"] == []]
    assert entry["output"] == entries(site, "release.outputs")[-1]["model"]
    assert entry["parent"] == entries(site, "release.outputs")[0]["model"]
    np.testing.assert_array_equal(probs(said(site, run, round=3)), taught)  # it stays taught


def test_a_federation_whose_speakers_learn_is_traced_to_its_sources(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", *PRIVATE, "mechanism.learns_from_lessons=true")
    finished(run, Wiretap(run))
    assert read_json(run.folder / "summary.json")["audit"]["verified"]


def test_a_lesson_that_was_learnt_and_not_logged_is_logged_after_a_crash(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", *PRIVATE, "mechanism.learns_from_lessons=true")
    site = run.sites["site-01"]
    said(site, run)
    lesson, append = uniform(run, question(run).about), Log.append

    class Died(BaseException):
        pass

    def dies(log: Log, key: str, type: str, body: Any) -> Any:
        if "/train/speaker/" in key:
            raise Died
        return append(log, key, type, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "append", dies)
        with pytest.raises(Died):
            said(site, run, round=2, lesson=lesson)
    answer = said(site, run, round=2, lesson=lesson)
    assert isinstance(answer, Answer)
    (taught,) = [one for one in entries(site, "train.local") if one["inputs"] == []]
    assert taught["output"] == entries(site, "release.outputs")[-1]["model"]
