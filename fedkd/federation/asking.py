"""Says what it is to ask: bodies go to named sites, replies come back, every byte is counted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

# What can go wrong on the way, in words that hold nothing of what the other side said.
SILENT = "no reply before the deadline"
CRASHED = "the client failed"
GONE = "the client is not connected"
NOT_ADMITTED = "not admitted"
UNSENT = (GONE, NOT_ADMITTED)
"""Nothing was sent to a site of which this is said."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from one site: a body, or what went wrong on the way.

    `rode` are the bytes of the envelopes there and back, `head` the newest checkpoint of the site's
    log that the server cosigned: its size and its root in hex.
    """

    site: str
    body: bytes | None
    failure: str | None = None
    rode: tuple[int, int] = (0, 0)
    head: tuple[int, str] | None = None


class Ask(Protocol):
    """Sends one body to each named site and returns the replies, in order of site names."""

    def __call__(
        self, bodies: Mapping[str, bytes], on_reply: Callable[[Reply], None], *, round: int
    ) -> list[Reply]:
        """Replies within the deadline; a site that does not reply has a failure."""


@dataclass(slots=True)
class Traffic:
    """Bytes and messages each way, by site: bodies as they travel, without Flower's framing."""

    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    messages: dict[str, int] = field(default_factory=dict)

    def sent(self, site: str, size: int) -> None:
        """Counts a body on its way to `site`."""
        self.down[site] = self.down.get(site, 0) + size
        self.messages[site] = self.messages.get(site, 0) + 1

    def received(self, site: str, size: int) -> None:
        """Counts a body that came from `site`."""
        self.up[site] = self.up.get(site, 0) + size
        self.messages[site] = self.messages.get(site, 0) + 1
