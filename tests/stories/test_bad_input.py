"""What goes in wrongly: exit code 2, one sentence, no traceback, nothing left behind."""

from pathlib import Path

import numpy as np
import pytest

import fedkd
from fedkd.cli import main

TINY = [
    "data.records=150", "data.test_size=100", "query.size=40", "clients.models=[logistic]",
    "rounds=1", "training.local_epochs=1", "training.lesson_epochs=1",
    "student.model=logistic", "student.epochs=1", "report=false",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["round=3"], "rounds"),
        (["rounds=abc"], "rounds"),
        (["rounds=0"], "rounds"),
        (["rounds=2.5"], "rounds"),
        (["quorum=1.5"], "quorum"),
        (["data=digit"], "digits"),
        (["aggregate=meen"], "mean"),
        (["partition=dirichlet", "partition.alpha=-1"], "alpha"),
        (["clients.models=[mpl]"], "mlp"),
        (["clients.count=100000"], "100000"),
        (["query.size=100000"], "100000"),
        (["query=mismatched"], "query.data"),
        (["query=synthetic"], "generator"),
        (["query=synthetic", "generator=dictionary"], "image"),
        (["lesson=minimum_subtracted"], "gate"),
        (["data=fashion_mnist", "data.path=/nowhere/at/all"], "data.path"),
        (["data=heart_disease"], "data.path"),
        (["data=breast_cancer", "clients.models=[cnn]"], "image"),
        (["device=abacus"], "device"),
        (["engine=steam"], "inprocess"),
        (["+own=1"], "own"),
        (["aggregate._target_=os.system"], "yaml"),
        (["query=synthetic", "generator.priors=[subprocess.getoutput]"], "yaml"),
        (["student.model=random_forest"], "weights"),
        (["budget.delta=0.01"], "mechanism"),
        (["data=table", "data.path=pyproject.toml", "data.schema=/nope"], "schema"),
        (["data=medmnist", "data.path=pyproject.toml"], "npz"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_a_wrong_word_is_refused_with_what_would_be_right(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["simulate", *words, f"out={out}"]) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown
    assert "expected" in shown
    assert not out.exists()


def test_a_refused_comparison_says_which_file_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "data=digits", "clients.count=2", f"out={tmp_path / 'run'}"]
    assert main(["simulate", *words]) == 0
    for option in ("--csv", "--latex"):
        nowhere = str(tmp_path / "nowhere" / "x")
        assert main(["compare", str(tmp_path / "run"), option, nowhere]) == 2
        assert f"{option} {nowhere}, which cannot be written" in capsys.readouterr().err


def test_a_folder_that_holds_a_run_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["simulate", *TINY, "clients.count=2", f"out={tmp_path / 'run'}"]
    assert main(words) == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
    assert main(words) == 2
    assert "already holds a run" in capsys.readouterr().err
    after = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
    assert after == before


def test_a_refused_run_can_be_started_again_in_the_same_place(tmp_path: Path) -> None:
    out = f"out={tmp_path / 'run'}"
    assert main(["simulate", *TINY, "clients.count=100000", out]) == 2
    assert main(["simulate", *TINY, "clients.count=2", out]) == 0


@pytest.mark.parametrize(
    ("words", "sites"),
    [
        (["partition=shards", "partition.shards_per_site=1", "clients.count=5"], 5),
        (["partition=dirichlet", "partition.alpha=0.1", "clients.count=3"], 3),
        (["data.records=30", "clients.count=6"], 6),
        (["data.records=12", "clients.count=6"], 6),
    ],
    ids=["one or two classes a site", "a class never seen", "fewer records than classes", "two"],
)
def test_strange_but_possible_sites_take_part(words: list[str], sites: int, tmp_path: Path) -> None:
    words = ["simulate", *TINY, *words, "clients.models=[logistic,random_forest]",
             f"out={tmp_path / 'run'}"]  # fmt: skip
    assert main(words) == 0
    clients = fedkd.load(tmp_path / "run").clients
    assert len(clients) == sites
    assert clients["accuracy"].notna().all()


def test_a_public_set_of_the_wrong_shape_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.zeros((50, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "kmnist-test-imgs.npz", pixels)
    np.savez(tmp_path / "kmnist-test-labels.npz", np.arange(50, dtype=np.uint8) % 10)
    words = ["query=mismatched", "query.data=kmnist", f"query.path={tmp_path}", "query.size=20"]
    assert main(["simulate", *TINY, *words, f"out={tmp_path / 'run'}"]) == 2
    assert "(1, 28, 28)" in capsys.readouterr().err


SCHEMA = """
columns:
  age: {kind: numeric, low: 0, high: 120, unit: years}
  ward: {kind: categorical, categories: [a, b]}
label: {column: ill, classes: ["no", "yes"]}
"""


def table(folder: Path, rows: list[str], encoding: str = "utf-8") -> list[str]:
    (folder / "own.csv").write_bytes("\n".join(["age,ward,ill", *rows]).encode(encoding))
    (folder / "own.csv.schema.yaml").write_text(SCHEMA)
    return ["simulate", "data=table", f"data.path={folder / 'own.csv'}", "clients.count=2",
            "clients.models=[logistic]", "rounds=1", "training.local_epochs=1",
            "training.lesson_epochs=1", "student.model=logistic", "student.epochs=1",
            "query.size=20", f"out={folder / 'run'}"]  # fmt: skip


def rows_of(count: int, ward: str = "a", rare: str | None = None) -> list[str]:
    rows = [f"{20 + i % 60},{ward},{'yes' if i % 3 else 'no'}" for i in range(count)]
    return [*rows, *([f"50,{ward},{rare}"] if rare else [])]


def test_a_table_of_ones_own_runs_although_a_column_never_changes(tmp_path: Path) -> None:
    assert main(table(tmp_path, rows_of(80))) == 0


def test_a_label_that_occurs_once_runs(tmp_path: Path) -> None:
    rows = [row.replace("yes", "no") for row in rows_of(60)] + ["50,b,yes"]
    assert main(table(tmp_path, rows)) == 0


def test_another_encoding_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(table(tmp_path, [*rows_of(20), "40,ä,yes"], "latin-1")) == 2
    assert "encoding" in capsys.readouterr().err


def test_an_unknown_label_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(table(tmp_path, rows_of(40, rare="perhaps"))) == 2
    assert "perhaps" in capsys.readouterr().err
