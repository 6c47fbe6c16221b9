"""Finds in a PDF its evidence, its streams and what drew it, with the standard library alone.

It reads what fedkd writes (ISO 32000-1, 7.11.4: one embedded file, its stream deflated). A PDF that
another program wrote anew may hold the same file in a way that is not read here.
"""

import re
import zlib
from typing import Final, NamedTuple

from fedkd.audit.verify import CannotTell

MOST_ATTACHED_BYTES: Final = 1 << 28
UNCHECKED: Final = (
    "its pages were not checked, the evidence that it carries or that lies beside it was, line by "
    "line: read index.html or report.md, which can be compared to the byte"
)
_STREAM: Final = rb"[^\r\n]{0,400}/Filter /FlateDecode/Length ([0-9]{1,10})>>\r?\nstream\r?\n"
_ATTACHED: Final = re.compile(rb"/Type /EmbeddedFile" + _STREAM)
_METADATA: Final = re.compile(rb"/Type /Metadata" + _STREAM)
_PRODUCER: Final = re.compile(rb'pdf:Producer(?:>|=")([A-Za-z0-9 .-]{1,40})["<]')
_CREATOR: Final = re.compile(rb'xmp:CreatorTool(?:>|=")([^"<>]{1,200})["<]')
_ANY_STREAM: Final = re.compile(
    rb"([0-9]{1,10}) 0 obj\r?\n(<<[^\r\n]{0,2000}?)/Length ([0-9]{1,10})>>\r?\nstream\r?\n"
)
_PLAIN: Final = b"<</Filter /FlateDecode"
_FONT: Final = b"/Length1"
_PLACES: Final = b"/Type /XRef"
_OFFSET: Final = re.compile(rb"startxref\r?\n[0-9]+")


def attached(content: bytes) -> bytes | None:
    """The file inside a PDF; None where it carries none.

    Raises `CannotTell` where there are several, or one that cannot be read here.
    """
    count = content.count(b"/EmbeddedFile ") + content.count(b"/EmbeddedFile/")
    found = list(_ATTACHED.finditer(content))
    if not count and not found:
        return None
    if count != 1 or len(found) != 1:
        raise CannotTell(
            f"PDF: found {max(count, len(found))} attachments, {len(found)} of them readable here, "
            "expected one; detach evidence.json with a PDF reader, and give that"
        )
    told = _unpacked(content, found[0])
    if told is None:
        raise CannotTell(
            "PDF: found an attachment that cannot be unpacked, expected evidence.json; detach it "
            "with a PDF reader, and give that"
        )
    return told


class Laid(NamedTuple):
    """A PDF laid open: `streams` as (dictionary, unpacked), `around` all that lies outside of them.

    Lengths and offsets are left out: they follow from how the streams were packed.
    """

    streams: tuple[tuple[bytes, bytes | None], ...]
    around: bytes

    @property
    def fonts(self) -> frozenset[bytes | None]:
        """The fonts that are embedded."""
        return frozenset(unpacked for told, unpacked in self.streams if _FONT in told)

    @property
    def pages(self) -> list[bytes | None]:
        """What is drawn, in the order of the file: pages first, then what they lean on."""
        return [unpacked for told, unpacked in self.streams if told == _PLAIN]


def laid_open(content: bytes) -> Laid:
    """Every stream that can be read here, and everything else."""
    streams, around, end = [], [], 0
    for head in _ANY_STREAM.finditer(content):
        if head.start() < end:
            continue  # inside the stream before it
        around.append(content[end : head.start()] + head[1])
        end = head.end() + int(head[3])
        if _PLACES not in head[2]:
            packed = content[head.end() : end]
            streams.append((head[2], _inflated(packed) if b"/FlateDecode" in head[2] else packed))
    around.append(content[end:])
    return Laid(tuple(streams), _OFFSET.sub(b"startxref", b"".join(around)))


def tools(content: bytes) -> tuple[str | None, str | None]:
    """What a PDF says drew it: the library, and with what; None where it says nothing readably."""
    told = _metadata(content)
    said = None if told is None else _CREATOR.search(told)
    return producer(content), None if said is None else said[1].decode(errors="replace")


def producer(content: bytes) -> str | None:
    """The program that says it made a PDF, if it says so readably (ISO 19005-2, 6.6.2: XMP)."""
    told = _metadata(content)
    said = None if told is None else _PRODUCER.search(told)
    return None if said is None else said[1].decode()


def _metadata(content: bytes) -> bytes | None:
    head = _METADATA.search(content)
    return None if head is None else _unpacked(content, head)


def _unpacked(content: bytes, head: re.Match[bytes]) -> bytes | None:
    """The stream behind its head, or None where it is none of at most `MOST_ATTACHED_BYTES`."""
    return _inflated(content[head.end() : head.end() + int(head[1])])


def _inflated(packed: bytes) -> bytes | None:
    reader = zlib.decompressobj()
    try:
        told = reader.decompress(packed, MOST_ATTACHED_BYTES)
    except zlib.error:
        return None
    return told if reader.eof else None
