"""`fedkd site erase`: what site.yaml's retention rules make due goes, and everything else stays."""

import json
import threading
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedkd.audit import EVENTS, Log
from fedkd.audit.passphrase import PASSPHRASE_FILE
from fedkd.audit.retention import NEVER, spelled
from fedkd.audit.verify import leaf_hash, verify_inclusion
from fedkd.audit.verify.logs import check_log
from fedkd.cli.app import run as fedkd
from fedkd.deploy.approving import every_proposal, rule
from fedkd.deploy.consent import Desk, Shelf
from fedkd.deploy.decisions import decided
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.retention import counted, due_at, erase_due, rules_of
from fedkd.deploy.site_file import SiteFile
from fedkd.federation.excluded import FILE
from fedkd.federation.excluding import exclude
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import Distributions
from fedkd.wire import (
    Answer,
    Closed,
    Considered,
    Message,
    Proposal,
    Ruling,
    decode,
    encode,
    opened,
)
from tests.deploy.federated import Federated, FederatedGrid, approve, taken_in
from tests.deploy.services import services, until
from tests.deploy.test_locked import SAID, here
from tests.deploy.test_policy import question, with_policy

TYPE = "train.local"
RULES = {TYPE: 365, "release.refused": 200}
RULE = "retention in site.yaml: train.local is kept for 365 days"
NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=4000)


def ruled(hospital: Hospital, rules: Mapping[str, int]) -> None:
    """Types these rules into the hospital's site.yaml."""
    typed = yaml.safe_load(hospital.site_yaml.read_text())
    hospital.site_yaml.write_text(
        yaml.safe_dump({**typed, "retention": dict(rules)}, sort_keys=False)
    )


def say(folder: Path, days: int, type: str = TYPE, **body: Any) -> int:
    """Has the log in a site's folder say something that was written so many days ago."""
    at = spelled(NOW - timedelta(days=days))
    with Log(folder / "log.sqlite", "north", now=lambda: at) as log:
        said = {"dp": None, "output": f"written {days} days ago", **body}
        return log.append(f"said {len(log)}", type, said).index


def open_bodies(folder: Path, type: str = TYPE) -> list[int]:
    with Log(folder / "log.sqlite", "north") as log:
        return [entry.index for entry in log.entries(type) if entry.said is not None]


def erase(hospital: Hospital, *words: object) -> int:
    return fedkd(["site", "erase", str(hospital.folder), *map(str, words)])


@pytest.fixture
def north(federated: Federated) -> Hospital:
    """Two rules; in both logs an old body of each of two runs, of which one went on since."""
    hospital = federated.hospitals["north"]
    ruled(hospital, RULES)
    for folder in (hospital.site, hospital.rehearsal):
        say(folder, 900, run="long")
        say(folder, 500, run="over")
        say(folder, 400, run="over")
        say(folder, 300, run="long")
    return hospital


def test_what_is_due_is_shown_and_nothing_is_erased(
    north: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [check_log(folder / "log.sqlite") for folder in (north.site, north.rehearsal)]
    assert erase(north) == 0
    said = capsys.readouterr()
    oldest, youngest = ((NOW - timedelta(days=days)).date().isoformat() for days in (500, 400))
    for folder in ("site", "rehearsal"):
        shown = f"2 bodies are due, the oldest of {oldest}, the youngest of {youngest}"
        assert f"{folder:9} train.local after 365 days: {shown}" in said.out
        assert f"{folder:9} release.refused after 200 days: nothing is due" in said.out
    assert said.out.count("kept: entries of run long, because it went on later") == 2
    assert f"nothing was erased yet: fedkd site erase {north.folder} --yes" in said.out
    assert "not reached: outbox/" in said.out
    assert said.err == ""
    assert erase(north, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["yes"], told["retention"]) == (False, RULES)
    assert [(it["folder"], it["type"], it["due"], it["erased"]) for it in told["found"]] == [
        ("site", TYPE, 2, []),
        ("site", "release.refused", 0, []),
        ("rehearsal", TYPE, 2, []),
        ("rehearsal", "release.refused", 0, []),
    ]
    assert told["found"][0]["kept"] == {"long": "it went on later"}
    after = [check_log(folder / "log.sqlite") for folder in (north.site, north.rehearsal)]
    assert after == before


def test_with_a_yes_what_is_due_goes_and_every_proof_holds(
    north: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {folder: check_log(folder / "log.sqlite") for folder in (north.site, north.rehearsal)}
    long_run = open_bodies(north.site)[0]
    assert erase(north, "--yes", "--json") == 0
    told = {(it["folder"], it["type"]): it for it in json.loads(capsys.readouterr().out)["found"]}
    for folder, was in before.items():
        row = told[folder.name, TYPE]
        assert (row["youngest_days"], row["warning"], len(row["erased"])) == (400, None, 2)
        assert told[folder.name, "release.refused"]["entry"] is None
        now = check_log(folder / "log.sqlite", every_signature=True)
        applied = now.entries[row["entry"]]
        assert applied.header.type == "retention.applied"
        assert applied.body is not None
        assert (applied.body["rule"], applied.body["erased"]) == (RULE, row["erased"])
        assert now.tree.root(len(was.entries)) == was.root
        for at, leaf in enumerate(was.entries):
            found = now.entries[at]
            assert found.header == leaf.header
            assert found.body == (None if at in row["erased"] else leaf.body)
            proof = now.tree.inclusion(at, len(now.entries))
            digest = leaf_hash(leaf.header.to_bytes())
            verify_inclusion(at, len(now.entries), digest, proof, now.root)
        assert fedkd(["audit", "verify", str(folder / "log.sqlite")]) == 0
    assert long_run in open_bodies(north.site)
    content = (north.site / "log.sqlite").read_bytes()
    for days, is_there in ((900, True), (500, False), (400, False), (300, True)):
        assert (f"written {days} days ago".encode() in content) is is_there
    capsys.readouterr()
    assert erase(north, "--yes") == 0
    assert capsys.readouterr().out.count("nothing is due") == 4


@pytest.mark.parametrize("rules", [{}, RULES])
def test_where_there_is_no_rule_or_no_log_nothing_happens(
    federated: Federated, capsys: pytest.CaptureFixture[str], rules: dict[str, int]
) -> None:
    north = federated.hospitals["north"]
    ruled(north, rules)
    if rules:
        for folder in (north.site, north.rehearsal):
            (folder / "site.json").unlink()
    else:
        say(north.site, 5000)
    content = (north.site / "log.sqlite").read_bytes()
    assert erase(north, "--yes") == 0
    expected = "has no log yet" if rules else "nothing is ever erased"
    assert expected in capsys.readouterr().out
    assert (north.site / "log.sqlite").read_bytes() == content


def test_a_rule_below_six_months_is_warned_of(
    north: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    ruled(north, {TYPE: 30})
    say(north.site, 40, run="short")
    for words in ((), ("--yes",)):
        assert erase(north, *words) == 0
        warned = capsys.readouterr().err
        assert "the youngest of these was 40 days old" in warned
        assert "(site: train.local after 30 days)" in warned
    assert fedkd(["site", "check", str(north.folder)]) == 0
    assert "sooner than six months (183 days, AI Act, Art. 19(1)): train.local" in (
        capsys.readouterr().out
    )


def test_check_and_status_say_what_is_due(
    north: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    def check() -> dict[str, str]:
        fedkd(["site", "check", str(north.folder), "--json"])
        checks = json.loads(capsys.readouterr().out)["checks"]
        (found,) = (it for it in checks if it["check"] == "retention")
        return dict(found)

    def status(*words: str) -> str:
        assert fedkd(["site", "status", str(north.folder), *words]) == 0
        return capsys.readouterr().out

    command = f"fedkd site erase {north.folder}"
    rules = "train.local after 365 days, release.refused after 200 days"
    due = "bodies are due to be erased: 4 of train.local"
    assert check() == {
        "check": "retention", "outcome": "passed", "found": f"{rules}; {due}", "fix": command,
    }  # fmt: skip
    assert json.loads(status("--json"))["retention"] == {"days": RULES, "due": {TYPE: 4}}
    assert f"retention {due}: {command}" in status()
    assert erase(north, "--yes") == 0
    capsys.readouterr()
    assert check()["found"] == f"{rules}; nothing is due"
    assert json.loads(status("--json"))["retention"]["due"] == {}
    ruled(north, {})
    assert check()["found"] == "no rule: nothing that the log says is ever erased"
    assert "retention" not in status()
    north.site_yaml.write_text("format: 1\n")
    assert json.loads(status("--json"))["retention"] is None


def test_logs_are_checked_before_anything_is_erased(
    north: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also the second of them: what does not hold is evidence."""
    with closing(Log(north.rehearsal / "log.sqlite", "north")) as log:
        log._database.execute("UPDATE entries SET body = '{}' WHERE place = 1")
    before = (north.site / "log.sqlite").read_bytes()
    assert erase(north, "--yes") == 1
    said = capsys.readouterr()
    assert "entry 1" in said.err
    assert said.out == ""
    assert (north.site / "log.sqlite").read_bytes() == before


def test_a_log_that_somebody_reads_is_left_alone(
    north: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    with Log(north.site / "log.sqlite", "north") as log:
        log.append("now", "error.raised", {})
        assert erase(north, "--yes") == 3
    assert "a log that nobody has open" in capsys.readouterr().err
    assert len(open_bodies(north.site)) == 4


def test_a_locked_hospital_shows_what_is_due_and_erases_with_its_passphrase(
    north: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (PASSPHRASE_FILE, "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(SAID + "\n")
    passphrase.chmod(0o600)
    opens = ("--passphrase-file", passphrase)
    assert here("site", "lock", north.folder, *opens).returncode == 0
    words = ("site", "erase", north.folder)
    assert "2 bodies" in here(*words).stdout
    refused = here(*words, "--yes")
    assert refused.returncode == 2
    assert "no passphrase" in refused.stderr
    assert len(open_bodies(north.site)) == 4
    assert here(*words, "--yes", *opens).returncode == 0
    assert len(open_bodies(north.site)) == 2
    assert here("audit", "verify", north.site / "log.sqlite").returncode == 0


def test_it_waits_for_the_turn_that_is_taken(north: Hospital) -> None:
    done: list[int] = []
    at_work = threading.Thread(target=lambda: done.append(erase(north, "--yes")))
    with SiteFolder(north.site).turn():
        at_work.start()
        until(lambda: not at_work.is_alive() or is_waited_for(north.site / ".turn"))
        assert at_work.is_alive()
        assert len(open_bodies(north.site)) == 4
    at_work.join()
    assert done == [0]
    assert len(open_bodies(north.site)) == 2


def is_waited_for(path: Path) -> bool:
    """Whether somebody is waiting for the lock on a file (proc_locks(5))."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and f":{path.stat().st_ino} " in line for line in lines)


@pytest.mark.deploy
def test_it_erases_while_the_service_runs(federated: Federated, north: Hospital) -> None:
    with services(federated) as running:
        assert erase(north, "--yes") == 0
        assert len(open_bodies(north.site)) == 2
        assert running["north"].entries("retention.applied")[0]["rule"] == RULE
        run = federated.proposed(rehearsal=True)
        body, signature = run.paper()
        said = running["north"].said(Proposal(run.id, np.frombuffer(body, np.uint8), signature))
        assert isinstance(said, Considered)
        assert said.ruling is Ruling.REHEARSING


class Heard(FederatedGrid):
    """A grid that keeps what north was sent, and what it said."""

    def __init__(self, federated: Federated) -> None:
        super().__init__(federated)
        self.letters: list[tuple[bytes, bytes]] = []
        handle = self.desks["north"].handle

        def kept(letter: bytes) -> bytes:
            self.letters.append((letter, handle(letter)))
            return self.letters[-1][1]

        self.desks["north"].handle = kept  # type: ignore[method-assign]


def test_after_all_was_erased_that_may_be_a_hospital_goes_on_and_spends_nothing(
    private: Federated, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Ten years later, under a rule for every type that a rule may be for."""
    north = private.hospitals["north"]
    run, declined = (private.proposed("mechanism=dp_training", f"seed={seed}") for seed in (7, 8))
    for each in (run, declined):
        taken_in(private, each)
    approve(private, run)
    shelf = Shelf(north)
    no = rule(north, shelf.read(declined.proposal().digest), private.build, by="Bo", decline="no")
    assert no.ruling is Ruling.DECLINED
    grid = Heard(private)
    private.conducted(run, grid)
    exclude(SiteFolder(north.site), ["1"], "a wish")
    spent = ledger(north)
    erasable = sorted(EVENTS - NEVER.keys())
    ruled(north, dict.fromkeys(erasable, 1))
    rules = rules_of(SiteFile.read(north.site_yaml))
    due = counted(due_at(north, rules, LATER))
    assert {TYPE, "release.refused", "checkpoint.witnessed"} <= due.keys()
    assert counted([*erase_due(north, rules, LATER)]) == due
    with SiteFolder(north.site).log("north") as log:
        assert all((it.said is None) is (it.type in due) for it in log.entries())
        found = decided(log, declined.id)
        assert found is not None
        assert (found.ruling, found.by) == (Ruling.DECLINED, "(erased)")
    assert ledger(north) == spent

    # The same questions get the same answers; nothing is trained or charged for again.
    again = Desk(north.folder, private.build)
    answered = [(letter, said) for letter, said in grid.letters if isinstance(read(said), Answer)]
    assert answered
    for letter, said in answered:
        assert opened(again.handle(letter))[1] == opened(said)[1]
    assert ledger(north) == spent

    states = [one.state for one in every_proposal(north, private.build)]
    assert sorted(states) == ["approved", "declined"]
    site = str(north.site)
    for words in (
        ["site", "approve", str(north.folder)],
        ["site", "status", str(north.folder)],
        ["site", "check", str(north.folder)],
        ["site", "sent", site],
        ["site", "report", site, "--out", str(tmp_path / "paper")],
        ["privacy", "status", site],
        ["audit", "verify", f"{site}/log.sqlite"],
    ):
        assert fedkd(words) == 0, (words, capsys.readouterr())
    # Whoever said no may say yes, who was taken out stays out, and another run goes its way.
    approve(private, declined)
    (north.site / FILE).unlink()
    private.conducted(declined)
    assert len(SiteFolder(north.site).train()) == len(SiteFolder(north.site).everyone()) - 1
    assert ledger(north) > spent


def test_a_run_that_rested_for_longer_than_its_rules_goes_on_and_is_not_paid_twice(
    private: Federated,
) -> None:
    """A hospital's log does not say that a run is over: what it said of this one is gone."""
    north = private.hospitals["north"]
    with_policy(private, "north", fewest_cosigners=0)
    run = private.proposed("mechanism=dp_training", "audit.cosigners=0")
    taken_in(private, run)
    approve(private, run, "north")
    desk = Desk(north.folder, private.build)
    first = desk.handle(encode(question(run)))
    spent, _ = ledger(north)
    ruled(north, dict.fromkeys(sorted(EVENTS - NEVER.keys()), 1))
    assert TYPE in counted([*erase_due(north, rules_of(SiteFile.read(north.site_yaml)), LATER)])
    assert not open_bodies(north.site)
    assert desk.handle(encode(question(run))) == first
    lesson = Distributions(np.full((30, 2), 0.5, dtype=np.float32), question(run).about)
    for changes, kind in (({"round": 2}, Answer), ({"round": 3, "closing": True}, Closed)):
        asked = question(run, lesson=lesson, **changes)
        assert isinstance(read(desk.handle(encode(asked))), kind)
    assert ledger(north)[0] == spent


def read(said: bytes) -> Message:
    """The message in a letter."""
    return decode(opened(said)[1], 1 << 20)


def ledger(hospital: Hospital) -> tuple[float, int]:
    """What is spent, and in how many charges."""
    with SiteFolder(hospital.site).log("north") as log:
        found = ledger_of(log, "north")
        return found.spent(), len(found.charged)
