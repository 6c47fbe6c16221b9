"""The logs that a run leaves hold together, can be redone, and betray who touches them."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fedkd.cli import main
from fedkd.cli.simulate import simulate_one
from fedkd.federation.durable import read_arrays, write_arrays

TINY = [
    "data=digits", "data.records=90", "data.test_size=30", "query.size=16", "rounds=2",
    "clients.count=3", "clients.models=[logistic]", "training.local_epochs=1",
    "training.lesson_epochs=1", "student.model=logistic", "student.epochs=1", "report=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("audited") / "run"
    _, summary = simulate_one([*TINY, f"out={run}"])
    assert summary["audit"]["verified"] is True
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_every_log_of_a_run_holds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (run / "audit").iterdir()}
    assert main(["audit", "verify", str(run)]) == 0
    said = capsys.readouterr().out
    assert "CONSISTENT   server" in said
    assert "6 answers stand alike" in said
    assert "ONE HOLDER" in said
    assert {path: path.read_bytes() for path in (run / "audit").iterdir()} == before


def test_consensus_lesson_and_student_can_be_redone(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "recompute", str(run)]) == 0
    assert capsys.readouterr().out.count("EQUAL") == 6


def test_a_server_that_combined_something_else_is_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("mean.mean", "median.median"))
    assert main(["audit", "recompute", str(run)]) == 1
    assert "REFUTED" in capsys.readouterr().out


def test_an_answer_changed_after_its_release_is_not_taken(run: Path) -> None:
    path = next(p for p in (run / "exchange").iterdir() if "probs" in read_arrays(p))
    kept = read_arrays(path)
    write_arrays(path, {**kept, "probs": np.roll(kept["probs"], 1, axis=1)})
    assert main(["audit", "recompute", str(run)]) != 0


CHANGES = {
    "a body is rewritten": "UPDATE entries SET body = replace(body, 'false', 'true') || ' ' "
    "WHERE place = 2",
    "a header is rewritten": "UPDATE entries SET leaf = replace(CAST(leaf AS TEXT), '\"seq\":1', "
    "'\"seq\":7') WHERE place = 1",
    "a type is rewritten beside its leaf": "UPDATE entries SET type = 'run.ended' WHERE place = 1",
    "the last entry is cut": "DELETE FROM entries WHERE place = (SELECT max(place) FROM entries)",
    "an entry in the middle is cut": "DELETE FROM entries WHERE place = 3",
    "a checkpoint is taken away": "DELETE FROM checkpoints WHERE size = 2",
    "a checkpoint is given another's note": "UPDATE checkpoints SET note = (SELECT note FROM "
    "checkpoints WHERE size = 1) WHERE size = 2",
    "the first entry is cut": "DELETE FROM entries WHERE place = 0",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_log_that_somebody_touched_is_refuted(
    change: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = sqlite3.connect(run / "audit" / "site-02.sqlite")
    assert database.execute(CHANGES[change]).rowcount > 0
    database.commit()
    database.close()
    assert main(["audit", "verify", str(run)]) == 1
    assert "REFUTED      site-02" in capsys.readouterr().out


def test_entries_that_change_places_are_refuted(run: Path) -> None:
    database = sqlite3.connect(run / "audit" / "site-02.sqlite")
    for old, new in ((1, 99), (2, 1), (99, 2)):
        database.execute("UPDATE entries SET place = ? WHERE place = ?", (new, old))
    database.commit()
    database.close()
    assert main(["audit", "verify", str(run)]) == 1


def test_any_flipped_bit_of_a_leaf_is_found(run: Path) -> None:
    path = run / "audit" / "site-01.sqlite"
    rng = np.random.default_rng(0)
    original = path.read_bytes()
    database = sqlite3.connect(path)
    leaves = database.execute("SELECT place, leaf FROM entries").fetchall()
    database.close()
    for place, leaf in leaves:
        at = int(rng.integers(0, len(leaf)))
        flipped = bytearray(leaf)
        flipped[at] ^= 1 << int(rng.integers(0, 8))
        database = sqlite3.connect(path)
        database.execute("UPDATE entries SET leaf = ? WHERE place = ?", (bytes(flipped), place))
        database.commit()
        database.close()
        assert main(["audit", "verify", str(path)]) == 1, place
        path.write_bytes(original)
    assert main(["audit", "verify", str(path)]) == 0


def test_an_erased_body_leaves_the_log_whole(run: Path) -> None:
    path = run / "audit" / "site-01.sqlite"
    database = sqlite3.connect(path)
    database.execute("UPDATE entries SET body = NULL, salt = NULL WHERE place = 1")
    database.commit()
    database.close()
    assert main(["audit", "verify", str(path)]) == 0


def test_one_side_of_a_double_entry_that_another_run_wrote_is_found(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    simulate_one([*TINY, "seed=5", f"out={other}"])
    shutil.copy(other / "audit" / "site-03.sqlite", run / "audit" / "site-03.sqlite")
    assert main(["audit", "verify", str(run)]) == 1
    assert "site-03" in capsys.readouterr().out


def test_what_is_no_log_is_no_verdict(tmp_path: Path) -> None:
    assert main(["audit", "verify", str(tmp_path)]) == 2
    (tmp_path / "server.sqlite").write_bytes(b"no database at all, only text" * 40)
    assert main(["audit", "verify", str(tmp_path)]) == 1
