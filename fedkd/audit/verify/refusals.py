"""The two ways in which a check does not succeed: it is not so, or nobody here can tell."""

from typing import Final

ODD: Final = (
    LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError,
)  # fmt: skip
"""What a reader that trusts a shape stumbles over: that is no verdict on anything else."""


class Refuted(ValueError):
    """What was checked is not so; a reader that trusts it anyway is deceived (exit code 1).

    `what` names the thing checked, `found` and `expected` say why it failed, each for a person.
    """

    def __init__(self, what: str, found: str, expected: str) -> None:
        super().__init__(what, found, expected)
        self.what = what
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.what}: found {self.found}, expected {self.expected}"


class Malformed(Refuted):
    """The bytes are not in the format that they claim to be in."""


class CannotTell(ValueError):
    """Neither shown nor refuted: a newer format, or an algorithm missing here (exit code 3)."""
