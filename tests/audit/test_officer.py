"""A person's key, and what its signature over a paper is worth."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedkd.audit.officer import (
    BUDGET,
    expect_signed,
    fingerprint,
    new_key,
    person_of,
    read_key,
    sign_paper,
    signed_text,
    verifier_of,
)
from fedkd.audit.passphrase import PASSPHRASE_FILE, read_passphrase
from fedkd.audit.verify import (
    Algorithm,
    Checkpoint,
    Malformed,
    Note,
    SigningKey,
    VerifierKey,
    has_mldsa,
)
from fedkd.knowledge import BadInput, digest_of_bytes

PAPER = b"epsilon: 1\n"


@pytest.mark.parametrize("name", ["Ada Example", "Dr. Ärztin + Söhne", "a/b"])
def test_a_key_comes_back_from_its_file_with_its_persons_name(name: str, tmp_path: Path) -> None:
    made = new_key(tmp_path / "officer.key", name)
    assert read_key(tmp_path / "officer.key") == made
    assert person_of(made.verifier()) == name
    assert (tmp_path / "officer.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["officer.key"]


def test_a_key_is_private_from_its_first_byte_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        new_key(tmp_path / "officer.key", "Ada")
    finally:
        os.umask(old)
    assert (tmp_path / "officer.key").stat().st_mode & 0o777 == 0o600


def passphrase(folder: Path, said: str = "seven words that nobody says", mode: int = 0o600) -> Path:
    path = folder / "passphrase"
    path.write_text(said + "\n")
    path.chmod(mode)
    return path


def test_a_key_with_a_passphrase_is_opened_by_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PASSPHRASE_FILE, raising=False)
    file, path = passphrase(tmp_path), tmp_path / "officer.key"
    made = new_key(path, "Ada Example", read_passphrase(file))
    kept = path.read_text()
    for secret in (made.seed.hex(), made.secret_text(), base64.b64encode(made.seed).decode()):
        assert secret not in kept
    assert "ENCRYPTED PRIVATE KEY" in kept
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path, file) == made
    with pytest.raises(BadInput, match=f"set {PASSPHRASE_FILE}=FILE, or give it"):
        read_key(path)
    monkeypatch.setenv(PASSPHRASE_FILE, str(file))
    assert read_key(path) == made
    with pytest.raises(BadInput, match="this passphrase does not open"):
        read_key(path, passphrase(tmp_path, "seven words that nobody said"))
    with pytest.raises(BadInput, match="the private half of a key"):
        verifier_of(str(path))
    plain = new_key(tmp_path / "plain.key", "Bea")
    assert read_key(tmp_path / "plain.key") == plain, "one without is opened as before"


def test_a_locked_key_under_another_name_is_another_key(tmp_path: Path) -> None:
    """The name stands outside what is encrypted; it is a part of what a verifier key names."""
    file, path = passphrase(tmp_path), tmp_path / "officer.key"
    made = new_key(path, "Ada", read_passphrase(file))
    path.write_text(path.read_text().replace("person/Ada", "person/Eve"))
    assert read_key(path, file).verifier().text() != made.verifier().text()


@pytest.mark.parametrize(
    ("said", "mode", "told"),
    [
        ("short", 0o600, "5 bytes"),
        ("", 0o600, "0 bytes"),
        ("two lines of words\nare not one", 0o600, "one line"),
        ("seven words that nobody says", 0o644, "mode 0644"),
    ],
)
def test_a_passphrase_that_protects_nothing_is_refused(
    said: str, mode: int, told: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=told):
        read_passphrase(passphrase(tmp_path, said, mode))
    with pytest.raises(BadInput, match="no passphrase in"):
        read_passphrase(tmp_path / "nothing")


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "officer.key"
    new_key(path, "Ada")
    before = path.read_bytes()
    with pytest.raises(BadInput, match="never written over"):
        new_key(path, "Ada")
    assert path.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput):
        new_key(tmp_path / "link", "Ada")
    assert not (tmp_path / "nowhere").exists()


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "officer.key"
    new_key(path, "Ada")
    path.chmod(0o644)
    with pytest.raises(BadInput, match="mode 0644"):
        read_key(path)


def test_what_is_no_key_is_refused_and_nothing_of_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "officer.key"
    made = new_key(path, "Ada")
    secret = made.secret_text()
    path.write_text(secret[:-2] + "AA")
    with pytest.raises(BadInput) as refused:
        read_key(path)
    assert secret[-20:-2] not in str(refused.value)
    with pytest.raises(BadInput, match="private half") as told:
        verifier_of(secret)
    assert secret.split("+", 4)[-1] not in str(told.value)  # base64 may hold a + too
    path.chmod(0o600)
    with pytest.raises(BadInput, match="private half"):
        verifier_of(str(path))
    with pytest.raises(BadInput, match="no key in"):
        read_key(tmp_path / "nothing")
    for name in ("", "  "):
        with pytest.raises(BadInput, match="the name"):
            new_key(tmp_path / "other.key", name)


def test_a_verifier_key_is_read_from_its_line_or_from_a_file(tmp_path: Path) -> None:
    key = new_key(tmp_path / "officer.key", "Ada").verifier()
    (tmp_path / "officer.pub").write_text(key.text() + "\n")
    assert verifier_of(key.text()) == verifier_of(str(tmp_path / "officer.pub")) == key
    with pytest.raises(BadInput, match="name\\+id\\+key"):
        verifier_of(key.text()[:-4])


@pytest.mark.parametrize("algorithm", [Algorithm.COSIGNATURE, Algorithm.COSIGNATURE_MLDSA44])
def test_a_key_that_cosigns_logs_is_no_persons(algorithm: Algorithm, tmp_path: Path) -> None:
    if algorithm is Algorithm.COSIGNATURE_MLDSA44 and not has_mldsa():
        pytest.skip("no ML-DSA-44 in this cryptography")
    key = SigningKey("somebody", algorithm, bytes(32))
    with pytest.raises(BadInput, match="0x01"):
        verifier_of(key.verifier().text())


def test_a_fingerprint_is_thirty_digits_and_tells_keys_apart(tmp_path: Path) -> None:
    keys = [new_key(tmp_path / str(number), "Ada").verifier() for number in range(20)]
    told = [fingerprint(key) for key in keys]
    assert len(set(told)) == len(told)
    for text in told:
        assert [len(group) for group in text.split(" ")] == [5] * 6
        assert text.replace(" ", "").isdecimal()
    assert fingerprint(VerifierKey.parse(keys[0].text())) == told[0]


def test_a_signature_holds_for_its_bytes_its_kind_and_its_key(tmp_path: Path) -> None:
    ada, eve = (new_key(tmp_path / name, name) for name in ("Ada", "Eve"))
    note = sign_paper(ada, BUDGET, PAPER)
    expect_signed(ada.verifier(), BUDGET, PAPER, note)
    for place in range(len(PAPER)):
        changed = bytearray(PAPER)
        changed[place] ^= 1
        with pytest.raises(BadInput, match="signed again, by the officer"):
            expect_signed(ada.verifier(), BUDGET, bytes(changed), note)
    with pytest.raises(BadInput, match="signed again"):
        expect_signed(ada.verifier(), "another kind", PAPER, note)
    with pytest.raises(BadInput, match=r"by Ada that another key made, expected one by Eve"):
        expect_signed(eve.verifier(), BUDGET, PAPER, note)
    with pytest.raises(BadInput, match="by Eve that another key made"):
        expect_signed(ada.verifier(), BUDGET, PAPER, sign_paper(eve, BUDGET, PAPER))


def test_a_signature_with_any_byte_changed_does_not_hold(tmp_path: Path) -> None:
    ada = new_key(tmp_path / "Ada", "Ada")
    note = sign_paper(ada, BUDGET, PAPER)
    for place in range(len(note)):
        changed = bytearray(note)
        changed[place] ^= 1
        with pytest.raises(BadInput):
            expect_signed(ada.verifier(), BUDGET, PAPER, bytes(changed))


def test_somebody_elses_signature_beside_the_officers_changes_nothing(tmp_path: Path) -> None:
    ada, eve = (new_key(tmp_path / name, name) for name in ("Ada", "Eve"))
    text = signed_text(BUDGET, digest_of_bytes(PAPER))
    both = Note(text).with_signatures([eve.sign(text), ada.sign(text)]).to_bytes()
    expect_signed(ada.verifier(), BUDGET, PAPER, both)


def test_what_is_signed_is_no_checkpoint_of_a_log() -> None:
    with pytest.raises(Malformed):
        Checkpoint.parse(signed_text(BUDGET, digest_of_bytes(PAPER)))


def test_signing_needs_no_configuration_and_no_model(tmp_path: Path) -> None:
    """An officer's machine may have little on it: what signs pulls in neither torch nor hydra."""
    code = (
        "import sys; import fedkd.audit.officer; "
        "print([it for it in ('torch', 'hydra', 'flwr', 'sklearn') if it in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
