"""Which letters may stand in key names, notes and checkpoints: 64,000 of them are tried."""

from collections.abc import Callable

from fedkd.audit.verify import Checkpoint, Malformed, Note, leaf_hash
from fedkd.audit.verify.notes import checked_name

ROOT = leaf_hash(b"")
SURROGATES = range(0xD800, 0xE000)
LETTERS = [chr(code) for code in range(0x10100) if code not in SURROGATES]


def refused(make: Callable[[str], object], letter: str) -> bool:
    try:
        make(letter)
    except Malformed:
        return True
    return False


def test_a_key_name_has_no_space_no_plus_and_no_control() -> None:
    bad = {letter for letter in LETTERS if refused(lambda one: checked_name(f"a{one}"), letter)}
    assert bad == {one for one in LETTERS if one.isspace() or one == "+" or one < " "}


def test_a_note_has_no_control_but_newline() -> None:
    bad = {letter for letter in LETTERS if refused(lambda one: Note(f"a{one}\n"), letter)}
    assert bad == {one for one in LETTERS if one < " " and one != "\n"}


def test_a_line_of_a_checkpoint_has_no_control() -> None:
    bad = {letter for letter in LETTERS if refused(lambda one: Checkpoint(one, 1, ROOT), letter)}
    assert bad == {one for one in LETTERS if one < " "}
