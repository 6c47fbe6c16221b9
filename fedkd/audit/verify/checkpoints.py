"""A tree head as text (C2SP tlog-checkpoint v1.0.0): whose log, how many leaves, which root."""

import re
from dataclasses import dataclass
from typing import Final, Self

from fedkd.audit.verify.merkle import EMPTY_ROOT
from fedkd.audit.verify.refusals import Malformed, Refuted
from fedkd.audit.verify.spellings import (
    base64_text,
    checked_digest,
    checked_number,
    decimal,
    digest,
    shown,
)

_LEAST_LINES: Final = 3
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of the log named `origin`: its size in leaves and the root over them.

    Extension lines are carried and never interpreted; logs of fedkd write none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            _checked_line(line)
        checked_number(self.size, "size in a checkpoint")
        checked_digest(self.root, "root in a checkpoint")
        if self.size == 0 and self.root != EMPTY_ROOT:  # RFC 6962, 2.1
            raise Refuted(f"{self} without leaves", f"root {self.root.hex()}", EMPTY_ROOT.hex())

    def __str__(self) -> str:
        return f"checkpoint {self.size} of {self.origin}"

    def text(self) -> str:
        """The text that is signed."""
        head = (self.origin, str(self.size), base64_text(self.root))
        return "".join(f"{line}\n" for line in (*head, *self.extensions))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `text`; every other spelling is `Malformed`."""
        *lines, end = text.split("\n")
        if end:
            raise Malformed("checkpoint", f"a last line {shown(end)} without newline", "a newline")
        if len(lines) < _LEAST_LINES:
            raise Malformed("checkpoint", f"{len(lines)} lines", "origin, size and root")
        origin, size, root, *extensions = lines
        return cls(
            origin,
            decimal(size, "size in a checkpoint"),
            digest(root, "root in a checkpoint"),
            tuple(extensions),
        )


def _checked_line(line: str) -> None:
    # tlog-checkpoint, Note text: lines are not empty; signed-note, Format: no control characters.
    if not line or _CONTROL.search(line):
        raise Malformed("line of a checkpoint", shown(line), "text without control characters")
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("line of a checkpoint", shown(line), "text that UTF-8 can write") from None
