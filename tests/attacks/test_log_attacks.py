"""Attacks on one party's log and on what it hands over, each by the name that it has in the issue.

What a lone log cannot notice is tested as well, beside what does notice it.
"""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.audit.keys import FOLDER, log_key, witness_keys
from fedkd.audit.verify import (
    AddCheckpoint,
    Algorithm,
    BadRequest,
    CannotTell,
    Continues,
    Fresh,
    Header,
    Malformed,
    Note,
    Range,
    Refuted,
    Signature,
    SigningKey,
    TrustPolicy,
    Witness,
    leaf_hash,
)
from fedkd.audit.verify.cosignatures import Forked, Inconsistent, Stale
from fedkd.audit.verify.logs import CheckedLog, check_log
from fedkd.audit.verify.tiles import files, read_files

SIZE = 5
NOW = 1_795_500_000


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's keys, and copies of its log: 1.sqlite, which has one entry, to 5.sqlite."""
    folder = tmp_path_factory.mktemp("site-01")
    with Log(folder / "log.sqlite", "site-01") as log:
        for size in range(1, SIZE + 1):
            append(log)
            log.export(folder / f"{size}.sqlite")
    return folder


def append(log: Log, said: str = "so") -> None:
    n = len(log)
    log.append(f"run/{n}", "train.local", {"run": "run", "n": n, "said": said})


def reopened(kept: Path, size: int, folder: Path) -> Log:
    """The log as it was when it had `size` entries, in the hands of who has its keys."""
    folder.mkdir(parents=True)
    shutil.copytree(kept / FOLDER, folder / FOLDER)
    shutil.copy(kept / f"{size}.sqlite", folder / "log.sqlite")
    return Log(folder / "log.sqlite", "site-01")


@pytest.fixture
def whole(kept: Path, tmp_path: Path) -> Path:
    """A copy of the log that was handed over; what is written to it need not last."""
    return Path(shutil.copy(kept / f"{SIZE}.sqlite", tmp_path / "whole.sqlite"))


def opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous=OFF")
    database.execute("PRAGMA journal_mode=MEMORY")
    return database


def verdict(path: Path, key: Any = None) -> CheckedLog | str:
    """What is found of a log: itself, or why it is refused."""
    try:
        return check_log(path, key, every_signature=True)
    except (Refuted, CannotTell) as error:
        return str(error)


def newest_of(log: CheckedLog) -> Note:
    return log.head(log.tree.size)


def witness(name: str, kept: Path) -> Witness:
    key = SigningKey(name, Algorithm.COSIGNATURE, hashlib.sha256(name.encode()).digest())
    log = log_key(kept).verifier()
    return Witness((key,), {log.name: (log,)})


def policy_of(kept: Path, witnesses: Sequence[Witness], threshold: int) -> TrustPolicy:
    keys = {it.keys[0].name: it.keys[0].verifier() for it in witnesses}
    return TrustPolicy.of([log_key(kept).verifier()], keys, threshold)


def asked(kept: Path, size: int, old: int) -> AddCheckpoint:
    """What the log of `size` entries asks to be cosigned, by whoever stands at `old`."""
    log = check_log(kept / f"{size}.sqlite")
    proof = log.tree.consistency(old, size) if old else ()
    return AddCheckpoint(old, proof, newest_of(log))


def flipped(content: bytes, at: int) -> bytes:
    """With one bit of the byte at `at` the other way: each of the eight has its turn."""
    return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


# A flipped bit in any byte of the database's entries and of an export.


def flips(value: Any) -> Iterator[Any]:
    """`value`, of the type that it has in the database, with one bit flipped, for every byte."""
    if isinstance(value, int):
        plain = value.to_bytes(8, "big", signed=True)
        yield from (int.from_bytes(flipped(plain, at), "big", signed=True) for at in range(8))
    else:
        plain = value.encode() if isinstance(value, str) else value
        yield from (flipped(plain, at) for at in range(len(plain)))


def refused_with_any_bit_flipped(path: Path, table: str, names: Sequence[str], where: str) -> int:
    """How many bytes of these columns there are; every one, flipped, makes the log refused."""
    database, count = opened(path), 0
    columns = ", ".join(names)
    rows = database.execute(f"SELECT rowid, {columns} FROM {table} WHERE {where}").fetchall()  # noqa: S608 - ours
    for row, *values in rows:
        for name, value in zip(names, values, strict=True):
            as_it_was = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
            change = f"UPDATE {table} SET {name} = {as_it_was} WHERE rowid = {row}"  # noqa: S608
            for one in flips(value):
                database.execute(change, (one,))
                found = verdict(path)
                assert isinstance(found, str), f"{name} of row {row}: {value!r} became {one!r}"
                count += 1
            database.execute(change, (value.encode() if isinstance(value, str) else value,))
    database.close()
    assert isinstance(verdict(path), CheckedLog)
    return count


COLUMNS = ("key", "type", "at", "leaf", "salt", "body")


@pytest.mark.parametrize("index", range(SIZE))
def test_a_flipped_bit_in_any_byte_of_an_entry_is_refused(index: int, whole: Path) -> None:
    count = refused_with_any_bit_flipped(whole, "entries", COLUMNS, f"place = {index}")
    assert count > 250


def test_a_flipped_bit_in_any_place_of_an_entry_is_refused(whole: Path) -> None:
    database = opened(whole)
    for place in range(SIZE):
        for other in flips(place):
            swap = [(place, -7), (other, place), (-7, other)]
            database.executemany("UPDATE entries SET place = ?2 WHERE place = ?1", swap)
            assert isinstance(verdict(whole), str), f"entry {place} became {other}"
            database.executemany("UPDATE entries SET place = ?1 WHERE place = ?2", reversed(swap))
    database.close()
    assert isinstance(verdict(whole), CheckedLog)


@pytest.mark.parametrize("size", [1, 4, SIZE])
def test_a_flipped_bit_in_any_byte_of_a_checkpoint_is_refused(size: int, whole: Path) -> None:
    assert refused_with_any_bit_flipped(whole, "checkpoints", ("note",), f"size = {size}") > 150


def test_a_flipped_bit_in_what_the_log_goes_on_from_is_refused(whole: Path) -> None:
    """Its key and the roots that the next entry is added to; nodes would become a fork later."""
    database = opened(whole)
    for name in ("range", "vkey"):
        (value,) = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        for one in (*flips(value), value):
            database.execute("UPDATE facts SET value = ? WHERE name = ?", (one, name))
            assert isinstance(verdict(whole), str) is (one != value), name
    for level, place, digest in database.execute("SELECT * FROM nodes").fetchall():
        for one in (*flips(digest), digest):
            change = "UPDATE nodes SET digest = ? WHERE level = ? AND place = ?"
            database.execute(change, (one, level, place))
            assert isinstance(verdict(whole), str) is (one != digest), (level, place)
    database.close()


def test_a_flipped_bit_anywhere_in_the_file_never_shows_another_content(whole: Path) -> None:
    """A garbled page: pages' headers, indexes and free space, too, every 37th byte of them."""
    untouched, content = verdict(whole), whole.read_bytes()
    refused = 0
    with whole.open("r+b", buffering=0) as file:
        for at in range(0, len(content), 37):
            file.seek(at)
            file.write(flipped(content, at)[at : at + 1])
            found = verdict(whole)
            refused += isinstance(found, str)
            assert isinstance(found, str) or found == untouched, f"byte {at}"
            file.seek(at)
            file.write(content[at : at + 1])
    assert verdict(whole) == untouched
    assert refused > 50


def test_a_garbled_page_never_shows_another_content(whole: Path) -> None:
    untouched, content = verdict(whole), whole.read_bytes()
    noise = hashlib.shake_256(b"noise").digest(4096)
    for filling in (bytes(4096), noise, content[-4096:], content[4096:8192]):
        for at in range(0, len(content), 4096):
            whole.write_bytes(content[:at] + filling + content[at + 4096 :])
            found = verdict(whole)
            assert isinstance(found, str) or found == untouched, f"page {at // 4096}"


def test_a_flipped_bit_in_any_byte_of_an_export_is_refused(kept: Path) -> None:
    """Of a folder of tiles with two cosignatures, both of which the auditor's policy asks for."""
    witnesses = [witness(f"w{n}", kept) for n in range(2)]
    checked = check_log(kept / "4.sqlite")
    lines = [line for one in witnesses for line in one.add(asked(kept, 4, 0), NOW)[1]]
    note, policy = checked.head(4).with_signatures(lines), policy_of(kept, witnesses, 2)
    export = dict(files([leaf.header.to_bytes() for leaf in checked.entries], note))
    assert sorted(export) == ["checkpoint", "tile/0/000.p/4", "tile/entries/000.p/4"]

    def accepted(changed: Mapping[str, bytes]) -> bool:
        try:
            leaves, read = read_files(changed.__getitem__)
            for leaf in leaves:
                Header.parse(leaf)
            policy.witnessed(read)
        except Refuted:
            return False
        return True

    assert accepted(export)
    for name, content in export.items():
        for at in range(len(content)):
            assert not accepted({**export, name: flipped(content, at)}), f"{name}, byte {at}"


# Cut, reordered, inserted, duplicated entries.

Row = tuple[Any, ...]
Rows = list[Row]


def moved(row: Row, place: int, **header: Any) -> Row:
    """The entry as the `place`-th; its leaf and its columns say so."""
    leaf = replace(Header.parse(row[4]), sequence=place, **header)
    return (place, leaf.key, leaf.type, leaf.time, leaf.to_bytes(), *row[5:])


def written(path: Path, rows: Rows, notes: Sequence[bytes]) -> None:
    """Makes the log one of these entries and signed checkpoints, and all fit that needs no key."""
    database, range_ = opened(path), Range()
    for table in ("entries", "nodes", "checkpoints"):
        database.execute(f"DELETE FROM {table}")  # noqa: S608 - ours
    for row in rows:
        database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        range_, nodes = range_.appended(leaf_hash(row[4]))
        of_leaf = [(node.level, node.index, node.digest) for node in nodes]
        database.executemany("INSERT INTO nodes VALUES (?, ?, ?)", of_leaf)
    database.executemany("INSERT INTO checkpoints VALUES (?, ?)", enumerate(notes, 1))
    database.execute("UPDATE facts SET value = ? WHERE name = 'range'", (range_.to_bytes(),))
    database.close()


def stored(path: Path) -> tuple[Rows, list[bytes]]:
    database = opened(path)
    rows = database.execute("SELECT * FROM entries ORDER BY place").fetchall()
    notes = [note for (note,) in database.execute("SELECT note FROM checkpoints ORDER BY size")]
    database.close()
    return rows, notes


ATTACKS: Mapping[str, Callable[[Rows], Rows]] = {
    "cut, the first": lambda rows: rows[1:],
    "cut, one within": lambda rows: [*rows[:2], *rows[3:]],
    "cut, the last": lambda rows: rows[:-1],
    "reordered, two": lambda rows: [rows[0], rows[2], rows[1], *rows[3:]],
    "reordered, all": lambda rows: rows[::-1],
    "inserted within": lambda rows: [*rows[:2], made_up(rows[1]), *rows[2:]],
    "inserted in front": lambda rows: [made_up(rows[1]), *rows],
    "inserted behind": lambda rows: [*rows, made_up(rows[1])],
    "duplicated": lambda rows: [*rows[:3], *rows[2:]],
    "duplicated over another": lambda rows: [*rows[:2], rows[1], *rows[3:]],
}


def made_up(row: Row) -> Row:
    return moved(row, 1, key="made up", type="release.outputs")


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("heads", ["all heads", "as many heads as entries", "the newest on top"])
@pytest.mark.parametrize("fit", ["leaves as they were", "leaves made to fit"])
def test_cut_reordered_inserted_or_duplicated_entries_are_refused(
    attack: str, heads: str, fit: str, whole: Path
) -> None:
    """By somebody without the key, who can make everything fit but what the key signed."""
    rows, notes = stored(whole)
    written(whole, rows, notes)
    assert isinstance(verdict(whole), CheckedLog)
    changed: Rows = []
    for at, row in enumerate(ATTACKS[attack](rows)):
        key = row[1] if all(row[1] != other[1] for other in changed) else f"{row[1]} again"
        columns = (at, key, *row[2:])
        changed.append(moved(row, at, key=key) if fit == "leaves made to fit" else columns)
    if heads != "all heads":
        notes = [*notes, notes[-1]][: len(changed)]
    if heads == "the newest on top":
        notes[-1] = stored(whole)[1][-1]
    written(whole, changed, notes)
    found = verdict(whole)
    if attack == "cut, the last" and heads == "as many heads as entries":
        assert isinstance(found, CheckedLog)  # this is the roll-back: see there
    else:
        assert isinstance(found, str)


# Roll-back to an older, validly signed size.


def test_a_roll_back_to_an_older_validly_signed_size_is_not_seen_in_the_log_alone(
    kept: Path, whole: Path
) -> None:
    """Not even with the auditor's own key: everything in it was signed, once."""
    rows, notes = stored(whole)
    written(whole, rows[:3], notes[:3])
    for log in (whole, kept / "3.sqlite"):
        assert check_log(log).verdict == "CONSISTENT"
        own = check_log(log, log_key(kept).verifier())
        assert (own.verdict, len(own.entries)) == ("VERIFIED", 3)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_roll_back_is_refuted_by_a_checkpoint_that_was_kept(size: int, kept: Path) -> None:
    newest = check_log(kept / "5.sqlite").head(5)
    old = check_log(kept / f"{size}.sqlite")
    Continues((old.head(size).checkpoint(),)).verify(old.tree, newest_of(old))
    with pytest.raises(Refuted, match="a roll-back"):
        Continues((newest.checkpoint(),)).verify(old.tree, newest_of(old))


def test_a_rolled_back_log_has_no_fresh_cosignature(kept: Path) -> None:
    """Its old ones stay valid; a policy that asks for new ones is not met."""
    cosigner = witness("w0", kept)
    _, lines = cosigner.add(asked(kept, 3, 0), NOW)
    note = check_log(kept / "3.sqlite").head(3).with_signatures(lines)
    policy = policy_of(kept, [cosigner], 1)
    old = check_log(kept / "3.sqlite")
    policy.verify(old.tree, note)
    Fresh(policy, NOW - 60, NOW + 60).verify(old.tree, note)
    with pytest.raises(Refuted, match="nobody"):
        Fresh(policy, NOW + 86_400, NOW + 86_460).verify(old.tree, note)


def test_a_witness_does_not_go_back_with_a_log(kept: Path) -> None:
    after, _ = witness("w0", kept).add(asked(kept, 5, 0), NOW)
    with pytest.raises(Stale) as refused:
        after.add(asked(kept, 3, 0), NOW)
    assert refused.value.size == 5


# Rewriting by the key's own holder.


def rewritten(kept: Path, folder: Path, size: int = SIZE, said: str = "otherwise") -> CheckedLog:
    """The same history up to two entries, and from there on what the key's holder likes better."""
    with reopened(kept, 2, folder) as log:
        while len(log) < size:
            append(log, said)
    return check_log(folder / "log.sqlite")


def test_rewriting_by_the_keys_own_holder_is_not_seen_in_the_log_alone(
    kept: Path, tmp_path: Path
) -> None:
    log = rewritten(kept, tmp_path / "rewritten")
    assert log.verdict == "CONSISTENT"
    known = log_key(kept).verifier()
    assert check_log(tmp_path / "rewritten" / "log.sqlite", known).verdict == "VERIFIED"
    assert log.entries[1] == check_log(kept / "5.sqlite").entries[1]
    assert log.entries[2] != check_log(kept / "5.sqlite").entries[2]


@pytest.mark.parametrize(
    ("size", "why"), [(3, BadRequest), (5, Forked), (6, Inconsistent), (9, Inconsistent)]
)
def test_rewriting_is_refused_by_a_peer_that_cosigned(
    size: int, why: type[Refuted], kept: Path, tmp_path: Path
) -> None:
    after, _ = witness("w0", kept).add(asked(kept, 5, 0), NOW)
    log = rewritten(kept, tmp_path / "rewritten", size)
    with pytest.raises(Stale):  # as if nothing had been seen before
        after.add(AddCheckpoint(0, (), newest_of(log)), NOW)
    true = check_log(kept / "5.sqlite").tree
    own = log.tree.consistency(5, size) if size > 5 else ()
    for proof in (own, true.consistency(2, 5), ()) if size > 5 else ((),):
        with pytest.raises(why):
            after.add(AddCheckpoint(5, proof, newest_of(log)), NOW)


def test_rewriting_is_refuted_by_a_checkpoint_that_was_kept(kept: Path, tmp_path: Path) -> None:
    log = rewritten(kept, tmp_path / "rewritten", 7)
    for size in range(1, SIZE + 1):
        continues = Continues((check_log(kept / f"{size}.sqlite").head(size).checkpoint(),))
        if size <= 2:
            continues.verify(log.tree, newest_of(log))
        else:
            with pytest.raises(Refuted, match="another history"):
                continues.verify(log.tree, newest_of(log))


def test_rewriting_never_reaches_the_quorum(kept: Path, tmp_path: Path) -> None:
    log = rewritten(kept, tmp_path / "rewritten", 7)
    witnesses = [witness(f"w{n}", kept) for n in range(3)]
    policy, lines = policy_of(kept, witnesses, 2), []
    for one in witnesses:
        after, first = one.add(asked(kept, 5, 0), NOW)
        lines += first
        with pytest.raises(Inconsistent):
            after.add(AddCheckpoint(5, log.tree.consistency(5, 7), newest_of(log)), NOW)
    policy.verify(log.tree, check_log(kept / "5.sqlite").head(5).with_signatures(lines[:2]))
    with pytest.raises(Refuted, match="nobody"):
        policy.verify(log.tree, newest_of(log))
    with pytest.raises(Refuted, match="w0"):  # a cosignature is over the head that it was made for
        policy.verify(log.tree, newest_of(log).with_signatures(lines))


# Two heads shown to different parties.


def test_two_heads_shown_to_different_parties_do_not_both_reach_the_quorum(
    kept: Path, tmp_path: Path
) -> None:
    """One size, two histories, each shown first to some of three peers; two of them suffice."""
    logs = (check_log(kept / "5.sqlite"), rewritten(kept, tmp_path / "other"))
    asks = [AddCheckpoint(0, (), newest_of(log)) for log in logs]
    for shown in ([0, 0, 1], [1, 0, 1], [0, 0, 0]):
        witnesses = [witness(f"w{n}", kept) for n in range(3)]
        policy = policy_of(kept, witnesses, 2)
        lines: list[list[Signature]] = [[], []]
        for one, first in zip(witnesses, shown, strict=True):
            after, signed = one.add(asks[first], NOW)
            lines[first] += signed
            with pytest.raises(Stale):
                after.add(asks[1 - first], NOW)
            with pytest.raises(Forked):
                after.add(replace(asks[1 - first], old_size=SIZE), NOW)
        notes = [newest_of(log).with_signatures(lines[at]) for at, log in enumerate(logs)]
        reached = []
        for log, note in zip(logs, notes, strict=True):
            try:
                policy.verify(log.tree, note)
                reached.append(log)
            except Refuted:
                pass
        assert len(reached) == 1


def test_two_heads_are_the_proof_once_two_parties_compare(kept: Path, tmp_path: Path) -> None:
    logs = (check_log(kept / "5.sqlite"), rewritten(kept, tmp_path / "other"))
    for mine, theirs in (logs, logs[::-1]):
        newest_of(theirs).verify([mine.key])  # the log's own key signed both
        with pytest.raises(Refuted, match="another history"):
            Continues((newest_of(theirs).checkpoint(),)).verify(mine.tree, newest_of(mine))


def test_a_quorum_of_liars_is_not_caught(kept: Path, tmp_path: Path) -> None:
    """As the documents say: of three, of whom two suffice, one that signs everything is enough."""
    logs = (check_log(kept / "5.sqlite"), rewritten(kept, tmp_path / "other"))
    honest = [witness(f"w{n}", kept) for n in range(2)]
    liar = witness("liar", kept)
    policy = policy_of(kept, [*honest, liar], 2)
    for log, one in zip(logs, honest, strict=True):
        ask = AddCheckpoint(0, (), newest_of(log))
        note = newest_of(log).with_signatures([*one.add(ask, NOW)[1], *liar.add(ask, NOW)[1]])
        policy.verify(log.tree, note)


# A forged cosignature, and one key used for log and witness.


def test_a_cosignature_with_any_byte_changed_does_not_count(kept: Path) -> None:
    """Time and signature: an old one is not made fresh by another time."""
    one = witness("w0", kept)
    policy, log = policy_of(kept, [one], 1), check_log(kept / "5.sqlite")
    ((line,),) = [one.add(asked(kept, 5, 0), NOW)[1]]
    policy.verify(log.tree, newest_of(log).with_signatures([line]))
    for at in range(len(line.content)):
        forged = Signature(line.name, line.key_id, flipped(line.content, at))
        with pytest.raises(Refuted):
            policy.verify(log.tree, newest_of(log).with_signatures([forged]))


def test_a_cosignature_of_somebody_else_under_a_peers_name_does_not_count(kept: Path) -> None:
    one, log = witness("w0", kept), check_log(kept / "5.sqlite")
    policy, head = policy_of(kept, [one], 1), newest_of(log)
    other = SigningKey("w0", Algorithm.COSIGNATURE, hashlib.sha256(b"somebody").digest())
    as_theirs = other.sign(head.text, NOW)
    own_id = one.keys[0].verifier().id
    elsewhere = one.add(asked(kept, 4, 0), NOW)[1][0]
    by_the_log = log_key(kept).sign(head.text)
    for forged in (
        as_theirs,
        Signature("w0", own_id, as_theirs.content),
        elsewhere,
        Signature("w0", own_id, NOW.to_bytes(8, "big") + by_the_log.content),
    ):
        with pytest.raises(Refuted):
            policy.verify(log.tree, head.with_signatures([forged]))


def test_one_key_used_for_log_and_witness_is_refused(kept: Path, whole: Path) -> None:
    log = log_key(kept)
    as_witness = SigningKey(f"{log.name}/witness", Algorithm.COSIGNATURE, log.seed)
    with pytest.raises(ValueError, match="one key as witness and as log"):
        Witness((as_witness,), {log.name: (log.verifier(),)})
    with pytest.raises(ValueError, match="a log's key"):
        Witness((log,), {})
    with pytest.raises(Malformed, match="one key as log and witness"):
        TrustPolicy.of([log.verifier()], {"w0": as_witness.verifier()}, 1)
    database = opened(whole)
    text = as_witness.verifier().text().encode()
    database.execute("UPDATE facts SET value = ? WHERE name = 'witness'", (text,))
    database.close()
    assert "one key as log and witness" in str(verdict(whole))
    assert {key.verifier().public for key in witness_keys(kept)}.isdisjoint({log.verifier().public})
