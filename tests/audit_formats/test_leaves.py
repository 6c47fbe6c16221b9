"""The leaf split: an open header, a body that stays bound when closed and is erased at will."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit.verify import (
    MOST_LEAF_BYTES,
    CannotTell,
    Header,
    Malformed,
    Reference,
    Refuted,
    Tree,
    canonical,
    leaf_hash,
    make_leaf,
    open_leaf,
    parsed,
    verify_inclusion,
)
from tests.audit_formats.parties import flipped, seed

SALT = seed("salt")
TIME = "2026-11-24T05:06:10.123Z"
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)
    | st.floats(1e21, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"]), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


def made(body: dict[str, Any], sequence: int = 412, **more: Any) -> tuple[bytes, bytes]:
    fields = {"type": "release.outputs", "time": TIME, "actor": "h1"}
    return make_leaf(body, SALT, **{**fields, "sequence": sequence, **more})


LEAF, BODY = made({"items": 3}, run="r-01", references=(Reference("fedkd.example/h1", 398),))


def test_the_leaf_is_the_one_of_the_design() -> None:
    """AUDIT A6, with the commitment computed here once more."""
    import base64
    import hashlib

    assert BODY == b'{"items":3}'
    bound = base64.b64encode(hashlib.sha256(SALT + BODY).digest()).decode()
    assert LEAF.decode() == (
        f'{{"actor":"h1","body":"{bound}","refs":["fedkd.example/h1#398"],"run":"r-01",'
        f'"seq":412,"ts":"{TIME}","type":"release.outputs","v":1}}'
    )
    opened = open_leaf(LEAF, BODY, SALT)
    assert opened.body == {"items": 3}
    assert opened.header.references == (Reference("fedkd.example/h1", 398),)
    assert opened.header.to_bytes() == LEAF


@given(st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"])), PLAIN, max_size=4))
@settings(deadline=None, max_examples=80)
def test_a_body_comes_back_as_it_was_committed_to(body: dict[str, Any]) -> None:
    leaf, written = made(body)
    assert open_leaf(leaf, written, SALT).body == json.loads(rfc8785.dumps(body))


def test_an_erased_body_leaves_every_proof_standing() -> None:
    pairs = [made({"patients": n}, sequence=n) for n in range(9)]
    tree = Tree(leaf_hash(leaf) for leaf, _ in pairs)
    for index, (leaf, body) in enumerate(pairs):
        proof = tree.inclusion(index)
        verify_inclusion(index, 9, leaf_hash(leaf), proof, tree.root())
        assert open_leaf(leaf, body, SALT).body == {"patients": index}
        assert open_leaf(leaf).body is None
        assert open_leaf(leaf).header == open_leaf(leaf, body, SALT).header


def test_half_an_erasure_is_refused() -> None:
    with pytest.raises(Refuted, match="body of entry 412: found a body without salt"):
        open_leaf(LEAF, BODY, None)
    with pytest.raises(Refuted, match="a salt without body"):
        open_leaf(LEAF, None, SALT)


def test_no_changed_bit_of_leaf_body_or_salt_opens() -> None:
    bound = open_leaf(LEAF).header.commitment
    for place in range(len(LEAF)):
        for bit in range(8):
            changed = flipped(LEAF, place, bit)
            assert leaf_hash(changed) != leaf_hash(LEAF)
            try:  # a changed header may still be a header: the tree's root refuses it
                assert open_leaf(changed, BODY, SALT).header.commitment == bound
            except (Refuted, CannotTell):
                continue
    for content, opens in (
        (BODY, lambda changed: open_leaf(LEAF, changed, SALT)),
        (SALT, lambda changed: open_leaf(LEAF, BODY, changed)),
    ):
        for place in range(len(content)):
            for bit in range(8):
                with pytest.raises(Refuted, match="body of entry 412: found commitment"):
                    opens(flipped(content, place, bit))


def test_a_low_entropy_body_is_not_guessed_without_its_salt() -> None:
    one, _ = make_leaf({"n": 1}, seed("a"), type="error.raised", sequence=0, time=TIME, actor="h1")
    two, _ = make_leaf({"n": 1}, seed("b"), type="error.raised", sequence=0, time=TIME, actor="h1")
    assert Header.parse(one).commitment != Header.parse(two).commitment


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_salt_of_another_length_is_refused(length: int) -> None:
    """With salts of any length, one pair of salt and body could be read as another."""
    with pytest.raises(Malformed, match="expected 32 bytes"):
        make_leaf({}, bytes(length), type="x", sequence=0, time=TIME, actor="h1")
    with pytest.raises(Malformed, match="expected 32 bytes"):
        open_leaf(LEAF, BODY, bytes(length))


def test_a_body_that_is_bound_but_not_canonical_is_refused() -> None:
    from fedkd.audit.verify import commitment

    for body in (b'{"b":1,"a":2}', b'{"a":1,"a":1}', b"[1]", b"{", b'{"a":NaN}', b""):
        header = Header("x", 0, TIME, "h1", commitment(body, SALT))
        with pytest.raises(Malformed, match="body of entry 0"):
            open_leaf(header.to_bytes(), body, SALT)


Edit = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("defect", "edit"),
    [
        ("no version", lambda f: f.pop("v")),
        ("version 0", lambda f: f.update(v=0)),
        ("version true", lambda f: f.update(v=True)),
        ("version as text", lambda f: f.update(v="1")),
        ("no type", lambda f: f.pop("type")),
        ("an empty type", lambda f: f.update(type="")),
        ("no actor", lambda f: f.pop("actor")),
        ("an empty actor", lambda f: f.update(actor="")),
        ("an actor that is no text", lambda f: f.update(actor=["h1"])),
        ("no sequence", lambda f: f.pop("seq")),
        ("a negative sequence", lambda f: f.update(seq=-1)),
        ("a sequence that is true", lambda f: f.update(seq=True)),
        ("a sequence as text", lambda f: f.update(seq="412")),
        ("a broken sequence", lambda f: f.update(seq=1.5)),
        ("no time", lambda f: f.pop("ts")),
        ("a local time", lambda f: f.update(ts="2026-11-24T05:06:10+01:00")),
        ("a time without zone", lambda f: f.update(ts="2026-11-24T05:06:10")),
        ("a time of month 13", lambda f: f.update(ts="2026-13-24T05:06:10Z")),
        ("a time of hour 24", lambda f: f.update(ts="2026-11-24T24:06:10Z")),
        ("a time in other digits", lambda f: f.update(ts="\u06622026-11-24T05:06:10Z")),
        ("a time with a newline", lambda f: f.update(ts="2026-11-24T05:06:10Z\n")),
        ("no commitment", lambda f: f.pop("body")),
        ("a short commitment", lambda f: f.update(body="AAAA")),
        ("an open body", lambda f: f.update(body={"items": 3})),
        ("no references", lambda f: f.pop("refs")),
        ("references as text", lambda f: f.update(refs="a#1")),
        ("a reference without index", lambda f: f.update(refs=["a"])),
        ("a reference without origin", lambda f: f.update(refs=["#1"])),
        ("a reference with zeros", lambda f: f.update(refs=["a#01"])),
        ("a reference that is no text", lambda f: f.update(refs=[1])),
        ("a run that is null", lambda f: f.update(run=None)),
        ("a field that nobody knows", lambda f: f.update(more="x")),
    ],
)
def test_a_leaf_with_a_defect(defect: str, edit: Edit) -> None:
    fields = json.loads(LEAF)
    edit(fields)
    with pytest.raises(Malformed):
        open_leaf(rfc8785.dumps(fields))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"1", b'"x"', LEAF[:-1]])
def test_bytes_that_are_no_leaf(content: bytes) -> None:
    with pytest.raises(Malformed):
        open_leaf(content)


def test_a_leaf_of_a_later_version_is_not_judged() -> None:
    fields = {**json.loads(LEAF), "v": 2, "more": "x"}
    with pytest.raises(CannotTell, match="found version 2, expected 1"):
        open_leaf(rfc8785.dumps(fields))


def test_a_leaf_fits_into_a_bundle() -> None:
    room = MOST_LEAF_BYTES - len(made({}, key="")[0])
    assert len(made({}, key="x" * room)[0]) == MOST_LEAF_BYTES
    with pytest.raises(Malformed, match="found 65536 bytes, expected at most 65535"):
        made({}, key="x" * (room + 1))
    with pytest.raises(Malformed, match="at most 65535"):
        open_leaf(b" " * (MOST_LEAF_BYTES + 1))
    assert len(made({"x": "y" * 100_000})[1]) > 100_000  # a body is not in the leaf


def test_what_cannot_be_said_is_not_logged() -> None:
    for body in (
        {"epsilon": float("inf")},
        {"epsilon": float("nan")},
        {"count": 2**53},
        {"count": 1e20},  # would be spelt as an integer that no reader may take
        {"bytes": b"x"},
        {1: "key"},
        {"text": "\ud800"},
    ):
        with pytest.raises(Malformed, match="body"):
            made(body)  # type: ignore[arg-type]


# Canonical JSON, whichever way it is read.


@given(PLAIN)
@settings(deadline=None, max_examples=200)
def test_canonical_json_has_one_spelling(value: Any) -> None:
    written = canonical(value)
    assert written == rfc8785.dumps(value)
    assert rfc8785.dumps(parsed(written)) == written
    for other in (
        json.dumps(value, indent=1).encode(),
        b" " + written,
        written + b"\n",
        json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode(),
    ):
        if other != written:
            with pytest.raises(Malformed):
                parsed(other)


NUMBERS = st.from_regex(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)


@given(st.lists(NUMBERS | st.floats(-1e30, 1e30).map(repr), max_size=3))
@settings(deadline=None, max_examples=300)
def test_both_ways_of_reading_agree_on_every_spelling_of_a_number(texts: list[str]) -> None:
    content = f"[{','.join(texts)}]".encode()
    try:
        canonical_too = rfc8785.dumps(json.loads(content)) == content
    except ValueError:
        canonical_too = False
    if canonical_too:
        assert parsed(content) == json.loads(content)
        return
    with pytest.raises(Malformed):
        parsed(content)


def test_keys_are_sorted_by_utf16_and_not_by_code_point() -> None:
    """RFC 8785, 3.2.3: U+1F600 is written with D83D and comes before U+FB33."""
    assert parsed('{"\U0001f600":1,"\ufb33":2}'.encode()) == {"\U0001f600": 1, "\ufb33": 2}
    with pytest.raises(Malformed):
        parsed('{"\ufb33":2,"\U0001f600":1}'.encode())


@pytest.mark.parametrize(
    ("defect", "text"),
    [
        ("a key twice", '{"a":1,"a":1}'),
        ("a key twice inside", '[{"a":{"b":1,"b":2}}]'),
        ("a key twice by an escape", '{"a":1,"\\u0061":1}'),
        ("keys out of order", '{"b":1,"a":2}'),
        ("space", '{"a": 1}'),
        ("newline at the end", "{}\n"),
        ("NaN", "[NaN]"),
        ("Infinity", "[-Infinity]"),
        ("a number beyond every double", "[1e999]"),
        ("2^53", "[9007199254740992]"),
        ("2^53 + 1", "[9007199254740993]"),
        ("an integer without end", "[" + "9" * 5000 + "]"),
        ("minus zero", "[-0]"),
        ("a zero behind the point", "[1.0]"),
        ("a zero at the end", "[1.50]"),
        ("a small number as Python spells it", "[1e-07]"),
        ("a small number without exponent", "[0.0000001]"),
        ("a large number as Python spells it", "[1e+16]"),
        ("an exponent", "[1e2]"),
        ("a big E", "[1E+30]"),
        ("too many digits", "[0.10000000000000000001]"),
        ("an escape that is not needed", '["\\u0061"]'),
        ("an escaped slash", '["\\/"]'),
        ("an escape in capitals", '["\\u001F"]'),
        ("a lone surrogate", '["\\ud800"]'),
        ("a surrogate pair", '["\\ud83d\\ude00"]'),
        ("a byte order mark", "\ufeff{}"),
        ("two values", "{}{}"),
        ("cut", '{"a":'),
        ("a comment", "{}//"),
        ("single quotes", "{'a':1}"),
        ("nested without end", "[" * 100_000),
    ],
)
def test_json_in_another_spelling(defect: str, text: str) -> None:
    with pytest.raises(Malformed):
        parsed(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(Malformed):  # also where the quick way is not taken
        parsed(f'["\xe9",{text}]'.encode("utf-8", "surrogatepass"))


def test_bytes_that_are_no_text() -> None:
    for content in (b"\xff", b'"\xed\xa0\x80"', b'"\xc0\xaf"'):
        with pytest.raises(Malformed, match="not UTF-8"):
            parsed(content)
