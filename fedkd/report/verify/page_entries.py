"""Draws the logs behind a report: signed heads, and every entry with its body where it is open."""

import json
from collections.abc import Mapping
from typing import Any

from fedkd.audit.verify import Note, leaf_hash
from fedkd.report.verify.deriving import Derived
from fedkd.report.verify.evidence import Book, Evidence, Told
from fedkd.report.verify.page_parts import Html, details, element, entry_id, log_id, section
from fedkd.report.verify.plain import escaped_lines

KEPT_AT_HOME = "The body is kept at home or was erased; the leaf commits to it."


def logs(derived: Derived, *, paper: bool = False) -> Html:
    """Every log of the evidence; on `paper` without leaves and bodies."""
    said = (
        "Each party keeps a log of its own, a Merkle tree (RFC 6962) whose head it signs and other "
        "parties cosign. A leaf is open; it commits to a body, which may be opened or kept. This "
        "page shows them and does not check them: who checks is named at its end."
    )
    books = derived.evidence.books.values()
    return section(
        "logs", "The logs behind it", element("p", said),
        *(_book(derived.evidence, book, paper) for book in books),
    )  # fmt: skip


def leaf_digest(evidence: Evidence, told: Told) -> str:
    """The hash of an entry's leaf, in hexadecimal."""
    return leaf_hash(_leaf(evidence, told).encode()).hex()


def _leaf(evidence: Evidence, told: Told) -> str:
    return str(evidence.claimed["logs"][told.party]["leaves"][told.index])


def _book(evidence: Evidence, book: Book, paper: bool) -> Html:
    told = evidence.claimed["logs"][book.party]
    told = told if isinstance(told, Mapping) else {}
    inside = []
    if book.log is None:
        wrong = element("strong", "DOES NOT HOLD")
        inside.append(element("p", wrong, f": {book.error}", class_="doubt"))
        facts = [("Entries", f"{len(book.entries):,}")]
    else:
        closed = sum(entry.body is None for entry in book.entries)
        facts = [
            ("Origin", book.log.origin),
            ("Entries", f"{len(book.entries):,}, of which {closed:,} with a closed or erased body"),
            ("Root", book.log.root.hex()),
            ("Cosigned", _cosigned(told.get("cosigned"))),
        ]
        if book.beyond:
            last = len(book.entries) - book.beyond
            which = f"{book.beyond:,}, from #{last} on: not confirmed by others yet"
            facts.append(("Beyond the cosigned head", which))
    terms = "".join(element("dt", name) + element("dd", value) for name, value in facts)
    inside.append(element("dl", Html(terms)))
    inside.append(details("Signed head", _lines(told.get("head"))))
    if isinstance(told.get("cosigned"), str):
        inside.append(details("Head with cosignatures", _lines(told["cosigned"])))
    confirmed = len(book.entries) - (book.beyond or 0)
    entries = (_entry(evidence, one, paper, late=one.index >= confirmed) for one in book.entries)
    inside.append(details(f"All entries of {book.party}", *entries, class_="all"))
    return section(log_id(book.party), f"Log of {book.party}", *inside, level=3)


def _cosigned(text: Any) -> str:
    """What the note itself says: whose signatures count depends on the reader's policy."""
    if not isinstance(text, str):
        return "no head with enough cosignatures is here"
    note = Note.parse(text.encode())
    head = note.checkpoint()
    by = {signature.name for signature in note.signatures} - {head.origin}
    return f"the first {head.size:,} entries, by {len(by)} parties"


def _entry(evidence: Evidence, told: Told, paper: bool, *, late: bool) -> Html:
    digest = leaf_digest(evidence, told)
    kept = "" if told.body is not None else ", body kept"
    kept += ", not cosigned" if late else ""
    summary = Html(
        element("b", f"{told.party}#{told.index}")
        + element("span", f" {told.type}, {told.time}{kept} ")
        + element("code", digest[:16])
    )
    if paper:
        return element("p", summary, id=entry_id(told), class_="one")
    leaf = _leaf(evidence, told)
    return details(
        summary,
        element("p", Html("Leaf "), element("code", digest)),
        _lines(leaf),
        body(told),
        id=entry_id(told),
        class_="one",
    )


def body(told: Told) -> Html:
    """What an entry says, if it is open."""
    if told.body is None:
        return element("p", KEPT_AT_HOME, class_="body")
    text = json.dumps(told.body, indent=1, sort_keys=True, ensure_ascii=False)
    return Html(f'<pre class="body" tabindex="0">{escaped_lines(text)}</pre>')


def _lines(text: Any) -> Html:
    words = text if isinstance(text, str) else "none"
    return Html(f'<pre tabindex="0">{escaped_lines(words)}</pre>')
