"""How bytes and numbers are written in lines of text: each in one spelling, and no other."""

import binascii
from typing import Final

from fedkd.audit.verify.refusals import Malformed

DIGEST_BYTES: Final = 32
MOST: Final = 2**63 - 1
"""The largest size, index or time: what an int64 holds, as in the reference code in Go."""
_MOST_DIGITS: Final = len(str(MOST))
_SHOWN: Final = 60


def shown(text: str) -> str:
    """`text` as it appears in an error: quoted, in ASCII, short."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def base64_text(content: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return binascii.b2a_base64(content, newline=False).decode("ascii")


def base64_bytes(text: str, what: str) -> bytes:
    """The inverse of `base64_text`; every other spelling of the same bytes is `Malformed`."""
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one, and so is what letters beyond ASCII raise
        raise Malformed(what, shown(text), "standard base64 with padding") from None
    # RFC 4648, 3.5: pad bits that are not zero would give one content several spellings.
    if base64_text(content) != text:
        raise Malformed(what, shown(text), "base64 whose pad bits are zero")
    return content


def digest(text: str, what: str) -> bytes:
    """A SHA-256 digest written in base64."""
    return checked_digest(base64_bytes(text, what), what)


def checked_digest(content: bytes, what: str) -> bytes:
    """`content`, if it has the length of a SHA-256 digest."""
    if len(content) != DIGEST_BYTES:
        raise Malformed(what, f"{len(content)} bytes", f"a digest of {DIGEST_BYTES} bytes")
    return content


def decimal(text: str, what: str) -> int:
    """An ASCII decimal without sign or leading zeros, at most 2^63 - 1."""
    plain = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    if not plain or (text[0] == "0" and text != "0") or int(text) > MOST:
        raise Malformed(what, shown(text), "a decimal without leading zeros, at most 2^63 - 1")
    return int(text)


def checked_number(number: int, what: str) -> int:
    """`number`, if it is in the range that `decimal` reads."""
    if not 0 <= number <= MOST:
        raise Malformed(what, str(number), "a number from 0 to 2^63 - 1")
    return number


def utf8(content: bytes, what: str) -> str:
    """`content` as text, if it is valid UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(what, f"byte {error.start} that is not UTF-8", "valid UTF-8") from None
