"""A private training that was cut off: one run never spends more than its plan, however it ends."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.run import Run
from fedkd.federation import speaking
from fedkd.federation.excluding import exclude
from fedkd.federation.participant import open_participant
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.wire import Answer, Message, Reason, Refusal, decode, encode
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


@pytest.mark.parametrize("changed", ["records", "key"])
def test_what_cannot_be_done_again_as_it_was_is_refused_in_words(
    changed: str, run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same noise on other records would show the difference; other noise was not paid."""
    cut_off(site, run, monkeypatch)
    (key,) = site.glob("training-*.key")
    assert key.stat().st_mode & 0o777 == 0o600
    if changed == "records":
        exclude(SiteFolder(site), ["1"], "wishes")
    else:
        key.unlink()
    for _ in range(2):
        assert said(site, run) == Refusal(SITE, run.id, 1, Reason.BUDGET_EXHAUSTED)
    assert charged(site) == [f"{run.id}/train/charge"]
    assert spent(site) <= SHARE
    assert "approve a new run" in (site / "errors.txt").read_text()
    assert not (site / "speakers").exists()


def test_what_was_drawn_for_a_training_that_nobody_paid_is_drawn_again(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the draw and the charge costs nothing, and stops nothing."""
    append = Log.append

    def dies(log: Log, key: str, type: str, body: Any) -> Any:
        if key.endswith("/train/charge"):
            raise Died
        return append(log, key, type, body)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "append", dies)
        with pytest.raises(Died):
            said(site, run)
    assert charged(site) == []
    assert isinstance(said(site, run), Answer)
    assert charged(site) == [f"{run.id}/train/charge"]
