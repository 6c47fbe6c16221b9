"""What is still open goes out as a form, YAML or Word, and comes back as signed statements."""

import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.officer import new_key
from fedkd.cli import main
from fedkd.knowledge import BadInput
from fedkd.report import word_forms
from fedkd.report.building import build
from fedkd.report.forms import Question, answers, asked_of, form
from fedkd.report.verify.catalogue import catalogue
from fedkd.report.verify.judging import judge

docx = pytest.importorskip("docx", reason="found no python-docx, the extra fedkd[docx]")

FIELDS = ("a4.1a.purpose", "a4.1a.provider", "a4.1b.interaction")
SAID = "It sorts digits.\n\tTwo lines, “quoted”; <b>& one more</b>."


def asked(*ids: str) -> dict[str, list[Question]]:
    fields = [catalogue().field(id) for id in ids]
    return {
        "the provider": [
            Question(one.id, one.point, asked_of(one.requirement, one.applies)) for one in fields
        ]
    }


def written(tmp_path: Path, change: Callable[[Any], object], *ids: str) -> Path:
    """A form as a person saved it, with every question answered and then `change` made."""
    document = docx.Document(io.BytesIO(form("f.docx", "r-1", asked(*(ids or FIELDS)))))
    for table in document.tables[1:]:
        table.rows[2].cells[1].text = f"About {table.rows[1].cells[1].text}."
    change(document)
    path = tmp_path / "form.docx"
    document.save(path)
    return path


def answer(document: Any, number: int = 1) -> Any:
    return document.tables[number].rows[2].cells[1]


def test_a_word_form_goes_round(run: Path, tmp_path: Path) -> None:
    key, path = tmp_path / "jane.key", tmp_path / "form.docx"
    public = new_key(key, "Jane Doe").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    told = ["report", "questions", str(run), "--role", "provider", "--form", str(path)]
    assert main(told) == 0
    document = docx.Document(path)
    before = build(run).derived.coverage()
    filled = []
    for table in document.tables[1:]:
        field = table.rows[1].cells[1].text
        if len(filled) < 2:
            answer_cell = table.rows[2].cells[1]
            answer_cell.text = SAID
            filled.append(field)
    assert "g9.basis" not in [table.rows[1].cells[1].text for table in document.tables[1:]]
    document.save(path)
    assert main(["report", "answers", str(run), str(path), "--key", str(key)]) == 0
    derived = build(run).derived
    assert derived.coverage() == {
        **before, "DECLARED": 2, "MISSING": before["MISSING"] - 2,
    }  # fmt: skip
    for field in filled:
        statement = derived.answer(field).statements[-1]
        assert (statement.status, statement.text) == ("DECLARED", SAID)
        assert (statement.author or "").startswith("Jane Doe, provider")
    assert main(["report", "build", str(run)]) == 0
    assert judge(run / "report" / "evidence.json").verdict == "CONSISTENT"


OFFICE = shutil.which("soffice")


@pytest.mark.slow
@pytest.mark.skipif(OFFICE is None, reason="found no LibreOffice (soffice) on this machine")
def test_a_form_that_libreoffice_saved_says_the_same(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        cell = answer(document)
        cell.text = SAID
        cell.add_paragraph("one of a list", style="List Bullet")
        cell.paragraphs[0].add_run(" Übergröße, 日本語").bold = True
        answer(document, 3).text = ""

    path = written(tmp_path, change)
    told = [str(OFFICE), f"-env:UserInstallation={(tmp_path / 'office').as_uri()}", "--headless"]
    told += ["--convert-to", "docx:MS Word 2007 XML", "--outdir", str(tmp_path / "saved")]
    subprocess.run([*told, str(path)], check=True, timeout=120, capture_output=True)
    saved = tmp_path / "saved" / path.name
    assert saved.read_bytes() != path.read_bytes()
    said = answers(saved, "r-1", catalogue())
    assert said == answers(path, "r-1", catalogue())
    assert said[FIELDS[0]].endswith("\none of a list")
    assert set(said) == set(FIELDS[:2])
    # Its columns are as they were made, and no wider than the page: the answer has the room.
    widths = [column.width for column in docx.Document(saved).tables[1].columns]
    assert widths[1] > 4 * widths[0]
    assert sum(widths) < docx.shared.Cm(21 - 2 * 2.2)


def test_a_form_that_is_left_as_it_was_says_nothing(tmp_path: Path) -> None:
    for name in ("form.docx", "form.yaml"):
        path = tmp_path / name
        path.write_bytes(form(name, "r-1", asked(*FIELDS)))
        with pytest.raises(BadInput, match="no field filled in"):
            answers(path, "r-1", catalogue())


def test_words_are_read_as_they_stand(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        cell = answer(document)
        cell.text = ""
        cell.paragraphs[0].add_run("one ").bold = True
        cell.paragraphs[0].add_run("line\nand\ta tab")
        cell.add_paragraph("two").paragraph_format.tab_stops.add_tab_stop(100)
        answer(document, 2).text = ""

    assert answers(written(tmp_path, change), "r-1", catalogue()) == {
        FIELDS[0]: "one line\nand\ta tab\ntwo",
        FIELDS[2]: f"About {FIELDS[2]}.",
    }


def tracked(document: Any) -> None:
    from docx.oxml import OxmlElement

    inserted = OxmlElement("w:ins")
    run = answer(document).paragraphs[0].add_run("not accepted yet")
    run._r.addprevious(inserted)
    inserted.append(run._r)


def picture(document: Any) -> None:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (2, 2)).save(content, "png")
    content.seek(0)
    answer(document).paragraphs[0].add_run().add_picture(content)


def cell(number: int, row: int, column: int, text: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        document.tables[number].rows[row].cells[column].text = text

    return change


def gone(number: int) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        element = document.tables[number]._tbl
        element.getparent().remove(element)

    return change


def merged(document: Any) -> None:
    rows = document.tables[1].rows
    rows[1].cells[1].merge(rows[2].cells[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (gone(0), "first table is not Form, Run, Questions"),
        (gone(2), "2 questions in .*, of 3"),
        (lambda it: it.add_table(2, 2), "4 questions in .*, of 3"),
        (cell(0, 0, 1, "fedkd-form/9"), "a form 'fedkd-form/9'"),
        (cell(0, 1, 1, "r-2"), "a form of run r-2.* one of run r-1"),
        (cell(1, 2, 0, "Antwort"), "question 1 .*other rows"),
        (lambda it: it.tables[1].add_row(), "question 1 .*other rows"),
        (merged, "question 1 .*other rows"),
        (cell(1, 0, 1, "Which colour?"), "an answer to 'Which colour[?]' under a4.1a.purpose"),
        (cell(2, 1, 1, FIELDS[0]), "an answer to .* under a4.1a.purpose"),
        (lambda it: answer(it).add_table(1, 1), "a table in the answer to a4.1a.purpose"),
        (picture, "a picture in the answer to a4.1a.purpose"),
        (tracked, "tracked changes .*accept or reject"),
    ],
)
def test_a_damaged_form_is_refused_by_what_is_wrong(
    tmp_path: Path, change: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(BadInput, match=f"(?s){said}"):
        answers(written(tmp_path, change), "r-1", catalogue())


def test_a_file_that_is_no_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, lambda document: None)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match="cannot be opened as a Word document"):
        answers(path, "r-1", catalogue())
    monkeypatch.setattr(word_forms, "_MOST_UNPACKED", 1000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("word/document.xml", bytes(1001))
    with pytest.raises(BadInput, match="bytes unpacked"):
        answers(path, "r-1", catalogue())
    with pytest.raises(BadInput, match="No such file"):
        answers(tmp_path / "none.docx", "r-1", catalogue())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('run: "r-1"', 'run: "r-2"', "a form of run r-2"),
        ("form: fedkd-form/1", "form: fedkd-form/9", "a form 'fedkd-form/9'"),
        ("a4.1a.provider:", "a4.1a.purpose:", "comes twice"),
        ('asked: "', 'asked: "Not ', "an answer to 'Not "),
    ],
)
def test_an_edited_yaml_form(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = form("f.yaml", "r-1", asked(*FIELDS)).decode()
    assert old in text
    path = tmp_path / "form.yaml"
    path.write_text(text.replace('answer: ""', "answer: Yes.").replace(old, new))
    with pytest.raises(BadInput, match=said):
        answers(path, "r-1", catalogue())


def test_without_python_docx_it_says_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = written(tmp_path, lambda document: None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "docx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "docx", None)
    told = ["report", "questions", str(run), "--form", str(tmp_path / "new.docx")]
    assert main(told) == 2
    assert "pip install 'fedkd[docx]'" in capsys.readouterr().err
    assert not (tmp_path / "new.docx").exists()
    with pytest.raises(BadInput, match=r"fedkd\[docx\]"):
        answers(path, "r-1", catalogue())
