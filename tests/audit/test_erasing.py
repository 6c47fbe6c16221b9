"""What an old entry said can be erased: its bytes are gone, and every proof still holds."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import EVENTS, Contradiction, Log
from fedkd.audit.erasing import Applied, apply_rule
from fedkd.audit.log import Erased, NotOwnLog, StillRead
from fedkd.audit.retention import NEVER, NeverErased, due, moment
from fedkd.audit.verify import Header, leaf_hash, verify_inclusion
from fedkd.audit.verify.logs import check_log
from fedkd.wire import UNKNOWN

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(days=400)
TYPE, RULE = "error.raised", "errors are kept for a year"


def day(number: int) -> str:
    """RFC 3339, so many days after the first entry."""
    return (START + timedelta(days=number)).isoformat().replace("+00:00", "Z")


def clock() -> Callable[[], str]:
    """An entry a day."""
    days = iter(range(10_000))
    return lambda: day(next(days))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    (tmp_path / "party").mkdir()
    with Log(tmp_path / "party" / "log.sqlite", "party", now=clock()) as log:
        # Some builds of SQLite overwrite what they free by default, others do not.
        log._database.execute("PRAGMA secure_delete=OFF")
        yield log


@pytest.fixture
def folder(log: Log, tmp_path: Path) -> Path:
    return tmp_path / "party"


def say(log: Log, count: int, type: str = TYPE, **more: Any) -> None:
    for _ in range(count):
        n = len(log)
        said = f"secret {n:04} " + "of a patient " * (7 * n % 90)
        log.append(f"key {n}", type, {"found": said, **more})


def apply(log: Log, before: str, type: str = TYPE) -> Applied:
    return apply_rule(log, type, before, RULE, LATER)


def content(folder: Path) -> bytes:
    """Every byte of every file."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_what_is_erased_is_gone_from_every_file(log: Log, folder: Path) -> None:
    """Also from where SQLite moved it while the log grew, and from the journal beside it."""
    say(log, 60)
    salts = [
        bytes(row[0]) for row in log._database.execute("SELECT salt FROM entries WHERE place < 40")
    ]
    assert all(f"secret {n:04}".encode() in content(folder) for n in range(60))
    assert apply(log, day(40)).indices == tuple(range(40))
    for _ in ("while it is open", "when it is closed"):
        left = content(folder)
        for n in range(60):
            assert (f"secret {n:04}".encode() in left) is (n >= 40)
        assert not any(salt in left for salt in salts)
        log.close()
    assert sorted(path.name for path in folder.iterdir()) == ["keys", "log.sqlite"]


def test_headers_tree_and_proofs_stay(log: Log, folder: Path) -> None:
    say(log, 9)
    before, headers = [log.root(size) for size in range(10)], list(log.headers())
    applied = apply(log, day(5))
    assert [log.root(size) for size in range(10)] == before
    assert list(log.headers())[:9] == headers
    log.close()
    checked = check_log(folder / "log.sqlite", every_signature=True)
    assert (checked.verdict, checked.closed, len(checked.entries)) == ("CONSISTENT", 5, 10)
    assert [leaf.header.sequence for leaf in checked.entries if leaf.body is None] == [*range(5)]
    assert applied.indices == (0, 1, 2, 3, 4)
    for index in range(10):
        leaf = checked.entries[index].header.to_bytes()
        proof = checked.tree.inclusion(index, 10)
        verify_inclusion(index, 10, leaf_hash(leaf), proof, checked.root)


def test_the_log_says_what_was_erased_and_why(log: Log) -> None:
    say(log, 3)
    say(log, 2, "train.local")
    applied = apply(log, "2026-01-04T01:00:00+01:00")
    assert applied.entry is not None
    assert (applied.entry.index, applied.entry.type) == (5, "retention.applied")
    assert applied.entry.body == {
        "rule": RULE,
        "type": TYPE,
        "before": "2026-01-04T00:00:00.000Z",
        "erased": [0, 1, 2],
        "count": 3,
        "youngest_days": 398,
    }
    assert [entry.said is None for entry in log.entries()] == [True] * 3 + [False] * 3
    # the same again finds nothing, and says nothing
    assert apply(log, day(3)) == Applied((), {}, None, None)
    assert len(log) == 6


def test_either_both_are_on_disk_or_neither(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    say(log, 3)

    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(log, "_grow", fails)
    with pytest.raises(OSError, match="no space"):
        apply(log, day(3))
    assert [entry.said is None for entry in log.entries()] == [False] * 3


@pytest.mark.parametrize("type", sorted(NEVER))
def test_what_a_party_still_needs_is_never_erased(type: str, log: Log) -> None:
    assert type in EVENTS
    say(log, 2, type)
    with pytest.raises(NeverErased, match=f"found {type}, expected .*; .+"):
        apply(log, day(2), type)
    with pytest.raises(NeverErased):
        log.erase([0, 1], {})
    assert all(entry.said is not None for entry in log.entries())
    assert len(log) == 2


def test_one_needed_entry_among_others_keeps_all_of_them(log: Log) -> None:
    say(log, 2)
    say(log, 1, "budget.charged")
    with pytest.raises(NeverErased):
        log.erase([0, 1, 2], {})
    assert [entry.said is None for entry in log.entries()] == [False] * 3


@pytest.mark.parametrize("type", sorted(EVENTS - NEVER.keys()))
def test_everything_else_may_be(type: str, log: Log) -> None:
    say(log, 1, type)
    assert apply(log, day(1), type).indices == (0,)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("2027-02-06T00:00:00Z", "still to come"),
        ("2026-01-02T00:00:00", "without its offset"),
        ("yesterday", "expected RFC 3339"),
        ("", "expected RFC 3339"),
    ],
)
def test_a_time_that_is_none_erases_nothing(before: str, said: str, log: Log) -> None:
    say(log, 2)
    with pytest.raises(ValueError, match=said):
        apply(log, before)
    assert len(log) == 2


def test_a_rule_without_words_or_type_erases_nothing(log: Log) -> None:
    say(log, 2)
    with pytest.raises(ValueError, match="found no rule"):
        apply_rule(log, TYPE, day(2), "  ", LATER)
    with pytest.raises(ValueError, match=r"expected one of access\.performed"):
        apply(log, day(2), "error.raise")
    assert len(log) == 2


def header(at: str, type: str = "train.local", run: str | None = "r") -> Header:
    return Header(type, 0, at, "party", bytes(32), (), run)


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([header(day(1))], {}),
        ([header(day(1)), header(day(9), "release.outputs")], {"r": "it went on later"}),
        ([header(day(1)), header(day(9), run="another")], {}),
        ([header(day(1)), header(day(9), run=None)], {}),
        ([header(day(1), run=UNKNOWN), header(day(9), run=UNKNOWN)], {}),
        ([header(day(0), "run.started"), header(day(1))], {"r": "it has not ended"}),
        ([header(day(0), "run.started"), header(day(1)), header(day(2), "run.ended")], {}),
    ],
)
def test_nothing_is_erased_of_a_run_that_may_go_on(
    headers: list[Header], kept: dict[str, str]
) -> None:
    found = due(headers, "train.local", moment(day(5)))
    assert found.kept == kept
    assert bool(found.indices) is not bool(kept)


@pytest.mark.parametrize(
    ("at", "erased"),
    [
        ("2026-01-01T00:00:00Z", True),  # as a text it is more than the limit, and the next ones
        ("2026-01-01T00:00:00.499999999Z", True),
        ("2026-01-01T00:00:00.5Z", False),
        ("2026-01-01T00:00:00.500000000Z", False),
        ("2026-01-01T00:00:01Z", False),
    ],
)
def test_older_is_meant_as_times_not_as_texts(at: str, erased: bool) -> None:
    limit = moment("2026-01-01T01:00:00.500+01:00")
    assert bool(due([header(at, TYPE, None)], TYPE, limit).indices) is erased


def test_an_erased_entry_says_so(log: Log) -> None:
    say(log, 2)
    apply(log, day(1))
    entry = log.entry("key 0")
    assert entry is not None
    assert (entry.index, entry.type, entry.at, entry.said) == (0, TYPE, day(0), None)
    with pytest.raises(Erased, match=r"entry 0 \(error.raised\) erased.*retention.applied"):
        _ = entry.body
    assert [it.index for it in log.entries(TYPE)] == [0, 1]
    last = log.last(TYPE)
    assert last is not None
    assert last.said is not None


def test_what_is_done_again_finds_an_erased_entry_there(log: Log) -> None:
    """It cannot be compared any more; its key and its type still stand."""
    say(log, 2)
    apply(log, day(2))
    again = log.append("key 0", TYPE, {"found": "secret 0000 "})
    assert (again.index, again.said) == (0, None)
    assert len(log) == 3
    with pytest.raises(Contradiction):
        log.append("key 0", "run.started", {})


def test_somebody_who_reads_meanwhile_is_waited_for(log: Log, folder: Path) -> None:
    say(log, 4)
    reader = sqlite3.connect(folder / "log.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM entries").fetchone()
    log._database.execute("PRAGMA busy_timeout=20")
    with pytest.raises(StillRead, match=r"open elsewhere.*do the same again"):
        apply(log, day(4))
    assert b"secret 0001" in content(folder)  # the reader still sees them
    reader.execute("COMMIT")
    reader.close()
    assert apply(log, day(4)) == Applied((), {}, None, None)
    assert b"secret 0001" not in content(folder)


def test_whoever_is_killed_while_erasing_leaves_a_log_that_holds(tmp_path: Path) -> None:
    """Six times: all of what was due is erased and the log says so, or nothing is."""
    for turn in range(6):
        folder = tmp_path / str(turn)
        folder.mkdir()
        with Log(folder / "log.sqlite", "party", now=clock()) as log:
            say(log, 20)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with Log(folder / "log.sqlite", "party", now=lambda: day(399)) as log:
                for before in range(1, 20):
                    os.write(write, b".")
                    apply(log, day(before))
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as told:
            told.read(1 + 2 * turn)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        with Log(folder / "log.sqlite", "party") as log:
            said = [entry.body["erased"] for entry in log.entries("retention.applied")]
            gone = [entry.index for entry in log.entries(TYPE) if entry.said is None]
            assert gone == [index for indices in said for index in indices]
            apply_rule(log, TYPE, day(20), RULE, LATER)
        assert check_log(folder / "log.sqlite").closed == 20
        assert b"secret" not in content(folder)


# Whose log it is.


def test_a_log_goes_on_under_its_own_key_alone(log: Log, folder: Path, tmp_path: Path) -> None:
    say(log, 2)
    log.export(tmp_path / "copy.sqlite")
    before = (tmp_path / "copy.sqlite").read_bytes()
    with pytest.raises(NotOwnLog, match=r"found no key beside .* fedkd\.invalid/party/"):
        Log(tmp_path / "copy.sqlite", "party")
    assert not (tmp_path / "keys").exists()
    other = tmp_path / "other"
    other.mkdir()
    Log(other / "log.sqlite", "party").close()
    (other / "log.sqlite").write_bytes(before)
    with pytest.raises(NotOwnLog, match=r"found fedkd\.invalid/party/\w+\+.* beside a log"):
        Log(other / "log.sqlite", "party")
    assert check_log(other / "log.sqlite").entries == check_log(tmp_path / "copy.sqlite").entries
