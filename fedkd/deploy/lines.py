"""How a process tells what happens: a line for people, or a JSON object a line for machines."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from fedkd.knowledge.bad_input import BadInput

TEXT, JSON = "text", "json"
FORMATS: Final = (TEXT, JSON)
_OWN: Final = ("at", "level", "from", "said")


class Line(str):
    """What happened, in words, with the same in `fields` for machines."""

    __slots__ = ("fields",)
    fields: dict[str, Any]

    def __new__(cls, said: str, **fields: Any) -> "Line":
        """`said` with `fields`, which are plain values."""
        made = super().__new__(cls, said)
        made.fields = fields
        return made


class JsonLines(logging.Formatter):
    """Log records as one JSON object a line; `who` says whose they are."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        """`at` (RFC 3339, UTC), `level`, `from`, `said`, and the fields of a `Line`."""
        at = datetime.fromtimestamp(record.created, UTC)
        return _object(record.msg, record.getMessage(), record.levelname.lower(), self._who, at)


def expect_format(name: str) -> str:
    """`name`, if lines can be written so."""
    if name not in FORMATS:
        raise BadInput(f"--log-format {name}", " or ".join(FORMATS))
    return name


def teller(form: str, who: str, *, dated: bool = True) -> Callable[[str], None]:
    """What prints a line of `who` in a form; as text with the time before it, where `dated`."""

    def tell(line: str) -> None:
        now = datetime.now(UTC)
        if form == JSON:
            fields = getattr(line, "fields", {})
            print(_object(line, str(line), fields.get("level", "info"), who, now), flush=True)
        else:
            print(f"{utc(now)} {line}" if dated else line, flush=True)

    return tell


def log_to(form: str, who: str) -> None:
    """Has this process's logging write lines of this form to stderr."""
    if form != JSON:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(who))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _object(line: object, said: str, level: str, who: str, at: datetime) -> str:
    fields = {k: v for k, v in getattr(line, "fields", {}).items() if k not in _OWN}
    told = {"at": utc(at), "level": level, "from": who, "said": said, **fields}
    return json.dumps(told, ensure_ascii=False)


def utc(at: datetime | None = None) -> str:
    """A time of UTC to the second, as RFC 3339 writes it; by default now."""
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
