"""Whoever brings back an old copy of a hospital, or sets its clock back, gets no budget for it."""

import shutil
import time
from pathlib import Path

import pytest

from fedkd.audit import Log
from fedkd.audit.verify import Note
from fedkd.cli.run import Run
from fedkd.federation.participant import Participant
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.privacy import Ledger
from fedkd.wire import Envelope, Message, Reason, Refusal, cover, decode, encode, opened
from tests.federation.officers import officer, signed
from tests.federation.small import Wiretap, finished, founded, question

SITE = "site-01"


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A private run of real populations that is over, and a copy of a site from before it."""
    folder = tmp_path_factory.mktemp("over")
    run = founded(
        folder / "run", "mechanism=dp_training", "mechanism.steps=5", "audit.cosigners=5",
        f"sites.dir={folder / 'sites'}", "sites.rehearsal=false",
    )  # fmt: skip
    signed(run, officer(folder))
    copy = Path(shutil.copytree(run.sites[SITE], folder / "copy" / SITE))
    finished(run, Wiretap(run))
    return run, copy


@pytest.fixture
def restored(over: tuple[Run, Path], tmp_path: Path) -> Path:
    """The old copy in the site's place."""
    return Path(shutil.copytree(over[1], tmp_path / SITE))


@pytest.fixture
def now(over: tuple[Run, Path], tmp_path: Path) -> Path:
    """The site as it is."""
    return Path(shutil.copytree(over[0].sites[SITE], tmp_path / "now" / SITE))


def newest_words(run: Run) -> Envelope:
    """What everybody cosigned last of this site's log."""
    note = Note.parse((run.folder / "server" / f"{SITE}.checkpoint").read_bytes())
    return Envelope(notes=(note.to_bytes().decode(),))


def replied(run: Run, folder: Path, envelope: Envelope, later: float = 0) -> Message:
    letter = cover(envelope) + encode(question(run, run="another", round=1))
    site = Participant(SiteFolder(folder), run.build, clock=lambda: time.time() + later)
    return decode(opened(site.answer(letter))[1], 1 << 20)


def refusal(reason: Reason) -> Refusal:
    return Refusal(SITE, "another", 1, reason)


def ledger(folder: Path) -> Ledger:
    with Log(folder / "log.sqlite", SITE) as log:
        return ledger_of(log, SITE)


def entries(folder: Path, type: str) -> int:
    with Log(folder / "log.sqlite", SITE) as log:
        return len(list(log.entries(type)))


def test_the_log_of_an_old_copy_alone_would_pay_again(
    over: tuple[Run, Path], restored: Path
) -> None:
    """What stands against it is what peers cosigned: this is the attack, without them."""
    assert ledger(over[0].sites[SITE]).left() < 1e-3
    assert ledger(restored).left() == 1.0


def test_an_old_copy_is_told_by_its_peers_and_pays_nothing(
    over: tuple[Run, Path], restored: Path
) -> None:
    with Log(restored / "log.sqlite", SITE) as log:
        before = len(log)
    assert replied(over[0], restored, newest_words(over[0])) == refusal(Reason.ROLLED_BACK)
    assert entries(restored, "budget.charged") == 0
    assert not (restored / "speakers").exists()
    assert ledger(restored).charged == ()
    with Log(restored / "log.sqlite", SITE) as log:
        assert len(log) == before, "something was written into an old copy"


def test_an_old_copy_that_hears_nobody_pays_nothing(over: tuple[Run, Path], restored: Path) -> None:
    assert replied(over[0], restored, Envelope()) == refusal(Reason.NOT_FRESH)
    assert entries(restored, "budget.charged") == 0


@pytest.mark.parametrize("back", [3600, 86_400, 400 * 86_400], ids=["hour", "day", "year"])
def test_a_clock_set_back_gives_no_budget(
    back: int, over: tuple[Run, Path], restored: Path, now: Path
) -> None:
    words = newest_words(over[0])
    assert replied(over[0], restored, words, later=-back) == refusal(Reason.ROLLED_BACK)
    spent = ledger(now).spent()
    assert replied(over[0], now, words, later=-back) == refusal(Reason.NOT_FRESH)
    assert ledger(now).spent() == spent


def test_a_clock_set_forward_gives_none_either(over: tuple[Run, Path], now: Path) -> None:
    """Budgets have no year after which they come back."""
    spent = ledger(now).spent()
    reply = replied(over[0], now, newest_words(over[0]), later=400 * 86_400)
    assert reply == refusal(Reason.NOT_FRESH)
    assert ledger(now).spent() == spent


def test_the_site_as_it_is_says_that_its_budget_is_spent(over: tuple[Run, Path], now: Path) -> None:
    """Without this the refusals above could have any other cause."""
    reply = replied(over[0], now, newest_words(over[0]))
    assert reply == refusal(Reason.BUDGET_EXHAUSTED)
