"""Shows a run as it goes: a live display on a terminal, plain lines without one."""

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fedkd.cli.lines import QUIET, say
from fedkd.distill import Classifier
from fedkd.federation.asking import Reply
from fedkd.federation.rounds import Watch


class Watching:
    """A `Watch` that shows what another one sees. Everything goes to standard error."""

    def __init__(self, inner: Watch) -> None:
        self._inner = inner
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._title, self._asked, self._heard = "", 0, 0
        self._marks: list[tuple[str, str]] = []

    def round_begins(self, round: int, rounds: int, asked: Sequence[str]) -> None:
        """Opens a round's line."""
        self._inner.round_begins(round, rounds, asked)
        self._stop()
        closing = round > rounds
        self._title = "closing      " if closing else f"round {round} of {rounds}"
        self._asked, self._heard, self._marks = len(asked), 0, []
        if not closing and not self._console.is_terminal:
            say(f"{self._title}: asking {len(asked)} hospitals")
        if self._console.is_terminal and not os.environ.get(QUIET):
            self._live = Live(self._line(), console=self._console, transient=True)
            self._live.start()

    def reply(self, reply: Reply) -> None:
        """Marks a hospital as heard."""
        self._inner.reply(reply)
        self._heard += 1
        self._marks.append((reply.site, "answered" if reply.body else str(reply.failure)))
        if self._live is not None:
            self._live.update(self._line())
        if self._heard >= self._asked:
            self._stop()

    def round_ends(self, row: dict[str, Any], student: Classifier) -> dict[str, Any]:
        """Writes a round's result."""
        row = self._inner.round_ends(row, student)
        self._stop()
        accuracy = row.get("student_accuracy")
        figure = "" if accuracy is None else f", student {accuracy:.3f} on validation"
        out = f", left out: {', '.join(row['left_out'])}" if row["left_out"] else ""
        say(
            f"{self._title}: {row['answered']} of {row['asked']} hospitals answered{figure}"
            f"{out}  ({row['seconds']:.1f} s)"
        )
        return row

    def _line(self) -> Text:
        done = "".join("●" for _ in range(self._heard)) if self._asked <= 40 else ""
        todo = "○" * (self._asked - self._heard) if self._asked <= 40 else ""
        last = f"  {self._marks[-1][0]} {self._marks[-1][1]}" if self._marks else ""
        return Text(f"{self._title}  {done}{todo} {self._heard}/{self._asked}{last}")

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
