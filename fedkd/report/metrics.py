"""Reads and appends a run's `metrics.jsonl`: one JSON object a round.

`round` (from 1) is required. Read by the figures, where present: `student_accuracy`,
`hospitals_accuracy` (mean over the hospitals that were read), `consensus_accuracy`, `agreement`
(of the sites with each other), all in [0, 1]; `bytes_up` and `bytes_down` of the round.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedkd.knowledge import BadInput


def append_metrics(path: Path, line: Mapping[str, Any]) -> None:
    """Adds one round's line; it is on the disk when this returns."""
    if not isinstance(line.get("round"), int):
        raise BadInput(f"a line of metrics with round={line.get('round')!r}", "a whole number")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rounds in order; a round written twice counts as written last.

    A last line without an end was cut off by a crash and is left out. No file: no rounds.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")[:-1]
    rounds: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            rounds[int(values["round"])] = values
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path.name} line {number}: {line[:60]!r}", "a JSON object with a round"
            ) from error
    return [rounds[number] for number in sorted(rounds)]
