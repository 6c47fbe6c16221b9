"""The commands that trace a model and hand its logs over: what they print, write and refuse."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit.export import files as exported
from fedkd.audit.verify import Note, read_files
from fedkd.cli.provenance import export, trace
from fedkd.distill.saving import save_weights
from fedkd.knowledge import BadInput, digest_of_arrays
from tests.audit_export.federation import GENERATOR, Body, checked, digest, federation, student
from tests.audit_export.test_lineage import changed, close

WEIGHTS = {"layer": np.arange(6, dtype=np.float32)}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def as_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_trace_prints_each_round_and_the_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = federation(tmp_path / "run")
    assert trace(run, run=None, as_json=False) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        f"student  {student(2)}\n    made by server#14, round 2, run r-01; cnn\n"
    )
    assert "student    server#14  learnt from the consensus; went on from server#10\n" in said
    assert (
        "student    server#10  learnt from the consensus; began from the seed in server#4" in said
    )
    assert "consensus  server#13  of 2 answers; left out: site-03 (timeout)\n" in said
    assert "queries    server#7  16 of digits, held out, server#2\n" in said
    assert "sources: 4 data sets\n" in said
    assert "    site-01/records              site-01#1      training\n" in said
    assert "        legal basis  GDPR 6(1)(e) and 9(2)(j), as the hospital states it\n" in said
    assert "digits, test" not in said
    assert "site-03#" not in said
    assert said.endswith("30 names followed, each to the entry behind it\n")


def test_trace_names_the_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace(federation(tmp_path / "run", query="synthetic"), run=None, as_json=False) == 0
    said = capsys.readouterr().out
    assert "queries    server#13  16 drawn by dictionary, server#12\n" in said
    assert f"generator dictionary  server#7  code {GENERATOR['code']}, seed 7\n" in said


def test_trace_in_json_has_each_source_with_its_entry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace(federation(tmp_path / "run"), run=None, as_json=True) == 0
    told = as_json(capsys)
    assert (told["verdict"], told["followed"], told["gaps"]) == ("TRACED", 30, [])
    assert told["model"] == {"kind": "student", "digest": student(2), "entry": "server#14"}
    (hospital,) = [one for one in told["sources"] if one["id"] == "site-02/records"]
    assert hospital["entry"] == "site-02#1"
    assert hospital["used_by"] == ["site-02#2", "site-02#4"]
    assert {"licence", "legal_basis", "origin"} <= hospital.keys()


def with_file(folder: Path, name: str = "student.safetensors") -> Path:
    """A run whose newest student is the model in its file."""
    made = str(digest_of_arrays({"kind": "model"}, WEIGHTS))
    run = federation(folder, changed("server", "2/student", output=made))
    save_weights(run / name, WEIGHTS)
    return run


def test_a_model_is_asked_for_by_folder_file_or_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_file(tmp_path / "run")
    made = str(digest_of_arrays({"kind": "model"}, WEIGHTS))
    elsewhere = tmp_path / "elsewhere.safetensors"
    save_weights(elsewhere, WEIGHTS)
    for path, of_run in (
        (run, None),
        (run / "student.safetensors", None),
        (elsewhere, run),
        (Path(made), run),
        (run / "audit", None),
    ):
        assert trace(path, run=of_run, as_json=True) == 0
        assert as_json(capsys)["model"]["digest"] == made
    assert trace(Path(student(1)), run=run, as_json=True) == 0
    assert as_json(capsys)["model"]["entry"] == "server#10"


def test_a_students_file_that_the_logs_did_not_make_is_refuted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_file(tmp_path / "run")
    save_weights(run / "student.safetensors", {"layer": WEIGHTS["layer"] + 1})
    for path in (run, run / "student.safetensors"):
        assert trace(path, run=None, as_json=False) == 1
        assert capsys.readouterr().out.startswith("REFUTED      ")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (student(1), "add --run RUN"),
        ("nothing-here", "expected a run's folder"),
        ("empty", "found no log in"),
    ],
)
def test_what_names_no_model_is_used_wrongly(
    path: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=told):
        trace(Path(path), run=None, as_json=False)


def test_trace_refutes_a_dangling_name_and_a_log_that_somebody_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def dropped(party: str, key: str, body: Body) -> Body | None:
        return None if (party, key) == ("site-01", "dataset") else body

    assert trace(federation(tmp_path / "dangling", dropped), run=None, as_json=True) == 1
    told = as_json(capsys)
    assert told["verdict"] == "REFUTED"
    assert "data set site-01/records" in told["why"]
    run = federation(tmp_path / "touched")
    database = sqlite3.connect(run / "audit" / "site-01.sqlite")
    database.execute("UPDATE entries SET body = replace(body, 'clinic', 'public') WHERE place = 1")
    database.commit()
    database.close()
    assert trace(run, run=None, as_json=False) == 1
    assert export(run, out=tmp_path / "out", only=None, as_json=False) == 1
    assert not (tmp_path / "out").exists()


def test_trace_cannot_tell_what_a_closed_body_hides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = federation(tmp_path / "run")
    close(run, "site-01", "train.local")
    assert trace(run, run=None, as_json=False) == 3
    said = capsys.readouterr().out
    assert "CANNOT TELL  site-01#3: model " in said
    assert "site-02/records" in said
    assert "site-01/records" not in said
    close(run, "server", "student.updated")
    assert trace(run, run=None, as_json=False) == 3
    assert capsys.readouterr().out.startswith("CANNOT TELL  server#14")


def test_a_name_out_of_a_log_does_not_move_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = {"licence": "free\x1b[2J\x1b[Hall is well", "origin": "here\nREFUTED"}
    run = federation(tmp_path / "run", changed("site-01", "dataset", card=hostile))
    assert trace(run, run=None, as_json=False) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\nREFUTED" not in said


def test_a_large_federation_is_summarised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = tuple(f"site-{number:02d}" for number in range(1, 31))
    assert trace(federation(tmp_path / "run", sites=sites, heard=30), run=None, as_json=False) == 0
    rounds, sources = capsys.readouterr().out.split("sources:")
    assert len(rounds.splitlines()) < 20
    assert "site-06#5 ... 30 in all" in rounds
    assert "site-07#5" not in rounds
    assert all(f"{site}/records" in sources for site in sites)


def test_export_writes_all_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = federation(tmp_path / "run"), tmp_path / "out"
    assert export(run, out=out, only=None, as_json=False) == 0
    there = files(out)
    assert {"lineage.prov.json", "student.cdx.json", "tiles/server/checkpoint"} <= there
    assert len([name for name in there if name.startswith("croissant/")]) == 6
    said = capsys.readouterr().out
    assert "WRITTEN      croissant  6 files\n" in said
    assert said.endswith(f"left in {out}: {len(there)} files\n")


@pytest.mark.parametrize(
    ("only", "first"),
    [
        ("tiles", "tiles/server/checkpoint"),
        ("prov", "lineage.prov.json"),
        ("croissant", "croissant/server-1-digits.json"),
        ("cyclonedx", "student.cdx.json"),
    ],
)
def test_export_writes_one_format_alone(only: str, first: str, tmp_path: Path) -> None:
    run = federation(tmp_path / "run")
    assert export(run, out=tmp_path / "all", only=None, as_json=False) == 0
    assert export(run, out=tmp_path / "one", only=only, as_json=False) == 0
    written = files(tmp_path / "one")
    assert first in written
    assert {name.split("/")[0] for name in written} == {first.split("/", maxsplit=1)[0]}
    for name in written:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "all" / name).read_bytes()


def test_export_writes_nothing_over(tmp_path: Path) -> None:
    run, out = federation(tmp_path / "run"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="which is not empty"):
        export(run, out=out, only=None, as_json=False)
    assert files(out) == {"mine.txt"}
    with pytest.raises(BadInput, match="which is not empty"):
        export(run, out=out / "mine.txt", only=None, as_json=False)
    (out / "mine.txt").unlink()
    assert export(run, out=out, only="prov", as_json=False) == 0


def test_export_refuses_a_format_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected one of tiles, prov, croissant, cyclonedx"):
        export(tmp_path, out=tmp_path / "out", only="spdx", as_json=False)


def test_a_hospital_hands_over_its_own_log_without_a_lineage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = federation(tmp_path / "run") / "audit" / "site-01.sqlite"
    assert export(own, out=tmp_path / "out", only=None, as_json=True) == 3
    rows = as_json(capsys)
    assert {row["format"]: row["verdict"] for row in rows} == {
        "tiles": "WRITTEN",
        "prov": "CANNOT TELL",
        "croissant": "WRITTEN",
        "cyclonedx": "CANNOT TELL",
    }
    assert {name.split("/")[0] for name in files(tmp_path / "out")} == {"tiles", "croissant"}
    assert export(own, out=tmp_path / "tiles", only="tiles", as_json=False) == 0


def test_export_tells_what_is_closed_and_writes_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = federation(tmp_path / "run")
    close(run, "site-02", "dataset.registered")
    assert export(run, out=tmp_path / "out", only=None, as_json=False) == 3
    said = capsys.readouterr().out
    assert "CANNOT TELL  croissant  site-02#1: this data set's entry is closed\n" in said
    assert "CANNOT TELL  prov       site-02#2: data set site-02/records: site-02#1, closed" in said
    assert "croissant/site-01-1-site-01-records.json" in files(tmp_path / "out")
    assert "lineage.prov.json" in files(tmp_path / "out")


def test_cosignatures_that_lie_beside_a_log_come_along(tmp_path: Path) -> None:
    """Where only an older checkpoint was cosigned, it lies beside the newest one."""
    from fedkd.audit.verify import Algorithm, SigningKey, cosign

    run = federation(tmp_path / "run")
    log = checked(run)["server"]
    witness = SigningKey("w.example", Algorithm.COSIGNATURE, bytes(32))
    newest = len(log.entries)
    for size, name in ((newest, "checkpoint"), (newest - 2, "checkpoint.cosigned")):
        head = log.head(size)
        note = head.with_signatures([cosign(witness, head.checkpoint(), 1_795_500_000)])
        (run / "audit" / "server.checkpoint").write_bytes(note.to_bytes())
        out = tmp_path / name
        assert export(run, out=out, only="tiles", as_json=False) == 0
        found = Note.parse((out / "tiles" / "server" / name).read_bytes())
        assert found.checkpoint().size == size
        assert {line.name for line in found.signatures} == {log.origin, "w.example"}
        read_files(lambda path, out=out: (out / "tiles" / "server" / path).read_bytes())
    strange = note.text.replace(note.text.splitlines()[2], "A" * 43 + "=")
    (run / "audit" / "server.checkpoint").write_bytes(Note(strange, note.signatures).to_bytes())
    assert export(run, out=tmp_path / "strange", only="tiles", as_json=False) == 0
    assert "tiles/server/checkpoint.cosigned" not in files(tmp_path / "strange")


def test_two_parties_whose_names_look_alike_do_not_share_a_folder(
    tmp_path: Path,
) -> None:
    sites = ("st. mary", "st-mary", "7th", "prov")
    run = federation(tmp_path / "run", sites=sites)
    assert export(run, out=tmp_path / "out", only=None, as_json=False) == 0
    folders = {path.name for path in (tmp_path / "out" / "tiles").iterdir()}
    assert folders == {"server", "st-mary", "st-mary-2", "log-7th", "prov-2"}
    document = json.loads((tmp_path / "out" / "lineage.prov.json").read_text())
    assert len(set(document["prefix"].values())) == 4
    assert digest("st. mary", "model", 2) in str(document)
    logs = checked(run)
    turned = dict(reversed(logs.items()))
    assert dict(exported("tiles", logs)) == dict(exported("tiles", turned))
