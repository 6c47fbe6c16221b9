"""Draws a report's files from what was derived, the same bytes each time, to be drawn again.

The standard library is enough: the verifier, which holds nothing else, compares them by that.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fedkd.audit.verify import Refuted
from fedkd.audit.verify.canonical import canonical
from fedkd.report.verify.attached import attached
from fedkd.report.verify.cards import data_sheets, model_card
from fedkd.report.verify.declared import SIGNED, signed_files
from fedkd.report.verify.deriving import Derived
from fedkd.report.verify.evidence import Book
from fedkd.report.verify.markdown import markdown
from fedkd.report.verify.page import embedded, page

EVIDENCE: Final = "evidence.json"
REPORT: Final = "report.json"
PAGE: Final = "index.html"
TEXT: Final = "report.md"
CARD: Final = "model-card.md"
SHEET: Final = "data-sheet-"


def report_json(derived: Derived, bundle: bytes) -> bytes:
    """Every field with its status and statements, as canonical JSON, without the evidence."""
    from fedkd.report.verify.digests import digest

    own = derived.catalogue
    told: dict[str, Any] = {
        "format": "fedkd-report/1",
        "run": derived.evidence.run,
        "catalogue": {"id": own.id, "digest": own.digest},
        "evidence": digest(bundle),
        "law": dict(own.law),
        "simulation": derived.simulation,
        "trouble": list(derived.trouble),
        "cosigned": {party: _cosigned(book) for party, book in derived.evidence.books.items()},
        "coverage": derived.coverage(),
        "conditional": derived.apart(),
        "elsewhere": [field.id for field in derived.elsewhere],
        "fields": [
            {
                "id": answer.field.id,
                "point": answer.field.point,
                "requirement": answer.field.requirement,
                "applies": answer.field.applies,
                "conditional": answer.field.conditional,
                "status": answer.status,
                "missing": answer.why,
                "statements": [one.to_json() for one in answer.statements],
            }
            for answer in derived.answers
        ],
    }
    return canonical(told, "report")


def _cosigned(book: Book) -> dict[str, int | None]:
    """How many entries there are, and how many of them enough cosigners of the log confirmed.

    `confirmed` None: the log's own policy asks for no cosigners, or the log does not hold.
    """
    count = len(book.entries)
    return {"entries": count, "confirmed": None if book.beyond is None else count - book.beyond}


_DRAWN: Final[Mapping[str, Callable[[Derived, bytes], bytes]]] = {
    REPORT: report_json,
    TEXT: lambda derived, bundle: markdown(derived).encode(),
    PAGE: lambda derived, bundle: page(derived, bundle).encode(),
}


def drawn(name: str, derived: Derived, bundle: bytes) -> bytes | None:
    """The file of this name, or of this kind; None for a kind that is not drawn here."""
    if name == CARD:
        return model_card(derived).encode()
    if name.startswith(SHEET):
        found = data_sheets(derived).get(name)
        return None if found is None else found.encode()
    if name.startswith(SIGNED):
        return signed_files(derived.evidence).get(name)
    for known, draw in _DRAWN.items():
        if name == known or name.endswith(f".{known.rpartition('.')[2]}"):
            return draw(derived, bundle)
    return None


def names(derived: Derived) -> tuple[str, ...]:
    """The files of a report that are drawn of its evidence; a hospital alone has no student."""
    cards = () if derived.evidence.alone else (CARD,)
    return (*_DRAWN, *cards, *data_sheets(derived), *signed_files(derived.evidence))


def evidence_in(name: str, content: bytes) -> bytes | None:
    """The evidence that a file carries: all of it, or what a page holds inside; None if none."""
    if name.endswith(".pdf"):
        return attached(content)
    if name.endswith(".html"):
        found = embedded(content)
        if found is None:
            raise Refuted(name, "no evidence inside", "a page that carries its evidence")
        return found
    return content if b'"format":"fedkd-evidence/' in content else None
