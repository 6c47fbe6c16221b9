"""Asks sites through a Flower grid: who is there, questions out, replies in as they come."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flwr.app import Message
from flwr.serverapp import Grid

from fedkd.federation.asking import CRASHED, GONE, SILENT, Reply
from fedkd.federation.flower.letters import MESSAGE_TYPE, NoLetter, body_of, content_of
from fedkd.wire import Malformed, Present, RollCall, decode, encode

MOST_REPLY_BYTES = 1 << 30
POLL_SECONDS = 0.1
NODE_GONE = (5,)
"""Flower's error code for a node that is not connected (flwr 1.41)."""


class RollCalled(NamedTuple):
    """Bytes sent and received by each site that came, and the names that nobody enrolled."""

    came: Mapping[str, tuple[int, int]]
    strangers: tuple[str, ...]


class GridAsk:
    """`Ask` over a Flower grid; nodes are known by the site names they gave at the roll call."""

    def __init__(self, grid: Grid, deadline_s: float) -> None:
        self.grid = grid
        self.deadline_s = deadline_s
        self.nodes: dict[str, int] = {}

    def roll_call(self, run: str, roster: Sequence[str]) -> RollCalled:
        """Learns which node is which site of `roster`; nobody else is asked anything after it.

        Waits until as many nodes are connected as the roster has sites, or the deadline has
        passed. A name that two nodes give belongs to neither: neither is asked.
        """
        expected = len(roster)
        until = time.monotonic() + self.deadline_s
        nodes = sorted(self.grid.get_node_ids())
        while len(nodes) < expected and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            nodes = sorted(self.grid.get_node_ids())
        question = encode(RollCall(run))
        named: dict[str, list[tuple[int, int]]] = {}
        for node, body, _ in self._post(dict.fromkeys(nodes, question), 0, lambda _: None):
            site = _present(body, run)
            if site is not None and body is not None:
                named.setdefault(site, []).append((node, len(body)))
        single = {site: told[0] for site, told in sorted(named.items()) if len(told) == 1}
        known = {site: told for site, told in single.items() if site in roster}
        self.nodes = {site: node for site, (node, _) in known.items()}
        return RollCalled(
            {site: (len(question), size) for site, (_, size) in known.items()},
            tuple(sorted(set(named) - set(roster))),
        )

    def __call__(
        self, bodies: Mapping[str, bytes], on_reply: Callable[[Reply], None], *, round: int
    ) -> list[Reply]:
        """Replies in order of site names; one that is missing at the deadline says so."""
        sites = {node: site for site, node in self.nodes.items()}
        by_node = {self.nodes[site]: body for site, body in bodies.items() if site in self.nodes}
        replies = [Reply(site, None, GONE) for site in bodies if site not in self.nodes]

        def heard(letter: tuple[int, bytes | None, str | None]) -> None:
            node, body, failure = letter
            on_reply(Reply(sites[node], body, failure))

        for node, body, failure in self._post(by_node, round, heard):
            replies.append(Reply(sites[node], body, failure))
        return sorted(replies, key=lambda reply: reply.site)

    def _post(
        self,
        bodies: Mapping[int, bytes],
        round: int,
        heard: Callable[[tuple[int, bytes | None, str | None]], None],
    ) -> list[tuple[int, bytes | None, str | None]]:
        messages = [
            Message(
                content_of(body),
                dst_node_id=node,
                message_type=MESSAGE_TYPE,
                group_id=str(round),
                ttl=self.deadline_s,
            )
            for node, body in bodies.items()
        ]
        ids = list(self.grid.push_messages(messages))
        waiting = dict(zip(ids, bodies, strict=True))
        letters = []
        until = time.monotonic() + self.deadline_s
        while waiting:
            came = list(self.grid.pull_messages(list(waiting)))
            for message in came:
                node = waiting.pop(message.metadata.reply_to_message_id, None)
                if node is not None:  # a second reply to one question is not looked at
                    letters.append((node, *_opened(message)))
                    heard(letters[-1])
            if not came:
                if time.monotonic() >= until:
                    break
                time.sleep(POLL_SECONDS)
        for node in waiting.values():
            letters.append((node, None, SILENT))
            heard(letters[-1])
        return letters


def _opened(message: Message) -> tuple[bytes | None, str | None]:
    """The body of a reply, or why there is none: Flower's own error text is never repeated."""
    if message.has_error():
        return None, GONE if message.error.code in NODE_GONE else CRASHED
    try:
        return body_of(message, MOST_REPLY_BYTES), None
    except (NoLetter, ValueError, TypeError, KeyError) as error:
        return None, str(error) if isinstance(error, NoLetter) else "a reply that cannot be read"


def _present(body: bytes | None, run: str) -> str | None:
    try:
        message = decode(body or b"", 1 << 16)
    except Malformed:
        return None
    return message.site if isinstance(message, Present) and message.run == run else None
