"""A site that is no rehearsal: nothing is paid without its officer's signed paper."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.audit.officer import BUDGET, read_key, sign_paper
from fedkd.audit.verify import SigningKey
from fedkd.cli.run import Run
from fedkd.federation.budgets import UNPROTECTED
from fedkd.federation.durable import read_json, write_bytes, write_json
from fedkd.federation.papers import PAPERS, PIN, NotSigned, install, papers_of
from fedkd.federation.participant import open_participant
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.wire import Answer, Reason, Refusal, decode, encode
from tests.federation.officers import (
    BUILD,
    NOT_PRIVATE,
    installed,
    lasting_at,
    officer,
    paper,
)
from tests.federation.small import conducted, founded, question

PRIVATE = ["mechanism=dp_training", "mechanism.steps=5"]
SITE = "site-01"
FIRST = paper(SITE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A founded federation of lasting sites without any paper. Nobody may change it."""
    folder = tmp_path_factory.mktemp("lasting")
    return founded(folder / "run", *PRIVATE, *lasting_at(folder / "sites"))


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.sites[SITE], tmp_path / "sites" / SITE))


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return officer(tmp_path)


def said(folder: Path, run: Run, **changes: Any) -> Any:
    body = open_participant(folder, run.build).answer(encode(question(run, **changes)))
    return decode(body, 1 << 20)


def refused(run: Run, round: int = 1, reason: Reason = Reason.NOT_SIGNED) -> Refusal:
    return Refusal(SITE, run.id, round, reason)


def charged(folder: Path) -> int:
    with Log(folder / "log.sqlite", SITE) as log:
        return len(list(log.entries("budget.charged")))


def ledger(folder: Path) -> Any:
    with Log(folder / "log.sqlite", SITE) as log:
        return ledger_of(log, SITE)


# Before there is a paper, and once it is there.


def test_without_a_paper_nothing_is_paid_trained_or_said(run: Run, site: Path) -> None:
    assert said(site, run) == refused(run)
    assert charged(site) == 0
    assert not (site / "speakers").exists()
    assert not (site / "models" / run.id).exists()
    assert f"fedkd privacy budget install {site}" in (site / "errors.txt").read_text()


def test_a_signed_paper_opens_the_budget_and_the_site_answers(
    run: Run, site: Path, key: SigningKey
) -> None:
    done = installed(site, key, FIRST)
    assert (done.was_there, done.before, done.left) == (False, None, 1.0)
    assert isinstance(said(site, run), Answer)
    assert 0.99 < ledger(site).spent() <= 1.0
    assert (site / PIN).read_text().strip() == key.verifier().text()
    with Log(site / "log.sqlite", SITE) as log:
        (opened,) = log.entries("budget.opened")
        dp = [entry.body["dp"] for entry in log.entries("train.local") if entry.body["dp"]]
    assert opened.body["paper"] == done.budget.digest
    assert opened.body["officer"] == key.verifier().text()
    assert opened.body["reason"] == "First budget of this population."
    assert opened.body["rehearsal"] is False
    assert [each["noise"] for each in dp] == ["operating system"]


def test_the_same_paper_again_changes_nothing(site: Path, key: SigningKey) -> None:
    installed(site, key, FIRST)
    again = installed(site, key, FIRST, pin=False)
    assert again.was_there
    with Log(site / "log.sqlite", SITE) as log:
        assert len(list(log.entries("budget.opened"))) == 1


def test_a_whole_federation_of_officers_runs(tmp_path: Path, key: SigningKey) -> None:
    run = founded(tmp_path / "run", *PRIVATE, *lasting_at(tmp_path / "hospitals"))
    for name in ("site-01", "site-02"):
        installed(run.sites[name], key, paper(name))
    state = conducted(run)
    assert set(state.left_out) == {"site-03"}
    reasons = {told["reason"] for told in state.left_out["site-03"]}
    assert reasons == {"refused: not_signed"}


# Papers that are none.


def test_an_unsigned_paper_is_refused(site: Path) -> None:
    mechanism = BUILD(SiteFolder(site).settings().mechanism)
    with pytest.raises(BadInput, match=r"found no signature over this budget.*keys sign writes"):
        install(SiteFolder(site), FIRST, b"", mechanism, None or _vkey(site))
    assert not (site / PIN).exists()


def _vkey(folder: Path) -> str:
    return officer(folder, "somebody").verifier().text()


@pytest.mark.parametrize("place", range(0, len(FIRST), 37))
def test_a_paper_with_one_byte_changed_is_refused(place: int, site: Path, key: SigningKey) -> None:
    changed = bytearray(FIRST)
    changed[place] ^= 1
    mechanism = BUILD(SiteFolder(site).settings().mechanism)
    with pytest.raises(BadInput, match="has to be signed again, by the officer"):
        install(
            SiteFolder(site),
            bytes(changed),
            sign_paper(key, BUDGET, FIRST),
            mechanism,
            key.verifier().text(),
        )
    assert not (site / PAPERS).exists()


def test_a_signature_over_another_kind_of_paper_is_refused(site: Path, key: SigningKey) -> None:
    mechanism = BUILD(SiteFolder(site).settings().mechanism)
    other = sign_paper(key, "retention rule", FIRST)
    with pytest.raises(BadInput, match=r"'retention rule'.*expected one over these bytes"):
        install(SiteFolder(site), FIRST, other, mechanism, key.verifier().text())


def test_the_first_paper_needs_the_officers_key(site: Path, key: SigningKey) -> None:
    with pytest.raises(BadInput, match=r"no officer's key at this site.*--officer VKEY"):
        installed(site, key, FIRST, pin=False)


def test_another_key_than_the_pinned_one_is_refused(
    site: Path, key: SigningKey, tmp_path: Path
) -> None:
    first = installed(site, key, FIRST).budget
    other = officer(tmp_path, "Eve")
    body = paper(SITE, epsilon=4.0, replaces=first.digest, reason="more")
    with pytest.raises(BadInput, match=r"the key of Eve.*expected that of Ada Example"):
        installed(site, other, body)
    with pytest.raises(BadInput, match="by Eve that another key made, expected one by Ada Exampl"):
        installed(site, other, body, pin=False)
    assert ledger(site).epsilon == 1.0


WRONG = {
    "another population": ({"population": "cardiology"}, "expected one of site-01"),
    "fewer patients": ({"patients": 3, "delta": 1e-3}, "at least 18"),
    "another mechanism": ({"mechanisms": ["pate"]}, "found mechanism=dp_training"),
    "another unit": ({"unit": "record"}, "unit: record, expected patient"),
    "something before": ({"replaces": "sha256:" + "0" * 64}, "no paper was installed here"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_first_paper_about_something_else_is_refused(
    what: str, site: Path, key: SigningKey
) -> None:
    changes, why = WRONG[what]
    with pytest.raises(BadInput, match=why):
        installed(site, key, paper(SITE, **changes))
    with Log(site / "log.sqlite", SITE) as log:
        assert not list(log.entries("budget.opened"))


def test_a_rehearsal_takes_no_paper(tmp_path: Path, key: SigningKey) -> None:
    run = founded(tmp_path / "run", *PRIVATE, "budget.epsilon=1")
    with pytest.raises(BadInput, match="a rehearsal needs no paper"):
        installed(run.sites[SITE], key, FIRST)
    assert isinstance(said(run.sites[SITE], run), Answer)


# Raises and lowerings.


def test_a_raise_is_an_entry_with_its_reason_and_all_charges_stay(
    run: Run, site: Path, key: SigningKey
) -> None:
    first = installed(site, key, FIRST).budget
    said(site, run)
    before = ledger(site)
    assert before.left() < 1e-3
    body = paper(SITE, epsilon=2.0, replaces=first.digest, reason="Ethics vote 12/2026.")
    done = installed(site, key, body, pin=False)
    after = ledger(site)
    assert after.epsilon == 2.0
    assert after.charged == before.charged
    assert after.spent() == pytest.approx(before.spent(), abs=1e-9)
    assert done.left == pytest.approx(after.left())
    assert 1.5 < after.left() < 2.0
    with Log(site / "log.sqlite", SITE) as log:
        newest = list(log.entries("budget.opened"))[-1].body
        log.append("more", "budget.charged", {
            "population": SITE, "question": "x",
            "cost": {"event": "Gaussian", "noise_multiplier": 3.0},
        })  # fmt: skip
    assert newest["reason"] == "Ethics vote 12/2026."
    assert newest["replaces"] == first.digest
    assert [each.epsilon for each in papers_of(SiteFolder(site))] == [1.0, 2.0]
    assert before.spent() < ledger(site).spent() <= 2.0
    assert isinstance(said(site, run, round=2), Answer)  # the speaker is there: free


def test_a_raise_pays_for_a_second_run(tmp_path: Path, key: SigningKey) -> None:
    lasting = lasting_at(tmp_path / "sites")
    one = founded(tmp_path / "one", *PRIVATE, *lasting, "rounds=1")
    papers = {name: installed(path, key, paper(name)) for name, path in one.sites.items()}
    assert not conducted(one).left_out
    two = founded(tmp_path / "two", *PRIVATE, *lasting, "rounds=1")
    assert said(two.sites[SITE], two) == refused(two, reason=Reason.BUDGET_EXHAUSTED)
    for name, path in two.sites.items():
        body = paper(name, epsilon=2.0, replaces=papers[name].budget.digest, reason="once more")
        installed(path, key, body, pin=False)
    three = founded(tmp_path / "three", *PRIVATE, *lasting, "rounds=1")
    assert not conducted(three).left_out
    for path in three.sites.values():
        with Log(path / "log.sqlite", path.name) as log:
            assert 1.9 < ledger_of(log, path.name).spent() <= 2.0


CHANGED = {
    "no replaces": ({"epsilon": 2.0, "reason": "more"}, "found replaces: null, expected sha256"),
    "another replaces": (
        {"epsilon": 2.0, "replaces": "sha256:" + "0" * 64}, "the digest of the paper that holds",
    ),
    "no reason": ({"epsilon": 2.0, "reason": " "}, "reason: ''"),
    "another delta": ({"epsilon": 2.0, "delta": 1e-6}, "delta: 1e-06, expected 1e-05"),
    "another unit": ({"unit": "record"}, "unit: record, expected patient"),
    "another population": ({"population": "the others"}, "under one name"),
    "no bound any more": (NOT_PRIVATE, "mechanism=dp_training, expected what the officer allows"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGED)
def test_a_raise_without_its_reason_or_that_changes_more_is_refused(
    what: str, site: Path, key: SigningKey
) -> None:
    first = installed(site, key, FIRST).budget
    changes, why = CHANGED[what]
    replaces = {} if what == "no replaces" else {"replaces": first.digest}
    with pytest.raises(BadInput, match=why):
        installed(site, key, paper(SITE, **{**replaces, **changes}), pin=False)
    assert ledger(site).epsilon == 1.0


def test_a_lowering_to_what_is_spent_is_accepted_and_below_it_is_refused(
    run: Run, site: Path, key: SigningKey
) -> None:
    first = installed(site, key, paper(SITE, epsilon=3.0)).budget
    with Log(site / "log.sqlite", SITE) as log:
        cost = {"event": "Gaussian", "noise_multiplier": 3.0}
        log.append("earlier", "budget.charged", {"population": SITE, "cost": cost, "question": ""})
    spent = ledger(site).spent()
    below = paper(SITE, epsilon=spent * 0.99, replaces=first.digest, reason="less")
    with pytest.raises(BadInput, match=r"spent.*not taken back.*nothing more is covered"):
        installed(site, key, below, pin=False)
    enough = paper(SITE, epsilon=spent, replaces=first.digest, reason="less")
    assert installed(site, key, enough, pin=False).left == 0
    assert said(site, run) == refused(run, reason=Reason.BUDGET_EXHAUSTED)


def test_an_empty_list_of_mechanisms_stops_a_site(run: Run, site: Path, key: SigningKey) -> None:
    first = installed(site, key, FIRST).budget
    assert isinstance(said(site, run), Answer)
    stop = paper(SITE, mechanisms=[], replaces=first.digest, reason="The study is over.")
    installed(site, key, stop, pin=False)
    assert said(site, run, round=2) == refused(run, round=2)


def test_an_older_paper_does_not_come_back(site: Path, key: SigningKey) -> None:
    high = paper(SITE, epsilon=4.0)
    first = installed(site, key, high).budget
    installed(site, key, paper(SITE, replaces=first.digest, reason="less"), pin=False)
    with pytest.raises(BadInput, match="the digest of the paper that holds"):
        installed(site, key, high, pin=False)
    assert ledger(site).epsilon == 1.0


# What an engineer may try on the site's own disk.


def _edit_paper(site: Path) -> None:
    (path,) = (site / PAPERS).glob("*.yaml")
    write_bytes(path, path.read_bytes().replace(b"epsilon: 1.0", b"epsilon: 9.0"))


def _lose_paper(site: Path) -> None:
    shutil.rmtree(site / PAPERS)


def _lose_signature(site: Path) -> None:
    (path,) = (site / PAPERS).glob("*.sig")
    path.unlink()


def _lose_pin(site: Path) -> None:
    (site / PIN).unlink()


def _pin_ones_own(site: Path) -> None:
    (site / PIN).write_text(officer(site, "Eve").verifier().text())


def _pin_and_sign_ones_own(site: Path) -> None:
    eve = officer(site, "Eve")
    (site / PIN).write_text(eve.verifier().text())
    for path in (site / PAPERS).glob("*.yaml"):
        write_bytes(path.with_suffix(".yaml.sig"), sign_paper(eve, BUDGET, path.read_bytes()))


def _put_another_signed_paper_in_its_place(site: Path) -> None:
    """One that the same officer signed for elsewhere, before or after."""
    (path,) = (site / PAPERS).glob("*.yaml")
    other = paper(SITE, epsilon=9.0)
    write_bytes(path, other)
    key = read_key(site.parent.parent / "Ada-Example.key")
    write_bytes(path.with_suffix(".yaml.sig"), sign_paper(key, BUDGET, other))


def _rename_population(site: Path) -> None:
    write_json(site / "site.json", {**read_json(site / "site.json"), "population": "fresh"})


def _log_a_raise(site: Path) -> None:
    with Log(site / "log.sqlite", SITE) as log:
        (opened,) = log.entries("budget.opened")
        log.append(f"budget/{SITE}/x", "budget.opened", {**opened.body, "epsilon": 9.0})


def _log_another_budget(site: Path) -> None:
    with Log(site / "log.sqlite", SITE) as log:
        (opened,) = log.entries("budget.opened")
        log.append("budget/fresh", "budget.opened", {**opened.body, "population": "fresh"})
    _rename_population(site)


def _take_another_mechanism(site: Path) -> None:
    none = {"_target_": "fedkd.privacy.mechanisms.none.none"}
    write_json(site / "site.json", {**read_json(site / "site.json"), "mechanism": none})


def _call_it_a_rehearsal(site: Path) -> None:
    """Noise would come from a seed that the engineer chose, and no paper would be asked for."""
    kept = {**read_json(site / "site.json"), "rehearsal": True, "seed": 1}
    write_json(site / "site.json", kept)


def _call_it_a_rehearsal_and_forget_the_pin(site: Path) -> None:
    _call_it_a_rehearsal(site)
    _lose_pin(site)


TRICKS = [
    _call_it_a_rehearsal,
    _call_it_a_rehearsal_and_forget_the_pin,
    _pin_and_sign_ones_own,
    _put_another_signed_paper_in_its_place,
    _edit_paper,
    _lose_paper,
    _lose_signature,
    _lose_pin,
    _pin_ones_own,
    _rename_population,
    _log_a_raise,
    _log_another_budget,
    _take_another_mechanism,
]


@pytest.mark.parametrize("trick", TRICKS)
def test_whatever_is_changed_on_the_disk_the_site_falls_silent(
    trick: Any, run: Run, site: Path, key: SigningKey
) -> None:
    installed(site, key, FIRST)
    trick(site)
    assert said(site, run) == refused(run)
    assert charged(site) == 0


@pytest.mark.parametrize(
    "more", [{"epsilon": 9.0}, {"mechanisms": ["none"]}, {"evaluation_groups": ["sex"]}]
)
def test_a_log_that_says_more_than_the_paper_is_not_believed(
    more: dict[str, Any], run: Run, site: Path, key: SigningKey, tmp_path: Path
) -> None:
    """An opening record by hand, over a paper that is signed and in its place."""
    honest = Path(shutil.copytree(site, tmp_path / "honest" / SITE))
    installed(honest, key, FIRST)
    with Log(honest / "log.sqlite", SITE) as log:
        (opened,) = log.entries("budget.opened")
    shutil.copytree(honest / PAPERS, site / PAPERS)
    shutil.copy(honest / PIN, site / PIN)
    with Log(site / "log.sqlite", SITE) as log:
        log.append(f"budget/{SITE}", "budget.opened", {**opened.body, **more})
    assert said(site, run) == refused(run)
    assert charged(site) == 0


def test_a_budget_is_not_reopened_under_another_name(run: Run, site: Path, key: SigningKey) -> None:
    installed(site, key, FIRST)
    _rename_population(site)
    with pytest.raises(BadInput, match="under one name"):
        installed(site, key, paper("fresh"), pin=False)


def test_the_same_records_in_a_folder_beside_it_get_no_second_budget(
    site: Path, key: SigningKey, run: Run
) -> None:
    installed(site, key, FIRST)
    again = Path(shutil.copytree(run.sites[SITE], site.parent / "again"))
    _rename_population(again)
    with pytest.raises(BadInput, match="site-01 beside it has, too"):
        installed(again, key, paper("fresh"))
    other = Path(shutil.copytree(run.sites["site-02"], site.parent / "site-02"))
    installed(other, key, paper("site-02"))  # other patients have their own


def test_answers_without_protection_need_the_officers_word(tmp_path: Path, key: SigningKey) -> None:
    run = founded(tmp_path / "run", *lasting_at(tmp_path / "sites"))
    site = run.sites[SITE]
    assert said(site, run) == refused(run)
    with pytest.raises(NotSigned, match=f"{UNPROTECTED}: true, signed by the officer"):
        installed(site, key, FIRST)
    installed(site, key, paper(SITE, **NOT_PRIVATE))
    assert isinstance(said(site, run), Answer)
    assert ledger(site).epsilon is None


# Seeds.


def test_a_seed_is_refused_where_it_is_no_rehearsal(run: Run, site: Path) -> None:
    kept = read_json(site / "site.json")
    assert kept["seed"] is None
    write_json(site / "site.json", {**kept, "seed": 3})
    with pytest.raises(BadInput, match=r"the seed 3 for site-01, expected none.*operating system"):
        SiteFolder(site).settings()
    with pytest.raises(BadInput, match="the seed 3"):
        open_participant(site, run.build)


def test_a_site_draws_its_own_seed_once_and_keeps_it(run: Run, tmp_path: Path) -> None:
    seeds = []
    for name in ("a", "b"):
        folder = SiteFolder(Path(shutil.copytree(run.sites[SITE], tmp_path / name)))
        (folder.folder / "seed").unlink(missing_ok=True)
        settings = folder.settings()
        first = folder.seed(settings)
        assert SiteFolder(folder.folder).seed(settings) == first
        assert (folder.folder / "seed").stat().st_mode & 0o077 == 0
        seeds.append(first)
    assert seeds[0] != seeds[1]


def test_a_budget_in_the_configuration_is_refused_at_lasting_sites(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"budget\.epsilon=1 with sites\.rehearsal=false.*signed paper"
    ):
        founded(tmp_path / "run", *PRIVATE, *lasting_at(tmp_path / "s"), "budget.epsilon=1")
