"""Keys at rest: what a locked folder keeps on its disk, and whom it opens to."""

import json
import os
import secrets
from pathlib import Path

import pytest

from fedkd.audit import Log, locking, make_keys
from fedkd.audit.keys import log_key, witness_keys
from fedkd.audit.locking import (
    LOCK,
    change_passphrase,
    expect_sealed,
    forget,
    is_sealed,
    lock,
    plain_ones,
    read_secret,
    take_passphrase_from,
    unlock,
    write_secret,
)
from fedkd.audit.officer import new_key as new_persons_key
from fedkd.audit.officer import read_key as read_persons_key
from fedkd.audit.passphrase import CREDENTIAL, CREDENTIALS, PASSPHRASE_FILE, read_passphrase
from fedkd.audit.sealing import DoesNotOpen, Wrapped, new_key, seal, unseal
from fedkd.audit.verify import Malformed
from fedkd.knowledge import BadInput

SAID = b"seven words that nobody says"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No passphrase of the environment, and none of an earlier test."""
    monkeypatch.delenv(PASSPHRASE_FILE, raising=False)
    monkeypatch.delenv(CREDENTIALS, raising=False)
    monkeypatch.setattr(locking, "_OPEN", {})
    monkeypatch.setattr(locking, "_GIVEN", [])
    monkeypatch.setattr("fedkd.audit.sealing.COST", 1 << 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two parties, with keys and a log each."""
    for name in ("site", "rehearsal"):
        (tmp_path / "all" / name).mkdir(parents=True)
        with Log(tmp_path / "all" / name / "log.sqlite", name) as log:
            log.append("opened", "log.opened", {"party": name})
    return tmp_path / "all"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/keys/*.key"))


def said(path: Path, passphrase: bytes = SAID, mode: int = 0o600) -> Path:
    path.write_bytes(passphrase)
    path.chmod(mode)
    return path


def everything_in(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_locked_folder_holds_no_key_and_signs_as_before(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in files(folder)}
    assert lock(folder, files(folder), SAID) == len(before) == 4
    whole = everything_in(folder)
    for path, plain in before.items():
        assert plain not in whole
        assert plain.split(b"+", 4)[-1].strip() not in whole  # base64 may hold a "+" itself
        assert is_sealed(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert read_secret(path) == plain
    assert not list(folder.glob("*/keys/.*")), "nothing is left of what was written meanwhile"

    forget(folder)
    take_passphrase_from(said(tmp_path / "said"))
    with Log(folder / "site" / "log.sqlite", "site") as log:
        log.append("more", "run.started", {"run": "r"})
        note = log.checkpoint()
        assert note is not None
        note.verify([log.verifier()])

    assert unlock(folder, files(folder)) == 4
    assert {path: path.read_bytes() for path in files(folder)} == before
    assert not (folder / LOCK).exists()


def test_a_log_is_read_without_a_passphrase_and_not_written(folder: Path) -> None:
    origin = log_key(folder / "site").name
    lock(folder, files(folder), SAID)
    forget(folder)
    with Log(folder / "site" / "log.sqlite", "site") as log:
        assert [entry.type for entry in log.entries()] == ["log.opened"]
        assert log.origin == origin
        with pytest.raises(
            BadInput, match=r"keys are sealed, and no passphrase.*--passphrase-file"
        ):
            log.append("more", "run.started", {"run": "r"})
        with pytest.raises(BadInput, match="no passphrase"):
            _ = log.witness_keys
        assert len(log) == 1


def test_new_keys_are_sealed_at_once(folder: Path) -> None:
    lock(folder, files(folder), SAID)
    (folder / "new").mkdir()
    make_keys(folder / "new", "new", mldsa=False)
    made = sorted((folder / "new" / "keys").iterdir())
    assert [path.name for path in made] == ["log.key", "witness.key"]
    assert all(is_sealed(path) for path in made)
    assert len(witness_keys(folder / "new")) == 1
    write_secret(folder / "site" / "commitment.key", b"x" * 32)
    assert is_sealed(folder / "site" / "commitment.key")
    forget(folder)
    (folder / "other").mkdir()
    with pytest.raises(BadInput, match="no passphrase"):
        make_keys(folder / "other", "other")
    assert not list((folder / "other" / "keys").iterdir()), "and none is left plain without one"


def test_a_persons_key_is_not_the_folders(folder: Path, tmp_path: Path) -> None:
    """It is taken elsewhere, and has a passphrase of its own."""
    lock(folder, files(folder), SAID)
    made = new_persons_key(folder / "ada.key", "Ada Example")
    (folder / "ada.key").rename(tmp_path / "ada.key")
    assert read_persons_key(tmp_path / "ada.key") == made


def test_every_changed_byte_is_found(folder: Path) -> None:
    path = files(folder)[0]
    lock(folder, [path], SAID)
    sealed = path.read_bytes()
    for at in range(len(sealed)):
        path.write_bytes(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        if at < 16:  # no sealed file any more, and no key either
            with pytest.raises((Malformed, UnicodeDecodeError)):
                log_key(folder / "rehearsal")
        else:
            with pytest.raises(BadInput, match="changed or moved"):
                read_secret(path)
    path.write_bytes(sealed[:20])
    with pytest.raises(BadInput, match="changed or moved"):
        read_secret(path)


def test_sealed_files_cannot_be_exchanged(folder: Path) -> None:
    lock(folder, files(folder), SAID)
    one, other = folder / "site/keys/log.key", folder / "rehearsal/keys/log.key"
    one.write_bytes(other.read_bytes())
    with pytest.raises(BadInput, match="changed or moved"):
        log_key(folder / "site")
    (folder / LOCK).rename(folder / "moved")
    with pytest.raises(BadInput, match=r"no lock\.json above it"):
        read_secret(other)


@pytest.mark.parametrize("change", ["n", "salt", "key", "format", "p"])
def test_a_changed_lock_opens_nothing(folder: Path, tmp_path: Path, change: str) -> None:
    lock(folder, files(folder), SAID)
    forget(folder)
    take_passphrase_from(said(tmp_path / "said"))
    told = json.loads((folder / LOCK).read_text())
    other = {"n": told["n"] * 2, "p": 1 << 30, "format": "fedkd lock v9"}
    flipped = {it: told[it][:-1] + ("0" if told[it][-1] != "0" else "1") for it in ("salt", "key")}
    (folder / LOCK).write_text(json.dumps({**told, change: {**other, **flipped}[change]}))
    with pytest.raises(BadInput, match=r"does not open|locks nothing that is known"):
        log_key(folder / "site")


def test_another_passphrase_opens_nothing_and_is_not_repeated(folder: Path, tmp_path: Path) -> None:
    lock(folder, files(folder), SAID)
    forget(folder)
    take_passphrase_from(said(tmp_path / "said", b"words of another folder"))
    with pytest.raises(BadInput, match="this passphrase does not open") as caught:
        log_key(folder / "site")
    assert "words of another" not in str(caught.value)
    with pytest.raises(BadInput, match="another passphrase"):
        lock(folder, files(folder), b"words of another folder")
    with pytest.raises(BadInput, match="does not open"):
        unlock(folder, files(folder))
    assert all(is_sealed(path) for path in files(folder))


def test_where_the_passphrase_comes_from(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given, what the environment names, systemd's credential: in this order."""
    lock(folder, files(folder), SAID)
    (tmp_path / "credentials").mkdir()
    right, wrong = said(tmp_path / "right"), said(tmp_path / "wrong", b"words of another folder")
    said(tmp_path / "credentials" / CREDENTIAL, SAID, 0o440)

    def opens() -> bool:
        forget(folder)
        try:
            return bool(log_key(folder / "site"))
        except BadInput:
            return False

    assert not opens()
    monkeypatch.setenv(CREDENTIALS, str(tmp_path / "credentials"))
    assert opens()
    monkeypatch.setenv(PASSPHRASE_FILE, str(wrong))
    assert not opens()
    take_passphrase_from(right)
    assert opens()


def test_a_person_types_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(folder, files(folder), SAID)
    forget(folder)
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda text: asked.append(text) or SAID.decode())
    assert log_key(folder / "site") != log_key(folder / "rehearsal")
    assert asked == [f"Passphrase of {folder}: "]


def test_a_key_file_counts_to_its_last_byte(folder: Path, tmp_path: Path) -> None:
    drawn = b"\xff" + secrets.token_bytes(30) + b"\n\xfe" + b"\n\n"
    assert read_passphrase(said(tmp_path / "key", drawn)) == drawn
    lock(folder, files(folder), drawn)
    forget(folder)
    take_passphrase_from(said(tmp_path / "cut", drawn[:-1]))
    with pytest.raises(BadInput, match="does not open"):
        log_key(folder / "site")
    take_passphrase_from(tmp_path / "key")
    assert log_key(folder / "site")
    with pytest.raises(BadInput, match="mode 0644"):
        read_passphrase(said(tmp_path / "seen", drawn, 0o644))
    with pytest.raises(BadInput, match="at least 32 random bytes"):
        read_passphrase(said(tmp_path / "short", b"\xff\n\xfe" * 9))


def test_a_new_passphrase_takes_the_old_ones_place(folder: Path) -> None:
    lock(folder, files(folder), SAID)
    before = {path: path.read_bytes() for path in files(folder)}
    change_passphrase(folder, b"other words by chance")
    assert {path: path.read_bytes() for path in files(folder)} == before
    with pytest.raises(BadInput, match="another passphrase"):
        lock(folder, files(folder), SAID)
    assert lock(folder, files(folder), b"other words by chance") == 0
    assert log_key(folder / "site")


class Killed(BaseException):
    """The power went."""


@pytest.mark.parametrize("call", ["fsync", "replace", "fchown", "open", "pwrite"])
@pytest.mark.parametrize("nth", range(1, 12, 2))
def test_an_interrupted_sealing_leaves_each_key_in_one_form(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    before = {path: path.read_bytes() for path in files(folder)}
    where: object = Path if call == "replace" else os
    real, seen = getattr(where, call), 0

    def cut(*words: object, **more: object) -> object:
        nonlocal seen
        seen += 1
        if seen == nth:
            raise Killed
        return real(*words, **more)

    with monkeypatch.context() as patched:
        patched.setattr(where, call, cut)
        try:
            lock(folder, files(folder), SAID)
        except Killed:
            pass
        else:
            assert seen < nth, "it was cut off"
    if (folder / LOCK).exists() and (plain := plain_ones(folder, files(folder))):
        with pytest.raises(BadInput, match=f"{plain[0]}.*plain"):
            expect_sealed(folder, files(folder), "the same again")
    lock(folder, files(folder), SAID)
    assert {path: read_secret(path) for path in files(folder)} == before
    expect_sealed(folder, files(folder), "the same again")
    whole = everything_in(folder)
    assert not any(plain in whole for plain in before.values())


def test_what_was_left_by_a_killed_process_goes_too(folder: Path) -> None:
    left = folder / "site/keys/.log.key.4711"
    left.write_bytes((folder / "site/keys/log.key").read_bytes())
    copy = folder.parent / "backup"
    os.link(folder / "site/keys/witness.key", copy)
    plain = copy.read_bytes()
    lock(folder, files(folder), SAID)
    assert not left.exists()
    assert copy.read_bytes() == plain, "what somebody keeps elsewhere is theirs"


def test_a_key_is_wrapped_by_its_passphrase_and_seals_by_its_name() -> None:
    key = new_key()
    assert Wrapped.from_json(Wrapped.of(key, SAID).to_json(), "it").open(SAID) == key
    with pytest.raises(DoesNotOpen):
        Wrapped.of(key, SAID).open(SAID + b".")
    assert unseal(key, "a", seal(key, "a", b"body")) == b"body"
    for other in (("b", key), ("a", new_key())):
        with pytest.raises(DoesNotOpen):
            unseal(other[1], other[0], seal(key, "a", b"body"))
    assert seal(key, "a", b"body") != seal(key, "a", b"body")
