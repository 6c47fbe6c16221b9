"""The PDF: for filing, with bookmarks, the same bytes again; and what is said where none can be."""

import contextlib
import json
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.verify import CannotTell, Refuted, canonical
from fedkd.cli import main
from fedkd.knowledge import BadInput
from fedkd.report.building import Built
from fedkd.report.pdf import compared, pdf, same_pdf, weasyprint
from fedkd.report.verify import Derived
from fedkd.report.verify.attached import attached
from fedkd.report.verify.judging import judge
from tests.report_pages.papers import Hospitals, built


def drawable() -> bool:
    try:
        weasyprint()
    except BadInput:
        return False
    return True


def opened(content: bytes) -> bytes:
    """All that a PDF says, its streams laid open."""
    inside = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    said = [content]
    for stream in inside:
        with contextlib.suppress(zlib.error):
            said.append(zlib.decompress(stream))
    return b"\n".join(said)


def printing(test: Any) -> Any:
    """Marks a test that draws."""
    reason = "found no WeasyPrint with Pango on this machine"
    left_open = "ignore::pytest.PytestUnraisableExceptionWarning"  # a file of WeasyPrint's own
    marked = pytest.mark.filterwarnings(left_open)(pytest.mark.slow(test))
    return pytest.mark.skipif(not drawable(), reason=reason)(marked)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The report of a short run: what is drawn is drawn faster."""
    return built(Hospitals(("site-01", "site-02"), rounds=1), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def short(small: Built) -> Derived:
    """Some of its fields, those that its pictures are made of."""
    kept = [it for it in small.derived.answers if it.field.id.startswith(("a4.2", "a4.3"))]
    return replace(small.derived, answers=tuple(kept))


@pytest.fixture(scope="module")
def carrying(small: Built, short: Derived) -> bytes:
    """Its PDF, with the evidence inside."""
    return pdf(short, small.bundle)


def expect_for_filing(content: bytes, part: bytes) -> None:
    text = opened(content)
    assert text.startswith(b"%PDF-1.7")
    for said in (b"/Outlines", b"/StructTreeRoot", b"/OutputIntents", b"/Lang"):
        assert said in text, said
    assert re.search(rb'pdfaid:part(>|=")' + part, text)
    for absent in (b"/URI", b"/JavaScript", b"/Launch"):
        assert absent not in text, absent


@printing
def test_a_pdf_is_for_filing_and_the_same_again(
    small: Built, short: Derived, carrying: bytes
) -> None:
    expect_for_filing(carrying, b"3")
    assert attached(carrying) == small.bundle
    assert same_pdf("report.pdf", carrying, short, small.bundle)


@printing
def test_a_pdf_without_attachment_for_those_who_refuse_one(small: Built, short: Derived) -> None:
    bare = pdf(short, small.bundle, carry=False)
    expect_for_filing(bare, b"2")
    assert b"/EmbeddedFile" not in opened(bare)
    assert attached(bare) is None


STREAM = re.compile(rb"(<<[^\r\n]*)/Length ([0-9]+)>>\nstream\n(.*?)\nendstream", re.DOTALL)


def changed(
    content: bytes, change: Callable[[bytes, bytes], bytes], *, level: int = -1, most: int = 1
) -> bytes:
    """A PDF with its first streams changed that `change` changes, packed as it should be."""
    left = most

    def again(found: re.Match[bytes]) -> bytes:
        nonlocal left
        if b"/FlateDecode" not in found[1] or not left:
            return found[0]
        said = zlib.decompress(found[3])
        made = change(found[1], said)
        if made == said and level == -1:
            return found[0]
        left -= 1
        packed = zlib.compress(made, level)
        return b"%b/Length %d>>\nstream\n%b\nendstream" % (found[1], len(packed), packed)

    return STREAM.sub(again, content)


def other_words(told: bytes, said: bytes) -> bytes:
    """The words of a page in another order: its lines of text are shows of glyphs."""
    shown = re.findall(rb"\[<[0-9a-f]+>[^\n]*TJ", said) if told == b"<</Filter /FlateDecode" else []
    return said.replace(shown[0], shown[-1], 1) if len(set(shown)) > 1 else said


@printing
def test_an_edited_page_is_refuted(carrying: bytes) -> None:
    """The same versions with the same fonts draw the same: another page is somebody's edit."""
    edited = changed(carrying, other_words)
    assert edited != carrying
    with pytest.raises(Refuted, match=r"drawing 1 \(pages come first\).*as WeasyPrint [0-9.]+, "):
        compared("report.pdf", edited, carrying)
    bar = changed(carrying, lambda told, said: said + b"\n0 0 9 9 re f" if told == PLAIN else said)
    with pytest.raises(Refuted, match="drawing 1"):
        compared("report.pdf", bar, carrying)
    places = carrying.replace(b"%%EOF", b"%%E0F")
    with pytest.raises(Refuted, match="outside its pages"):
        compared("report.pdf", places, carrying)


PLAIN = b"<</Filter /FlateDecode"


@printing
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: changed(it, other_library), "by WeasyPrint 1.0, fedkd.* than WeasyPrint "),
        (lambda it: changed(it, other_pango), "Pango 0.1.* than WeasyPrint .*Pango 1"),
        (lambda it: changed(it, other_font), "where fonts or versions differ that shows nothing"),
        (lambda it: changed(it, lambda _, said: said, level=1, most=5), "packed in another way"),
        (lambda it: it + b"9 0 obj", "found 7 bytes after what its evidence gives"),
        (lambda it: changed(it, lambda _, said: said[:9] if b"xpacket" in said else said),
         "by an unnamed program"),
    ],
)  # fmt: skip
def test_what_other_tools_drew_or_added_to_refutes_nothing(
    carrying: bytes, change: Callable[[bytes], bytes], said: str
) -> None:
    """With other fonts or another Pango the same report has other bytes."""
    other = change(carrying)
    assert other != carrying
    with pytest.raises(CannotTell, match=said):
        compared("report.pdf", other, carrying)


def other_library(told: bytes, said: bytes) -> bytes:
    return re.sub(rb"WeasyPrint [0-9.]+", b"WeasyPrint 1.0", said)


def other_pango(told: bytes, said: bytes) -> bytes:
    return re.sub(rb"Pango [0-9.]+", b"Pango 0.1", said)


def other_font(told: bytes, said: bytes) -> bytes:
    return said + b" " if b"/Length1" in told else said


@printing
def test_the_command_refutes_an_edited_page_and_says_what_it_did_not_check_without_weasyprint(
    small: Built,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(changed(pdf(small.derived, small.bundle), other_words))
    assert main(["report", "verify", str(path)]) == 1
    said = capsys.readouterr().out
    assert "REFUTED      paper          report.pdf, drawing 1" in said
    assert "CONSISTENT   statements" in said
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    assert main(["report", "verify", str(path)]) == 3
    said = capsys.readouterr().out
    assert "its pages were not checked, the evidence that it carries" in said
    assert "CONSISTENT   statements" in said


def pdf_with(*files: bytes, length: int | None = None) -> bytes:
    """The part of a PDF that attachments are in, as WeasyPrint writes them."""
    told = b"%PDF-1.7\n"
    for number, file in enumerate(files, 1):
        packed = zlib.compress(file)
        size = len(packed) if length is None else length
        told += b"%d 0 obj\n<</Type /EmbeddedFile/Subtype /application#2fjson" % number
        told += b"/Filter /FlateDecode/Length %d>>\nstream\n%b\nendstream\n" % (size, packed)
    return told


def test_a_pdf_is_checked_by_the_evidence_that_it_carries(
    plain: Built,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where nothing can draw it again the evidence is checked, and of the pages nothing is said."""
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    path = tmp_path / "report.pdf"
    path.write_bytes(pdf_with(plain.bundle))
    assert main(["report", "verify", str(path)]) == 3
    said = capsys.readouterr().out
    assert "CONSISTENT   statements" in said
    assert "CANNOT TELL  paper          report.pdf: found no WeasyPrint here" in said
    assert "read index.html" in said
    alone = judge(path)  # as the verifier alone has it
    (one,) = [it for it in alone.findings if it.verdict == "CANNOT TELL"]
    assert one.name == "paper"
    assert "nothing that draws a PDF here; its pages were not checked" in one.why
    forged = json.loads(plain.bundle)
    forged["statements"][0]["text"] = "It heals."
    path.write_bytes(pdf_with(canonical(forged)))
    assert judge(path).verdict == "REFUTED"
    assert main(["report", "verify", str(path)]) == 1


@pytest.mark.parametrize(
    "content",
    [
        pdf_with(b"{}", b"{}"),
        pdf_with(b"{}", length=3),
        pdf_with(b"{}").replace(b"/Filter /FlateDecode", b""),
        pdf_with(b"{}").replace(b"stream\nx", b"stream\n?"),
    ],
)
def test_an_attachment_that_cannot_be_read_here(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="attachment"):
        attached(content)
    (tmp_path / "report.pdf").write_bytes(content)
    assert judge(tmp_path / "report.pdf").verdict == "CANNOT TELL"


def test_an_attachment_is_found() -> None:
    assert attached(pdf_with(b"{}")) == b"{}"
    assert attached(b"%PDF-1.7\n") is None


def test_without_weasyprint_it_says_what_to_install(
    plain: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(BadInput, match=r"no WeasyPrint here.*fedkd\[pdf\]"):
        pdf(plain.derived, plain.bundle)


def test_without_pango_it_says_what_to_install(
    plain: Built, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "weasyprint.py").write_text("raise OSError('cannot load library pango-1.0-0')\n")
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=r"pango-1.0-0.*apt install libpango"):
        pdf(plain.derived, plain.bundle)
