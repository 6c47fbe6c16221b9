"""What is handed over: proof files, folders of tiles, signed statements."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit.verify import (
    CannotTell,
    Envelope,
    Malformed,
    Note,
    ProofFile,
    Refuted,
    SigningKey,
    Tile,
    TrustPolicy,
    ed25519_check,
    ed25519_sign,
    files,
    layout,
    read_files,
)
from fedkd.audit.verify.dsse import pre_authentication_encoding
from fedkd.audit.verify.tiles import bundle, hash_tile, read_bundle
from tests.audit_formats.parties import (
    LOG,
    LOG_TYPE,
    WITNESSES,
    flipped,
    leaves,
    note,
    seed,
    tree,
)

POLICY = TrustPolicy.of(
    [LOG.verifier()], {f"w{n}": w.verifier() for n, w in enumerate(WITNESSES)}, 2
)

# Proof files.


def proof(index: int, size: int, cosigners: int = 2, extra: bytes | None = None) -> ProofFile:
    return ProofFile.make(index, note(size, cosigners), tree(size).node, extra)


@given(st.integers(1, 300), st.data())
@settings(deadline=None, max_examples=30)
def test_a_proof_file_shows_its_leaf_and_no_other(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    extra = data.draw(st.none() | st.binary(min_size=1, max_size=9))
    made = proof(index, size, extra=extra)
    assert ProofFile.parse(made.to_bytes()) == made
    proven = made.verify(POLICY, leaves(size)[index])
    assert (proven.index, proven.witnessed.checkpoint.size) == (index, size)
    assert set(proven.witnessed.cosigned) == {"w0", "w1"}
    for other in (b"", leaves(size + 1)[index + 1], leaves(size)[index] + b"\0"):
        with pytest.raises(Refuted, match="expected root"):
            made.verify(POLICY, other)


def test_no_changed_byte_of_a_proof_file_shows_another_place() -> None:
    content, leaf = proof(5, 13).to_bytes(), leaves(13)[5]
    expected = ProofFile.parse(content).verify(POLICY, leaf)
    for place in range(len(content)):
        try:
            found = ProofFile.parse(flipped(content, place)).verify(POLICY, leaf)
        except (Refuted, CannotTell):
            continue
        raise AssertionError(f"byte {place} may change: {found}, {expected}")


def test_a_proof_without_its_quorum_is_refused() -> None:
    with pytest.raises(Refuted, match="quorum"):
        proof(5, 13, cosigners=1).verify(POLICY, leaves(13)[5])


FILE = proof(5, 13, extra=b"more").to_bytes()


@pytest.mark.parametrize(
    ("defect", "content"),
    [
        ("empty", b""),
        ("another first line", FILE.replace(b"tlog-proof", b"tlog-proofs")),
        ("no index", FILE.replace(b"index 5\n", b"")),
        ("index with zeros", FILE.replace(b"index 5", b"index 05")),
        ("index that is negative", FILE.replace(b"index 5", b"index -5")),
        ("index in other digits", FILE.replace(b"index 5", "index \u0665".encode())),
        (
            "extra behind index",
            FILE.replace(b"extra bW9yZQ==\nindex 5\n", b"index 5\nextra bW9yZQ==\n"),
        ),
        ("extra twice", FILE.replace(b"extra bW9yZQ==\n", b"extra bW9yZQ==\nextra bW9yZQ==\n")),
        ("extra that is empty", FILE.replace(b"extra bW9yZQ==", b"extra ")),
        ("extra that is no base64", FILE.replace(b"bW9yZQ==", b"bW9yZQ=")),
        ("a digest too short", FILE.replace(b"index 5\n", b"index 5\nAAAA\n")),
        ("64 digests", FILE.replace(b"index 5\n", b"index 5\n" + (b"A" * 43 + b"=\n") * 64)),
        ("no empty line", FILE.replace(b"\n\n", b"\n", 1)),
        ("no checkpoint", FILE.split(b"\n\n")[0] + b"\n\n"),
        ("carriage return", FILE.replace(b"\n", b"\r\n")),
        ("not UTF-8", FILE.replace(b"index", b"\xffindex")),
        ("bytes without end", FILE + b"x" * 2_000_000),
    ],
)
def test_bytes_that_are_no_proof_file(defect: str, content: bytes) -> None:
    assert content != FILE
    with pytest.raises(Malformed):
        ProofFile.parse(content)


def test_a_proof_file_of_a_later_version_is_not_judged() -> None:
    with pytest.raises(CannotTell, match="tlog-proof@v2"):
        ProofFile.parse(FILE.replace(b"@v1", b"@v2"))


def test_a_proof_that_no_file_may_hold_is_not_made() -> None:
    for wrong in (
        lambda: ProofFile(-1, (), note(1)),
        lambda: ProofFile(0, (bytes(31),), note(1)),
        lambda: ProofFile(0, (bytes(32),) * 64, note(1)),
        lambda: ProofFile(0, (), note(1), b""),
    ):
        with pytest.raises(Malformed):
            wrong()
    with pytest.raises(Refuted):
        proof(13, 13)


# Tiles.


def paths(size: int) -> list[str]:
    return [tile.path for tile in layout(size)]


def test_paths_are_those_of_the_specification() -> None:
    assert Tile(0, 1234067, 256).path == "tile/0/x001/x234/067"
    assert Tile(1, 999, 256).path == "tile/1/999"
    assert Tile(1, 1000, 1).path == "tile/1/x001/000.p/1"
    assert Tile(None, 273, 112).path == "tile/entries/273.p/112"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, []),
        (1, ["tile/entries/000.p/1", "tile/0/000.p/1"]),
        (255, ["tile/entries/000.p/255", "tile/0/000.p/255"]),
        (256, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]),
        (
            257,
            [
                *("tile/entries/000", "tile/entries/001.p/1"),
                *("tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"),
            ],
        ),
    ],
)
def test_which_files_a_tree_has(size: int, expected: list[str]) -> None:
    assert paths(size) == expected


def test_the_tree_of_70_000_leaves_of_the_specification() -> None:
    """tlog-tiles, Partial Tiles: 273 full and one of 112; one full and one of 17; one of 1."""
    at = {
        level: [tile.width for tile in layout(70_000) if tile.level == level]
        for level in (None, 0, 1, 2, 3)
    }
    assert at[0] == at[None] == [256] * 273 + [112]
    assert (at[1], at[2], at[3]) == ([256, 17], [1], [])


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 513])
def test_a_folder_of_tiles_is_read_back(size: int) -> None:
    written = dict(files(leaves(size), note(size)))
    assert list(written)[-1] == "checkpoint"
    assert {*written} == {*paths(size), "checkpoint"}
    assert read_files(written.__getitem__) == (tuple(leaves(size)), note(size))


def test_no_changed_byte_of_an_export_passes() -> None:
    written = dict(files(leaves(5), note(5)))
    keys = [LOG.verifier()]
    for path, content in written.items():
        for place in range(len(content)):
            changed = {**written, path: flipped(content, place)}
            with pytest.raises((Refuted, KeyError)):
                read_files(changed.__getitem__)[1].verify(keys)


def test_a_tile_of_a_higher_level_is_compared_too() -> None:
    written = dict(files(leaves(300), note(300)))
    for path in paths(300):
        wrong = (flipped(written[path], 0), written[path][:-1], written[path] + b"\0", b"")
        for content in wrong:
            with pytest.raises(Refuted):
                read_files({**written, path: content}.__getitem__)


@pytest.mark.parametrize(
    ("defect", "changed"),
    [
        ("cut", leaves(6)[:5]),
        ("added", leaves(7)),
        ("reordered", [*leaves(6)[:4], *leaves(6)[:3:-1]]),
        ("duplicated", [*leaves(5), leaves(5)[4]]),
        ("inserted", [*leaves(3), b"", *leaves(6)[3:5]]),
        ("replaced", [*leaves(5), b"entry 9"]),
    ],
)
def test_other_entries_than_those_signed_are_neither_written_nor_read(
    defect: str, changed: list[bytes]
) -> None:
    with pytest.raises(Refuted, match="entries of checkpoint 6"):
        list(files(changed, note(6)))
    written = dict(files(leaves(6), note(6)))
    written["tile/entries/000.p/6"] = bundle(changed)
    with pytest.raises(Refuted):
        read_files(written.__getitem__)


@pytest.mark.parametrize(
    ("defect", "content", "width"),
    [
        ("an entry too few", bundle(leaves(2)), 3),
        ("an entry too many", bundle(leaves(4)), 3),
        ("cut in an entry", bundle(leaves(3))[:-1], 3),
        ("cut in a length", bundle(leaves(2)) + b"\0", 3),
        ("a length beyond the end", b"\xff\xff" + b"x", 1),
        ("bytes behind it", bundle(leaves(3)) + b"\0", 3),
    ],
)
def test_bytes_that_are_no_bundle(defect: str, content: bytes, width: int) -> None:
    with pytest.raises(Malformed):
        read_bundle(content, width)


def test_entries_have_at_most_65_535_bytes() -> None:
    biggest = bytes(65_535)
    assert read_bundle(bundle([biggest, b""]), 2) == (biggest, b"")
    with pytest.raises(Malformed, match="65536"):
        bundle([biggest + b"\0"])
    with pytest.raises(ValueError, match="entry bundle"):
        hash_tile(Tile(None, 0, 1), tree(1).node)


# Envelopes.

KIND = "application/vnd.in-toto+json"
KEYS = {name: SigningKey(name, LOG_TYPE, seed(name)) for name in ("ann", "bea", "cat")}
SIGN = {name: ed25519_sign(key.seed) for name, key in KEYS.items()}
CHECK = {name: ed25519_check(key.verifier().public) for name, key in KEYS.items()}


def test_the_encoding_of_the_protocol() -> None:
    """DSSE protocol.md, test vectors."""
    kind, payload = "http://example.com/HelloWorld", b"hello world"
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding(kind, payload) == expected
    assert pre_authentication_encoding("\xe9", b"") == b"DSSEv1 2 \xc3\xa9 0 "  # bytes, not letters


@given(st.binary(max_size=50))
@settings(deadline=None, max_examples=30)
def test_an_envelope_opens_as_it_was_signed(payload: bytes) -> None:
    made = Envelope.sign(payload, KIND, {"ann": SIGN["ann"], "bea": SIGN["bea"]})
    read = Envelope.parse(made.to_bytes())
    assert read == made
    assert read.verify(CHECK, KIND) == ("ann", "bea")
    assert read.verify(CHECK, KIND, threshold=2) == ("ann", "bea")
    with pytest.raises(Refuted, match="found signatures by ann, bea, expected 3 of"):
        read.verify(CHECK, KIND, threshold=3)


def test_another_payload_type_or_signature_is_refused() -> None:
    made = Envelope.sign(b"{}", KIND, {"ann": SIGN["ann"]})
    one = made.signatures[0]
    for wrong in (
        Envelope(b"{ }", KIND, made.signatures),
        Envelope(b"{}", KIND, (one._replace(content=flipped(one.content, 3)),)),
        Envelope(b"{}", KIND, (one._replace(keyid="bea"),)),
    ):
        with pytest.raises(Refuted, match="none of the known keys"):
            wrong.verify({"ann": CHECK["ann"], "bea": CHECK["bea"]}, KIND)
    with pytest.raises(Refuted, match="found type 'application/vnd"):
        made.verify(CHECK, "text/plain")
    with pytest.raises(Refuted):
        Envelope(b"{}", "text/plain", made.signatures).verify(CHECK, "text/plain")
    with pytest.raises(Refuted):
        made.verify({"bea": CHECK["bea"]}, KIND)


def test_nobody_to_ask_and_nothing_to_ask_for_are_failures() -> None:
    made = Envelope.sign(b"{}", KIND, {"ann": SIGN["ann"]})
    for keys, threshold in (({}, 1), ({}, 0), (CHECK, 0), ({"ann": CHECK["ann"]}, 2)):
        with pytest.raises(Refuted, match="known keys"):
            made.verify(keys, KIND, threshold)
    with pytest.raises(ValueError, match="no signer"):
        Envelope.sign(b"{}", KIND, {})


def test_one_key_counts_once() -> None:
    made = Envelope.sign(b"{}", KIND, {"ann": SIGN["ann"]})
    twice = Envelope(b"{}", KIND, made.signatures * 2)
    with pytest.raises(Refuted, match="found signatures by ann, expected 2"):
        twice.verify(CHECK, KIND, threshold=2)


def test_a_key_id_is_a_hint_and_no_more() -> None:
    made = Envelope.sign(b"{}", KIND, {"": SIGN["ann"]})
    value = json.loads(made.to_bytes())
    del value["signatures"][0]["keyid"]
    assert Envelope.parse(json.dumps(value).encode()).verify(CHECK, KIND) == ("ann",)
    # two spellings of base64 are allowed, and what nobody knows is ignored
    value["payload"] = value["payload"].replace("+", "-").replace("/", "_")
    assert Envelope.parse(json.dumps({**value, "more": 1}).encode()).payload == b"{}"


GOOD: dict[str, Any] = {"payload": "e30=", "payloadType": KIND, "signatures": [{"sig": "AAAA"}]}


@pytest.mark.parametrize(
    ("defect", "content"),
    [
        ("empty", b""),
        ("no JSON", b"{"),
        ("a list", b"[]"),
        ("nested without end", b"[" * 100_000),
        ("not UTF-8", b"\xff"),
        ("a key twice", json.dumps(GOOD).encode()[:-1] + b',"payload":"e30="}'),
        ("no payload", json.dumps({**GOOD, "payload": None}).encode()),
        ("payload that is no base64", json.dumps({**GOOD, "payload": "e3*="}).encode()),
        ("payload with loose pad bits", json.dumps({**GOOD, "payload": "e31="}).encode()),
        ("no type", json.dumps({**GOOD, "payloadType": 3}).encode()),
        ("no signatures", json.dumps({**GOOD, "signatures": []}).encode()),
        (
            "signatures of another kind",
            json.dumps({**GOOD, "signatures": {"sig": "AAAA"}}).encode(),
        ),
        ("a signature without bytes", json.dumps({**GOOD, "signatures": [{}]}).encode()),
        ("a signature that is text", json.dumps({**GOOD, "signatures": ["AAAA"]}).encode()),
        (
            "a key id that is no text",
            json.dumps({**GOOD, "signatures": [{"sig": "", "keyid": 1}]}).encode(),
        ),
        ("bytes without end", b" " * 16_000_001),
    ],
)
def test_bytes_that_are_no_envelope(defect: str, content: bytes) -> None:
    Envelope.parse(json.dumps(GOOD).encode())
    with pytest.raises(Malformed):
        Envelope.parse(content)


def test_a_note_and_an_envelope_cannot_stand_for_each_other() -> None:
    """Even with one key for both: no note's text begins as an envelope's message does."""
    envelope = Envelope.sign(b"x", KIND, {"ann": SIGN["ann"]})
    text = pre_authentication_encoding(KIND, b"x").decode()
    with pytest.raises(Malformed):
        Note(text)
    assert envelope.payload == b"x"
