"""Counts what comes in unasked, a day at a time."""

from collections.abc import Callable
from typing import Final

DAY_SECONDS: Final = 86_400.0


class Daily:
    """How often something happened since a day began, which lasts 24 hours."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self.most, self._clock = most, clock
        self._since, self._count = clock(), 0

    def counted(self) -> int:
        """The count with one more."""
        if not 0 <= self._clock() - self._since < DAY_SECONDS:
            self._since, self._count = self._clock(), 0
        self._count += 1
        return self._count
