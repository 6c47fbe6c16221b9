"""What an auditor trusts and remembers decides the verdict: policies, quorums, kept checkpoints."""

import shutil
from pathlib import Path

import pytest

from fedkd.audit.verify import Refuted, TrustPolicy, quorum_table
from fedkd.audit.verify.auditor import read_small
from tests.audit_verify.federation import NOW, RUN, SITES, Federation, Party
from tests.audit_verify.verdicts import (
    CANNOT_TELL,
    CONSISTENT,
    VERIFIED,
    as_json,
    check_of,
    judged,
    log_of,
    refuted,
    said,
    verdicts,
)

CHECKS = {"kept heads", "keys", "double entry", "lineage"}


def test_logs_with_their_own_keys_are_consistent_and_no_more(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(capsys, "verify", run)
    assert code == 0
    assert "VERIFIED" not in out
    assert "CONSISTENT   server         19 entries" in out
    assert "cosigned to entry 19 of 19 by 3 of 3 (k=2)" in out
    assert out.splitlines()[-1].startswith("CONSISTENT: the keys came with the logs.")
    assert set(verdicts(judged(run))) == {"server", *SITES, *CHECKS}
    assert check_of(judged(run), "double entry").why.startswith("6 answers")


def test_logs_are_verified_by_the_auditors_own_policies(
    run: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(capsys, "verify", run, "--policy", policies)
    assert code == 0
    assert out.count("VERIFIED     s") == 4
    assert "19 of 19 entries" in out
    assert out.splitlines()[-1] == "VERIFIED: by your policy, as far as said above."


def test_one_policy_file_may_name_several_logs(
    federation: Federation, run: Path, tmp_path: Path
) -> None:
    parties = federation.parties
    everybody = {name: party.witness.verifier() for name, party in parties.items()}
    logs = [party.key.verifier() for party in parties.values()]
    (tmp_path / "mine").write_bytes(TrustPolicy.of(logs, everybody, 3).text())
    report = judged(run, policy=tmp_path / "mine")
    assert report.verdict == VERIFIED
    assert log_of(report, "site-02").quorum.by.keys() == {"server", "site-01", "site-03"}
    # a log that it does not name cannot be told, and none is verified with another's policy
    (tmp_path / "few").write_bytes(TrustPolicy.of(logs[:1], everybody, 3).text())
    report = judged(run, policy=tmp_path / "few")
    assert report.verdict == CANNOT_TELL
    assert {name: verdicts(report)[name] for name in parties} == {
        "server": VERIFIED,
        **dict.fromkeys(SITES, CANNOT_TELL),
    }
    one = judged(run / "audit" / "site-01.sqlite", policy=tmp_path / "few")
    refuted(one, "site-01", "origin", "one that the policy names")


def test_entries_beyond_the_quorum_are_shown_as_such(
    federation: Federation, run: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = federation.server
    for number in range(3):
        server.append("error.raised", {"run": "run-1", "kind": f"late {number}"})
    federation.sites["site-01"].cosigns(server)  # one of three, where two are needed
    server.write(run / "audit")
    code, out, _ = said(capsys, "verify", run, "--policy", policies)
    assert code == 0
    assert "19 of 22 entries" in out
    assert "3 entries beyond the last cosigned head" in out
    assert "cosigned by 3 of 3 (k=2), last at 2026-11-24T06:01:00Z" in out
    code, out, _ = said(capsys, "verify", run)
    assert "cosigned to entry 19 of 22 by 3 of 3 (k=2)" in out
    federation.sites["site-02"].cosigns(server, NOW + 120)
    server.write(run / "audit")
    _, told = as_json(capsys, "verify", run, "--policy", policies)
    cosigned = next(log for log in told["logs"] if log["log"] == "server")["cosigned"]
    assert (cosigned["size"], cosigned["beyond"], cosigned["met"]) == (22, 0, 2)
    assert cosigned["by"] == {"site-01": NOW, "site-02": NOW + 120}


def test_a_log_without_a_policy_cannot_be_told(run: Path, policies: Path) -> None:
    (policies / "site-02.policy").unlink()
    report = judged(run, policy=policies)
    assert verdicts(report)["site-02"] == CANNOT_TELL
    assert verdicts(report)["site-01"] == VERIFIED
    assert report.verdict == CANNOT_TELL
    assert "no 'site-02.policy'" in str(log_of(report, "site-02").error)


def test_a_log_that_does_not_hold_is_refuted_also_without_a_policy(
    federation: Federation, run: Path, policies: Path
) -> None:
    (policies / "site-02.policy").unlink()
    federation.sites["site-02"].notes[3] = federation.sites["site-02"].notes[2]
    federation.sites["site-02"].write(run / "audit")
    refuted(judged(run, policy=policies), "site-02", "size 3", "size 4")


def test_a_policy_for_a_log_that_is_not_here_is_told(run: Path, policies: Path) -> None:
    (run / "audit" / "site-03.sqlite").unlink()
    report = judged(run, policy=policies)
    assert report.verdict == CANNOT_TELL
    assert "site-03" in check_of(report, "missing log").why
    assert "no log of 'site-03' that holds" in check_of(report, "double entry").why
    assert judged(run).verdict == CANNOT_TELL


def test_a_log_that_a_policy_alone_names_is_told(
    federation: Federation, run: Path, policies: Path, tmp_path: Path
) -> None:
    shutil.copy(policies / "site-01.policy", policies / "site-09.policy")
    missing = check_of(judged(run, policy=policies), "missing log")
    assert missing.why == "found no log of 'site-09', for which there is a policy"
    keys = {name: party.witness.verifier() for name, party in federation.parties.items()}
    logs = [party.key.verifier() for party in (*federation.parties.values(), Party("site-09"))]
    (tmp_path / "mine").write_bytes(TrustPolicy.of(logs, keys, 3).text())
    report = judged(run, policy=tmp_path / "mine")
    assert report.verdict == CANNOT_TELL
    missing = check_of(report, "missing log")
    assert missing.why == "found no log 'fedkd.invalid/site-09/00000001', which the policy names"


def test_a_file_of_the_auditors_is_not_read_without_end(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(101))
    assert read_small(path, 101) == bytes(101)
    with pytest.raises(Refuted, match="'long': found more than 100 bytes"):
        read_small(path, 100)


def test_a_log_with_another_key_than_the_policys_is_refuted(run: Path, policies: Path) -> None:
    other = Federation(kind="other").write_policies(policies.parent / "others")
    shutil.copy(other / "site-02.policy", policies)
    refuted(judged(run, policy=policies), "site-02", "origin", "fedkd.invalid/other/site-02")


def test_a_log_whose_key_was_replaced_under_its_name_is_refuted(
    federation: Federation, run: Path, policies: Path
) -> None:
    site = federation.sites["site-02"]
    replaced = Party("site-02")
    replaced.key = type(site.key)(site.origin, site.key.algorithm, bytes(32))
    for row in site.rows:
        replaced.add_row(row)
    replaced.write(run / "audit")
    for beside in ("site-02.checkpoint", "site-02.policy"):
        (run / "audit" / beside).unlink()
    refuted(judged(run, policy=policies), "site-02", "key", "which the policy names")
    # without a policy the others' memory and roster still know the old key
    report = judged(run)
    refuted(report, "site-02", "did not sign")
    refuted(report, "keys", "which signs its log here")


@pytest.mark.parametrize("of_the_run", [True, False])
def test_a_hospital_in_another_run_knows_another_server(of_the_run: bool, tmp_path: Path) -> None:
    """A server has a key for each run; what was said for the run at hand still has to hold."""
    federation = Federation()
    other = Party("server", kind="other").key.verifier().text()
    site = federation.sites["site-02"]
    run = RUN if of_the_run else "another-run"
    site.append("party.enrolled", {"party": "site-02", "run": run, "peers": {"server": {
        "vkey": other, "witnesses": [],
    }}})  # fmt: skip
    federation.cosign_all()
    report = judged(federation.write(tmp_path / "run"))
    if of_the_run:
        refuted(report, "keys", "which signs its log here")
    else:
        assert check_of(report, "keys").verdict == CONSISTENT


def test_a_quorum_that_no_head_meets_refutes(
    federation: Federation, run: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = federation.sites["site-02"]
    site.cosignatures = {k: v for k, v in site.cosignatures.items() if "server" in k[1]}
    site.write(run / "audit")
    (run / "audit" / "site-02.checkpoint").write_bytes(site.note().to_bytes())
    refuted(judged(run, policy=policies), "site-02", "count by server", "2 of 3")
    code, out, _ = said(capsys, "verify", run)  # with its own keys it only says so
    assert code == 0
    assert "no head is cosigned by 2 of 3" in out


def test_cosignatures_may_come_from_the_checkpoint_that_lies_beside_the_log(
    federation: Federation, run: Path, policies: Path
) -> None:
    site = federation.sites["site-02"]
    site.cosignatures = {}
    site.write(run / "audit")
    report = judged(run, policy=policies)
    assert report.verdict == VERIFIED
    assert log_of(report, "site-02").quorum.size == site.size
    (run / "audit" / "site-02.checkpoint").unlink()
    refuted(judged(run, policy=policies), "site-02", "none", "2 of 3")


@pytest.mark.parametrize("name", ["site-02", "site-01"])
def test_a_checkpoint_beside_a_log_must_be_its_own(
    name: str, federation: Federation, run: Path
) -> None:
    beside = run / "audit" / "site-02.checkpoint"
    if name == "site-02":  # of an entry that the log does not have
        later = federation.sites[name].copy()
        later.append("error.raised", {"run": "run-1"})
        beside.write_bytes(later.note().to_bytes())
        refuted(judged(run), "site-02", "a roll-back", "site-02.checkpoint")
    else:
        shutil.copy(run / "audit" / "site-01.checkpoint", beside)
        refuted(judged(run), "site-02", "site-01")


def test_the_policy_beside_a_log_is_the_one_in_it(run: Path) -> None:
    path = run / "audit" / "site-02.policy"
    path.write_bytes(path.read_bytes().replace(b"cosigners 2", b"cosigners 1"))
    refuted(judged(run), "site-02", "another policy")


def test_a_policy_that_asks_for_nobody_says_so(
    federation: Federation, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = federation.server.key.verifier().text()
    (tmp_path / "alone").write_text(f"log {log}\nquorum none\n")
    code, out, _ = said(
        capsys, "verify", run / "audit" / "server.sqlite", "--policy", tmp_path / "alone"
    )
    assert code == 0
    assert "asks for no cosigner, so that its holder can rewrite it alone" in out


def test_a_policy_whose_log_key_is_a_witness_key_is_refused(
    federation: Federation, run: Path, policies: Path
) -> None:
    witness = federation.server.witness.verifier()
    both = type(witness)("w", witness.algorithm, federation.sites["site-01"].key.verifier().public)
    path = policies / "site-01.policy"
    path.write_bytes(path.read_bytes().replace(witness.text().encode(), both.text().encode()))
    refuted(judged(run, policy=policies), "site-01", "one key as log and witness", "two keys")


@pytest.mark.parametrize(
    "content", [b"", b"no policy\n", b"\x00\xff", b"quorum none", b"quorum a\n"]
)
def test_a_policy_that_is_none_refutes_and_verifies_nothing(
    content: bytes, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_bytes(content)
    report = judged(run / "audit" / "server.sqlite", policy=tmp_path / "mine")
    refuted(report, "server", "'mine'")


def test_what_came_with_the_logs_is_not_the_auditors_own(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = run / "audit"
    (tmp_path / "link").symlink_to(audit)
    for own in (audit, audit / "server.policy", tmp_path / "link"):
        assert said(capsys, "verify", run, "--policy", own)[0] == 2
        code, out, err = said(capsys, "verify", run, "--seen", own)
        assert (code, out) == (2, "")
        assert "beside the logs, expected your own" in err


def test_what_is_not_there_is_used_wrongly(
    run: Path, policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing, empty = tmp_path / "nothing", tmp_path / "empty"
    empty.mkdir()
    for arguments in (
        (nothing,),
        (empty,),
        (run, "--policy", nothing),
        (run, "--policy", empty),
        (run, "--seen", nothing),
        (run, "--seen", empty),
        (run, "--seen", policies),
    ):
        code, out, err = said(capsys, "verify", *arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("error: found")
        assert ", expected " in err


# Checkpoints that the auditor kept.


@pytest.fixture
def seen(federation: Federation, tmp_path: Path) -> Path:
    """What an auditor kept after the run, in subfolders, and one of an earlier size."""
    folder = tmp_path / "seen"
    for name, party in federation.parties.items():
        (folder / "2026" / name).mkdir(parents=True)
        (folder / "2026" / name / "last.checkpoint").write_bytes(party.note().to_bytes())
        (folder / f"{name} early.checkpoint").write_bytes(party.notes[2].to_bytes())
    return folder


def test_logs_go_on_from_what_was_kept(
    federation: Federation,
    run: Path,
    seen: Path,
    policies: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    federation.server.append("error.raised", {"run": "run-1"})
    federation.cosign_all(NOW + 120)
    federation.write(run)
    code, out, _ = said(capsys, "verify", run, "--seen", seen, "--policy", policies)
    assert code == 0
    assert out.count("goes on from 2 kept earlier") == 4


def test_a_log_that_was_rolled_back_is_refuted_by_what_was_kept(
    federation: Federation, run: Path, seen: Path
) -> None:
    path = federation.server.cut_to(12).write(run / "audit")
    (run / "audit" / "server.checkpoint").unlink()
    refuted(judged(path, seen=seen), "server", "12 entries, a roll-back", "19 entries", "the proof")


def test_a_validly_cosigned_old_copy_is_refuted_by_what_was_kept_alone(
    federation: Federation, run: Path, policies: Path, tmp_path: Path
) -> None:
    old = federation.server.write(tmp_path)
    federation.server.append("error.raised", {"run": "run-1"})
    federation.cosign_all(NOW + 120)
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "s.checkpoint").write_bytes(federation.server.note().to_bytes())
    # What was signed and cosigned once stays so: only memory tells that there was more.
    assert judged(old, policy=policies / "server.policy").verdict == VERIFIED
    report = judged(old, policy=policies / "server.policy", seen=tmp_path / "seen")
    refuted(report, "server", "19 entries, a roll-back", "20 entries")


def test_another_history_is_refuted_by_what_was_kept(
    federation: Federation, run: Path, seen: Path
) -> None:
    path = federation.server.rewritten(4, {"party": "site-01"}).write(run / "audit")
    (run / "audit" / "server.checkpoint").unlink()
    refuted(judged(path, seen=seen), "server", "first 19 entries, another history", "the proof")
    (seen / "2026" / "server" / "last.checkpoint").unlink()
    # the earlier head is older than the change: it is no proof of it
    assert judged(path, seen=seen).verdict == CONSISTENT


def test_a_kept_checkpoint_that_the_logs_key_did_not_sign_is_said(
    federation: Federation, run: Path, seen: Path
) -> None:
    server = federation.server
    text = server.notes[4].text
    other = type(server.key)(server.origin, server.key.algorithm, bytes(32))
    note = type(server.notes[4])(text, (other.sign(text),))
    (seen / "odd.checkpoint").write_bytes(note.to_bytes())
    refuted(judged(run, seen=seen), "server", "'odd.checkpoint'", "no signature by it")


def test_a_kept_file_that_cannot_be_read_is_said(run: Path, seen: Path) -> None:
    (seen / "torn.checkpoint").write_bytes(b"fedkd.invalid/server")
    (seen / "dangling.checkpoint").symlink_to(seen / "nothing")
    (seen / "folder.checkpoint").mkdir()
    report = judged(run, seen=seen)
    assert report.verdict == CANNOT_TELL
    assert {"kept 'torn.checkpoint'", "kept 'dangling.checkpoint'"} <= set(verdicts(report))


def test_a_log_that_was_kept_and_is_not_here_is_told(
    federation: Federation, run: Path, seen: Path
) -> None:
    for name, server in (("site-04", Party("site-04")), ("server", Party("server", kind="new"))):
        server.append("log.opened", {"party": name})
        (seen / f"{name} gone.checkpoint").write_bytes(server.note().to_bytes())
    report = judged(run, seen=seen)
    assert report.verdict == CANNOT_TELL
    assert [one.why for one in report.checks if one.name == "missing log"] == [
        f"found no log 'fedkd.invalid/{rest}', of which '{name} gone.checkpoint' was kept"
        for name, rest in (("server", "new/server/00000001"), ("site-04", "site-04/00000001"))
    ]
    # one log of which nothing was kept cannot be compared at all
    shutil.rmtree(seen / "2026" / "site-01")
    (seen / "site-01 early.checkpoint").unlink()
    one = judged(run / "audit" / "site-01.sqlite", seen=seen)
    assert one.verdict == CANNOT_TELL
    assert "found no checkpoint of it kept earlier" in str(one.logs[0].error)


# One holder, and what a quorum stands.


def test_a_rehearsal_is_one_holder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rehearsal = Federation(kind="rehearsal")
    run = rehearsal.write(tmp_path / "run")
    policies = rehearsal.write_policies(tmp_path / "policies")
    for arguments in ((run,), (run / "audit" / "site-01.sqlite",), (run, "--policy", policies)):
        code, out, _ = said(capsys, "verify", *arguments)
        assert code == 0
        last = out.splitlines()[-1]
        assert ", ONE HOLDER (its keys are a rehearsal's): this proves the format, not the" in last
        assert last.startswith("VERIFIED" if "--policy" in arguments else "CONSISTENT")
    assert as_json(capsys, "verify", run)[1]["one_holder"] is True


def test_a_log_that_says_rehearsal_is_one_holder(tmp_path: Path) -> None:
    party = Party("site-01")
    party.append("log.opened", {"party": "site-01", "format": 3, "rehearsal": True})
    assert judged(party.write(tmp_path)).holder == "log.opened says rehearsal"
    silent = Party("site-01")
    silent.append("log.opened", {"party": "site-01", "format": 1})
    assert "nothing in the log says" in str(judged(silent.write(tmp_path)).holder)


def test_all_keys_in_one_folder_are_one_holder(run: Path) -> None:
    assert judged(run).holder is None
    folders = [run / "server" / "keys", *(run / "sites" / name / "keys" for name in SITES)]
    for folder in folders:
        assert judged(run).holder is None
        folder.mkdir(parents=True)
    assert judged(run).holder == "all parties' keys lie in one folder"


def test_the_quorum_table_is_shown_with_the_row_that_applies(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = said(capsys, "verify", run)
    lines = {line[:25].strip(): line[25:].split() for line in out.splitlines()}
    rows = quorum_table()
    assert [row.cosigners for row in rows] == list(range(2, 11))
    assert lines["n cosigners"] == [str(row.cosigners) for row in rows]
    assert lines["k suffice by default"] == [str(row.threshold) for row in rows]
    liars = ["-" if row.liars < 0 else str(row.liars) for row in rows]
    assert lines["liars tolerated"] == liars
    assert lines["sites that may be absent"] == [str(row.absent) for row in rows]
    assert "here, k=2 of n=3: tolerates 0 lying cosigners; 1 may be absent (server, site-01" in out
    _, told = as_json(capsys, "verify", run)
    assert told["quorum"]["table"] == [row._asdict() for row in rows]
    (here,) = told["quorum"]["here"]
    assert here == {"cosigners": 3, "threshold": 2, "liars": 0, "absent": 1,
                    "logs": ["server", *SITES]}  # fmt: skip


def test_a_quorum_below_a_majority_is_called_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = Federation(sites=("site-01", "site-02"))
    _, out, _ = said(capsys, "verify", two.write(tmp_path / "run"))
    assert "here, k=1 of n=2: two heads need no lying cosigner; 1 may be absent" in out


def test_the_json_says_all_that_the_table_says(
    run: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = as_json(capsys, "verify", run, "--policy", policies)
    assert code == 0
    assert (told["v"], told["verdict"], told["one_holder"]) == (1, "VERIFIED", False)
    assert told["signatures"] == {
        "checked": 46, "of": 46, "cosigned_checked": 9, "cosigned_of": 9,
    }  # fmt: skip
    assert {one["check"]: one["verdict"] for one in told["checks"]} == dict.fromkeys(
        CHECKS, CONSISTENT
    )
    server = told["logs"][0]
    assert (server["log"], server["entries"], server["closed"]) == ("server", 19, 0)
    (run / "audit" / "server.sqlite").write_bytes(b"no log")
    code, told = as_json(capsys, "verify", run)
    assert code == 1
    assert told["logs"][0]["expected"] == "a log in a SQLite file"
