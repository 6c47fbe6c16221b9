"""Checkpoints: three lines, each in one spelling."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit.verify import EMPTY_ROOT, Checkpoint, Malformed, Refuted
from tests.audit_formats.parties import head

ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
EXAMPLE = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"


def test_the_example_of_the_specification() -> None:
    read = Checkpoint.parse(EXAMPLE)
    assert (read.origin, read.size) == ("example.com/behind-the-sofa", 20852163)
    assert read.text() == EXAMPLE
    extended = Checkpoint.parse(EXAMPLE + "one more\nand another\n")
    assert extended.extensions == ("one more", "and another")


LINES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(LINES, st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32), st.lists(LINES))
@settings(deadline=None, max_examples=80)
def test_a_checkpoint_has_one_spelling(
    origin: str, size: int, root: bytes, extensions: list[str]
) -> None:
    made = Checkpoint(origin, size, root, tuple(extensions))
    assert Checkpoint.parse(made.text()) == made


@pytest.mark.parametrize(
    ("defect", "text"),
    [
        ("empty", ""),
        ("two lines", "origin\n1\n"),
        ("no newline at the end", EXAMPLE[:-1]),
        ("an extension without newline", EXAMPLE + "one more"),
        ("empty origin", EXAMPLE.replace("example.com/behind-the-sofa", "")),
        ("empty line at the end", EXAMPLE + "\n"),
        ("empty line among extensions", EXAMPLE + "a\n\nb\n"),
        ("size with a leading zero", EXAMPLE.replace("2085", "02085")),
        ("size with a sign", EXAMPLE.replace("2085", "+2085")),
        ("negative size", EXAMPLE.replace("2085", "-2085")),
        ("size with a space", EXAMPLE.replace("2085", " 2085")),
        ("size with an underscore", EXAMPLE.replace("2085", "20_85")),
        ("size in other digits", EXAMPLE.replace("20852163", "\u0662\u0661")),
        ("size that is empty", EXAMPLE.replace("20852163", "")),
        ("size beyond 2^63 - 1", EXAMPLE.replace("20852163", str(2**63))),
        ("size of a million digits", EXAMPLE.replace("20852163", "1" * 1_000_000)),
        ("root too short", EXAMPLE.replace(ROOT, "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxqw==")),
        ("root in hexadecimal", EXAMPLE.replace(ROOT, "0" * 64)),
        ("root with loose pad bits", EXAMPLE.replace("q2I=", "q2J=")),
        ("root with a space", EXAMPLE.replace(ROOT, ROOT + " ")),
        ("carriage return", EXAMPLE.replace("\n", "\r\n", 1)),
    ],
)
def test_text_that_is_no_checkpoint(defect: str, text: str) -> None:
    assert text != EXAMPLE
    with pytest.raises(Malformed):
        Checkpoint.parse(text)


def test_an_empty_log_has_one_root() -> None:
    assert Checkpoint("o", 0, EMPTY_ROOT) == head(0, origin="o")
    with pytest.raises(Refuted, match="without leaves"):
        Checkpoint("o", 0, bytes(32))


@pytest.mark.parametrize("origin", ["", "two\nlines", "tab\t", "\udc80"])
def test_an_origin_that_no_line_can_hold(origin: str) -> None:
    with pytest.raises(Malformed):
        Checkpoint(origin, 1, bytes(32))
