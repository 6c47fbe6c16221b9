"""A hospital that has nothing to give: it is not there, or the run is refused and says why."""

from pathlib import Path

import pytest

import fedkd
from fedkd.cli import main
from fedkd.federation.durable import read_arrays

SCHEMA = """
columns:
  age: {kind: numeric, low: 0, high: 120, unit: years}
  ward: {kind: categorical, categories: [a, b]}
label: {column: ill, classes: ["no", "yes"]}
site: place
"""


def rows(count: int, place: str, ill: str | None = None) -> list[str]:
    labels = ["no" if row % 3 == 0 else "yes" for row in range(count)] if ill is None else None
    return [
        f"{20 + row % 60},{'ab'[row % 2]},{place},{labels[row] if labels else ill}"
        for row in range(count)
    ]


TWO_HOSPITALS = [*rows(40, "north"), *rows(40, "south")]


def simulate(folder: Path, records: list[str], *words: str) -> int:
    (folder / "own.csv").write_text("\n".join(["age,ward,place,ill", *records]))
    (folder / "own.csv.schema.yaml").write_text(SCHEMA)
    return main(
        ["simulate", "data=table", f"data.path={folder / 'own.csv'}", "partition=site",
         "clients.count=null", "clients.models=[logistic]", "rounds=1",
         "training.local_epochs=1", "training.lesson_epochs=1", "student.model=logistic",
         "student.epochs=1", "query.size=20", f"out={folder / 'run'}", *words]
    )  # fmt: skip


def sites(folder: Path) -> list[str]:
    """The hospitals of the run, in its table as on the disk."""
    clients = fedkd.load(folder / "run").clients
    assert clients["accuracy"].notna().all()
    on_disk = sorted(path.name for path in (folder / "run" / "sites").iterdir())
    assert list(clients["site"]) == on_disk
    return on_disk


def test_a_hospital_without_any_label_is_not_there(tmp_path: Path) -> None:
    assert simulate(tmp_path, [*TWO_HOSPITALS, *rows(20, "west", "")]) == 0
    assert sites(tmp_path) == ["north", "south"]


def test_a_hospital_whose_every_row_is_unlabelled_changes_nothing_for_the_others(
    tmp_path: Path,
) -> None:
    weights = []
    for name, more in (("without", []), ("with", rows(20, "west", ""))):
        (tmp_path / name).mkdir()
        assert simulate(tmp_path / name, [*TWO_HOSPITALS, *more]) == 0
        weights.append((tmp_path / name / "run" / "student.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_counting_on_a_hospital_without_labels_is_refused_with_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [*TWO_HOSPITALS, *rows(20, "west", "")]
    assert simulate(tmp_path, records, "clients.count=3") == 2
    shown = capsys.readouterr().err
    assert "found 2 sites of at least 1 rows, expected clients.count=3 sites" in shown
    assert "clients.count=null" in shown
    assert "Traceback" not in shown


def test_a_table_without_any_label_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(tmp_path, [*rows(40, "north", ""), *rows(40, "south", "")]) == 2
    assert "80 rows, none with a label in 'ill'" in capsys.readouterr().err


def test_a_hospital_under_the_smallest_size_is_left_out_with_its_rows(tmp_path: Path) -> None:
    records = [*TWO_HOSPITALS, *rows(8, "west")]
    assert simulate(tmp_path, records, "partition.smallest=10") == 0
    assert sites(tmp_path) == ["north", "south"]
    held = sum(
        len(read_arrays(path)["labels"]) for path in (tmp_path / "run" / "sites").rglob("*.npz")
        if path.name in ("train.npz", "validation.npz")
    )  # fmt: skip
    # A fifth of each hospital's rows, within one, is the test; the rest of the large two is dealt.
    assert abs(held - 64) <= 2


def test_counting_on_a_hospital_under_the_smallest_size_is_refused_with_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [*TWO_HOSPITALS, *rows(8, "west")]
    assert simulate(tmp_path, records, "partition.smallest=10", "clients.count=3") == 2
    shown = capsys.readouterr().err
    assert "found 2 sites of at least 10 rows, expected clients.count=3 sites" in shown
    assert "partition.smallest" in shown


def test_no_hospital_of_the_smallest_size_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(tmp_path, TWO_HOSPITALS, "partition.smallest=1000") == 2
    shown = capsys.readouterr().err
    assert "found 0 sites of at least 1000 rows, expected at least one site" in shown
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_hospital_of_one_row_takes_part_and_judges_nothing(tmp_path: Path) -> None:
    assert simulate(tmp_path, [*TWO_HOSPITALS, *rows(1, "west")]) == 0
    assert sites(tmp_path) == ["north", "south", "west"]
    west = tmp_path / "run" / "sites" / "west"
    assert len(read_arrays(west / "train.npz")["labels"]) == 1
    assert len(read_arrays(west / "validation.npz")["labels"]) == 0


def test_hospitals_whose_only_row_is_examined_are_not_there(tmp_path: Path) -> None:
    single = [row for place in range(12) for row in rows(1, f"village-{place:02d}")]
    assert simulate(tmp_path, [*TWO_HOSPITALS, *single], "data.test_size=0.5") == 0
    there = sites(tmp_path)
    assert {"north", "south"} < set(there)
    assert len(there) < 2 + 12  # about half of the single rows are in the test
    assert (fedkd.load(tmp_path / "run").clients["records"] >= 1).all()


def test_rows_that_name_no_hospital_are_refused_where_hospitals_are_what_is_dealt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [*TWO_HOSPITALS, *rows(8, "")]
    assert simulate(tmp_path, records) == 2
    shown = capsys.readouterr().err
    assert "a site named 'unknown'" in shown
    assert "site column" in shown
    assert not (tmp_path / "run" / "run.json").exists()


def test_rows_that_name_no_hospital_are_dealt_with_the_others_otherwise(tmp_path: Path) -> None:
    records = [*TWO_HOSPITALS, *rows(8, "")]
    assert simulate(tmp_path, records, "partition=iid", "clients.count=3") == 0
    assert sites(tmp_path) == ["site-01", "site-02", "site-03"]
