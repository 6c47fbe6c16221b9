"""A torn write: what a disk leaves when it dies within one opens as a true beginning of the log.

SQLite's promise for a write-ahead log: what stands before a torn or garbled place is there, and a
transaction that reaches into it is not there at all.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fedkd.audit import Log, UnknownFormat
from fedkd.audit.keys import FOLDER
from fedkd.audit.log import Damaged
from fedkd.audit.verify import CannotTell, Checkpoint, Continues, Leaf, Refuted
from fedkd.audit.verify.logs import CheckedLog, check_log

BEFORE, AFTER = 2, 6
"""Entries that lie in the database file already, and those that only its write-ahead log holds."""
WAL_HEADER, FRAME = 32, 24 + 4096


class Died(NamedTuple):
    """What lay on disk at kill -9: two files and the keys; and what the log was.

    `ends` are the lengths of the write-ahead log at which a write was acknowledged, with how many
    entries there were then.
    """

    folder: Path
    database: bytes
    wal: bytes
    ends: tuple[tuple[int, int], ...]
    leaves: tuple[Leaf, ...]
    heads: tuple[Checkpoint, ...]

    def acknowledged(self, intact: int) -> int:
        """How many entries the first `intact` bytes of the write-ahead log hold."""
        return max((entries for end, entries in self.ends if end <= intact), default=BEFORE)

    def leaves_on_disk(self, folder: Path, wal: bytes, database: bytes | None = None) -> Path:
        """The two files in a folder of one's own, the first one torn or garbled or not."""
        folder.mkdir()
        shutil.copytree(self.folder / FOLDER, folder / FOLDER)
        (folder / "log.sqlite").write_bytes(database or self.database)
        (folder / "log.sqlite-wal").write_bytes(wal)
        return folder / "log.sqlite"


@pytest.fixture(scope="module")
def died(tmp_path_factory: pytest.TempPathFactory) -> Died:
    folder = tmp_path_factory.mktemp("died")
    path, wal = folder / "log.sqlite", folder / "log.sqlite-wal"
    with Log(path, "site-01") as log:
        for n in range(BEFORE):
            log.append(f"{n}", "train.local", {"n": n})
    ends = []
    with Log(path, "site-01") as log:
        for n in range(BEFORE, BEFORE + AFTER):
            log.append(f"{n}", "train.local", {"n": n, "said": "much " * 50})
            ends.append((wal.stat().st_size, n + 1))
            if n % 2:
                log.see(log.ask(0).note)
                ends.append((wal.stat().st_size, n + 1))
        on_disk = path.read_bytes(), wal.read_bytes()
    checked = check_log(path)
    heads = tuple(checked.head(size + 1).checkpoint() for size in range(BEFORE + AFTER))
    return Died(folder, *on_disk, tuple(ends), checked.entries, heads)


def opens(path: Path, died: Died) -> int:
    """How many entries the log has when it is opened again: a true beginning, which holds."""
    with Log(path, "site-01") as log:
        size = len(log)
    checked = check_log(path, every_signature=True)
    assert checked.entries == died.leaves[:size]
    Continues(died.heads[:size]).verify(checked.tree, checked.head(size))
    return size


def goes_on(path: Path) -> CheckedLog:
    with Log(path, "site-01") as log:
        log.append("after", "error.raised", {})
    return check_log(path, every_signature=True)


def places(died: Died) -> Iterator[int]:
    """Around every acknowledged write's end, and within every second page."""
    wal = len(died.wal)
    yield from {0, 1, 8, WAL_HEADER - 1, WAL_HEADER, WAL_HEADER + 1}
    for end, _ in died.ends:
        yield from (place for place in (end - 1, end, end + 23) if place < wal)
    yield from range(WAL_HEADER + FRAME // 2, wal, 2 * FRAME + 97)


def test_what_was_acknowledged_is_there_after_the_kill(died: Died, tmp_path: Path) -> None:
    path = died.leaves_on_disk(tmp_path / "died", died.wal)
    assert opens(path, died) == BEFORE + AFTER
    assert goes_on(path).entries[:-1] == died.leaves


def torn(wal: bytes, at: int) -> bytes:
    return wal[:at]


def zeroed(wal: bytes, at: int) -> bytes:
    return wal[:at] + bytes(len(wal) - at)


def garbled(wal: bytes, at: int) -> bytes:
    return wal[:at] + bytes([wal[at] ^ 1 << at % 8]) + wal[at + 1 :]


@pytest.mark.parametrize("damage", [torn, zeroed, garbled])
def test_a_torn_write_leaves_all_that_was_acknowledged_before_it(
    damage: Callable[[bytes, int], bytes], died: Died, tmp_path: Path
) -> None:
    found = {}
    for at in places(died):
        path = died.leaves_on_disk(tmp_path / f"{damage.__name__} {at}", damage(died.wal, at))
        found[at] = opens(path, died)
        intact = at if at >= WAL_HEADER else 0
        assert found[at] == died.acknowledged(intact), f"at byte {at}"
        assert goes_on(path).entries[:-1] == died.leaves[: found[at]], f"at byte {at}"
    assert set(found.values()) >= set(range(BEFORE, BEFORE + AFTER))


def test_what_a_torn_write_took_is_noticed_by_whoever_was_told(died: Died, tmp_path: Path) -> None:
    """A disk that lost what it had confirmed is a roll-back; a peer's cosignature is the memory."""
    path = died.leaves_on_disk(tmp_path / "died", died.wal[: len(died.wal) // 2])
    size = opens(path, died)
    assert BEFORE < size < BEFORE + AFTER
    for log, found in ((check_log(path), "a roll-back"), (goes_on(path), "another history")):
        told = died.heads[len(log.entries) :] if found == "a roll-back" else died.heads[: size + 1]
        with pytest.raises(Refuted, match=found):
            Continues(told).verify(log.tree, log.head(len(log.entries)))


def test_a_garbled_page_never_shows_another_content(died: Died, tmp_path: Path) -> None:
    """Of the database file: whoever opens it, it is refused or says what it said."""
    untouched = 0
    for at in range(0, len(died.database), 497):
        database = garbled(died.database, at)
        path = died.leaves_on_disk(tmp_path / f"{at}", died.wal, database)
        try:
            entries = goes_on(path).entries
        except (Refuted, CannotTell, Damaged, UnknownFormat, sqlite3.DatabaseError):
            continue
        untouched += 1
        assert entries[:-1] == died.leaves, f"byte {at}"
    assert untouched


def test_nothing_is_added_to_a_log_that_would_go_on_from_a_damaged_place(
    died: Died, tmp_path: Path
) -> None:
    """What would be signed is a second history, which no peer would take."""
    path = died.leaves_on_disk(tmp_path / "died", died.wal)
    Log(path, "site-01").close()
    content = path.read_bytes()
    for damage in (
        "UPDATE facts SET value = CAST(substr(value, 1, 15) || x'07' || substr(value, 17) AS BLOB) "
        "WHERE name = 'range'",
        "DELETE FROM facts WHERE name = 'range'",
        "DELETE FROM entries WHERE place = 7",
        "DELETE FROM checkpoints WHERE size = 8",
        "UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 7) "
        "WHERE size = 8",
    ):
        path.write_bytes(content)
        database = sqlite3.connect(path, isolation_level=None)
        database.execute(damage)
        database.close()
        with pytest.raises(Damaged, match=r"as it signed; restore the newest copy"):
            goes_on(path)
    path.write_bytes(content)
    assert goes_on(path).entries[:-1] == died.leaves
