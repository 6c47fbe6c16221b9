"""The PDF: for filing, with bookmarks, the same bytes again; and what is said where none can be."""

import contextlib
import importlib.util
import re
import sys
import zlib
from pathlib import Path

import pytest

from fedkd.knowledge import BadInput
from fedkd.report.building import Built
from fedkd.report.pdf import pdf


def drawable() -> bool:
    if importlib.util.find_spec("weasyprint") is None:
        return False
    try:
        importlib.import_module("weasyprint")
    except OSError:
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file left open
@pytest.mark.skipif(not drawable(), reason="found no WeasyPrint with Pango on this machine")
def test_a_pdf_is_for_filing_and_the_same_again(plain: Built) -> None:
    first = pdf(plain.derived, plain.bundle)
    assert first == pdf(plain.derived, plain.bundle)
    assert first.startswith(b"%PDF-1.7")
    text = opened(first)
    for said in (b"/Outlines", b"/StructTreeRoot", b"pdfaid:part", b"/OutputIntents", b"/Lang"):
        assert said in text, said
    for absent in (b"/EmbeddedFile", b"/URI", b"/JavaScript", b"/Launch"):
        assert absent not in text, absent


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
