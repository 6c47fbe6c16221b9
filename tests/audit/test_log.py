"""A party's log: what was appended is there, in order, once, whatever happens to the process."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit import EVENTS, Contradiction, Log, UnknownFormat, utc_now
from fedkd.audit.verify import Algorithm, Checkpoint, Note, SigningKey
from fedkd.audit.verify.logs import check_log

TYPE = "train.local"


def opened(folder: Path) -> Log:
    return Log(folder / "log.sqlite", "party")


def test_an_entry_is_found_again_as_it_was_appended(tmp_path: Path) -> None:
    body = {"text": "é \u2028", "number": 3, "share": 0.25, "none": None, "list": [{"a": True}]}
    with opened(tmp_path) as log:
        entry = log.append("key", TYPE, body)
        assert entry == log.entry("key")
    with opened(tmp_path) as log:
        assert log.entry("key") == entry
        assert entry.body == body
        assert (entry.index, entry.key, entry.type) == (0, "key", TYPE)
        assert log.entry("other") is None


def test_entries_come_in_the_order_in_which_they_were_appended(tmp_path: Path) -> None:
    times = iter(["2026-01-01T00:00:02Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:03Z"])
    with Log(tmp_path / "log.sqlite", "party", now=lambda: next(times)) as log:
        for key, kind in (("z", TYPE), ("a", "run.started"), ("m", TYPE)):
            log.append(key, kind, {})
        # a clock that goes back does not change the order
        assert [(e.index, e.key) for e in log.entries()] == [(0, "z"), (1, "a"), (2, "m")]
        assert [entry.key for entry in log.entries(TYPE)] == ["z", "m"]
        newest = log.last(TYPE)
        assert newest is not None
        assert newest.key == "m"
        assert log.last("run.ended") is None
        assert len(log) == 3


def test_what_is_done_again_finds_its_entry(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        first = log.append("key", TYPE, {"a": 1, "b": 2})
        assert log.append("key", TYPE, {"b": 2, "a": 1}) == first
        assert len(log) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [(TYPE, {"a": 2}), (TYPE, {}), (TYPE, {"a": 1, "b": 1}), ("run.started", {"a": 1})],
)
def test_an_entry_is_never_changed(kind: str, body: dict[str, int], tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        first = log.append("key", TYPE, {"a": 1})
        with pytest.raises(Contradiction, match="'key'"):
            log.append("key", kind, body)
        assert list(log.entries()) == [first]
        log.append("other", kind, body)  # the log goes on


def test_an_event_that_is_not_in_the_vocabulary_is_not_logged(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        for kind in ("train.locally", "", "TRAIN.LOCAL"):
            with pytest.raises(ValueError, match="expected one of"):
                log.append("key", kind, {})
        assert len(log) == 0
        for kind in EVENTS:
            log.append(kind, kind, {})
        assert len(log) == len(EVENTS)


@pytest.mark.parametrize("body", [{"a": float("nan")}, {"a": 2**60}, {"a": b"x"}, {"a": {1: 2}}])
def test_a_body_that_json_cannot_say_is_not_logged(body: dict[str, object], tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        with pytest.raises(Exception, match=r".+"):
            log.append("key", TYPE, body)
        assert len(log) == 0
        log.append("key", TYPE, {})


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), max_size=12)


@given(steps)
@settings(max_examples=15, deadline=None)
def test_the_log_is_the_first_body_of_each_key_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    told: dict[str, int] = {}
    with opened(tmp_path_factory.mktemp("log")) as log:
        for key, value in steps:
            if told.setdefault(key, value) == value:
                log.append(key, TYPE, {"value": value})
            else:
                with pytest.raises(Contradiction):
                    log.append(key, TYPE, {"value": value})
        assert [(e.key, e.body["value"]) for e in log.entries()] == list(told.items())


def test_a_log_of_another_format_is_left_alone(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "log.sqlite")
    database.execute("PRAGMA user_version=7")
    database.close()
    with pytest.raises(UnknownFormat, match="format 7, expected format 3; a newer fedkd"):
        opened(tmp_path)
    database = sqlite3.connect(tmp_path / "log.sqlite")
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == []
    database.close()


def test_an_export_is_whole_in_one_file(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        for n in range(5):
            log.append(str(n), TYPE, {"n": n})
        log.export(tmp_path / "export.sqlite")
        log.append("later", TYPE, {})  # the log goes on, the export stays
        assert sorted(path.name for path in tmp_path.glob("export*")) == ["export.sqlite"]
        away = tmp_path / "away"
        away.mkdir()
        shutil.copy(tmp_path / "export.sqlite", away)
        log.export(tmp_path / "export.sqlite")
    read = sqlite3.connect(f"file:{away / 'export.sqlite'}?mode=ro&immutable=1", uri=True)
    assert [row[0] for row in read.execute("SELECT key FROM entries ORDER BY place")] == list(
        "01234"
    )
    read.close()
    with Log(tmp_path / "export.sqlite", "reader") as log:
        assert [entry.key for entry in log.entries()] == [*"01234", "later"]


def test_times_are_utc_and_say_so() -> None:
    assert utc_now().endswith("Z")
    assert len(utc_now()) == len("2026-11-24T11:27:34.123Z")


# Processes.

OTHER = SigningKey("another", Algorithm.ED25519, bytes(32))
COSIGNER = SigningKey("peer/witness", Algorithm.COSIGNATURE, bytes(32))


def _of_another(size: int) -> Note:
    """A checkpoint of another log."""
    text = Checkpoint(OTHER.name, size, hashlib.sha256(str(size).encode()).digest()).text()
    return Note(text, (OTHER.sign(text),))


def _write_for_ever(path: Path, told: int) -> None:
    """Goes on where the log stands; says after each write, and not before, that it is done."""
    with Log(path, "party") as log:
        for n in range(len(log), 1_000_000):
            log.append(str(n), TYPE, {"n": n})
            os.write(told, b"entry\n")
            line = COSIGNER.sign(log.ask(0).note.text, n + 1)
            log.cosigned(n + 1, {str(COSIGNER.verifier()): (line, n + 1)})
            os.write(told, b"cosignature\n")
            log.see(_of_another(n + 1))
            os.write(told, b"head\n")


def _killed(path: Path, lines: int, seconds: float) -> Counter[str]:
    """What a writer said until it was killed, so many seconds after so many lines."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            _write_for_ever(path, write)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as told:
        said = [told.readline() for _ in range(lines)]
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return Counter(line.strip() for line in (*said, *told))


def test_what_was_acknowledged_is_there_after_kill_9_in_a_loop(tmp_path: Path) -> None:
    """One log, 24 writers, each killed at some moment: while opening, appending, cosigning."""
    path, length = tmp_path / "log.sqlite", 0
    random = Random(9)  # noqa: S311 - for moments, not for secrets
    for _ in range(24):
        said = _killed(path, random.randrange(8), random.uniform(0, 0.01))
        with Log(path, "party") as log:
            kept = [entry.body["n"] for entry in log.entries()]
            assert kept == list(range(len(kept)))
            # One may have been written and not told.
            assert len(kept) - length - said["entry"] in (0, 1)
            for size in range(length + 1, length + 1 + said["cosignature"]):
                assert len(log.cosignatures(size)) == 1
            if said["head"]:
                assert log.seen()[OTHER.name].size - length - said["head"] in (0, 1)
            length = len(kept)
        if length:
            checked = check_log(path, every_signature=True)
            assert [leaf.body for leaf in checked.entries] == [{"n": n} for n in range(length)]
    assert length > 24
    with Log(path, "party") as log:
        log.append("after all", TYPE, {})
    assert len(check_log(path).entries) == length + 1


def _append_own(path: str, name: str, count: int) -> None:
    with Log(Path(path), "party") as log:
        for n in range(count):
            log.append(f"{name}/{n}", TYPE, {"n": n})
            log.append(f"both/{n}", TYPE, {"n": n})
            log.see(_of_another(n + 1))


def test_two_processes_append_to_one_log_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    opened(tmp_path).close()
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_append_own, args=(str(path), name, 15)) for name in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    with Log(path, "party") as log:
        entries = list(log.entries())
    assert [entry.index for entry in entries] == list(range(45))
    for name in ("a", "b"):
        own = [entry.key for entry in entries if entry.key.startswith(name + "/")]
        assert own == [f"{name}/{n}" for n in range(15)]
    assert sum(entry.key.startswith("both/") for entry in entries) == 15
    assert len(check_log(path, every_signature=True).entries) == 45
