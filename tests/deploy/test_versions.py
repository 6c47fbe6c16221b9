"""Sites and coordinators of other versions: who is answered, who is refused, and what is said."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedkd
from fedkd.audit import Log
from fedkd.audit.officer import sign_paper
from fedkd.audit.verify import canonical, parsed
from fedkd.cli.app import run as command
from fedkd.cli.deployed import DeployedRun
from fedkd.cli.lines import QUIET
from fedkd.deploy import standing as standings
from fedkd.deploy.bundles import allow, allowed, digits_of
from fedkd.deploy.consent import Desk, Shelf
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.knock import APPROVED
from fedkd.deploy.letterbox import Letterbox
from fedkd.deploy.preparing import Whose, prepare_letterbox
from fedkd.deploy.proposals import KIND
from fedkd.deploy.service import expect_readable, remember
from fedkd.deploy.socket import listening
from fedkd.deploy.standing import standing
from fedkd.deploy.turns import Service
from fedkd.deploy.versions import advice, versions_of
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.flower import bundle as bundles
from fedkd.knowledge import OtherFormat
from fedkd.wire import (
    Considered,
    OtherVersion,
    Proposal,
    Reason,
    Refusal,
    RollCall,
    Ruling,
    decode,
    encode,
    messages,
    pack,
)
from fedkd.wire import Message as Said
from tests.deploy.federated import Federated, FederatedGrid, approve, taken_in
from tests.deploy.figured import made as figures_allowed
from tests.deploy.figured import proposed as evaluation_of
from tests.deploy.figured import trained
from tests.deploy.test_policy import with_policy

NEXT = "0.2.0"
TOMORROW = pack({"v": 2, "kind": "question_of_tomorrow", "run": "run-1"}, {})
NEXT_MAJOR = encode(RollCall("run-1")).replace(b"fedkd/1\n", b"fedkd/2\n")


@contextmanager
def updated() -> Iterator[None]:
    """In it this process has a fedkd that is a minor version ahead: another bundle, for real."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (fedkd, bundles, standings):
            patch.setattr(module, "__version__", NEXT)
        bundles.bundle_digest.cache_clear()
        yield
    bundles.bundle_digest.cache_clear()


def proposed_ahead(federated: Federated, *, rehearsal: bool = False) -> DeployedRun:
    """A run that a coordinator proposes after its update; the hospitals have the old fedkd."""
    with updated():
        run = federated.proposed(rehearsal=rehearsal)
    assert run.proposal().software == f"fedkd {NEXT}"
    assert run.proposal().bundle != bundles.bundle_digest()
    return run


def letter_of(run: DeployedRun) -> bytes:
    body, signature = run.paper()
    return encode(Proposal(run.id, np.frombuffer(body, np.uint8), signature))


@contextmanager
def letterbox_of(federated: Federated, site: str) -> Iterator[Letterbox]:
    """A hospital's letterbox, its service behind it in a thread."""
    hospital = federated.hospitals[site]
    prepare_letterbox(hospital, Whose())
    desk = Desk(hospital.folder, federated.build)
    running = Service(desk, lambda told: remember(hospital, told))
    worker = threading.Thread(target=running.work)
    with listening(hospital.socket, 0o600) as listener:
        running.listen(listener)
        worker.start()
        try:
            yield Letterbox.at(hospital.letterbox)
        finally:
            running.stop()
            worker.join()


def said(reply: bytes) -> Said:
    return decode(reply, 1 << 16)


def refusals(hospital: Hospital) -> list[str]:
    with Log(hospital.site / "log.sqlite", hospital.name) as log:
        return [entry.body["rule"] for entry in log.entries("release.refused")]


# The wire.


def test_who_is_one_version_ahead_writes_what_was_there_before_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = encode(RollCall("run-1"))
    monkeypatch.setattr(messages, "VERSION", 2)
    assert encode(RollCall("run-1")) == before
    assert decode(before, 1 << 16) == RollCall("run-1")


@pytest.mark.parametrize("letter", [TOMORROW, NEXT_MAJOR], ids=["a newer kind", "another major"])
def test_what_a_newer_version_brought_is_refused_as_that(
    federated: Federated, letter: bytes
) -> None:
    with pytest.raises(OtherVersion):
        decode(letter, 1 << 16)
    desk = Desk(federated.hospitals["east"].folder, federated.build)
    assert said(desk.handle(letter)) == Refusal("east", "unknown", 0, Reason.VERSION)
    with letterbox_of(federated, "east") as box:
        for known in (True, False):  # of whatever bundle it came in
            assert said(box.post(letter, known)) == Refusal("east", "unknown", 0, Reason.VERSION)
    assert set(refusals(federated.hospitals["east"])) == {"version", "letterbox: version"}


@pytest.mark.parametrize("version", [0, -1, True, None, "1", 1.5])
def test_a_version_that_never_was_is_none(version: Any) -> None:
    with pytest.raises(messages.Malformed):
        decode(pack({"v": version, "kind": "roll_call", "run": "run-1"}, {}), 1 << 16)


# A coordinator that was updated first.


def test_a_new_bundles_proposal_is_shown_and_nothing_else_passes_until_a_person_lets_it_in(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    run, east = proposed_ahead(federated), federated.hospitals["east"]
    new = run.proposal().bundle
    words = ["site", "approve", str(east.folder), run.id, "--yes", "--by", "Ada"]
    with letterbox_of(federated, "east") as box:
        assert not box.allows(new)
        answered = said(box.post(letter_of(run), False))
        assert isinstance(answered, Considered)
        assert answered.ruling is Ruling.PENDING
        asked = said(box.post(encode(RollCall(run.id)), False))
        assert asked == Refusal("east", run.id, 0, Reason.NOT_APPROVED)
        assert command(["site", "status", str(east.folder)]) == 0
        told = capsys.readouterr().out
        assert f"fedkd     {fedkd.__version__} here, {NEXT} at the coordinator" in told
        assert f"{digits_of(bundles.bundle_digest())} allowed here" in told
        assert f"proposes with the bundle {digits_of(new)}" in told
        assert "update soon: docs/deploy.md, Updating" in told
        assert command(words[:4]) == 0
        assert f"NEW here, where {digits_of(bundles.bundle_digest())}" in capsys.readouterr().out
        assert command(words) == 2
        assert digits_of(new) in capsys.readouterr().err
        assert command([*words, "--bundle", digits_of(bundles.bundle_digest())]) == 2
        assert command([*words, "--bundle", new[:8]]) == 2  # too few to compare
        assert not box.allows(new)
        assert command([*words, "--bundle", digits_of(new).upper()]) == 0
        assert box.allows(new)
        capsys.readouterr()
        assert command(["site", "status", str(east.folder), "--json"]) == 0
        versions = json.loads(capsys.readouterr().out)["versions"]
    assert versions["bundles"] == [bundles.bundle_digest(), new]
    assert versions["coordinator"]["software"] == NEXT
    assert "letterbox: bundle" in refusals(east)


def test_a_new_bundle_that_comes_with_an_evaluation_is_told_of(tmp_path: Path) -> None:
    federated = figures_allowed(tmp_path / "all")
    run, east = trained(federated), federated.hospitals["east"]
    with updated():
        evaluation = evaluation_of(run)
    taken_in(federated, evaluation)
    prepare_letterbox(east, Whose())
    found, paper = versions_of(east, None), evaluation.proposal()
    assert found["coordinator"]["software"] == NEXT
    assert found["coordinator"]["run"] == run.id
    (_, bundle) = advice(east, found)
    assert digits_of(paper.bundle) in bundle
    named = paper.digest.removeprefix("sha256:")[:12]
    assert f"fedkd site approve {east.folder} {named} --model FILE --bundle DIGITS" in bundle
    model = str(run.folder / "student.safetensors")
    words = ["site", "approve", str(east.folder), named, "--model", model, "--yes", "--by", "Ada"]
    assert command([*words, "--bundle", digits_of(paper.bundle)]) == 0
    assert paper.bundle in versions_of(east, None)["bundles"]


def test_sites_that_are_one_minor_version_behind_answer_a_whole_run(federated: Federated) -> None:
    run = proposed_ahead(federated)
    taken_in(federated, run)
    approve(federated, run)
    summary = read_json(federated.conducted(run) / "summary.json")
    assert not any(row["left_out"] for row in summary["clients"])
    found = standing(federated.server).to_json()
    assert {row["software"] for row in found["sites"]} == {fedkd.__version__}
    assert found["bundle"] == bundles.bundle_digest()
    assert found["progress"][0]["software"] == dict.fromkeys(federated.hospitals, fedkd.__version__)
    assert not found["warnings"]
    with updated():
        found = standing(federated.server).to_json()
    assert (found["software"], found["bundle"]) == (NEXT, run.proposal().bundle)
    assert found["warnings"] == [
        f"{site} runs fedkd {fedkd.__version__}, the coordinator's {NEXT}: "
        "update soon: docs/deploy.md, Updating"
        for site in federated.hospitals
    ]


def test_a_rehearsal_in_a_new_bundle_waits_for_a_person(federated: Federated) -> None:
    before = taken_in(federated, federated.proposed(rehearsal=True))["east"]
    after = taken_in(federated, proposed_ahead(federated, rehearsal=True))["east"]
    assert isinstance(before, Considered)
    assert isinstance(after, Considered)
    assert (before.ruling, after.ruling) == (Ruling.REHEARSING, Ruling.PENDING)


def test_a_bundle_is_let_in_without_taking_the_list_from_who_reads_it(tmp_path: Path) -> None:
    path = tmp_path / APPROVED
    path.write_text("ab" * 32)  # as somebody typed it, without an end of line
    path.chmod(0o640)
    before = path.stat()
    for _ in range(2):
        allow(tmp_path, "cd" * 32)
    assert allowed(tmp_path) == ("ab" * 32, "cd" * 32)
    after = path.stat()
    assert (before.st_ino, before.st_mode, before.st_gid) == (
        after.st_ino, after.st_mode, after.st_gid,
    )  # fmt: skip


def test_a_run_is_not_resumed_in_another_bundle_than_was_approved(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    run = proposed_ahead(federated)
    words = ["run", "--federation", str(federated.server.folder), "--resume", str(run.folder)]
    assert command(words) == 2
    assert f"proposed with fedkd {NEXT}" in capsys.readouterr().err


# A site that is too far behind.


class FromTheNextMajor(FederatedGrid):
    """A grid whose server writes to one site as the next major version would."""

    def __init__(self, federated: Federated, site: str) -> None:
        super().__init__(federated)
        self.desks[site] = _Newer(federated.hospitals[site].folder, federated.build)


class _Newer(Desk):
    def handle(self, letter: bytes) -> bytes:
        return super().handle(letter.replace(b"fedkd/1\n", b"fedkd/2\n", 1))


def test_a_site_a_major_version_behind_is_refused_by_and_people_are_told_what_to_do(
    federated: Federated, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(QUIET, raising=False)
    run, west = federated.proposed(), federated.hospitals["west"]
    taken_in(federated, run)
    approve(federated, run, "east", "north")
    folder = federated.conducted(run, FromTheNextMajor(federated, "west"))
    here = fedkd.__version__
    assert (
        f"west: refused: version (fedkd {here} there, {here} here); its fedkd does not read what "
        "this one sends: bring that hospital the wheelhouse"
    ) in capsys.readouterr().err
    clients = {row["site"]: row for row in read_json(folder / "summary.json")["clients"]}
    assert clients["west"]["left_out"] == [{"round": 0, "reason": "refused: version"}]
    assert command(["site", "status", str(west.folder)]) == 0
    assert "sent what fedkd" in (told := capsys.readouterr().out)
    assert "ask it for the wheelhouse" in told


def test_a_proposal_of_a_newer_format_is_refused_as_that(federated: Federated) -> None:
    run = federated.proposed()
    newer = {**parsed(run.paper()[0], KIND), "format": 2, "said since": "tomorrow"}
    body = canonical(newer, KIND)
    signature = sign_paper(federated.server.key(), KIND, body).decode()
    east = federated.hospitals["east"]
    letter = encode(Proposal(run.id, np.frombuffer(body, np.uint8), signature))
    reply = said(Desk(east.folder, federated.build).handle(letter))
    assert reply == Refusal("east", run.id, 0, Reason.VERSION)
    assert "install that one here" in (east.site / "errors.txt").read_text()
    assert not Shelf(east).all()


def test_a_paper_whose_queries_only_another_version_draws_is_refused_before_a_person_is_asked(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code of a generator is in its sets' names: after a yes each round would be refused."""
    run, east = federated.proposed(), federated.hospitals["east"]
    true = run.proposal()
    other = replace(true, query={**true.query, "code": "sha256:" + "0" * 64})
    body = np.frombuffer(other.to_bytes(), np.uint8)
    letter = encode(Proposal(run.id, body, other.signed(federated.server.key())))
    desk = Desk(east.folder, federated.build)
    assert said(desk.handle(letter)) == Refusal("east", run.id, 0, Reason.VERSION)
    assert "install the coordinator's version" in (east.site / "errors.txt").read_text()
    assert not Shelf(east).all()
    assert command(["site", "status", str(east.folder)]) == 0
    assert "ask it for the wheelhouse" in capsys.readouterr().out
    # A set that people here have seen, and listed, needs no drawing.
    with_policy(federated, query_sets={"digests": ["sha256:" + "1" * 64]})
    assert isinstance(said(desk.handle(letter)), Considered)


# Folders.


def newer_folder(site: Path) -> None:
    write_json(site / "site.json", {**read_json(site / "site.json"), "format": 2})


def newer_log(site: Path) -> None:
    with closing(sqlite3.connect(site / "log.sqlite")) as database:
        database.execute("PRAGMA user_version=99")


@pytest.mark.parametrize("write", [newer_folder, newer_log], ids=lambda it: it.__name__)
def test_a_folder_that_a_newer_version_wrote_is_left_alone_and_says_what_to_do(
    federated: Federated, write: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    east = federated.hospitals["east"]
    write(east.site)
    before = (east.site / "log.sqlite").read_bytes()
    with pytest.raises(OtherFormat, match="a newer fedkd wrote it: install that one"):
        expect_readable(east)
    assert command(["site", "status", str(east.folder)]) == 2
    assert "a newer fedkd wrote it" in capsys.readouterr().err
    assert (east.site / "log.sqlite").read_bytes() == before


def test_a_log_of_an_older_version_is_made_into_this_ones(federated: Federated) -> None:
    east = federated.hospitals["east"]
    with closing(sqlite3.connect(east.site / "log.sqlite")) as database:
        for table in ("seen", "cosignatures"):
            database.execute(f"DROP TABLE {table}")
        database.execute("PRAGMA user_version=2")
    expect_readable(east)
    with closing(sqlite3.connect(east.site / "log.sqlite")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (3,)
    run = federated.proposed()
    assert isinstance(taken_in(federated, run)["east"], Considered)


@pytest.mark.deploy
def test_a_service_does_not_start_on_what_a_newer_version_wrote(federated: Federated) -> None:
    east = federated.hospitals["east"]
    newer_folder(east.site)
    done = subprocess.run(
        [sys.executable, "-I", "-m", "fedkd.deploy.service", str(east.folder)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "found a site folder of format 2, expected format 1; a newer fedkd" in done.stderr
