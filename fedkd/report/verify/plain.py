"""Makes text of logs and persons safe to look at: it stays text, and cannot hide or turn itself."""

import html
import re
from typing import Final

_UNSEEN: Final = (
    *range(0x20),
    *range(0x7F, 0xA0),
    0xAD,
    0x61C,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xD800, 0xE000),
    *range(0xE0000, 0xE0080),
)
"""Controls, marks that turn the direction of writing, letters without width, lone surrogates.

A table of our own: unicodedata differs between versions of Python, and a paper must not.
"""
_SHOWN: Final = {code: f"\\u{code:04x}" for code in _UNSEEN} | dict.fromkeys(
    map(ord, "\n\t\r"), " "
)
_LINES: Final = {code: text for code, text in _SHOWN.items() if code != ord("\n")}
_SPECIAL: Final = {ord(letter): f"\\{letter}" for letter in "\\`*[]<>|~$"} | {ord("&"): "&amp;"}
_EDGES: Final = re.compile(r"(?<!\w)_|_(?!\w)|^[-+#=]|^\d+(?=[.)](?:\s|$))|(?<=:)//|(?<=[Ww]{3})\.")


def seen(text: str) -> str:
    """One line in which nothing is hidden: what has no shape of its own is shown as its code."""
    return text.translate(_SHOWN)


def escaped(text: str) -> str:
    """One line for HTML and SVG, in text and in attributes."""
    return html.escape(seen(text))


def escaped_lines(text: str) -> str:
    """Several lines for HTML, as in a note or in JSON."""
    return html.escape(text.translate(_LINES))


def marked_down(text: str) -> str:
    """One line for Markdown, without markup or links of its own."""
    return _EDGES.sub(_kept_plain, seen(text).strip().translate(_SPECIAL))


def _kept_plain(found: re.Match[str]) -> str:
    """What would begin a list, a heading, a link or emphasis, and so may not stand bare."""
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"
