"""What rides along with a message has one spelling, and nothing in it but logs' heads."""

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fedkd.wire import Envelope, Malformed, RollCall, cover, encode, opened

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
SIZE = st.integers(0, 2**53 - 1)
ENVELOPES = st.builds(
    Envelope,
    st.lists(TEXT, max_size=3).map(tuple),
    st.lists(TEXT, max_size=3).map(tuple),
    st.lists(SIZE, max_size=3).map(tuple),
    st.lists(st.tuples(TEXT, SIZE), max_size=3).map(tuple),
)
BODY = encode(RollCall("run"))
FULL = Envelope(("ask",), ("note",), (3,), (("origin", 2),))


@given(ENVELOPES, st.binary(max_size=30))
def test_a_letter_opens_into_what_was_put_in(envelope: Envelope, body: bytes) -> None:
    assert opened(cover(envelope) + body) == (envelope, body)


@given(st.binary(max_size=60))
def test_a_message_without_envelope_is_left_alone(body: bytes) -> None:
    if not body.startswith(b"fedkd-envelope/"):
        assert opened(body) == (None, body)


def test_an_envelope_that_is_cut_anywhere_is_malformed() -> None:
    covered = cover(FULL)
    for end in range(len(b"fedkd-envelope/1\n"), len(covered)):
        with pytest.raises(Malformed):
            opened(covered[:end])


def spelt(plain: object, dumps: object = rfc8785.dumps) -> bytes:
    head = dumps(plain)  # type: ignore[operator]
    head = head if isinstance(head, bytes) else head.encode()
    return b"fedkd-envelope/1\n" + len(head).to_bytes(4, "little") + head + BODY


PLAIN = {"asks": ["ask"], "notes": ["note"], "prove_from": [3], "stands": [["origin", 2]]}


def test_the_plain_values_of_an_envelope() -> None:
    assert opened(spelt(PLAIN)) == (FULL, BODY)


WRONG = [
    [], None, {}, {**PLAIN, "more": []}, {**PLAIN, "asks": "ask"}, {**PLAIN, "asks": [""]},
    {**PLAIN, "asks": [1]}, {**PLAIN, "notes": ["n"] * 65}, {**PLAIN, "notes": ["n" * 65537]},
    {**PLAIN, "prove_from": [-1]}, {**PLAIN, "prove_from": [True]}, {**PLAIN, "prove_from": [1.5]},
    {**PLAIN, "stands": [["origin"]]}, {**PLAIN, "stands": [["", 1]]},
    {**PLAIN, "stands": ["ab"]}, {**PLAIN, "stands": [["origin", "2"]]},
]  # fmt: skip


@pytest.mark.parametrize("plain", WRONG, ids=str)
def test_a_wrong_envelope_is_malformed(plain: object) -> None:
    with pytest.raises(Malformed):
        opened(spelt(plain))


def test_another_spelling_is_malformed() -> None:
    with pytest.raises(Malformed, match="canonical"):
        opened(spelt(PLAIN, json.dumps))
    with pytest.raises(Malformed):
        opened(spelt(PLAIN, lambda plain: b"{" * 100_000))


def test_an_envelope_too_long_to_be_read_is_not_even_made() -> None:
    with pytest.raises(Malformed, match="too long"):
        cover(Envelope(asks=tuple("a" * 60_000 for _ in range(20))))
