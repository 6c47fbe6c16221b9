"""Writes a form as a Word document, and reads it back: one table a question, one row an answer.

python-docx writes and opens it (the extra `fedkd[docx]`). What a person may have done to it in Word
and that would lose words is refused by name: changes that are only tracked, pictures, tables inside
an answer, questions that were taken out.
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from fedkd.knowledge import BadInput
from fedkd.report.forms import FORMAT, INTRODUCTION, NEW_FORM, Filled, Given, Questions

if TYPE_CHECKING:
    from docx.document import Document
    from docx.table import Table

_REMEDY: Final = "pip install 'fedkd[docx]'; a form as YAML (--out form.yaml) needs nothing"
_HEAD: Final = ("Form", "Run", "Questions")
_ROWS: Final = ("Question", "Field", "Answer")
_MOST_UNPACKED: Final = 1 << 26
_PIECES: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_TRACKED: Final = ("ins", "del", "moveFrom", "moveTo")
_LOST: Final = {"drawing": "a picture", "pict": "a picture", "object": "an object"}
_LABEL_CM, _TEXT_CM, _ANSWER_CM, _MARGIN_CM = 2.8, 13.6, 2.0, 2.3


def document(run: str, questions: Questions) -> bytes:
    """The form of a run as a Word document, every answer empty.

    Raises `BadInput` where python-docx is not installed.
    """
    docx = _library()
    from docx.shared import Cm

    written = docx.Document()
    written.core_properties.title = f"Questions of run {run}"
    written.core_properties.author = ""
    sheet = written.sections[0]
    sheet.page_width, sheet.page_height = Cm(21), Cm(29.7)
    sheet.left_margin = sheet.right_margin = Cm(_MARGIN_CM)
    written.add_heading(f"What the report of run {run} still asks for", 0)
    written.add_paragraph(INTRODUCTION)
    written.add_paragraph("Write into the cell beside “Answer”, and change nothing else.")
    count = sum(map(len, questions.values()))
    _table(written, zip(_HEAD, (FORMAT, run, str(count)), strict=True))
    for who, asked in questions.items():
        written.add_heading(who.capitalize(), 1)
        for one in asked:
            written.add_heading(one.point, 2)
            _table(written, zip(_ROWS, (one.asked, one.field, ""), strict=True))
    content = io.BytesIO()
    written.save(content)
    return content.getvalue()


def read(path: str, content: bytes) -> Filled:
    """What a filled-in form says; `BadInput` where it is none, or came back damaged."""
    opened = _opened(path, content)
    _expect_settled(path, opened)
    tables = opened.tables[1:]
    told = _rows(opened.tables[0], _HEAD) if opened.tables else None
    if told is None:
        raise BadInput(
            f"{path}, whose first table is not {', '.join(_HEAD)}",
            "a form that fedkd report questions made",
            NEW_FORM,
        )
    if told[0].strip() != FORMAT:
        raise BadInput(f"{path}, a form {told[0].strip()!r}", FORMAT, NEW_FORM)
    if told[2].strip() != str(len(tables)):
        found = f"{len(tables)} questions in {path}, of {told[2].strip()}"
        raise BadInput(found, "all of them, unanswered ones empty", NEW_FORM)
    given = [_given(path, number, one) for number, one in enumerate(tables, 1)]
    return Filled(told[1].strip(), given)


def _library() -> Any:
    try:
        import docx
    except ImportError:
        raise BadInput("no python-docx here", "python-docx for a .docx", _REMEDY) from None
    return docx


def _table(written: "Document", rows: Iterator[tuple[str, str]]) -> None:
    from docx.shared import Cm

    table = written.add_table(0, 2, style="Table Grid")
    table.autofit = False
    for column, width in zip(table.columns, (_LABEL_CM, _TEXT_CM), strict=True):
        column.width = Cm(width)  # LibreOffice goes by the columns, Word by the cells
    for label, text in rows:
        row = table.add_row()
        name, said = row.cells
        name.width, said.width = Cm(_LABEL_CM), Cm(_TEXT_CM)
        name.paragraphs[0].add_run(label).bold = True
        said.text = text
        for cell in row.cells:  # a question stays on one page with its answer
            cell.paragraphs[0].paragraph_format.keep_with_next = label in _ROWS[:-1]
        if label == "Answer":
            row.height = Cm(_ANSWER_CM)  # at least: it grows with what is written
    written.add_paragraph()


def _opened(path: str, content: bytes) -> "Document":
    docx = _library()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(one.file_size for one in archive.infolist())
        if size > _MOST_UNPACKED:
            raise BadInput(f"{path}, {size} bytes unpacked", f"at most {_MOST_UNPACKED}")
        opened: Document = docx.Document(io.BytesIO(content))
        list(opened.tables)
    except BadInput:
        raise
    except Exception as error:  # a damaged file makes the library stumble in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise BadInput(
            f"{path}, which cannot be opened as a Word document ({reason})",
            "a form as .docx or YAML",
            "save it again as .docx, or make a new form",
        ) from None
    return opened


def _expect_settled(path: str, opened: "Document") -> None:
    for name in _TRACKED:
        if next(opened.element.body.iter(_tag(name)), None) is not None:
            raise BadInput(
                f"tracked changes in {path}",
                "one text",
                "accept or reject all changes in Word (Review), save, and give it again",
            )


def _rows(table: "Table", labels: Sequence[str]) -> list[str] | None:
    """The second column, if the first one is `labels`."""
    rows = [row.cells for row in table.rows]
    whole = [one._tc for cells in rows for one in cells]
    if any(len(cells) != 2 for cells in rows) or len(set(whole)) != len(whole):
        return None  # with cells that were merged the same one comes twice
    if tuple(_text(name).strip() for name, _ in rows) != tuple(labels):
        return None
    return [_text(said) for _, said in rows]


def _given(path: str, number: int, table: "Table") -> Given:
    found = _rows(table, _ROWS)
    if found is None:
        raise BadInput(
            f"question {number} in {path} with other rows than it had",
            f"{', '.join(_ROWS)}, each with one cell beside it",
            NEW_FORM,
        )
    asked, field, answer = found
    cell = table.rows[2].cells[1]
    lost = next((what for name, what in _LOST.items() if _has(cell, name)), None)
    lost = lost or ("a table" if cell.tables else None)
    if lost is not None:
        raise BadInput(f"{lost} in the answer to {field.strip()} in {path}", "words alone")
    return Given(field.strip(), asked.strip(), answer.strip())


def _text(cell: Any) -> str:
    """All words of a cell, a line for each paragraph; fields and links are words too."""
    lines = []
    for paragraph in cell._tc.iter(_tag("p")):
        pieces = []
        for one in paragraph.iter(*map(_tag, ("t", *_PIECES))):
            if one.getparent().tag == _tag("r"):  # a tab stop is a w:tab too, elsewhere
                pieces.append(_PIECES.get(one.tag.rpartition("}")[2], one.text or ""))
        lines.append("".join(pieces))
    return "\n".join(lines)


def _has(cell: Any, name: str) -> bool:
    return next(cell._tc.iter(_tag(name)), None) is not None


def _tag(name: str) -> str:
    from docx.oxml.ns import qn

    return str(qn(f"w:{name}"))
