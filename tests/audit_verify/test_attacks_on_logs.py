"""What somebody does to a log, or to all of them, so that it tells another story: all refuted."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.verify import Refuted, Signature, TrustPolicy
from tests.audit_verify.federation import NOW, RUN, Federation, Party, digest
from tests.audit_verify.verdicts import (
    CANNOT_TELL,
    CONSISTENT,
    REFUTED,
    check_of,
    judged,
    log_of,
    refuted,
    verdicts,
)

# Whoever holds the file and not its key.


def test_a_flipped_bit_in_any_byte_of_any_entry(federation: Federation, tmp_path: Path) -> None:
    """Every byte of every column of two entries, and of their checkpoints."""
    site = federation.sites["site-01"].cut_to(2)
    original = site.write(tmp_path).read_bytes()
    path = tmp_path / "site-01.sqlite"
    for table, columns in (("entries", "key type at leaf salt body"), ("checkpoints", "note")):
        for column in columns.split():
            for rowid in range(2):
                count = _flip_each_byte(path, original, table, column, rowid)
                assert count > 0, (table, column)


def _flip_each_byte(path: Path, original: bytes, table: str, column: str, rowid: int) -> int:
    where = rowid + (table == "checkpoints")
    path.write_bytes(original)
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous=OFF", "journal_mode=OFF"):  # a test's file may be lost
        database.execute(f"PRAGMA {pragma}")
    select = f"SELECT {column} FROM {table} WHERE rowid = ?"  # noqa: S608
    kept = database.execute(select, (where,)).fetchone()[0]
    content = kept if isinstance(kept, bytes) else kept.encode()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 7
        cast = "?" if isinstance(kept, bytes) else "CAST(? AS TEXT)"
        change = f"UPDATE {table} SET {column} = {cast} WHERE rowid = ?"  # noqa: S608
        database.execute(change, (bytes(flipped), where))
        assert judged(path).verdict == REFUTED, (table, column, rowid, at)
    database.close()
    return len(content)


CHANGES = {
    "the last entry is cut": "DELETE FROM entries WHERE place = 8",
    "the last entry is cut, with its checkpoint": "DELETE FROM entries WHERE place = 8; "
    "DELETE FROM checkpoints WHERE size = 9",
    "an entry in the middle is cut": "DELETE FROM entries WHERE place = 3",
    "an entry in the middle is cut, and the others move up": "DELETE FROM entries WHERE place = 3; "
    "UPDATE entries SET place = place - 1 WHERE place > 3; DELETE FROM checkpoints WHERE size = 9",
    "two entries change places": "UPDATE entries SET place = 99 WHERE place = 4; "
    "UPDATE entries SET place = 4 WHERE place = 5; UPDATE entries SET place = 5 WHERE place = 99",
    "an entry comes twice": "INSERT INTO entries SELECT 9, key || '2', type, at, leaf, salt, body "
    "FROM entries WHERE place = 8",
    "an entry is put in between": "UPDATE entries SET place = -place - 1 WHERE place > 3; "
    "UPDATE entries SET place = -place WHERE place < 0; INSERT INTO entries SELECT 4, key || '2', "
    "type, at, leaf, salt, body FROM entries WHERE place = 3",
    "every checkpoint is taken away": "DELETE FROM checkpoints",
    "a checkpoint is another's": "UPDATE checkpoints SET note = (SELECT note FROM checkpoints "
    "WHERE size = 4) WHERE size = 5",
    "a body is closed and its salt is kept": "UPDATE entries SET body = NULL WHERE place = 4",
    "the key is taken away": "DELETE FROM facts WHERE name = 'vkey'",
    "a node is another's": "UPDATE nodes SET digest = (SELECT digest FROM nodes WHERE level = 0 "
    "AND place = 0) WHERE level = 1 AND place = 1",
    "a node is missing": "DELETE FROM nodes WHERE level = 1 AND place = 1",
    "what the log goes on from is another's": "UPDATE facts SET value = x'00' WHERE name = 'range'",
    "a cosignature is of a size that is not there": "UPDATE cosignatures SET size = 40 "
    "WHERE size = 9",
    "a cosignature is moved to another size": "UPDATE cosignatures SET size = 8 WHERE size = 9",
    "a cosignature gets another time": "UPDATE cosignatures SET at = at + 1",
    "a cosignature gets another name": "UPDATE cosignatures SET cosigner = 'x' || cosigner",
    "its memory of others is changed": "UPDATE seen SET size = size - 1",
    "all entries are taken away": "DELETE FROM entries; DELETE FROM nodes; DELETE FROM checkpoints",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_log_that_somebody_changed_is_refuted(change: str, run: Path) -> None:
    path = run / "audit" / "site-01.sqlite"
    database = sqlite3.connect(path)
    database.executescript(CHANGES[change])
    database.close()
    for asked in (path, run):
        assert verdicts(judged(asked))["site-01"] == REFUTED, judged(asked)


def test_the_first_entry_that_was_changed_is_named(federation: Federation, run: Path) -> None:
    """A leaf and its body, changed together: the entry holds by itself, and the tree does not."""
    site = federation.sites["site-01"]
    other = site.rewritten(5, {"run": RUN, "round": 1, "digest": digest("another answer")})
    site.rows[5] = other.rows[5]
    path = run / "audit" / "site-01.sqlite"
    notes, tree = site.notes, site.tree
    site.write(run / "audit")
    assert (site.notes, site.tree) == (notes, tree)
    refuted(judged(path), "site-01", "entry 5: found root", "which its checkpoint signed")


def test_a_log_that_begins_in_the_middle_is_refuted(tmp_path: Path) -> None:
    """Its first entries were never shown: the rest says so, signed by the log's own key."""
    whole, rest = Party("site-01"), Party("site-01")
    for number in range(4):
        whole.append("error.raised", {"run": RUN, "number": number})
    for row in whole.rows[2:]:
        rest.add_row(row)
    refuted(judged(rest.write(tmp_path)), "site-01", "entry 0", "place 2", "place 0")
    for index, row in enumerate(rest.rows):
        rest.rows[index] = (index, *row[1:])
    refuted(judged(rest.write(tmp_path)), "site-01", "entry 0", "(2, ")


def test_entries_of_two_parties_or_under_one_key_are_refuted(tmp_path: Path) -> None:
    party = Party("site-01")
    party.append("log.opened", {"party": "site-01"}, "one")
    party.name = "site-02"
    party.append("error.raised", {"run": RUN}, "two")
    refuted(judged(party.write(tmp_path, "x")), "x", "entry 1", "party 'site-02'", "'site-01'")
    twice = Party("site-01")
    twice.append("log.opened", {"party": "site-01"}, "one")
    twice.append("error.raised", {"run": RUN}, "one")
    twice.rows[1] = (1, "other", *twice.rows[1][2:])  # the table takes no key twice, a leaf does
    path = twice.write(tmp_path, "x")
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE e AS SELECT place, 'one' AS key, type, at, leaf, salt, body FROM entries; "
        "DROP TABLE entries; ALTER TABLE e RENAME TO entries"
    )
    database.close()
    refuted(judged(path), "x", "entry 1", "key 'one' again")


def test_logs_that_change_their_names_are_refuted(run: Path) -> None:
    one, two = (run / "audit" / f"site-0{n}.sqlite" for n in (1, 2))
    swapped = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(swapped)
    for beside in (run / "audit").glob("site-0[12].[cp]*"):
        beside.unlink()
    refuted(judged(run), "site-01", "the log of 'site-02'", "that of 'site-01'")


# Whoever holds the log's own key.


def test_rewriting_by_the_keys_own_holder(
    federation: Federation, run: Path, policies: Path
) -> None:
    """The server gives one admitted answer another digest, and signs its whole log again."""
    server = federation.server
    index = next(row[0] for row in server.rows if row[2] == "error.raised" or row[0] == 11)
    rewritten = server.rewritten(index, {"run": RUN, "round": 1, "kind": "nothing happened"})
    path = rewritten.write(run / "audit")
    (run / "audit" / "server.checkpoint").unlink()
    assert judged(path).verdict == CONSISTENT  # alone it cannot be told from an honest log
    report = judged(run)
    refuted(report, "server", "another history", "which site-01 holds in its memory")
    refuted(report, "server", "signed by this log's key: the proof")
    refuted(judged(run, policy=policies), "server", "none", "2 of 3")


def test_rewriting_with_the_old_cosignatures_kept(
    federation: Federation, run: Path, policies: Path
) -> None:
    rewritten = federation.server.rewritten(11, {"run": RUN})
    rewritten.cosignatures = federation.server.cosignatures
    rewritten.write(run / "audit")
    (run / "audit" / "server.checkpoint").unlink()
    refuted(judged(run, policy=policies), "server", "bytes that this key did not make")


def test_roll_back_to_an_older_validly_signed_size(federation: Federation, run: Path) -> None:
    site = federation.sites["site-02"]
    old = site.cut_to(6)
    old.seen = {}
    path = old.write(run / "audit")
    (run / "audit" / "site-02.checkpoint").unlink()
    assert judged(path).verdict == CONSISTENT
    refuted(judged(run), "site-02", "6 entries, a roll-back", "9 entries", "the proof")


@pytest.mark.parametrize("memory", ["seen", "witnessed"])
def test_an_old_backup_that_was_restored_and_went_on(
    memory: str, federation: Federation, run: Path
) -> None:
    site = federation.sites["site-02"]
    fork = site.cut_to(6)
    for number in range(5):
        fork.append("error.raised", {"run": RUN, "kind": f"after the backup {number}"})
    fork.write(run / "audit")
    (run / "audit" / "site-02.checkpoint").unlink()
    if memory == "witnessed":  # what stands in the others' logs is enough without their tables
        for other in federation.parties.values():
            if other is not site:
                other.append(
                    "checkpoint.witnessed",
                    {"run": RUN, "round": 3, "heads": [{"origin": site.origin, **site.head()}]},
                )
                other.seen = {}
                other.write(run / "audit")
    word = "its memory" if memory == "seen" else "checkpoint.witnessed"
    refuted(judged(run), "site-02", "another history", word)


def test_two_heads_shown_to_different_parties(federation: Federation, run: Path) -> None:
    """A split view: the server shows one head to two sites and another to the third."""
    server, told = federation.server, federation.sites["site-03"]
    split = server.copy()
    split.append("error.raised", {"run": RUN, "kind": "for the third alone"})
    told.cosigns(split)
    server.append("error.raised", {"run": RUN, "kind": "for the others"})
    for name in ("site-01", "site-02"):
        federation.sites[name].cosigns(server)
    federation.write(run)
    refuted(judged(run), "server", "another history", "site-03 holds", "the proof")


def test_a_forged_cosignature(federation: Federation, run: Path, policies: Path) -> None:
    site = federation.sites["site-02"]
    site.append("error.raised", {"run": RUN})
    site.forged_by(federation.server)
    site.forged_by(federation.sites["site-01"])
    site.write(run / "audit")
    for report in (judged(run), judged(run, policy=policies)):
        refuted(report, "site-02", "signature by fedkd.invalid", "this key did not make")


def test_a_cosignature_over_other_entries(federation: Federation, run: Path) -> None:
    """A true line of the cosigner, over another head of the same size."""
    site, server = federation.sites["site-02"], federation.server
    other = site.copy()
    other.append("error.raised", {"run": RUN, "kind": "seen by the server alone"})
    server.cosigns(other)
    site.append("error.raised", {"run": RUN})
    key = (site.size, str(server.witness.verifier()))
    site.cosignatures[key] = other.cosignatures[key]
    site.write(run / "audit")
    refuted(judged(run / "audit" / "site-02.sqlite"), "site-02", "this key did not make")


def test_a_cosigner_that_nobody_knows_does_not_count(
    federation: Federation, run: Path, policies: Path
) -> None:
    server = federation.server
    server.append("error.raised", {"run": RUN})
    for name in ("a", "b", "c"):
        Party(name).cosigns(server)
    server.write(run / "audit")
    assert log_of(judged(run, policy=policies), "server").quorum.size == server.size - 1


def test_a_cosigner_whose_key_another_made_up(federation: Federation, run: Path) -> None:
    """The server cosigns its own log under a site's name, with a key that it made."""
    site = federation.sites["site-01"]
    mine = Party("site-01")
    mine.witness = type(mine.witness)(mine.witness.name, mine.witness.algorithm, bytes(32))
    keys = {"site-01": mine.witness.verifier()}
    server = federation.server
    server.policy = TrustPolicy.of([server.key.verifier()], keys, 1)
    server.cosignatures = {}
    mine.cosigns(server)
    federation.write(run)
    assert log_of(judged(run), "server").quorum.size == server.size
    refuted(judged(run), "keys", "does not name", str(mine.witness.verifier()))
    assert site.witness.verifier() != mine.witness.verifier()


def test_one_key_for_log_and_witness(federation: Federation, run: Path) -> None:
    site = federation.sites["site-01"]
    site.witness = type(site.witness)(site.witness.name, site.witness.algorithm, site.key.seed)
    site.write(run / "audit")
    refuted(judged(run), "site-01", "one key as log and witness", "two keys")


def test_a_log_without_entries_shows_nothing(tmp_path: Path) -> None:
    refuted(judged(Party("site-01").write(tmp_path)), "site-01", "no entry", "log.opened")


def test_a_checkpoint_that_says_more_is_not_relied_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins as it should; what follows is read as soon as somebody relies on it."""
    monkeypatch.setattr("fedkd.audit.verify.logs.MOST_SIGNATURES", 1)
    party = Party("site-01")
    for number in range(4):
        party.append("error.raised", {"run": RUN, "number": number})
    path = party.write(tmp_path)
    database = sqlite3.connect(path)
    more = party.notes[1].to_bytes() + "\n— more AAAAAAA=\n".encode()
    database.execute("UPDATE checkpoints SET note = ? WHERE size = 2", (more,))
    database.commit()
    database.close()
    log = log_of(judged(path), "site-01").log
    assert log.head(1).signatures
    with pytest.raises(Refuted, match="checkpoint of size 2: found more than its text"):
        log.head(2)


def test_a_log_key_among_the_witness_keys(federation: Federation, run: Path) -> None:
    site = federation.sites["site-01"]
    path = site.write(run / "audit")
    database = sqlite3.connect(path)
    other = federation.server.key.verifier().text().encode()
    database.execute("UPDATE facts SET value = ? WHERE name = 'witness'", (other,))
    database.commit()
    database.close()
    refuted(judged(path), "site-01", "a log's key", "type 0x04 or 0x06")


def test_a_policy_about_another_log(federation: Federation, run: Path) -> None:
    site = federation.sites["site-01"]
    site.policy = federation.sites["site-02"].policy
    path = site.write(run / "audit")
    (run / "audit" / "site-01.policy").unlink()
    refuted(judged(path), "site-01", "policy in the log", "which signs this log")


def test_one_key_for_a_log_and_for_anothers_witness(federation: Federation, run: Path) -> None:
    site, server = federation.sites["site-01"], federation.server
    both = type(site.witness)("fedkd.invalid/odd", site.witness.algorithm, site.key.seed)
    keys = {"odd": both.verifier()}
    server.policy = TrustPolicy.of([server.key.verifier()], keys, 1)
    federation.write(run)
    refuted(judged(run), "keys", "signs the log of 'site-01'", "two keys")


# Double entry: one side dropped or changed, by whoever holds that log's key.


def admitted_at(server: Party) -> int:
    return next(int(row[0]) for row in server.rows if row[2] == "answers.admitted")


def released_at(site: Party) -> int:
    return next(int(row[0]) for row in site.rows if row[2] == "release.outputs")


def with_body(party: Party, index: int, change: Callable[[Any], object]) -> Party:
    body = json.loads(party.rows[index][6])
    change(body)
    return party.rewritten(index, body)


DOUBLE_ENTRY = {
    "the site dropped what it released": (
        "site-01",
        lambda body: body.update(round=77),
        "round 1 of 'site-01': found no answer in the site's log",
    ),
    "the site changed what it released": (
        "site-01",
        lambda body: body.update(digest=digest("other")),
        "round 1 of 'site-01'",
    ),
    "the server changed what it admitted": (
        "server",
        lambda body: body["answers"].update({"site-01": digest("other")}),
        "round 1 of 'site-01'",
    ),
    "the server dropped what a site released": (
        "server",
        lambda body: body["answers"].pop("site-01"),
        "entry 5 of site-01, release.outputs: found answer",
    ),
    "the server dropped a round": (
        "server",
        lambda body: body.update(round=9),
        "round 9 of 'site-01'",
    ),
    "the answer left before it was logged": (
        "server",
        lambda body: body["checkpoints"]["site-01"].update(size=5),
        "entry 5 of site-01, release.outputs: found index 5",
    ),
}


@pytest.mark.parametrize("attack", DOUBLE_ENTRY)
def test_one_side_of_a_double_entry(attack: str, federation: Federation, run: Path) -> None:
    name, change, why = DOUBLE_ENTRY[attack]
    party = federation.parties[name]
    at = admitted_at(party) if name == "server" else released_at(party)
    with_body(party, at, change).write(run / "audit")
    for other in federation.parties.values():  # the peers' memory is another test's matter
        (run / "audit" / f"{other.name}.checkpoint").unlink()
    refuted(judged(run), "double entry", why)


def test_an_aggregate_of_what_was_not_admitted(federation: Federation, run: Path) -> None:
    server = federation.server
    at = next(row[0] for row in server.rows if row[2] == "aggregate.computed")
    changed = with_body(server, at, lambda b: b["inputs"].update({"site-09": digest("x")}))
    changed.write(run / "audit")
    refuted(judged(run), "double entry", f"entry {at} of server, aggregate.computed", "site-09")


def test_an_answer_that_was_left_out_with_a_reason_is_accounted_for(
    federation: Federation, run: Path
) -> None:
    def leave_out(body: Any) -> None:
        body["answers"].pop("site-01")
        body["left_out"]["site-01"] = "too late"

    server = with_body(federation.server, admitted_at(federation.server), leave_out)
    for at in [row[0] for row in server.rows if row[2] == "aggregate.computed"][:1]:
        server = with_body(server, at, lambda body: body["inputs"].pop("site-01"))
    server.write(run / "audit")
    found = check_of(judged(run), "double entry")
    assert (found.verdict, found.why[:9]) == (CONSISTENT, "5 answers")


def test_heads_that_came_with_questions_and_answers_are_remembered(
    federation: Federation, run: Path
) -> None:
    server, site = federation.server, federation.sites["site-01"]
    lie = "00" * 32
    at = admitted_at(server)
    changed = with_body(server, at, lambda body: body["checkpoints"]["site-01"].update(root=lie))
    changed.write(run / "audit")
    refuted(judged(run), "site-01", "another history", f"entry {at} of server, answers.admitted")
    server.write(run / "audit")
    at = released_at(site)
    with_body(site, at, lambda body: body["asked_at"].update(root=lie)).write(run / "audit")
    refuted(judged(run), "server", "another history", f"entry {at} of site-01, release.outputs")


def test_a_site_that_took_part_in_another_run_speaks_of_another_servers_log(
    federation: Federation, run: Path
) -> None:
    site = federation.sites["site-01"]
    head = {"size": 900, "root": "00" * 32}
    body = {"run": "run-0", "round": 1, "digest": digest("x"), "asked_at": head}
    site.append("release.outputs", body)
    site.write(run / "audit")
    assert judged(run).verdict == CONSISTENT


def close(party: Party, index: int) -> None:
    party.rows[index] = (*party.rows[index][:5], None, None)


def test_a_side_that_is_closed_cannot_be_compared(federation: Federation, run: Path) -> None:
    site = federation.sites["site-01"]
    close(site, released_at(site))
    site.write(run / "audit")
    report = judged(run)
    assert report.verdict == CANNOT_TELL
    why = check_of(report, "double entry").why
    assert "5 answers stand alike" in why
    assert "1 answers of which a side is closed" in why
    assert verdicts(report)["site-01"] == CONSISTENT
    site.append("retention.applied", {"type": "release.outputs", "rule": "after a year"})
    site.write(run / "audit")
    found = check_of(judged(run), "double entry")
    assert found.verdict == CONSISTENT
    assert "of 1 more a side was erased under a rule that its log names" in found.why


def test_a_dangling_name_is_refuted(federation: Federation, run: Path) -> None:
    """The lineage is another room's matter: here, that verify asks for it."""
    site = federation.sites["site-03"]
    at = next(row[0] for row in site.rows if row[2] == "train.local")
    with_body(site, at, lambda body: body.update(inputs=["nobody's"])).write(run / "audit")
    (run / "audit" / "site-03.checkpoint").unlink()
    refuted(judged(run), "lineage", "site-03#4", "nobody's")


def test_every_signature_of_a_long_log_is_verified_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is relied upon is verified in any case; a signature beyond that is one option away."""
    monkeypatch.setattr("fedkd.audit.verify.logs.MOST_SIGNATURES", 3)
    party = Party("site-01")
    for number in range(9):
        party.append("error.raised", {"run": RUN, "number": number})
    path = party.write(tmp_path)
    assert log_of(judged(path), "site-01").log.signed == 3
    assert log_of(judged(path, every_signature=True), "site-01").log.signed == 9
    line = party.notes[2].signatures[0]
    bad = Signature(line.name, line.key_id, bytes(64))
    party.notes[2] = type(party.notes[2])(party.notes[2].text, (bad,))
    party.write(tmp_path)
    assert judged(path).verdict == CONSISTENT
    refuted(judged(path, every_signature=True), "site-01", "this key did not make")
    # once somebody relies on that head it is verified, however old it is
    witness = Party("server")
    head = party.notes[2].checkpoint()
    line = witness.witness.sign(head.text(), NOW)
    party.cosignatures[3, str(witness.witness.verifier())] = (line.line().encode(), NOW)
    keys = {"server": witness.witness.verifier()}
    party.policy = TrustPolicy.of([party.key.verifier()], keys, 1)
    party.write(tmp_path)
    refuted(judged(path), "site-01", "this key did not make")
