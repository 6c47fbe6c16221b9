"""Who cosigns whom, what a roster says, and what a key may be used for."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.audit import (
    SERVER,
    Federation,
    Log,
    NotFresh,
    Peer,
    Roster,
    cosign,
    cosignatures,
    cosigners_of,
    expect_fresh,
    hear,
    make_keys,
)
from fedkd.audit.keys import FOLDER, witness_keys
from fedkd.audit.verify import Algorithm, Note, TrustPolicy, has_mldsa

SITES = st.sets(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=40)


@given(SITES, st.integers(0, 8))
def test_each_log_has_its_cosigners_and_each_site_equally_many_to_cosign(
    sites: set[str], most: int
) -> None:
    by = cosigners_of(sites, most)
    assert by == cosigners_of(sorted(sites), most)
    assert set(by) == {SERVER, *sites}
    for party, cosigners in by.items():
        assert party not in cosigners
        assert len(set(cosigners)) == len(cosigners) <= most
        everybody = {SERVER, *sites} - {party}
        assert len(cosigners) == min(most, len(everybody))
        if len(everybody) <= most:
            assert set(cosigners) == everybody
        assert party == SERVER or SERVER in cosigners or most == 0
    of_sites = Counter(w for party, ws in by.items() if party != SERVER for w in ws if w != SERVER)
    assert max(of_sites.values(), default=0) <= max(0, most - 1)
    if len(sites) > 1 and most > 1:
        assert len(set(of_sites.values())) == 1


@pytest.fixture
def logs(tmp_path: Path) -> dict[str, Log]:
    opened = {}
    for party in (SERVER, "a", "b c", "d"):
        make_keys(tmp_path / party, party, mldsa=party == "a" and has_mldsa())
        opened[party] = Log(tmp_path / party / "log.sqlite", party)
        opened[party].append("log.opened", "log.opened", {"party": party})
    return opened


def federation(logs: dict[str, Log], threshold: int | None = None) -> Federation:
    return Federation({party: Peer.of(log) for party, log in logs.items()}, threshold, 60)


def ask(log: Log, old: int = 0) -> str:
    return log.ask(old).to_bytes().decode()


def test_a_roster_is_read_as_it_was_written(logs: dict[str, Log]) -> None:
    for roster in federation(logs).rosters().values():
        assert Roster.from_json(roster.to_json()) == roster


def test_a_partys_policy_counts_parties_and_not_keys(logs: dict[str, Log]) -> None:
    roster = federation(logs).rosters()["d"]
    policy = TrustPolicy.parse(roster.policy(logs["d"].verifier()).text())
    note = logs["d"].ask(0).note
    cosigned = [cosign(logs[p], federation(logs).rosters()[p], [ask(logs["d"])], 9) for p in logs]
    by = dict(zip(logs, [it.notes for it in cosigned], strict=True))
    assert by["d"] == ()  # nobody cosigns his own log
    (one,) = by["a"]
    assert len(one.signatures) == 1 + has_mldsa()
    with pytest.raises(ValueError, match="2 of 3"):
        policy.witnessed(note.with_signatures(one.signatures))
    (two,) = by["b c"]
    both = note.with_signatures((*one.signatures, *two.signatures))
    assert policy.witnessed(both).checkpoint == note.checkpoint()
    said = cosignatures(both, roster.peers)
    assert {party: {time for _, _, time in lines} for party, lines in said.items()} == {
        "a": {9}, "b c": {9},
    }  # fmt: skip


def test_what_peers_say_is_kept_and_counts_for_a_while(logs: dict[str, Log]) -> None:
    roster = federation(logs).rosters()["d"]
    note = logs["d"].ask(0).note
    for party in ("a", SERVER):
        given = cosign(logs[party], federation(logs).rosters()[party], [ask(logs["d"])], 1000)
        note = note.with_signatures(given.notes[0].signatures)
    spoke = hear(logs["d"], roster, [note.to_bytes().decode()], 1010)
    assert spoke == {"a": 1000, SERVER: 1000}
    assert len(logs["d"].cosignatures(1)) == 2 + has_mldsa()
    expect_fresh(roster, spoke, 1060)
    with pytest.raises(NotFresh, match="0 cosigners"):
        expect_fresh(roster, spoke, 1061)
    with pytest.raises(NotFresh, match="expected 2 of"):
        expect_fresh(roster, {"a": 1000}, 1000)


def test_heads_are_remembered_when_the_process_ends(logs: dict[str, Log], tmp_path: Path) -> None:
    roster = federation(logs).rosters()["a"]
    assert [head.size for head in cosign(logs["a"], roster, [ask(logs["d"])], 5).news] == [1]
    logs["a"].close()
    with Log(tmp_path / "a" / "log.sqlite", "a") as again:
        assert again.seen()[logs["d"].origin].size == 1
        assert cosign(again, roster, [ask(logs["d"])], 6).notes == ()  # from another size
        assert cosign(again, roster, [ask(logs["d"], 1)], 6).news == ()  # no news, but a new time
        logs["d"].append("more", "run.started", {})
        (note,) = cosign(again, roster, [ask(logs["d"], 1)], 7).notes
        assert note.checkpoint().size == 2


def test_one_key_for_a_log_and_a_witness_is_refused(logs: dict[str, Log], tmp_path: Path) -> None:
    parties = {party: Peer.of(log) for party, log in logs.items()}
    log, (witness, *_) = parties["d"]
    same = type(witness)(witness.name, Algorithm.COSIGNATURE, log.public)
    with pytest.raises(ValueError, match="one key twice"):
        Federation({**parties, "d": Peer(log, (same,))}, None, 60)
    with pytest.raises(ValueError, match="one key twice"):
        Federation({**parties, "e": Peer(parties["d"].log, ())}, None, 60)
    seed = (tmp_path / "d" / FOLDER / "log.key").read_text()
    assert seed not in (tmp_path / "d" / FOLDER / "witness.key").read_text()


def test_keys_are_for_their_owner_alone_and_never_made_twice(tmp_path: Path) -> None:
    make_keys(tmp_path, "a", rehearsal=True)
    before = {path: path.read_bytes() for path in (tmp_path / FOLDER).iterdir()}
    assert {path.name for path in before} == {"log.key", "witness.key"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in [*before, tmp_path / FOLDER])
    assert all(b"rehearsal" in text for text in before.values())
    make_keys(tmp_path, "a")
    assert {path: path.read_bytes() for path in (tmp_path / FOLDER).iterdir()} == before


def test_a_log_that_is_begun_anew_is_another_log(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with Log(tmp_path / "one" / "log.sqlite", "a") as first:
        origin = first.origin
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "one").mkdir()
    with Log(tmp_path / "one" / "log.sqlite", "a") as second:
        assert second.origin != origin


def test_a_log_of_the_format_before_is_opened_and_goes_on(tmp_path: Path) -> None:
    with Log(tmp_path / "log.sqlite", "a") as log:
        log.append("one", "run.started", {})
        log._database.execute("DROP TABLE cosignatures")
        log._database.execute("DROP TABLE seen")
        log._database.execute("PRAGMA user_version=2")
    with Log(tmp_path / "log.sqlite", "a") as log:
        log.append("two", "run.ended", {})
        assert len(log) == 2
        assert log.seen() == {}


@pytest.mark.skipif(not has_mldsa(), reason="this cryptography has no ML-DSA-44")
def test_a_witness_can_sign_against_quantum_computers_too(logs: dict[str, Log]) -> None:
    (note,) = cosign(logs["a"], federation(logs).rosters()["a"], [ask(logs["d"])], 5).notes
    keys = [key.verifier() for key in logs["a"].witness_keys]
    assert [key.algorithm for key in keys] == [
        Algorithm.COSIGNATURE, Algorithm.COSIGNATURE_MLDSA44,
    ]  # fmt: skip
    assert set(Note.parse(note.to_bytes()).verify(keys).signers) == set(keys)


def test_witness_keys_of_a_folder_without_any(tmp_path: Path) -> None:
    assert witness_keys(tmp_path) == ()
