"""Whatever lies where a log should be: a verdict or a usage error, and never a traceback."""

import json
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.verify import EMPTY_ROOT
from fedkd.audit.verify.auditor import UsedWrongly, find_logs
from fedkd.audit.verify.command import main
from tests.audit_verify.federation import RUN, SITES, TABLES, Federation, Party, digest
from tests.audit_verify.verdicts import (
    CANNOT_TELL,
    CONSISTENT,
    REFUTED,
    check_of,
    judged,
    log_of,
    refuted,
    said,
    verdicts,
)

VERDICTS = {REFUTED, CANNOT_TELL, CONSISTENT}


@pytest.fixture
def path(federation: Federation, tmp_path: Path) -> Path:
    """One whole log, alone in its folder."""
    return federation.sites["site-01"].write(tmp_path)


def changed(path: Path, script: str) -> Path:
    database = sqlite3.connect(path)
    database.executescript(script)
    database.close()
    return path


def test_a_file_that_was_cut_off_is_refuted(path: Path) -> None:
    whole = path.read_bytes()
    for length in (0, 1, 15, 16, 99, 100, *range(512, len(whole), 1024), len(whole) - 1):
        path.write_bytes(whole[:length])
        assert judged(path).verdict == REFUTED, length


def test_a_file_with_a_byte_of_something_else_has_a_verdict(path: Path) -> None:
    """Any byte of the file, also of those that SQLite itself lives by."""
    whole = path.read_bytes()
    drawn = random.Random(0)  # noqa: S311
    found = []
    for at in [*range(100), *(drawn.randrange(len(whole)) for _ in range(300))]:
        spoilt = bytearray(whole)
        spoilt[at] = drawn.randrange(256)
        path.write_bytes(spoilt)
        found.append(judged(path).verdict)
    assert set(found) <= VERDICTS
    assert REFUTED in found


@pytest.mark.parametrize(
    "content", [b"text\n" * 500, bytes(4096), b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_what_is_no_database_is_refuted(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert judged(path).verdict == REFUTED


@pytest.mark.parametrize(
    ("version", "verdict"), [(0, REFUTED), (1, CANNOT_TELL), (2, CONSISTENT), (4, CANNOT_TELL)]
)
def test_formats(version: int, verdict: str, path: Path) -> None:
    """Format 2 is format 3 without cosignatures; what a newer fedkd wrote nobody here can tell."""
    changed(path, f"PRAGMA user_version={version}")
    report = judged(path)
    assert report.verdict == verdict
    if version == 2:
        changed(path, "DROP TABLE cosignatures; DROP TABLE seen")
        assert judged(path).verdict == CONSISTENT


ENDLESS = (
    "DROP TABLE seen; CREATE VIEW seen AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
    "FROM n) SELECT 'x' AS origin, i AS size, x'00' AS root, x'00' AS note FROM n"
)
TRICKS = {
    "a view that never ends": ENDLESS,
    "a column that is computed": "DROP TABLE facts; CREATE TABLE facts (name TEXT, "
    "value BLOB AS (zeroblob(1000)))",
    "a table with another column": "ALTER TABLE entries ADD COLUMN more",
    "a table with another name": "ALTER TABLE checkpoints RENAME TO checkpoint",
    "no table at all": "DROP TABLE nodes",
    "text for a leaf": "UPDATE entries SET leaf = CAST(leaf AS TEXT) WHERE place = 1",
    "bytes for a body": "UPDATE entries SET body = CAST(body AS BLOB) WHERE place = 1",
    "bytes for a key": "UPDATE entries SET key = CAST(key AS BLOB) WHERE place = 1",
    "no leaf": "UPDATE entries SET leaf = x'' WHERE place = 1",
    "a fraction for a size": "CREATE TABLE c (size, note); INSERT INTO c SELECT size + 0.5, note "
    "FROM checkpoints; DROP TABLE checkpoints; ALTER TABLE c RENAME TO checkpoints",
    "a size beyond every size": "UPDATE cosignatures SET size = 9223372036854775807 WHERE size = 9",
    "a size below every size": "UPDATE checkpoints SET size = -1 WHERE size = 2",
    "text that is not UTF-8": "UPDATE entries SET body = CAST(x'7bff7d' AS TEXT) WHERE place = 1",
    "a key that is not UTF-8": "UPDATE entries SET key = CAST(x'ff' AS TEXT) WHERE place = 1",
    "a key fact that is no key": "UPDATE facts SET value = x'ff' WHERE name = 'vkey'",
    "a policy that is none": "UPDATE facts SET value = x'00' WHERE name = 'policy'",
    "witness keys that are none": "UPDATE facts SET value = 'x' WHERE name = 'witness'",
    "a note that is none": "UPDATE checkpoints SET note = x'0a0a0a' WHERE size = 9",
    "a long note": "UPDATE checkpoints SET note = zeroblob(2000000) WHERE size = 9",
    "a cosignature that is none": "UPDATE cosignatures SET line = x'00ff'",
    "a hundred cosignatures": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
    "LIMIT 100) INSERT INTO cosignatures SELECT 9, cosigner || i, line, at FROM n, cosignatures "
    "WHERE size = 9",
    "a memory that is none": "UPDATE seen SET note = x'00'",
    "a root of another length": "UPDATE seen SET root = x'00'",
    "a node of another length": "UPDATE nodes SET digest = x'00'",
    "a node outside the tree": "INSERT INTO nodes VALUES (60, 1, zeroblob(32))",
    "a node at a level that is none": "INSERT INTO nodes VALUES (-1, 1, zeroblob(32))",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_table_that_is_not_what_it_seems_is_refuted(
    trick: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(path, TRICKS[trick])
    code, out, err = said(capsys, "verify", path)
    assert (code, err) == (1, "")
    assert out.startswith("REFUTED      site-01")


def test_a_row_that_is_too_long_to_load_is_refuted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedkd.audit.verify.reading.MOST_ROW_BYTES", 100_000)
    changed(path, "UPDATE entries SET salt = zeroblob(1000000) WHERE place = 4")
    refuted(judged(path), "site-01", "entry 3, or the next", "too big")


DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000
LEAVES = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"v":1}',
    b'{"v":2}',
    b"\xff",
    DEEP.encode()[:60_000],
    b"1" * 70_000,
]


@pytest.mark.parametrize("leaf", LEAVES, ids=range(len(LEAVES)))
def test_a_leaf_that_is_none_has_a_verdict(leaf: bytes, tmp_path: Path) -> None:
    """Signed by the log's own key, so that nothing else is wrong with the log."""
    party = Party("site-01")
    party.append("log.opened", {"party": "site-01"})
    party.add_row((1, "key", "type", "at", leaf, None, None))
    assert judged(party.write(tmp_path)).verdict in (REFUTED, CANNOT_TELL)
    body = Party("site-01")
    body.append("log.opened", {"party": "site-01"})
    body.rows[0] = (*body.rows[0][:6], DEEP)
    assert judged(body.write(tmp_path)).verdict == REFUTED


NAMES = [
    "new\nline",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egol.",
    "percent %41 ? # & ;",
    "'quoted\"",
    "a" * 200,
    "-rf",
    "..",
    os.fsdecode(b"\xff\xfe"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_file_with_an_odd_name_is_read_and_its_name_is_printed_harmlessly(
    name: str, federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    federation.sites["site-01"].write(folder).rename(folder / f"{name}.sqlite")
    assert main(["verify", str(folder)]) == 0
    federation.server.write(folder)
    (folder / f"{name}.policy").write_bytes(b"\x1b none")
    (folder / f"{name}.checkpoint").write_bytes(b"\x1b none")
    assert main(["verify", str(folder)]) == 1
    printed = capsys.readouterr()
    assert all(letter.isprintable() or letter == "\n" for letter in printed.out + printed.err)
    assert main(["verify", str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert name in {log["log"] for log in told["logs"]}


def test_what_a_hostile_log_says_cannot_steer_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    party = Party("red")
    party.name = "\x1b[31mred"
    party.append("log.opened", {"party": "x"}, "\x1b[2Jkey")
    party.append("\x1b[2J", {"run": "\x1b[2J"}, "other")
    (tmp_path / "two").mkdir()
    party.write(tmp_path / "two", "site-01")
    Federation().server.write(tmp_path / "two")
    main(["verify", str(tmp_path / "two")])
    printed = capsys.readouterr().out
    assert "\\x1b[31mred" in printed
    assert all(letter.isprintable() or letter == "\n" for letter in printed)


def test_what_is_no_file_has_a_verdict(run: Path, tmp_path: Path) -> None:
    """Folders, pipes, devices, links into nothing and links in a circle; a pipe would wait."""
    audit = run / "audit"
    (audit / "folder.sqlite").mkdir()
    os.mkfifo(audit / "pipe.sqlite")
    (audit / "device.sqlite").symlink_to("/dev/zero")
    (audit / "nothing.sqlite").symlink_to(tmp_path / "nothing")
    (audit / "circle.sqlite").symlink_to(audit / "circle.sqlite")
    (audit / "away.sqlite").symlink_to(audit / "site-01.sqlite")
    found = verdicts(judged(run))
    assert found["folder"] == found["pipe"] == found["device"] == REFUTED
    assert found["nothing"] == found["circle"] == CANNOT_TELL
    assert found["away"] == REFUTED  # it is the log of site-01, under another name
    assert found["site-01"] == found["server"] == CONSISTENT
    for name in ("pipe", "device", "nothing", "circle"):
        assert judged(audit / f"{name}.sqlite").verdict in (REFUTED, CANNOT_TELL), name


@pytest.mark.parametrize("kind", ["checkpoint", "policy"])
def test_what_lies_beside_a_log_may_be_hostile_too(kind: str, run: Path) -> None:
    beside = run / "audit" / f"site-01.{kind}"
    for make in (
        lambda: beside.write_bytes(b""),
        lambda: beside.write_bytes(b"\xff" * 100),
        lambda: beside.write_bytes(bytes(3_000_000)),
        lambda: os.mkfifo(beside),
        beside.mkdir,
        lambda: beside.symlink_to("/dev/zero"),
    ):
        beside.unlink(missing_ok=True)
        make()
        assert verdicts(judged(run))["site-01"] == REFUTED
        if beside.is_dir():
            beside.rmdir()
    beside.unlink()
    beside.symlink_to(run / "nothing")
    assert verdicts(judged(run))["site-01"] == CANNOT_TELL


def test_a_log_that_somebody_has_open_cannot_be_told(path: Path) -> None:
    """Its newest entries lie in another file, which only a writer could fold in."""
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("INSERT INTO facts VALUES ('more', x'00')")
    report = judged(path)
    assert report.verdict == CANNOT_TELL
    assert "'site-01.sqlite-wal' beside it" in str(report.logs[0].error)
    writer.close()
    assert judged(path).verdict == CONSISTENT


# Bodies of another shape: signed by their own key, so that only their content is odd.


ODD: list[Any] = [None, 1, "x", [1], ["x"], {}, True, -1, 10**15, 1.5, "", [], {"x": 1}, [{}], [[]]]
WHERE = {
    "answers.admitted": ("run", "round", "answers", "left_out", "checkpoints"),
    "aggregate.computed": ("run", "round", "inputs", "output", "lesson"),
    "release.outputs": ("run", "round", "digest", "asked_at", "model", "queries"),
    "checkpoint.witnessed": ("heads",),
    "party.enrolled": ("party", "peers", "vkey", "witnesses"),
    "log.opened": ("party", "format", "rehearsal"),
    "train.local": ("inputs", "lesson", "parent", "output"),
    "queries.posed": ("digest", "origin"),
    "student.updated": ("inputs", "queries", "parent", "output"),
    "dataset.registered": ("id", "card", "role"),
}


@pytest.mark.parametrize("type_", WHERE)
def test_a_body_of_another_shape_has_a_verdict(
    type_: str, federation: Federation, tmp_path: Path
) -> None:
    run = federation.write(tmp_path / "run")
    for beside in (run / "audit").glob("*.[cp]*"):
        beside.unlink()
    parties = (p for p in federation.parties.values() if any(row[2] == type_ for row in p.rows))
    party = next(parties)
    index = next(row[0] for row in party.rows if row[2] == type_)
    body = json.loads(party.rows[index][6])
    for key in WHERE[type_]:
        for value in (*ODD, *({"site-01": odd} for odd in ODD[:6])):
            party.rewritten(index, {**body, key: value}).write(run / "audit")
            assert set(verdicts(judged(run)).values()) <= VERDICTS, (key, value)


@pytest.mark.parametrize(("name", "fine"), [("size", [0, 1]), ("root", []), ("origin", ["", "x"])])
def test_a_head_of_another_shape_is_refuted(
    name: str, fine: list[Any], federation: Federation, run: Path
) -> None:
    site = federation.sites["site-01"]
    for value in (0, *ODD):
        head = {
            "origin": federation.server.origin,
            "size": 0,
            "root": EMPTY_ROOT.hex(),
            name: value,
        }
        if name == "size" and value == 1:
            head["root"] = federation.server.tree.root(1).hex()
        other = site.copy()
        other.append("checkpoint.witnessed", {"run": RUN, "round": 3, "heads": [head]})
        other.write(run / "audit")
        good = type(value) in (int, str) and value in fine
        assert judged(run).verdict == (CONSISTENT if good else REFUTED), value


# Reading.


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


def test_reading_leaves_every_byte_as_it_is(
    run: Path, policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (run, run / "audit"):
        folder.chmod(0o555)
    for file in (run / "audit").iterdir():
        file.chmod(0o444)
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    assert main(["verify", str(run), "--policy", str(policies)]) == 0
    assert main(["verify", "run/audit/server.sqlite", "--json"]) == 0
    assert snapshot(tmp_path) == before
    for folder in (run / "audit", run):
        folder.chmod(0o755)


def test_a_sites_own_folder_with_one_log_is_read(federation: Federation, tmp_path: Path) -> None:
    """There the file is called log.sqlite, and the party is the one that its entries name."""
    federation.sites["site-01"].write(tmp_path, "log")
    report = judged(tmp_path)
    assert report.verdict == CONSISTENT
    assert log_of(report, "log").log.party == "site-01"


def test_an_enrolled_party_without_a_log_is_told(run: Path) -> None:
    (run / "audit" / "site-03.sqlite").unlink()
    report = judged(run)
    assert "site-03" in check_of(report, "missing log").why
    assert report.verdict == CANNOT_TELL


def test_logs_of_an_earlier_fedkd_are_read_without_sources(tmp_path: Path) -> None:
    """Format 2: no cosigners, no names of sources; what they do show still holds."""
    parties = {name: Party(name) for name in ("server", *SITES)}
    for name, party in parties.items():
        party.append("log.opened", {"party": name, "format": 1})
    answers = {name: digest(name) for name in SITES}
    for name in SITES:
        where = {"run": RUN, "round": 1, "digest": answers[name]}
        parties[name].append("release.outputs", where)
    where = {"run": RUN, "round": 1}
    parties["server"].append("answers.admitted", {**where, "answers": answers, "left_out": {}})
    for party in parties.values():
        changed(
            party.write(tmp_path),
            "DROP TABLE seen; DROP TABLE cosignatures; PRAGMA user_version=2; "
            "DELETE FROM facts WHERE name = 'witness'",
        )
    report = judged(tmp_path)
    assert report.verdict == CONSISTENT
    assert check_of(report, "lineage").verdict == "NOT RECORDED"
    assert check_of(report, "double entry").why.startswith("3 answers")
    assert "nothing in the log says that it is no rehearsal" in str(report.holder)
    assert len(TABLES) == 6


def test_a_run_that_did_not_end_is_told_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "log.sqlite").touch()
    with pytest.raises(UsedWrongly, match=r"did not end.*--resume"):
        find_logs(tmp_path)
