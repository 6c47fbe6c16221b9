"""A private training that was cut off: one run never spends more than its plan, however it ends."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.configuration import part
from fedkd.cli.run import Run
from fedkd.federation import speaking
from fedkd.federation.durable import read_arrays, write_arrays, write_json
from fedkd.federation.excluding import exclude
from fedkd.federation.participant import open_participant
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput, Distributions
from fedkd.wire import Answer, Closed, Message, Reason, Refusal, decode, encode
from tests.federation.officers import installed, lasting_at, officer, paper
from tests.federation.small import founded, question

SITE = "site-01"
PLAN, BUDGET = 0.3, 8.0
SHARE = PLAN + 1e-9
"""A run's plan, and what turning its cost into epsilon again may round."""


class Died(BaseException):
    """What a kill is to a process: nothing catches it."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Lasting sites, one with a paper for far more than a run's plan. Nobody may change them."""
    folder = tmp_path_factory.mktemp("cut-off")
    made = founded(
        folder / "run", "mechanism=dp_training", "mechanism.steps=5", f"mechanism.epsilon={PLAN}",
        *lasting_at(folder / "sites"),
    )  # fmt: skip
    installed(made.sites[SITE], officer(folder), paper(SITE, epsilon=BUDGET))
    return made


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.sites[SITE], tmp_path / "sites" / SITE))


def said(folder: Path, run: Run, **changes: Any) -> Message:
    return decode(
        open_participant(folder, run.build).answer(encode(question(run, **changes))), 1 << 20
    )


def charged(folder: Path) -> list[str]:
    """What was paid, but for what is free."""
    with Log(folder / "log.sqlite", SITE) as log:
        entries = list(log.entries("budget.charged"))
    return [entry.key for entry in entries if entry.body["cost"]["event"] != "NoOp"]


def spent(folder: Path) -> float:
    with Log(folder / "log.sqlite", SITE) as log:
        return ledger_of(log, SITE).spent()


def cut_off(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A turn that dies when its training is done and not kept; the weights that were lost."""
    lost: list[dict[str, Any]] = []
    trains: Callable[..., Any] = speaking.train_privately

    def dies(*arguments: Any) -> None:
        lost.append(dict(trains(*arguments).weights()))
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(speaking, "train_privately", dies)
        with pytest.raises(Died):
            said(folder, run)
    return lost[0]


def kept(folder: Path, run: Run) -> dict[str, Any]:
    from fedkd.distill import load_weights

    return dict(load_weights(folder / "speakers" / f"{run.id}.safetensors"))


def test_a_training_that_was_cut_off_is_done_again_as_it_was_and_paid_once(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cut_off(site, run, monkeypatch)
    once = spent(site)
    assert once == pytest.approx(PLAN, rel=1e-3), "it was paid before it began"
    assert once <= SHARE
    second = cut_off(site, run, monkeypatch)
    assert isinstance(said(site, run), Answer)
    assert charged(site) == [f"{run.id}/train/charge"]
    assert spent(site) == once
    for lost in (first, second):
        for name, weights in kept(site, run).items():
            np.testing.assert_array_equal(weights, lost[name], "another training left")


def test_no_two_trainings_share_their_noise_and_none_can_be_drawn_once_it_is_kept(
    run: Run, site: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(site, tmp_path / "other" / SITE))
    for folder in (site, other):
        assert isinstance(said(folder, run), Answer)
        assert not list(folder.glob("training-*"))
    one, two = kept(site, run), kept(other, run)
    assert not any(np.array_equal(one[name], two[name]) for name in one)


def test_a_training_that_always_fails_spends_its_plan_and_no_more(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(speaking, "train_privately", fails)
    for number in range(1, 7):
        round = 1 + number // 3
        assert said(site, run, round=round) == Refusal(SITE, run.id, round, Reason.FAILED)
        assert spent(site) <= SHARE
    assert charged(site) == [f"{run.id}/train/charge"]


def other_records(folder: Path, run: Run) -> None:
    train = read_arrays(folder / "train.npz")
    write_arrays(folder / "train.npz", {**train, "labels": np.roll(train["labels"], 1)})


def other_model(folder: Path, run: Run) -> None:
    settings = SiteFolder(folder).settings()
    other = replace(settings, model_name="mlp", model=part("model", "mlp"))
    write_json(folder / "site.json", other.to_json())


def no_key(folder: Path, run: Run) -> None:
    key_of(folder)[0].unlink()


CHANGES: dict[str, Callable[[Path, Run], None]] = {
    "other records now": other_records,
    "other start now": other_model,
    "no training-": no_key,
}


def key_of(folder: Path) -> list[Path]:
    return list(folder.glob("training-*.key"))


def expect_out(folder: Path, run: Run) -> None:
    """The site is out of the run for good: it pays no second time, and no noise is left."""
    for _ in range(2):
        assert said(folder, run) == Refusal(SITE, run.id, 1, Reason.BUDGET_EXHAUSTED)
    assert charged(folder) == [f"{run.id}/train/charge"]
    assert spent(folder) <= SHARE
    assert "approve a new run" in (folder / "errors.txt").read_text()
    assert not (folder / "speakers").exists()
    assert not key_of(folder)


@pytest.mark.parametrize("why", CHANGES)
def test_what_cannot_be_done_again_as_it_was_is_refused_in_words(
    why: str, run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same noise on something else would show the difference; other noise was not paid."""
    cut_off(site, run, monkeypatch)
    (key,) = key_of(site)
    assert key.stat().st_mode & 0o777 == 0o600
    CHANGES[why](site, run)
    expect_out(site, run)
    assert why in (site / "errors.txt").read_text()


@pytest.mark.parametrize("of", ["__version__", "version"])
def test_another_version_does_no_training_of_the_one_before(
    of: str, run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fedkd's, torch's and numpy's: any may compute other last bits from the same noise."""
    cut_off(site, run, monkeypatch)
    monkeypatch.setattr(speaking, of, "0" if of == "__version__" else lambda name: "0")
    expect_out(site, run)


WISHES: dict[str, tuple[Callable[[int, int], str], bool]] = {
    "somebody in training": (lambda train, whole: "1", True),
    "somebody in validation alone": (lambda train, whole: str(train + 1), True),
    "nobody here": (lambda train, whole: str(whole + 1), True),
    "a slip": (lambda train, whole: str(whole + 1), False),
}


@pytest.mark.parametrize("whom", WISHES)
def test_a_wish_to_be_taken_out_ends_what_waits_whoever_it_is_about(
    whom: str, run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the reply would say, without any noise, whether it was a patient in training."""
    cut_off(site, run, monkeypatch)
    id_of, may_be_absent = WISHES[whom]
    train, validation = SiteFolder(site).parts()
    name = id_of(len(train), len(train) + len(validation))
    with nullcontext() if may_be_absent else pytest.raises(BadInput, match="without a record"):
        exclude(SiteFolder(site), [name], "wishes", may_be_absent=may_be_absent)
    expect_out(site, run)


@pytest.mark.parametrize("paid", [True, False])
def test_a_closing_question_ends_what_waits_and_nothing_can_draw_it_again(
    paid: bool, run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if paid:
        cut_off(site, run, monkeypatch)
    else:
        killed_between_draw_and_charge(site, run)
    (key,) = key_of(site)
    lesson = Distributions(np.full((12, 10), 0.1, dtype=np.float32), question(run).about)
    with key.open("rb") as drawn:  # what lay on the disk, whatever its name
        assert drawn.read().strip(b"\0")
        assert isinstance(said(site, run, round=2, closing=True, lesson=lesson), Closed)
        drawn.seek(0)
        assert not drawn.read().strip(b"\0")
    assert not key_of(site)
    if paid:
        expect_out(site, run)
    else:
        assert charged(site) == []


def killed_between_draw_and_charge(folder: Path, run: Run) -> None:
    append = Log.append

    def dies(log: Log, key: str, type: str, body: Any) -> Any:
        if key.endswith("/train/charge"):
            raise Died
        return append(log, key, type, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "append", dies)
        with pytest.raises(Died):
            said(folder, run)


def test_what_was_drawn_for_a_training_that_nobody_paid_is_drawn_again(
    run: Run, site: Path
) -> None:
    """A kill between the draw and the charge costs nothing, and stops nothing."""
    killed_between_draw_and_charge(site, run)
    assert charged(site) == []
    assert isinstance(said(site, run), Answer)
    assert charged(site) == [f"{run.id}/train/charge"]
