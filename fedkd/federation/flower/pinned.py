"""Takes Flower's tasks at a hospital with installed code alone: a bundle is a ticket, not code.

Flower (1.41) starts `flwr-clientapp` for each message, which would unpack the bundle that came over
the network and import it. Here its runtime is started with the two doors to that walled up: nothing
is unpacked, and the app is the one that is handed in. Flower's names are private, and known here
alone.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import flwr.supernode.runtime.run_clientapp as runtime
from flwr.app import Context, Message
from flwr.app.error import Error
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp

from fedkd.federation.flower.letters import MESSAGE_TYPE, NoLetter, content_of, letter_of

PROGRAM = "flwr-clientapp"
CLOSED_TEXT = "the site did not answer"
"""In place of whatever an exception says."""

Post = Callable[[bytes | None, bool], bytes]
"""Called with a letter (None: the message held none) and whether its bundle is allowed here."""


def take_task(
    arguments: Sequence[str], allowed: Callable[[str], bool], post: Post, most_bytes: int
) -> None:
    """One task of Flower's: `post` answers the message, then this process ends (`SystemExit`).

    `allowed` is asked about the bundle's SHA-256 (hex). No text of an exception is sent: errors
    outside of `post`, which raises none, get one fixed text.
    """
    app = _App(post, most_bytes)

    def compare(content: bytes, *others: Any, **named: Any) -> None:
        app.is_allowed = allowed(hashlib.sha256(content).hexdigest())

    runtime.install_from_fab = compare
    runtime.get_load_client_app_fn = lambda **_: lambda identifier, version, digest: app
    runtime.install_app_dependencies = _refuse
    runtime.Error = lambda code, reason="": Error(code=code, reason=CLOSED_TEXT)
    sys.argv = [PROGRAM, *arguments]
    flwr_clientapp()


class _App:
    """What Flower takes for a ClientApp."""

    def __init__(self, post: Post, most_bytes: int) -> None:
        self.is_allowed = False
        self._post = post
        self._most = most_bytes

    def __call__(self, message: Message, context: Context) -> Message:
        try:
            asked = message.metadata.message_type == MESSAGE_TYPE
            letter = letter_of(message, self._most) if asked else None
        except NoLetter:
            letter = None
        return Message(content_of(self._post(letter, self.is_allowed)), reply_to=message)


def _refuse(*others: Any, **named: Any) -> None:
    raise RuntimeError("a site installs nothing")
