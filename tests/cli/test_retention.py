"""`fedkd audit erase`: old bodies go, the run's logs still hold, and nothing is answered anew."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedkd.audit import Log
from fedkd.audit.retention import NEVER
from fedkd.audit.verify.logs import check_log
from fedkd.cli.app import run as fedkd
from fedkd.cli.run import Run
from fedkd.federation.participant import open_participant
from fedkd.wire import Refusal, decode
from tests.federation.small import Wiretap, conducted, founded

RULE = "a test's rule"
Done = tuple[Run, Wiretap]


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A federation that went to its end, and its logs as they are handed over. Nobody may change
    it.
    """
    run = founded(tmp_path_factory.mktemp("over") / "run")
    grid = Wiretap(run)
    conducted(run, grid)
    (run.folder / "audit").mkdir()
    for folder in (run.folder / "server", *run.sites.values()):
        hand_over(folder, run.folder)
    return run, grid


def hand_over(folder: Path, run: Path) -> None:
    with Log(folder / "log.sqlite", folder.name) as log:
        log.export(run / "audit" / f"{folder.name}.sqlite")


@pytest.fixture
def folder(over: Done, tmp_path: Path) -> Path:
    """The run, of one's own."""
    return Path(shutil.copytree(over[0].folder, tmp_path / "run"))


@pytest.fixture
def site(folder: Path) -> Path:
    return folder / "sites" / "site-01"


def erase(path: Path, type: str, before: str | None = None, *more: str) -> int:
    before = before or datetime.now(UTC).isoformat()
    return fedkd(
        ["audit", "erase", str(path), "--type", type, "--before", before, "--rule", RULE, *more]
    )


def entries(site: Path, type: str) -> Iterator[tuple[int, bool]]:
    with Log(site / "log.sqlite", site.name) as log:
        return iter([(entry.index, entry.said is None) for entry in log.entries(type)])


def test_a_site_erases_what_old_entries_said(
    site: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = [index for index, _ in entries(site, "train.local")]
    assert trained
    assert erase(site, "train.local") == 0
    said = capsys.readouterr()
    assert f"erased what {len(trained)} entries of site-01 said: train.local" in said.out
    assert f"retention.applied, says so, with the rule: {RULE}" in said.out
    assert "copies that left this folder" in said.out
    assert "0 days old" in said.err
    assert "six months (183 days)" in said.err
    assert [*entries(site, "train.local")] == [(index, True) for index in trained]
    assert fedkd(["audit", "verify", str(site / "log.sqlite")]) == 0
    capsys.readouterr()
    assert fedkd(["audit", "show", str(site / "log.sqlite"), "--type", "train.local"]) == 0
    assert capsys.readouterr().out.count("erased") == len(trained)
    # Handed over again, nothing contradicts it; where a model came from can no longer be walked.
    hand_over(site, folder)
    assert fedkd(["audit", "verify", str(folder)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("REFUTED") for line in lines)
    assert [line.split()[2] for line in lines if line.startswith("CANNOT TELL ")] == ["lineage"]


def test_erasing_again_finds_nothing(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert erase(site / "log.sqlite", "train.local") == 0
    before = check_log(site / "log.sqlite").root
    capsys.readouterr()
    assert erase(site, "train.local") == 0
    said = capsys.readouterr()
    assert said.out.startswith("nothing to erase: site-01 has no body of train.local")
    assert said.err == ""
    assert check_log(site / "log.sqlite").root == before


def test_what_is_told_as_json(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = [index for index, _ in entries(site, "train.local")]
    before = datetime.now(UTC).isoformat()
    assert erase(site, "train.local", before, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("warning").startswith("warning: the youngest of these was 0 days old")
    with Log(site / "log.sqlite", "site-01") as log:
        applied = log.last("retention.applied")
    assert applied is not None
    assert applied.body["erased"] == trained
    assert told == {
        "log": str(site / "log.sqlite"),
        "party": "site-01",
        "type": "train.local",
        "before": before,
        "rule": RULE,
        "erased": trained,
        "count": len(trained),
        "entry": applied.index,
        "youngest_days": 0,
        "kept": {},
    }


def test_after_everything_was_erased_a_question_gets_the_answer_that_it_got(
    site: Path, over: Done
) -> None:
    """No charge, no training, no noise: what a turn needs is among what is never erased."""
    run, grid = over
    questions = [letter.body for letter in grid.down if letter.site == "site-01"]
    answer = open_participant(site, run.build).answer
    before = [answer(body) for body in questions]
    for type in sorted({leaf.header.type for leaf in check_log(site / "log.sqlite").entries}):
        assert erase(site, type) == (1 if type in NEVER else 0)
    with Log(site / "log.sqlite", "site-01") as log:
        length = len(log)
        spent = [entry.body for entry in log.entries("budget.charged")]
    answer = open_participant(site, run.build).answer
    assert [answer(body) for body in questions] == before
    assert not any(isinstance(decode(reply, 1 << 20), Refusal) for reply in before)
    with Log(site / "log.sqlite", "site-01") as log:
        assert len(log) == length
        assert [entry.body for entry in log.entries("budget.charged")] == spent


def test_the_server_erases_of_a_run_that_ended(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = folder / "server"
    assert erase(server, "answers.admitted") == 0
    assert "of server said: answers.admitted" in capsys.readouterr().out
    hand_over(server, folder)
    assert fedkd(["audit", "verify", str(folder)]) == 0
    assert "a side was erased under a rule" in capsys.readouterr().out
    assert fedkd(["audit", "recompute", str(folder)]) == 3
    assert "answers.admitted: found it closed or erased" in capsys.readouterr().err


def test_nothing_is_erased_of_a_run_that_went_on_later(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Log(site / "log.sqlite", "site-01") as log:
        newest = [*log.entries()][-1].at
    assert erase(site, "train.local", newest) == 0
    said = capsys.readouterr().out
    assert "nothing to erase" in said
    assert "kept: entries of run" in said
    assert "because it went on later" in said
    assert not any(gone for _, gone in entries(site, "train.local"))


# What is refused, and why.


@pytest.mark.parametrize(
    ("type", "time", "code", "said"),
    [
        ("budget.charged", None, 1, "the ledger is replayed from it"),
        ("release.outputs", None, 1, "without a charge and without fresh noise"),
        ("party.enrolled", None, 1, "the roster is read from it"),
        ("train.locally", None, 2, "expected one of access.performed"),
        ("train.local", "yesterday", 2, "expected RFC 3339"),
        ("train.local", "9999-01-01T00:00:00Z", 2, "still to come"),
    ],
)
def test_what_is_refused_changes_nothing(
    type: str,
    time: str | None,
    code: int,
    said: str,
    site: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = check_log(site / "log.sqlite")
    assert erase(site, type, time) == code
    error = capsys.readouterr().err
    assert error.startswith("error: found ")
    assert said in error
    assert check_log(site / "log.sqlite") == before


def test_a_copy_that_was_handed_over_is_not_erased_in(
    folder: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = folder / "audit" / "site-01.sqlite"
    content = copy.read_bytes()
    assert erase(copy, "train.local") == 2
    assert "without the key that signs it" in capsys.readouterr().err
    assert copy.read_bytes() == content
    assert not (copy.parent / "keys").exists()
    beside = Path(shutil.copy(copy, site / "copy.sqlite"))
    assert erase(beside, "train.local") == 2
    assert "a copy beside the party's own log" in capsys.readouterr().err
    assert beside.read_bytes() == content
    assert erase(folder, "train.local") == 2
    assert "a site's or the server's own folder" in capsys.readouterr().err


def test_a_log_of_another_party_is_not_erased_in(
    folder: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (folder / "audit" / "site-02.sqlite").read_bytes()
    (site / "log.sqlite").write_bytes(content)
    assert erase(site, "train.local") == 1
    assert "beside a log, expected fedkd.invalid/rehearsal/site-02/" in capsys.readouterr().err
    assert check_log(site / "log.sqlite").closed == 0


def test_a_log_that_does_not_hold_is_evidence(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Log(site / "log.sqlite", "site-01") as log:
        log._database.execute("UPDATE entries SET body = '{}' WHERE place = 1")
    assert erase(site, "train.local") == 1
    assert "entry 1" in capsys.readouterr().err
    assert not any(gone for _, gone in entries(site, "train.local"))


def test_while_somebody_has_the_log_open_nothing_is_erased(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Log(site / "log.sqlite", "site-01") as log:
        log.append("now", "run.started", {})
        assert erase(site, "train.local") == 3
        assert "a log that nobody has open" in capsys.readouterr().err
    assert not any(gone for _, gone in entries(site, "train.local"))
