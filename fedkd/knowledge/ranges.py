"""Marks the range of a configurable value, for `Annotated`: a yaml's values are held against it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """The closed range [low, high] of a number; `None` leaves a side open."""

    low: float | None = None
    high: float | None = None

    def __contains__(self, number: float) -> bool:
        above = self.low is None or number >= self.low
        below = self.high is None or number <= self.high
        return above and below

    def __str__(self) -> str:
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf" if self.high is None else f"{self.high:g}"
        return f"[{low}, {high}]"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The closed list of spellings that a text may have."""

    options: tuple[str, ...]

    def __contains__(self, text: str) -> bool:
        return text in self.options

    def __str__(self) -> str:
        return " | ".join(self.options)
