"""One entry, proven by two files to whoever holds a policy: written here, checked without us."""

import json
from pathlib import Path

import pytest

from fedkd.audit.verify import ProofFile
from fedkd.audit.verify.command import main as verifier
from fedkd.cli import main as fedkd
from tests.audit_verify.federation import NOW, RUN, Federation
from tests.audit_verify.verdicts import as_json, said

Proof = tuple[Path, Path]


@pytest.fixture
def proof(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proof:
    monkeypatch.chdir(tmp_path)
    assert fedkd(["audit", "prove", f"{run}/audit/server.sqlite#12", "--json"]) == 0
    return tmp_path / "server-12.tlog-proof", tmp_path / "server-12.leaf"


def test_a_proof_is_checked_with_the_auditors_policy(
    proof: Proof, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = policies / "server.policy"
    capsys.readouterr()
    code, out, _ = said(capsys, "proof", *proof, "--policy", policy)
    assert code == 0
    assert out.startswith("VERIFIED\n  log       fedkd.invalid/server/00000001\n")
    code, told = as_json(capsys, "proof", *proof, "--policy", policy)
    assert code == 0
    assert (told["entry"], told["of"], told["type"]) == (12, 19, "student.updated")
    assert (told["party"], told["run"]) == ("server", RUN)
    assert told["cosigned"] == dict.fromkeys(
        ("site-01", "site-02", "site-03"), "2026-11-24T06:01:00Z"
    )


def test_a_changed_proof_is_refused(
    proof: Proof, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line of the proof, and every byte of the leaf."""
    file, leaf = proof
    policy = policies / "server.policy"
    lines, written = file.read_bytes().splitlines(keepends=True), leaf.read_bytes()
    for number, line in enumerate(lines):
        changed = bytearray(line)
        changed[len(line) // 2] ^= 1
        file.write_bytes(b"".join([*lines[:number], changed, *lines[number + 1 :]]))
        code, out, _ = said(capsys, "proof", file, leaf, "--policy", policy)
        assert (code, out[:7]) == (1, "REFUTED"), line
    file.write_bytes(b"".join(lines))
    for at in range(len(written)):
        leaf.write_bytes(written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :])
        assert verifier(["proof", str(file), str(leaf), "--policy", str(policy)]) == 1
    leaf.write_bytes(written)
    assert verifier(["proof", str(file), str(leaf), "--policy", str(policy)]) == 0


def test_a_proof_needs_the_policys_log_and_its_quorum(
    proof: Proof, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, leaf = proof
    code, out, _ = said(capsys, "proof", file, leaf, "--policy", policies / "site-01.policy")
    assert code == 1
    assert "expected one of: fedkd.invalid/site-01/" in out
    few = file.read_bytes().splitlines(keepends=True)[:-2]
    file.write_bytes(b"".join(few))
    code, out, _ = said(capsys, "proof", file, leaf, "--policy", policies / "server.policy")
    assert code == 1
    assert "count by site-01, expected 2 of 3" in out


def test_a_proof_under_a_policy_without_cosigners_says_so(
    proof: Proof, federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alone").write_text(f"log {federation.server.key.verifier().text()}\nquorum none\n")
    code, out, _ = said(capsys, "proof", *proof, "--policy", tmp_path / "alone")
    assert code == 0
    assert "asks for no cosigner" in out
    assert "by nobody" in out


def test_a_leaf_that_names_another_place_is_refused(
    policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log's key signed it there, and its cosigners saw no leaf: the proof itself holds."""
    federation = Federation()
    server = federation.server
    server.add_row(server.rows[12])
    federation.cosign_all(NOW + 120)
    proof = ProofFile.make(19, server.note(), server.tree.node)
    (tmp_path / "p").write_bytes(proof.to_bytes())
    (tmp_path / "l").write_bytes(server.rows[12][4])
    code, out, _ = said(
        capsys, "proof", tmp_path / "p", tmp_path / "l", "--policy", policies / "server.policy"
    )
    assert code == 1
    assert "leaf: found sequence 12, expected 19, its place" in out


def test_hostile_proofs_have_a_verdict(
    proof: Proof, policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, leaf = proof
    policy = policies / "server.policy"
    odd = tmp_path / "odd"
    for content in (b"", b"\xff", b"c2sp.org/tlog-proof@v1\n", bytes(3_000_000)):
        odd.write_bytes(content)
        for arguments in ((odd, leaf, policy), (file, odd, policy), (file, leaf, odd)):
            code, _, err = said(capsys, "proof", *arguments[:2], "--policy", arguments[2])
            assert (code, err) == (1, ""), arguments
    odd.write_bytes(b"c2sp.org/tlog-proof@v2\nindex 0\n\n")
    assert said(capsys, "proof", odd, leaf, "--policy", policy)[0] == 3
    assert said(capsys, "proof", tmp_path / "nothing", leaf, "--policy", policy)[0] == 2
    assert said(capsys, "proof", tmp_path, leaf, "--policy", policy)[0] == 1


def test_an_entry_is_proven_in_the_newest_head_of_its_quorum(
    federation: Federation, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, audit = federation.server, run / "audit"
    last = server.append("error.raised", {"run": RUN})
    federation.sites["site-01"].cosigns(server, NOW + 120)
    server.write(audit)
    for index, size, cosigned in ((3, 19, 3), (last, 20, 1)):
        out = tmp_path / f"{index}.tlog-proof"
        asked = ["audit", "prove", f"{audit}/server.sqlite#{index}", "--out", str(out), "--json"]
        assert fedkd(asked) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["size"], told["cosignatures"], told["entry"]) == (size, cosigned, index)
        assert told["leaf"] == str(tmp_path / f"{index}.leaf")


def test_cosignatures_beside_the_log_go_into_the_proof(
    federation: Federation, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation.server.cosignatures = {}
    federation.server.write(run / "audit")
    asked = ["audit", "prove", f"{run}/audit/server.sqlite#3", "--out", str(tmp_path / "p")]
    assert fedkd([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cosignatures"] == 3


def test_prove_writes_over_nothing(
    proof: Proof, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["audit", "prove", f"{run}/audit/server.sqlite#12"]
    assert fedkd(asked) == 0  # the same bytes again
    proof[1].write_text("mine")
    kept = proof[0].read_bytes()
    assert fedkd(asked) == 2
    assert "server-12.leaf, which holds something else" in capsys.readouterr().err
    assert (proof[0].read_bytes(), proof[1].read_text()) == (kept, "mine")


@pytest.mark.parametrize(
    ("entry", "code", "why"),
    [
        ("audit/server.sqlite", 2, "PATH#INDEX"),
        ("audit/server.sqlite#-1", 2, "PATH#INDEX"),
        ("audit/server.sqlite#012", 2, "PATH#INDEX"),
        ("audit/server.sqlite#19", 2, "expected 0 to 18"),
        ("audit/nobody.sqlite#1", 2, "no log at"),
        ("audit/server.policy#1", 1, "REFUTED"),
    ],
)
def test_what_cannot_be_proven_is_refused(
    entry: str, code: int, why: str, run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(run)
    assert fedkd(["audit", "prove", entry]) == code
    assert why in capsys.readouterr().err
    assert not list(run.glob("*.leaf"))


def test_a_log_that_does_not_hold_proves_nothing(
    federation: Federation, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    federation.server.notes[3] = federation.server.notes[2]
    federation.server.write(run / "audit")
    assert fedkd(["audit", "prove", f"{run}/audit/server.sqlite#1"]) == 1
    assert not list(tmp_path.glob("*.leaf"))
