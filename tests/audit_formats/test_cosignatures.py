"""A witness signs what continues what it saw, and refuses everything else by its name."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit.verify import (
    NOTHING_SEEN,
    AddCheckpoint,
    Algorithm,
    BadRequest,
    CannotTell,
    Forked,
    Head,
    Inconsistent,
    Malformed,
    Note,
    Refusal,
    Refuted,
    Signature,
    Stale,
    UnknownKey,
    UnknownLog,
    Witness,
    cosignature_lines,
    has_mldsa,
    read_cosignature_lines,
    read_heads,
)
from tests.audit_formats.parties import (
    LOG,
    NOW,
    ORIGIN,
    WITNESSES,
    flipped,
    head,
    key,
    note,
    signed,
    tree,
)

KEY = WITNESSES[0]
FOLLOWED = {ORIGIN: (LOG.verifier(),)}


def witness(seen: int = 0) -> Witness:
    fresh = Witness((KEY,), FOLLOWED)
    return fresh.add(request(0, seen), NOW)[0] if seen else fresh


def request(old: int, new: int, of: str = "entry") -> AddCheckpoint:
    return AddCheckpoint(old, tree(new, of).consistency(old), note(new, of=of))


@given(st.lists(st.integers(0, 9), max_size=8))
@settings(deadline=None, max_examples=25)
def test_a_log_that_only_grows_is_cosigned_at_every_size(steps: list[int]) -> None:
    follower, size = witness(), 0
    for step, more in enumerate(steps):
        asked = request(size, size + more)
        follower, lines = follower.add(asked, NOW + step)
        size += more
        assert follower.heads == {ORIGIN: Head(size, tree(size).root())}
        opened = asked.note.with_signatures(lines).verify([LOG.verifier(), KEY.verifier()])
        assert opened.signers == {LOG.verifier(): None, KEY.verifier(): NOW + step}


def test_a_refused_request_changes_nothing() -> None:
    follower = witness(5)
    before = follower.heads_bytes()
    with pytest.raises(Stale):
        follower.add(request(3, 8), NOW)
    assert follower.heads_bytes() == before
    assert follower.add(request(5, 8), NOW)[0].heads[ORIGIN].size == 8
    assert follower.heads_bytes() == before  # a value: the new witness is another one


def test_attack_rolling_back_to_an_older_validly_signed_size() -> None:
    with pytest.raises(Stale, match="found old size 5, expected old size 9") as raised:
        witness(9).add(request(5, 7), NOW)
    assert (raised.value.status, raised.value.size) == (409, 9)
    assert raised.value.body() == b"9\n"
    with pytest.raises(BadRequest, match="found old size 9, expected at most 7"):
        witness(9).add(AddCheckpoint(9, (), note(7)), NOW)


def test_a_proof_from_a_size_that_was_never_cosigned_is_refused() -> None:
    """Consistent or not: between 5 and 7 nobody showed anything."""
    with pytest.raises(Stale, match="found old size 7, expected old size 5"):
        witness(5).add(request(7, 9), NOW)


def test_attack_rewriting_by_the_holder_of_the_key() -> None:
    """The new tree is well formed and well signed; it does not begin with what was seen."""
    for proof_of in ("entry", "another entry"):
        forged = AddCheckpoint(5, tree(8, of=proof_of).consistency(5), note(8, of="another entry"))
        with pytest.raises(Inconsistent) as raised:
            witness(5).add(forged, NOW)
        assert raised.value.status == 422


def test_attack_two_heads_of_one_size() -> None:
    with pytest.raises(Forked) as raised:
        witness(8).add(AddCheckpoint(8, (), note(8, of="another entry")), NOW)
    assert raised.value.status == 409
    assert head(8).root.hex() in raised.value.expected
    assert head(8, "another entry").root.hex() in raised.value.found


def test_the_same_head_again_is_cosigned_anew() -> None:
    """So that a peer can show how fresh its newest size is."""
    follower, lines = witness(8).add(request(8, 8), NOW + 60)
    assert follower.heads == witness(8).heads
    verified = note(8).with_signatures(lines).verify([KEY.verifier()])
    assert verified.signers == {KEY.verifier(): NOW + 60}


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [(0, 3, Inconsistent), (5, 5, Inconsistent), (5, 8, Inconsistent)],
)
def test_a_proof_of_another_length_is_refused(old: int, new: int, refusal: type[Refusal]) -> None:
    asked = AddCheckpoint(old, (*tree(new).consistency(old), bytes(32)), note(new))
    with pytest.raises(refusal):
        witness(old).add(asked, NOW)
    if new > old > 0:
        with pytest.raises(refusal):
            witness(old).add(AddCheckpoint(old, (), note(new)), NOW)


def test_a_log_that_is_not_followed_is_unknown() -> None:
    other = signed(head(3, origin="fedkd.example/h2"), by=key("fedkd.example/h2"))
    with pytest.raises(UnknownLog, match=f"one that is followed: {ORIGIN}") as raised:
        witness().add(AddCheckpoint(0, (), other), NOW)
    assert raised.value.status == 404


def test_a_checkpoint_that_its_log_did_not_sign_is_refused() -> None:
    text, one = head(3).text(), note(3).signatures[0]
    bad = Signature(one.name, one.key_id, flipped(one.content, 0))
    stranger = key("fedkd.example/stranger").sign(text)
    imposter = key(ORIGIN, Algorithm.COSIGNATURE).sign(text, NOW)
    for lines in ((bad,), (one, bad), (stranger,), (imposter,)):
        with pytest.raises(UnknownKey) as raised:
            witness().add(AddCheckpoint(0, (), Note(text, lines)), NOW)
        assert raised.value.status == 403
    # signatures of strangers beside the log's own are passed over
    witness().add(AddCheckpoint(0, (), Note(text, (stranger, one))), NOW)


def test_a_note_that_is_no_checkpoint_is_a_bad_request() -> None:
    text = "anything else\n"
    with pytest.raises(BadRequest) as raised:
        witness().add(AddCheckpoint(0, (), Note(text, (LOG.sign(text),))), NOW)
    assert raised.value.status == 400


def test_a_log_with_two_keys_may_sign_with_either() -> None:
    """Both are trusted while a key is rotated."""
    newer = key(ORIGIN + "-2")
    follower = Witness((KEY,), {ORIGIN: (LOG.verifier(), newer.verifier())})
    follower, _ = follower.add(request(0, 3), NOW)
    rotated = AddCheckpoint(3, tree(5).consistency(3), signed(head(5), by=newer))
    assert follower.add(rotated, NOW)[0].heads[ORIGIN].size == 5


@pytest.mark.parametrize(
    ("defect", "keys", "logs"),
    [
        ("no key", (), FOLLOWED),
        ("a log's key", (LOG,), {}),
        ("one key for log and witness", (key(ORIGIN, Algorithm.COSIGNATURE),), None),
        ("no key of a log", (KEY,), {ORIGIN: ()}),
    ],
)
def test_a_witness_that_could_not_be_believed_is_not_made(
    defect: str, keys: tuple[object, ...], logs: object
) -> None:
    if logs is None:  # the same secret under both types
        same = type(LOG)(ORIGIN, Algorithm.ED25519, keys[0].seed)  # type: ignore[attr-defined]
        logs = {ORIGIN: (same.verifier(),)}
    with pytest.raises(ValueError, match="found"):
        Witness(keys, logs)  # type: ignore[arg-type]


@pytest.mark.skipif(not has_mldsa(), reason="this cryptography has no ML-DSA-44")
def test_a_witness_with_both_kinds_of_key_gives_both_cosignatures() -> None:
    keys = (KEY, key("fedkd.example/q", Algorithm.COSIGNATURE_MLDSA44))
    _, lines = Witness(keys, FOLLOWED).add(request(0, 3), NOW)
    answer = read_cosignature_lines(cosignature_lines(lines))
    signers = note(3).with_signatures(answer).verify(k.verifier() for k in keys).signers
    assert list(signers.values()) == [NOW, NOW]


# What travels, and what is kept.


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (1, 1), (3, 300), (256, 300)])
def test_a_request_has_one_spelling(old: int, new: int) -> None:
    asked = request(old, new)
    content = asked.to_bytes()
    assert content.startswith(f"old {old}\n".encode())
    assert AddCheckpoint.parse(content) == asked


BODY = request(3, 8).to_bytes()


@pytest.mark.parametrize(
    ("defect", "content"),
    [
        ("empty", b""),
        ("no old size", BODY.split(b"\n", 1)[1]),
        ("old size with zeros", BODY.replace(b"old 3", b"old 03")),
        ("old size that is negative", BODY.replace(b"old 3", b"old -3")),
        ("two spaces", BODY.replace(b"old 3", b"old  3")),
        ("no empty line", BODY.replace(b"\n\n", b"\n", 1)),
        ("a short digest", BODY.replace(b"=\n", b"\n", 1)),
        ("a line that is no base64", BODY.replace(b"old 3\n", b"old 3\nxyz\n")),
        ("64 digests", BODY.replace(b"old 3\n", b"old 3\n" + (b"A" * 43 + b"=\n") * 64)),
        ("no note", BODY.split(b"\n\n")[0] + b"\n\n"),
        ("not UTF-8", b"\xff" + BODY),
        ("carriage return", BODY.replace(b"\n", b"\r\n", 1)),
    ],
)
def test_bytes_that_are_no_request(defect: str, content: bytes) -> None:
    assert content != BODY
    with pytest.raises(BadRequest):
        AddCheckpoint.parse(content)


def test_a_proof_that_no_tree_needs_is_not_carried() -> None:
    with pytest.raises(Malformed, match="at most 63"):
        AddCheckpoint(1, (bytes(32),) * 64, note(3))
    with pytest.raises(Malformed):
        AddCheckpoint(1, (bytes(31),), note(3))


def test_every_flipped_byte_of_a_request_is_refused_or_says_the_same() -> None:
    follower = witness(3)
    expected = follower.add(request(3, 8), NOW)[0].heads
    for place in range(len(BODY)):
        try:
            after, _ = follower.add(AddCheckpoint.parse(flipped(BODY, place)), NOW)
        except Refusal:
            continue
        assert after.heads == expected


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"x\n", note(3).signatures[0].line()[:-1].encode()]
)
def test_an_answer_that_is_no_signature_line(content: bytes) -> None:
    with pytest.raises(Malformed):
        read_cosignature_lines(content)


def test_heads_are_kept_as_bytes() -> None:
    follower = witness(5)
    assert read_heads(follower.heads_bytes()) == follower.heads
    assert read_heads(witness().heads_bytes()) == {}
    again = Witness((KEY,), FOLLOWED, read_heads(follower.heads_bytes()))
    assert again.add(request(5, 6), NOW)[0].heads[ORIGIN].size == 6
    assert NOTHING_SEEN.size == 0


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"[]", Malformed),
        (b'{"heads":{},"v":2}', CannotTell),
        (b'{"heads":{}}', CannotTell),
        (b'{"heads":[],"v":1}', Malformed),
        (b'{"heads":{"a":3},"v":1}', Malformed),
        (b'{"heads":{"a":[3,"00"]},"v":1}', Malformed),
        (b'{"heads":{"a":["3","zz"]},"v":1}', Malformed),
        (b'{"heads":{"a":[-1,"' + b"00" * 32 + b'"]},"v":1}', Malformed),
        (b'{"heads":{"a":[true,"' + b"00" * 32 + b'"]},"v":1}', Malformed),
    ],
)
def test_bytes_that_are_no_heads(content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_heads(content)


def test_refusals_go_from_process_to_process() -> None:
    for refusal in (Stale("what", 3, 9), Forked("what", "a", "b"), Refuted("what", "a", "b")):
        again = pickle.loads(pickle.dumps(refusal))  # noqa: S301
        assert str(again) == str(refusal)
        assert vars(again) == vars(refusal)
