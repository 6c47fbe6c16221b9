"""The short ways to canonical JSON take and give what rfc8785 does, to the byte, and no more."""

import base64
import binascii
import json
from enum import Enum, IntEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedkd.audit.verify import Header, Malformed, Reference, canonical, parsed
from fedkd.audit.verify.canonical import _quickly, _thoroughly, _written_quickly, canonical_copy
from fedkd.audit.verify.spellings import base64_bytes, base64_text


class Word(str, Enum):  # noqa: UP042 - its str() is not its text
    NAME = "its text"


class Number(IntEnum):
    SEVEN = 7


ANY_TEXT = st.text(st.characters(), max_size=5)  # lone surrogates too
NUMBERS = (
    st.integers()
    | st.integers(2**53 - 3, 2**53 + 3)
    | st.floats()
    | st.sampled_from([-0.0, 1.0, 1e15, 1e16, 1e20, 1e21, 1e-6, 1e-7, 5e-324, 0.1 + 0.2, 123.50])
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | ANY_TEXT | st.sampled_from([Word.NAME, Number.SEVEN]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(ANY_TEXT, inner, max_size=3)
        | st.dictionaries(st.integers(-1, 1) | st.booleans() | st.none(), inner, max_size=1)
        | st.dictionaries(st.just("k"), st.binary(max_size=1) | st.just({1}), max_size=1)
    ),
    max_leaves=6,
)


@given(ANYTHING)
@settings(deadline=None, max_examples=400)
@example({1: 2})
@example({True: 2, "a": 1})
@example({None: 2})
@example({"\U0001f600": 1, "\ufb33": 2})
@example({"\ue000": 1, "\U00010000": 2})
@example([(1, 2), Word.NAME, Number.SEVEN, True, 1])
def test_what_is_written_quickly_is_what_rfc8785_writes(value: Any) -> None:
    try:
        expected = rfc8785.dumps(value)
    except (ValueError, TypeError, AttributeError):
        assert _written_quickly(value) is None
        with pytest.raises(Malformed):
            canonical(value)
        return
    quick = _written_quickly(value)
    if quick is not None:
        assert quick == (expected, json.loads(expected))
        assert _quickly(expected) == (quick[1],)
    try:
        assert canonical_copy(value) == (expected, json.loads(expected))
    except Malformed:  # 1e20 is written as an integer that no reader takes
        with pytest.raises(Malformed):
            parsed(expected)


COMMON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 10**14, 10**14 - 1)
    | st.integers(-9999, 9999).map(lambda n: n + 0.5)
    | st.text(st.characters(max_codepoint=0xD7FF), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(COMMON)
@settings(deadline=None, max_examples=100)
def test_the_short_way_is_taken_where_it_can_be(value: Any) -> None:
    written = rfc8785.dumps(value)
    if all(letter < "\ud800" for letter in written.decode()):
        assert _written_quickly(value) == (written, value)
        assert _quickly(written) == (value,)


@given(COMMON, st.data())
@settings(deadline=None, max_examples=300)
def test_both_ways_of_reading_agree_after_any_change(value: Any, data: st.DataObject) -> None:
    content = bytearray(rfc8785.dumps(value))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(place, min(len(content), place + 3)))
        content[place:end] = data.draw(st.sampled_from([*PIECES, bytes(content[place:end]) * 2]))
    quick = _quickly(bytes(content))
    if quick is not None:
        assert quick == (_thoroughly(bytes(content), "JSON"),)


PIECES = (
    b"", b" ", b"\n", b"0", b"-", b".5", b"e1", b"E+2", b"1.0", b"9007199254740993", b"NaN",
    b'"', b"\\u0061", b"\\/", b",", b"{}", b'"a":1,', b"[", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80",
)  # fmt: skip


@given(ANY_TEXT, ANY_TEXT, st.none() | ANY_TEXT, st.none() | ANY_TEXT, ANY_TEXT)
@settings(deadline=None, max_examples=200)
@example("a", "b", None, None, "o")
@example('"\\\x00\x7f\u2028', "\xe9", "\U0001f600", "\ue000", "o#")
def test_a_header_is_written_as_rfc8785_writes_it(
    type: str, actor: str, run: str | None, key: str | None, origin: str
) -> None:
    time, bound = "2026-11-24T05:06:10.123Z", bytes(range(32))
    fields: dict[str, Any] = {
        "v": 1, "type": type, "seq": 7, "ts": time, "actor": actor, "refs": [f"{origin}#3"] * 2,
        "body": base64.b64encode(bound).decode(),
    }  # fmt: skip
    fields |= {name: text for name, text in (("run", run), ("key", key)) if text is not None}
    references = (Reference(origin, 3),) * 2
    if not type or not actor:
        with pytest.raises(Malformed):
            Header(type, 7, time, actor, bound, references, run, key)
        return
    header = Header(type, 7, time, actor, bound, references, run, key)
    try:
        expected = rfc8785.dumps(fields)
    except ValueError:
        with pytest.raises(Malformed, match="header of entry 7: found a lone surrogate"):
            header.to_bytes()
        return
    assert header.to_bytes() == expected
    if origin:
        assert Header.parse(expected) == header


LETTERS = st.text(st.sampled_from("AZaz09+/=-_ \n\r\0\xe9"), max_size=9)


@given(LETTERS | st.binary(max_size=9).map(base64_text))
@settings(deadline=None, max_examples=300)
@example("AA==")
@example("AB==")  # pad bits that are not zero
@example("AAB=")
@example("AA=A")
@example("====")
@example("AA")
def test_base64_has_one_spelling(text: str) -> None:
    try:
        content = base64.b64decode(text.encode("ascii"), validate=True)
        known = base64.b64encode(content).decode() == text
    except (binascii.Error, UnicodeEncodeError):
        known = False
    if known:
        assert base64_bytes(text, "text") == content
        assert base64_text(content) == text
    else:
        with pytest.raises(Malformed):
            base64_bytes(text, "text")
