"""Draws a report as PDF/A for filing: pages, bookmarks, fonts inside, the same bytes every time.

WeasyPrint draws it (the extra `fedkd[pdf]`), which needs the system's Pango. By default the PDF
carries its evidence as an attachment (PDF/A-3), so that it can be checked by itself; some
authorities refuse attachments, and for them it is drawn without (PDF/A-2).
"""

import ctypes
import hashlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from itertools import zip_longest
from typing import Any, Final, NoReturn

from fedkd.audit.verify import CannotTell, Refuted
from fedkd.knowledge import BadInput
from fedkd.report.verify import Derived
from fedkd.report.verify.attached import UNCHECKED, Laid, attached, laid_open, tools
from fedkd.report.verify.drawing import EVIDENCE
from fedkd.report.verify.heading import made_at
from fedkd.report.verify.page import printed

PDF: Final = "report.pdf"
CARRYING: Final = "pdf/a-3u"
"""ISO 19005-3, level U: any file may be attached, and every letter can be read back as text."""
BARE: Final = "pdf/a-2u"
"""ISO 19005-2, level U: without attachments."""
_REMEDY: Final = "pip install 'fedkd[pdf]'; the other files of the report need nothing"
_PANGO: Final = "install Pango (Debian: apt install libpango-1.0-0 libpangoft2-1.0-0)"
_HARFBUZZ: Final = ("libharfbuzz.so.0", "libharfbuzz.0.dylib", "libharfbuzz-0.dll")


def pdf(derived: Derived, bundle: bytes, *, carry: bool = True) -> bytes:
    """The report as PDF/A; the same report, fonts, Pango and WeasyPrint give the same bytes.

    With `carry` the evidence is attached. Raises `BadInput` where WeasyPrint or Pango is not
    installed.
    """
    library = weasyprint()
    page = printed(derived, bundle, drawn_with=_drawn_with())
    with _quiet():
        document = library.HTML(string=page, base_url="about:blank", url_fetcher=_nothing)
        content = document.write_pdf(
            pdf_variant=CARRYING if carry else BARE,
            pdf_tags=True,
            pdf_identifier=hashlib.sha256(page.encode()).digest()[:16],
            attachments=[_evidence(library, derived, bundle)] if carry else [],
        )
    assert isinstance(content, bytes)  # noqa: S101 - no target was named
    return content


def same_pdf(name: str, paper: bytes, derived: Derived, bundle: bytes) -> str:
    """What is found where `paper` is the PDF that is drawn here, to the byte; `CannotTell` else."""
    try:
        own = pdf(derived, bundle, carry=attached(paper) is not None)
    except BadInput as error:
        raise CannotTell(f"{name}: {error}; {UNCHECKED}") from None
    return compared(name, paper, own)


def compared(name: str, paper: bytes, own: bytes) -> str:
    """What is found where a PDF is the one that was drawn here, to the byte.

    Raises `Refuted` where it says that the same versions drew it, and holds the same fonts, but
    other content. Raises `CannotTell` where anything else drew it, or what follows was added to it:
    other fonts or another Pango draw other bytes of the same report, which refutes nothing.
    """
    if own == paper:
        return f"{name} is what its evidence gives, to the byte"
    if paper.startswith(own):
        raise CannotTell(
            f"{name}: found {len(paper) - len(own)} bytes after what its evidence gives; a "
            f"signature may be such, or a change of any page; compare its first {len(own)} bytes"
        )
    found, expected = laid_open(paper), laid_open(own)
    if tools(paper) != tools(own) or found.fonts != expected.fonts:
        raise CannotTell(
            f"{name}: found other bytes, by {_told(paper)}, than {_told(own)} draws here of the "
            "same evidence; where fonts or versions differ that shows nothing, and a PDF that was "
            f"changed may name any; {UNCHECKED}"
        )
    if found == expected:
        raise CannotTell(f"{name}: found the same content, packed in another way; {UNCHECKED}")
    raise Refuted(
        f"{name}, {_where(found, expected)}",
        "other content",
        f"what its evidence gives, as {_told(own)} draws it with the same fonts",
    )


def _where(found: Laid, expected: Laid) -> str:
    """The first drawing that differs: pages come first in the file, one drawing each."""
    pairs = zip_longest(found.pages, expected.pages)
    for number, (one, other) in enumerate(pairs, 1):
        if one != other:
            return f"drawing {number} (pages come first)"
    return "outside its pages"


def _told(content: bytes) -> str:
    library, creator = tools(content)
    return ", ".join(filter(None, (library or "an unnamed program", creator)))


def _drawn_with() -> str:
    """The versions that decide where lines break and how letters stand, for whoever draws again."""
    breaker, shaper = "Pango not named", "HarfBuzz not named"
    with suppress(ImportError, AttributeError):
        number = int(importlib.import_module("weasyprint.text.ffi").pango.pango_version())
        breaker = f"Pango {number // 10000}.{number // 100 % 100}.{number % 100}"
    for name in _HARFBUZZ:
        try:
            library = ctypes.CDLL(name)
            library.hb_version_string.restype = ctypes.c_char_p
            shaper = f"HarfBuzz {library.hb_version_string().decode()}"
            break
        except (OSError, AttributeError):
            continue
    return ", ".join((breaker, shaper, f"fontTools {version('fonttools')}"))


def _evidence(library: Any, derived: Derived, bundle: bytes) -> Any:
    try:
        made = datetime.fromisoformat(made_at(derived))
    except ValueError:
        made = datetime.fromisoformat("1980-01-01T00:00:00+00:00")  # evidence without any entry
    return library.Attachment(
        string=bundle,
        name=EVIDENCE,
        description="The evidence that every sentence of this report follows from",
        relationship="Source",
        created=made,
        modified=made,
    )


def weasyprint() -> Any:
    """The library that draws; `BadInput` where it or Pango is not installed."""
    try:
        with warnings.catch_warnings():
            # Without HarfBuzz's subsetting it takes another way, and says that this will end.
            warnings.simplefilter("ignore", DeprecationWarning)
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
