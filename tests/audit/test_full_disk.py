"""A disk that was full, and entries that came after: the log goes on as one history."""

import sqlite3
from pathlib import Path

import pytest

from fedkd.audit import Log
from fedkd.audit.verify.logs import check_log

TYPE = "train.local"


def test_a_full_disk_is_said_and_leaves_one_history(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with Log(path, "h1") as log, Log(path, "h1") as other:
        log.append("first", TYPE, {})
        pages = log._database.execute("PRAGMA page_count").fetchone()[0]
        log._database.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            log.append("large", TYPE, {"n": "1" * 50_000})
        other.append("meanwhile", TYPE, {})  # as many entries as `log` would have had
        log._database.execute("PRAGMA max_page_count=1000000")
        log.append("next", TYPE, {})
    assert check_log(path).tree.size == 3


def test_a_log_whose_nodes_stop_short_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with Log(path, "h1") as log, Log(path, "h1") as other:
        log.append("first", TYPE, {})
        keep = log._keep_tree

        def kept_before_another_wrote() -> None:
            keep()
            other.append("second", TYPE, {})

        log._keep_tree = kept_before_another_wrote  # type: ignore[method-assign]
        log.export(tmp_path / "export.sqlite")
    assert check_log(tmp_path / "export.sqlite").tree.size == 2
