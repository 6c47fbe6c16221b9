"""The tree of a log that grows: right after any end of a process, and whoever else appends."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit import Log
from fedkd.audit.growing import KEPT_EVERY, Damaged
from fedkd.audit.verify import Malformed, Tree, leaf_hash
from fedkd.audit.verify.logs import check_log

TYPE = "train.local"


def opened(folder: Path) -> Log:
    return Log(folder / "log.sqlite", "h1")


def grown(log: Log, count: int) -> None:
    with log.writing():
        first = len(log)
        for number in range(first, first + count):
            log.append(f"{number}", TYPE, {"n": number})


def tree_of(folder: Path) -> Tree:
    database = sqlite3.connect(folder / "log.sqlite")
    rows = database.execute("SELECT leaf FROM entries ORDER BY place").fetchall()
    database.close()
    return Tree(leaf_hash(leaf) for (leaf,) in rows)


def expect_right(log: Log, folder: Path, size: int) -> None:
    tree = tree_of(folder)
    assert len(log) == tree.size == size
    for level in range(size.bit_length()):
        for place in range(size >> level):
            assert log.node(level, place) == tree.node(level, place)
    assert log.root(size) == tree.root()
    with pytest.raises(KeyError, match="no node"):
        log.node(0, size)
    log.export(folder / "exported.sqlite")
    assert check_log(folder / "exported.sqlite", log.verifier()).root == tree.root()


@pytest.mark.parametrize("size", [1, 2, KEPT_EVERY - 1, KEPT_EVERY, KEPT_EVERY + 1, 600])
def test_every_digest_is_that_of_the_whole_tree(size: int, tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        grown(log, size)
        expect_right(log, tmp_path, size)
    assert check_log(tmp_path / "log.sqlite").tree.size == size  # as it lies there, too
    with opened(tmp_path) as log:
        expect_right(log, tmp_path, size)
        grown(log, 3)
        expect_right(log, tmp_path, size + 3)


@pytest.mark.parametrize("size", [5, KEPT_EVERY - 1, KEPT_EVERY, KEPT_EVERY + 44])
def test_after_a_fall_the_entries_tell_the_digests(size: int, tmp_path: Path) -> None:
    fallen = tmp_path / "fallen"
    with opened(tmp_path) as log:
        grown(log, size)
        shutil.copytree(tmp_path, fallen)  # as a process that was killed now would leave it
    with opened(fallen) as log:
        assert log.ask(2).note == log.checkpoint()
        expect_right(log, fallen, size)
        grown(log, 3)
    with opened(fallen) as log:
        expect_right(log, fallen, size + 3)


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([1, 2, 150, 0])), max_size=12))
@settings(max_examples=25, deadline=None)
def test_two_that_take_turns_grow_one_tree(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    logs = [opened(folder), opened(folder)]
    for who, count in turns:
        if count:
            grown(logs[who], count)
        else:
            logs[who].close()
            logs[who] = opened(folder)
    size = sum(count for _, count in turns)
    if size:
        expect_right(logs[0], folder, size)
        expect_right(logs[1], folder, size)
    for log in logs:
        log.close()
    if size:
        assert check_log(folder / "log.sqlite").tree.size == size


def test_whoever_closes_last_does_not_set_the_tree_back(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        grown(log, 3)
        with opened(tmp_path) as other:
            grown(other, 300)
    assert check_log(tmp_path / "log.sqlite").tree.size == 303


def test_whoever_only_looked_may_have_kept_the_tree(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        grown(log, KEPT_EVERY - 1)
        with opened(tmp_path) as other:
            other.root(KEPT_EVERY - 1)
        grown(log, 2)
        expect_right(log, tmp_path, KEPT_EVERY + 1)


def _fails(log: Log) -> None:
    with log.writing():
        log.append("lost", TYPE, {})
        raise ZeroDivisionError


def test_what_was_taken_back_is_in_no_tree(tmp_path: Path) -> None:
    with opened(tmp_path) as log, opened(tmp_path) as other:
        grown(log, 6)
        with pytest.raises(ZeroDivisionError):
            _fails(log)
        grown(other, 1)  # as many entries as the first one thought there were
        grown(log, 1)
        expect_right(log, tmp_path, 8)
        with pytest.raises(ZeroDivisionError):
            _fails(log)
        expect_right(log, tmp_path, 8)


@pytest.mark.parametrize(
    ("kept", "damage"),
    [
        (True, "UPDATE facts SET value = zeroblob(length(value)) WHERE name = 'range'"),
        (True, "DELETE FROM facts WHERE name = 'range'"),
        (True, "DELETE FROM entries"),
        (True, "DELETE FROM entries WHERE place = 8"),
        (True, "DELETE FROM checkpoints WHERE size = 9"),
        (False, "DELETE FROM facts WHERE name = 'range'"),
        (False, "DELETE FROM entries"),
        (False, "DELETE FROM entries WHERE place = 8"),
        (False, "DELETE FROM checkpoints WHERE size = 9"),
        (False, "DELETE FROM checkpoints"),
        (False, "UPDATE entries SET leaf = x'00' WHERE place = 7"),
    ],
)
def test_a_log_does_not_go_on_from_what_it_did_not_sign(
    kept: bool, damage: str, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    with opened(tmp_path) as log:
        grown(log, 9)
        if not kept:
            shutil.copytree(tmp_path, folder)
    if kept:
        shutil.copytree(tmp_path, folder)
    database = sqlite3.connect(folder / "log.sqlite", isolation_level=None)
    database.execute(damage)
    database.close()
    with pytest.raises((Damaged, Malformed), match="found"):
        opened(folder)


def test_whoever_only_looks_after_a_fall_leaves_the_log_whole(tmp_path: Path) -> None:
    fallen = tmp_path / "fallen"
    with opened(tmp_path) as log:
        grown(log, 9)
        shutil.copytree(tmp_path, fallen)
    opened(fallen).close()
    assert check_log(fallen / "log.sqlite").tree.size == 9


def test_damage_that_was_seen_is_not_forgotten(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        grown(log, 9)
        database = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
        database.execute("DELETE FROM checkpoints WHERE size = 9")
        database.close()
        for act in (lambda: log.node(0, 99), lambda: log.append("next", TYPE, {})):
            with pytest.raises(Damaged, match="restore the newest copy"):
                act()
