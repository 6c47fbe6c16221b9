"""Finds the evidence that a PDF carries as an attachment, with the standard library alone.

It reads what fedkd writes (ISO 32000-1, 7.11.4: one embedded file, its stream deflated). A PDF that
another program wrote anew may hold the same file in a way that is not read here.
"""

import re
import zlib
from typing import Final

from fedkd.audit.verify import CannotTell

MOST_ATTACHED_BYTES: Final = 1 << 28
_STREAM: Final = rb"[^\r\n]{0,400}/Filter /FlateDecode/Length ([0-9]{1,10})>>\r?\nstream\r?\n"
_ATTACHED: Final = re.compile(rb"/Type /EmbeddedFile" + _STREAM)
_METADATA: Final = re.compile(rb"/Type /Metadata" + _STREAM)
_PRODUCER: Final = re.compile(rb'pdf:Producer(?:>|=")([A-Za-z0-9 .-]{1,40})["<]')


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


def producer(content: bytes) -> str | None:
    """The program that says it made a PDF, if it says so readably (ISO 19005-2, 6.6.2: XMP)."""
    metadata = _METADATA.search(content)
    told = None if metadata is None else _unpacked(content, metadata)
    said = None if told is None else _PRODUCER.search(told)
    return None if said is None else said[1].decode()


def _unpacked(content: bytes, head: re.Match[bytes]) -> bytes | None:
    """The stream behind its head, or None where it is none of at most `MOST_ATTACHED_BYTES`."""
    reader = zlib.decompressobj()
    try:
        told = reader.decompress(
            content[head.end() : head.end() + int(head[1])], MOST_ATTACHED_BYTES
        )
    except zlib.error:
        return None
    return told if reader.eof else None
