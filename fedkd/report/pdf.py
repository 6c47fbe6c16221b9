"""Draws a report as PDF/A for filing: pages, bookmarks, fonts inside, the same bytes every time.

WeasyPrint draws it (the extra `fedkd[pdf]`), which needs the system's Pango. The PDF carries no
attachments, which some authorities refuse; what it says is checked by the files beside it.
"""

import hashlib
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from fedkd.knowledge import BadInput
from fedkd.report.verify import Derived
from fedkd.report.verify.page import printed

PDF: Final = "report.pdf"
VARIANT: Final = "pdf/a-2u"
"""ISO 19005-2, level U: every letter can be read back as text."""
_REMEDY: Final = "pip install 'fedkd[pdf]'; the other files of the report need nothing"
_PANGO: Final = "install Pango (Debian: apt install libpango-1.0-0 libpangoft2-1.0-0)"


def pdf(derived: Derived, bundle: bytes) -> bytes:
    """The report as PDF/A; the same report, fonts and WeasyPrint give the same bytes.

    Raises `BadInput` where WeasyPrint or Pango is not installed.
    """
    library = _weasyprint()
    page = printed(derived, bundle)
    with _quiet():
        document = library.HTML(string=page, base_url="about:blank", url_fetcher=_nothing)
        content = document.write_pdf(
            pdf_variant=VARIANT,
            pdf_tags=True,
            pdf_identifier=hashlib.sha256(page.encode()).digest()[:16],
        )
    assert isinstance(content, bytes)  # noqa: S101 - no target was named
    return content


def _weasyprint() -> Any:
    try:
        return importlib.import_module("weasyprint")
    except ImportError:
        raise BadInput("no WeasyPrint here", "WeasyPrint 66 or newer for a PDF", _REMEDY) from None
    except OSError as error:  # its C libraries are opened when it is imported
        found = f"WeasyPrint without its libraries ({str(error).splitlines()[0][:120]})"
        raise BadInput(found, "Pango", f"{_PANGO}; the other files need nothing") from None


def _nothing(address: str, *_: Any, **__: Any) -> NoReturn:
    """A report stands by itself: nothing is fetched, whatever its text says."""
    raise ValueError(f"found {address[:60]!r}, expected nothing to fetch")


@contextmanager
def _quiet() -> Iterator[None]:
    """WeasyPrint warns of each rule that it does not know; those are for screens."""
    loggers = [logging.getLogger(name) for name in ("weasyprint", "fontTools")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
