"""Signed notes: one spelling each, known keys hold, unknown ones are passed over."""

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit.verify import (
    Algorithm,
    CannotTell,
    Checkpoint,
    Malformed,
    Note,
    Refuted,
    Signature,
    SigningKey,
    VerifierKey,
    cosign,
    has_mldsa,
    notes,
)
from tests.audit_formats.parties import LOG, NOW, ORIGIN, WITNESSES, flipped, head, key, note, seed

POST_QUANTUM = Algorithm.COSIGNATURE_MLDSA44
quantum = pytest.mark.skipif(not has_mldsa(), reason="this cryptography has no ML-DSA-44")
PUBLIC = LOG.verifier()
DASH = "\N{EM DASH}"


def test_a_signature_of_the_published_key_is_the_published_one() -> None:
    """Ed25519 is deterministic: the example of golang.org/x/mod, sumdb/note, to the byte."""
    written = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    signer = SigningKey.parse(written)
    assert signer.secret_text() == written
    assert signer.verifier().text() == (
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    )
    assert Note(text, (signer.sign(text),)).to_bytes().decode() == (
        f"{text}\n{DASH} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZ"
        "SNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )


@pytest.mark.parametrize("algorithm", [*Algorithm])
def test_keys_are_kept_as_text(algorithm: Algorithm) -> None:
    if algorithm is POST_QUANTUM and not has_mldsa():
        pytest.skip("this cryptography has no ML-DSA-44")
    signer = key("fedkd.example/x", algorithm)
    assert VerifierKey.parse(signer.verifier().text()) == signer.verifier()
    assert SigningKey.parse(signer.secret_text()) == signer
    assert signer.seed.hex() not in repr(signer)
    assert repr(signer.seed) not in repr(signer)


def test_one_public_key_has_another_id_under_another_name_or_type() -> None:
    secret = seed("one")
    ids = {
        SigningKey(name, algorithm, secret).verifier().id
        for name in ("a", "b")
        for algorithm in (Algorithm.ED25519, Algorithm.COSIGNATURE)
    }
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("defect", "text"),
    [
        ("no id", "name"),
        ("no key", "name+00000000"),
        ("empty key", "name+00000000+"),
        ("empty name", PUBLIC.text().replace(ORIGIN, "")),
        ("space in name", PUBLIC.text().replace("/", " ")),
        ("wide space in name", PUBLIC.text().replace("/", "\u3000")),
        ("newline in name", PUBLIC.text().replace("/", "\n")),
        ("lone surrogate in name", PUBLIC.text().replace("/", "\udc80")),
        ("another name", PUBLIC.text().replace("h1", "h2")),
        ("another id", PUBLIC.text().replace(PUBLIC.id.hex(), "00000000")),
        ("id in capitals", PUBLIC.text().replace(PUBLIC.id.hex(), PUBLIC.id.hex().upper())),
        ("short id", PUBLIC.text().replace(PUBLIC.id.hex(), PUBLIC.id.hex()[:6])),
        ("no base64", PUBLIC.text()[:-2] + "**"),
        ("no padding", PUBLIC.text() + "="),
        ("newline at its end", PUBLIC.text() + "\n"),
    ],
)
def test_a_text_that_is_no_verifier_key(defect: str, text: str) -> None:
    with pytest.raises(Malformed):
        VerifierKey.parse(text)


def test_errors_about_a_private_key_repeat_nothing_of_it() -> None:
    secret = LOG.secret_text()
    written = secret.rsplit("+", 1)[1]
    for wrong in (secret[:-1], secret.replace("PRIVATE", "SECRET"), secret.replace("h1", "h2")):
        with pytest.raises(Malformed) as raised:
            SigningKey.parse(wrong)
        assert written[:12] not in str(raised.value)


def test_many_signatures_of_known_and_unknown_keys() -> None:
    both = note(7, cosigners=3)
    opened = both.verify([PUBLIC, WITNESSES[1].verifier()])
    assert opened.text == head(7).text()
    assert opened.signers == {PUBLIC: None, WITNESSES[1].verifier(): NOW}
    stranger = key("fedkd.example/stranger").verifier()
    assert both.verify([stranger, PUBLIC]).signers == {PUBLIC: None}


def test_a_note_that_no_known_key_signed_is_refused() -> None:
    signed = note(7, cosigners=1)
    for keys in ([], [key("fedkd.example/stranger").verifier()]):
        with pytest.raises(Refuted, match="expected one by"):
            signed.verify(keys)
    with pytest.raises(Refuted, match="signatures by nobody"):
        Note(signed.text).verify([PUBLIC])


def test_a_known_name_or_id_alone_is_another_key() -> None:
    """signed-note, Signatures: ignored, even if they share a name or ID (but not both)."""
    text = head(3).text()
    genuine = LOG.sign(text)
    same_name = Signature(genuine.name, flipped(genuine.key_id, 0), b"x" * 64)
    same_id = Signature("another", genuine.key_id, b"x" * 64)
    mixed = Note(text, (same_name, genuine, same_id))
    assert mixed.verify([PUBLIC]).signers == {PUBLIC: None}
    with pytest.raises(Refuted):
        Note(text, (same_name, same_id)).verify([PUBLIC])


def test_a_bad_signature_of_a_known_key_spoils_the_note() -> None:
    good = note(7, cosigners=2)
    for place in range(3):
        one = good.signatures[place]
        bad = Signature(one.name, one.key_id, flipped(one.content, len(one.content) - 1))
        for lines in (
            (*good.signatures[:place], bad, *good.signatures[place + 1 :]),
            (*good.signatures, bad),  # also beside the good one
        ):
            with pytest.raises(Refuted, match="bytes that this key did not make"):
                Note(good.text, lines).verify([PUBLIC, *(w.verifier() for w in WITNESSES)])


def test_a_signature_of_another_length_is_refused() -> None:
    text = head(3).text()
    genuine = LOG.sign(text)
    for content in (genuine.content[:-1], genuine.content + b"\0", bytes(72)):
        with pytest.raises(Refuted, match="expected 64 bytes"):
            Note(text, (Signature(ORIGIN, genuine.key_id, content),)).verify([PUBLIC])


def test_two_keys_of_one_name_and_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifierKey, "id", property(lambda self: b"same"))
    keys = [SigningKey("a", Algorithm.ED25519, seed(s)).verifier() for s in "xy"]
    with pytest.raises(Malformed, match="one key for a name and id"):
        note(3).verify(keys)


def test_the_newest_time_of_a_cosigner_holds() -> None:
    checkpoint = head(3)
    lines = tuple(cosign(WITNESSES[0], checkpoint, NOW + late) for late in (5, 9, 2))
    found = Note(checkpoint.text(), lines).verify([WITNESSES[0].verifier()]).signers
    assert found == {WITNESSES[0].verifier(): NOW + 9}


def test_the_time_of_a_cosignature_is_signed() -> None:
    checkpoint = head(3)
    one = cosign(WITNESSES[0], checkpoint, NOW)
    later = Signature(one.name, one.key_id, (NOW + 1).to_bytes(8, "big") + one.content[8:])
    beyond = Signature(one.name, one.key_id, b"\xff" * 8 + one.content[8:])
    for line, found in ((later, "did not make"), (beyond, "at most 2\\^63 - 1")):
        with pytest.raises(Refuted, match=found):
            Note(checkpoint.text(), (line,)).verify([WITNESSES[0].verifier()])


def test_a_log_signature_is_no_cosignature_and_the_other_way_round() -> None:
    """One secret under both types, which nobody should have: the messages still differ."""
    checkpoint, secret = head(3), seed("both")
    log, witness = (
        SigningKey("a", algorithm, secret)
        for algorithm in (Algorithm.ED25519, Algorithm.COSIGNATURE)
    )
    plain, timed = log.sign(checkpoint.text()), witness.sign(checkpoint.text(), NOW)
    as_timed = Signature("a", witness.verifier().id, timed.content[:8] + plain.content)
    as_plain = Signature("a", log.verifier().id, timed.content[8:])
    for line in (as_timed, as_plain):
        with pytest.raises(Refuted):
            Note(checkpoint.text(), (line,)).verify([log.verifier(), witness.verifier()])


def test_a_cosignature_is_over_a_checkpoint_alone() -> None:
    with pytest.raises(Malformed):
        WITNESSES[0].sign("any other text\n", NOW)
    for time in (None, 0, -1, 2**63):
        with pytest.raises(ValueError, match="seconds since 1970"):
            WITNESSES[0].sign(head(3).text(), time)
    with pytest.raises(ValueError, match="carries no time"):
        LOG.sign(head(3).text(), NOW)
    with pytest.raises(ValueError, match="a log's key"):
        cosign(LOG, head(3), NOW)


GOOD = note(3).to_bytes()
LINE = GOOD.split(b"\n\n")[1]


@pytest.mark.parametrize(
    ("defect", "content"),
    [
        ("empty", b""),
        ("no signature", head(3).text().encode()),
        ("no signature after the empty line", head(3).text().encode() + b"\n"),
        ("no empty line", GOOD.replace(b"\n\n", b"\n")),
        ("two empty lines at the end", GOOD + b"\n"),
        ("no newline at the end", GOOD[:-1]),
        ("carriage return", GOOD.replace(b"\n", b"\r\n", 1)),
        ("tab", GOOD.replace(b"entry", b"\t").replace(b"h1", b"\t", 1)),
        ("null", GOOD.replace(b"h1", b"\0", 1)),
        ("not UTF-8", GOOD.replace(b"h1", b"\xff", 1)),
        ("surrogate in UTF-8", GOOD.replace(b"h1", b"\xed\xa0\x80", 1)),
        ("hyphen for the dash", GOOD.replace(DASH.encode(), b"-")),
        ("en dash for the dash", GOOD.replace(DASH.encode(), "\N{EN DASH}".encode())),
        ("no space after the dash", GOOD.replace(DASH.encode() + b" ", DASH.encode())),
        ("two spaces after the dash", GOOD.replace(DASH.encode(), DASH.encode() + b" ")),
        ("no name", GOOD.replace(LINE, f"{DASH} AAAAAAAA\n".encode())),
        ("plus in a name", GOOD.replace(LINE, f"{DASH} a+b AAAAAAAA\n".encode())),
        ("wide space in a name", GOOD.replace(LINE, f"{DASH} a\u2003b AAAAAAAA\n".encode())),
        ("line separator in a name", GOOD.replace(LINE, f"{DASH} a\u2028b AAAAAAAA\n".encode())),
        ("three words", GOOD.replace(b"=\n", b"= more\n")),
        ("space at the end", GOOD[:-1] + b" \n"),
        ("no base64", GOOD.replace(LINE, f"{DASH} a AA*AAAAA\n".encode())),
        ("URL-safe base64", GOOD.replace(LINE, f"{DASH} a AA-_AAAA\n".encode())),
        ("base64 without padding", GOOD.replace(LINE, f"{DASH} a AAAAAAA\n".encode())),
        ("pad bits that are not zero", GOOD.replace(LINE, f"{DASH} a AAAAAAB=\n".encode())),
        ("newline in base64", GOOD.replace(LINE, f"{DASH} a AAAA\nAAAA\n".encode())),
        ("key id alone", GOOD.replace(LINE, f"{DASH} a AAAAAA==\n".encode())),
        ("text among the signatures", GOOD + b"more\n"),
        ("more signatures than anybody needs", GOOD + LINE * 100),
        ("more bytes than anybody needs", b"a" * 1_000_000 + b"\n" + GOOD),
    ],
)
def test_bytes_that_are_no_note(defect: str, content: bytes) -> None:
    assert content != GOOD
    with pytest.raises(Malformed):
        Note.parse(content)


def test_a_note_of_a_hundred_signatures_is_read() -> None:
    assert len(Note.parse(GOOD + LINE * 99).signatures) == 100


def test_the_last_empty_line_parts_text_and_signatures() -> None:
    text = f"first\n\n{DASH} looks like a signature\n\nlast\n"
    opened = Note.parse(Note(text, (LOG.sign(text),)).to_bytes())
    assert opened.text == text
    assert opened.verify([PUBLIC]).text == text


TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]) | st.just("\n"), max_size=40)


@given(TEXTS, st.lists(st.binary(min_size=5, max_size=40), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_a_note_has_one_spelling(text: str, signatures: list[bytes]) -> None:
    lines = tuple(Signature(f"n\xe9/{n}", s[:4], s[4:]) for n, s in enumerate(signatures))
    made = Note(text + "\n", lines)
    assert Note.parse(made.to_bytes()) == made


@given(st.binary(max_size=60) | st.just(GOOD), st.data())
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_a_note_that_spells_them_or_malformed(
    content: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, max(0, len(content) - 1)))
    content = content[:place] + data.draw(st.binary(max_size=2)) + content[place + 1 :]
    try:
        made = Note.parse(content)
    except Malformed:
        return
    assert made.to_bytes() == content


def test_no_changed_byte_of_a_note_passes() -> None:
    signed = note(9, cosigners=1).to_bytes()
    keys = [PUBLIC, WITNESSES[0].verifier()]
    expected = Note.parse(signed).verify(keys)
    for place in range(len(signed)):
        for bit in (0, 5):
            try:
                found = Note.parse(flipped(signed, place, bit)).verify(keys)
            except Refuted:
                continue
            # A changed name or key id makes a signature a stranger's: what is left is still true.
            assert found.text == expected.text
            assert found.signers.items() < expected.signers.items()


def test_signatures_are_added_behind_and_once() -> None:
    alone, more = note(3), note(3, cosigners=2).signatures
    grown = alone.with_signatures(more).with_signatures(more[::-1])
    assert grown.signatures == more


def test_what_no_note_may_hold_is_not_signed() -> None:
    for text in ("no newline", "tab\t\n", "bell\a\n"):
        with pytest.raises(Malformed):
            LOG.sign(text)
    with pytest.raises(Malformed, match="at least one"):
        Note("text\n").to_bytes()


# ML-DSA-44.


@quantum
def test_a_post_quantum_cosignature_names_its_cosigner_and_its_log() -> None:
    checkpoint, signer = head(5), key("fedkd.example/q", POST_QUANTUM)
    line = cosign(signer, checkpoint, NOW)
    known = signer.verifier()
    signed = Note(checkpoint.text(), (line,))
    assert Note.parse(signed.to_bytes()).verify([known]).signers == {known: NOW}
    other = SigningKey("fedkd.example/other", POST_QUANTUM, signer.seed).verifier()
    for text, public in (
        (head(5, origin="fedkd.example/h2").text(), known),
        (head(6).text(), known),
        (checkpoint.text(), other),
    ):
        with pytest.raises(Refuted):
            public.verify(text, line.content)
    later = (NOW + 1).to_bytes(8, "big") + line.content[8:]
    with pytest.raises(Refuted):
        known.verify(checkpoint.text(), later)


@quantum
def test_a_name_that_is_too_long_for_its_vector_is_refused() -> None:
    signer = key("n" * 256, POST_QUANTUM)
    with pytest.raises(Malformed, match="1 to 255 bytes"):
        cosign(signer, head(5), NOW)
    with pytest.raises(Malformed, match="log origin"):
        cosign(key("q", POST_QUANTUM), Checkpoint("o" * 256, 5, head(5).root), NOW)


def test_without_post_quantum_support_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "mldsa", None)
    assert not has_mldsa()
    public = VerifierKey("q", POST_QUANTUM, bytes(1312))
    line = Signature("q", public.id, bytes(8 + 2420))
    with pytest.raises(CannotTell, match="install a newer cryptography"):
        Note(head(5).text(), (LOG.sign(head(5).text()), line)).verify([PUBLIC, public])
    with pytest.raises(CannotTell):
        key("q", POST_QUANTUM).verifier()
    assert note(5).verify([PUBLIC]).signers == {PUBLIC: None}


def test_a_backend_without_post_quantum_support_is_said_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cryptography may know the algorithm and be linked to a library that does not."""

    class Unsupported:
        @staticmethod
        def refuse(_: bytes) -> None:
            raise UnsupportedAlgorithm("not in this library")

        from_seed_bytes = from_public_bytes = refuse

    class Linked:
        MLDSA44PrivateKey = MLDSA44PublicKey = Unsupported

    monkeypatch.setattr(notes, "mldsa", Linked)
    assert not has_mldsa()
    public = VerifierKey("q", POST_QUANTUM, bytes(1312))
    with pytest.raises(CannotTell):
        public.verify(head(5).text(), bytes(8 + 2420))


def test_values_check_themselves() -> None:
    for wrong in (
        lambda: SigningKey("a", Algorithm.ED25519, bytes(31)),
        lambda: SigningKey("a b", Algorithm.ED25519, bytes(32)),
        lambda: VerifierKey("a", Algorithm.ED25519, bytes(33)),
        lambda: Signature("a", b"key", b"content"),
        lambda: Signature("a", b"4key", b""),
        lambda: Signature("a+b", b"4key", b"content"),
        lambda: Note("text\n", note(3).signatures * 101),
    ):
        with pytest.raises(Malformed):
            wrong()
