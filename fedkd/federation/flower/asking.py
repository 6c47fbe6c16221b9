"""Asks sites through a Flower grid: who is there, questions out, replies in as they come."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedkd.federation.asking import CRASHED, GONE, NOT_ADMITTED, SILENT, Reply
from fedkd.federation.flower.letters import MESSAGE_TYPE, NoLetter, content_of, letter_of
from fedkd.federation.flower.pulling import rest_until
from fedkd.federation.relay import Relay
from fedkd.knowledge import Digest, digest_of_bytes
from fedkd.wire import (
    UNKNOWN,
    Considered,
    Envelope,
    Malformed,
    Present,
    Proposal,
    Reason,
    Refusal,
    RollCall,
    Ruling,
    cover,
    decode,
    encode,
    opened,
)

MOST_REPLY_BYTES = 1 << 30
POLL_SECONDS = 0.1
PROPOSAL_SECONDS = 30.0
"""How long one asking for a ruling waits for replies."""
AGAIN_SECONDS = 0.5
"""Before a proposal is asked about the second time; twice as long each time after."""
MOST_CALLS = 4
UNREADABLE = "a reply that cannot be read"
RULED = (
    *(str(it) for it in Ruling if it is not Ruling.PENDING),
    *(
        f"refused: {it}"
        for it in (Reason.PAUSED, Reason.NOT_ACCEPTED, Reason.NOT_CONFIGURED, Reason.VERSION)
    ),
)
"""What a site says of a proposal once there is nothing more to wait for."""
NODE_GONE = (5,)
"""Flower's error code for a node that is not connected (flwr 1.41)."""
NONE_THERE = (3, 4)
"""Those where a question or a reply is not there: once its time is over, or not all of it came."""


class RollCalled(NamedTuple):
    """The sites that came, and the names that nobody enrolled."""

    came: tuple[str, ...]
    strangers: tuple[str, ...]


class _Letter(NamedTuple):
    """What came back from a node, and the bytes of the envelopes there and back."""

    node: int
    body: bytes | None
    failure: str | None
    rode: tuple[int, int]
    envelope: Envelope | None


class GridAsk:
    """`Ask` over a Flower grid; nodes are known by the site names they gave at the roll call.

    `relay` rides along, where parties cosign each other's logs. `count` is told of every message
    of a roll call: site, bytes sent, bytes received or None. `members` says before each sending
    which node may speak for which site: one that is none of them, or no longer, is asked nothing,
    and its word is not taken; None: each node's word is. A reply of more than `most_reply_bytes`
    is not read. `software` is what each site said at the roll call that it runs.
    """

    def __init__(
        self,
        grid: Grid,
        deadline_s: float,
        relay: Relay | None = None,
        count: Callable[[str, int, int | None], None] = lambda site, sent, received: None,
        members: Callable[[], Mapping[int, str] | None] = lambda: None,
        most_reply_bytes: int = MOST_REPLY_BYTES,
    ) -> None:
        self.grid = grid
        self.deadline_s = deadline_s
        self.relay = relay
        self.nodes: dict[str, int] = {}
        self.software: dict[str, str] = {}
        self._count = count
        self._members = members
        self._most_reply_bytes = most_reply_bytes
        self._refused: dict[str, str] = {}

    def propose(
        self,
        run: str,
        paper: bytes,
        signature: str,
        *,
        wait_s: float,
        every_s: float,
        told: Callable[[Mapping[str, str]], None],
        sites: Collection[str] | None = None,
    ) -> dict[str, str]:
        """How each member, or each of them in `sites`, rules on what a signed paper proposes.

        Asks again, soon at first and then every `every_s` seconds, until all have ruled or
        `wait_s` seconds are over: a `Ruling`, or what went wrong. `told` hears of all rulings
        after each asking. Who is a member no longer has none.
        """
        rulings: dict[str, str] = {}
        question = encode(Proposal(run, np.frombuffer(paper, np.uint8), signature))
        digest, until = digest_of_bytes(paper), time.monotonic() + wait_s
        pause = min(AGAIN_SECONDS, every_s)
        while True:
            members = self._asked_of(sites)
            rulings = {site: rulings.get(site, GONE) for site in members.values()}
            open_ones = {
                node: question
                for node in self.grid.get_node_ids()
                if node in members and rulings[members[node]] not in RULED
            }
            for letter in self._post(open_ones, {}, 0, deadline_s=PROPOSAL_SECONDS):
                site = members[letter.node]
                rulings[site] = _ruling(letter, site, run, digest)
                came = None if letter.body is None else len(letter.body)
                self._count(site, len(question), came)
            still = self._asked_of(sites).values()
            rulings = {site: ruling for site, ruling in rulings.items() if site in still}
            told(rulings)
            if all(ruling in RULED for ruling in rulings.values()) or time.monotonic() >= until:
                return rulings
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
            pause = min(2 * pause, every_s)

    def _asked_of(self, sites: Collection[str] | None) -> dict[int, str]:
        """The members now, or those of them in `sites`, by node."""
        members = (self._members() or {}).items()
        return {node: site for node, site in members if sites is None or site in sites}

    def _nodes(self, roster: Sequence[str]) -> dict[int, str | None]:
        """The nodes that are there, and may speak for a site of `roster`; None: for any."""
        nodes, members = sorted(self.grid.get_node_ids()), self._members()
        if members is None:
            return dict.fromkeys(nodes)
        return {node: members[node] for node in nodes if members.get(node) in roster}

    def _expected(self, roster: Sequence[str]) -> int:
        """How many nodes can come for the sites of `roster`: none for who is no member now."""
        members = self._members()
        return len(roster if members is None else set(members.values()) & set(roster))

    def _admitted(self) -> dict[str, int]:
        """The nodes of the roll call by site, without those that are members no longer."""
        members = self._members()
        if members is None:
            return self.nodes
        return {site: node for site, node in self.nodes.items() if members.get(node) == site}

    def roll_call(self, run: str, roster: Sequence[str], *, patiently: bool = True) -> RollCalled:
        """Learns which node is which site of `roster`; nobody else is asked anything after it.

        Waits until as many nodes are connected as the roster has members, or the deadline has
        passed; not `patiently`, asks those that are connected now. A name that two nodes give
        belongs to neither: neither is asked.
        """
        until = time.monotonic() + self.deadline_s
        nodes = self._nodes(roster)
        while patiently and len(nodes) < self._expected(roster) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            nodes = self._nodes(roster)
        question = encode(RollCall(run))
        first = cover(self.relay.first()) if self.relay else b""
        covers = dict.fromkeys(nodes, first)
        named: dict[str, list[_Letter]] = {}
        seconds = None if patiently else PROPOSAL_SECONDS
        for letter in self._post(dict.fromkeys(nodes, question), covers, 0, deadline_s=seconds):
            site, refused, software = _present(letter.body, run)
            speaks_for = nodes[letter.node]
            if refused is not None and site == UNKNOWN and speaks_for is not None:
                site = speaks_for  # a letterbox whose service could not answer
            if speaks_for not in (None, site):
                named.setdefault(site, [])  # a node that speaks for somebody else
            elif refused is not None:
                self._refused[site] = refused
            elif site:
                self.software[site] = software
                named.setdefault(site, []).append(letter)
        single = {site: told[0] for site, told in sorted(named.items()) if len(told) == 1}
        known = {site: letter for site, letter in single.items() if site in roster}
        self.nodes = {site: letter.node for site, letter in known.items()}
        for site, letter in known.items():
            self._took(site, letter, len(question))
        self.settle(run)
        strangers = {site for site in named if site} - set(roster)
        return RollCalled(tuple(self.nodes), tuple(sorted(strangers)))

    def settle(self, run: str) -> None:
        """Calls the roll until every cosigner that is there has cosigned the newest heads.

        Once where the server knows how far everybody's log goes and stands; where it does not, the
        first call brings the heads, and the next ones carry them. What cannot be settled is left.
        """
        calls = 0
        while self.relay and calls < MOST_CALLS and self.relay.unsettled(nodes := self._admitted()):
            question = encode(RollCall(run))
            sites = {node: site for site, node in nodes.items()}
            covers = {node: cover(self.relay.outgoing(site)) for node, site in sites.items()}
            for letter in self._post(dict.fromkeys(sites, question), covers, 0):
                self._took(sites[letter.node], letter, len(question))
            calls += 1

    def _took(self, site: str, letter: _Letter, asked: int) -> None:
        sent, received = letter.rode
        came = None if letter.body is None else len(letter.body) + received
        self._count(site, asked + sent, came)
        if self.relay and letter.envelope is not None:
            self.relay.incoming(site, letter.envelope)

    def __call__(
        self, bodies: Mapping[str, bytes], on_reply: Callable[[Reply], None], *, round: int
    ) -> list[Reply]:
        """Replies in order of site names; one that is missing at the deadline says so."""
        nodes = self._admitted()
        sites = {node: site for site, node in nodes.items()}
        by_node = {nodes[site]: body for site, body in bodies.items() if site in nodes}
        covers = {}
        if self.relay:
            covers = {node: cover(self.relay.outgoing(sites[node])) for node in by_node}
        replies = [Reply(site, None, self._why_not(site)) for site in bodies if site not in nodes]

        def heard(letter: _Letter) -> None:
            replies.append(self._reply(sites[letter.node], letter))
            on_reply(replies[-1])

        self._post(by_node, covers, round, heard)
        return sorted(replies, key=lambda reply: reply.site)

    def _why_not(self, site: str) -> str:
        """Why nothing is sent to a site."""
        members = self._members()
        if members is not None and site not in members.values():
            return NOT_ADMITTED
        return self._refused.get(site, GONE)

    def _reply(self, site: str, letter: _Letter) -> Reply:
        """The reply in a letter; one whose site shows another history of its log is not taken."""
        if self.relay is None or letter.envelope is None:
            return Reply(site, letter.body, letter.failure, letter.rode)
        self.relay.incoming(site, letter.envelope)
        if site in self.relay.problems:
            return Reply(site, None, self.relay.problems[site], letter.rode)
        head = self.relay.head(site)
        told = None if head is None else (head.size, head.root.hex())
        return Reply(site, letter.body, letter.failure, letter.rode, told)

    def _post(
        self,
        bodies: Mapping[int, bytes],
        covers: Mapping[int, bytes],
        round: int,
        heard: Callable[[_Letter], None] = lambda letter: None,
        deadline_s: float | None = None,
    ) -> list[_Letter]:
        wait_s = self.deadline_s if deadline_s is None else min(deadline_s, self.deadline_s)
        over = time.monotonic() + wait_s  # for Flower, not earlier than this
        messages = [
            Message(
                content_of(body, covers.get(node, b"")),
                dst_node_id=node,
                message_type=MESSAGE_TYPE,
                group_id=str(round),
                ttl=wait_s,
            )
            for node, body in bodies.items()
        ]
        ids = list(self.grid.push_messages(messages))
        waiting = dict(zip(ids, bodies, strict=True))
        letters, most = [], self._most_reply_bytes
        until = time.monotonic() + wait_s
        while waiting:
            with rest_until(until):
                came = list(self.grid.pull_messages(list(waiting)))
            for message in came:
                node = waiting.pop(message.metadata.reply_to_message_id, None)
                if node is not None:  # a second reply to one question is not looked at
                    late, sent = time.monotonic() >= over, len(covers.get(node, b""))
                    letters.append(_opened(node, message, sent, most, is_late=late))
                    heard(letters[-1])
            if not came:
                if time.monotonic() >= until:
                    break
                time.sleep(POLL_SECONDS)
        for node in waiting.values():
            rode = (len(covers.get(node, b"")), 0)
            letters.append(_Letter(node, None, SILENT, rode, None))
            heard(letters[-1])
        return letters


def _opened(node: int, message: Message, sent: int, most_bytes: int, *, is_late: bool) -> _Letter:
    """The body of a reply, or why there is none: Flower's own error text is never repeated."""
    if message.has_error():
        failure = GONE if message.error.code in NODE_GONE else CRASHED
        if is_late and message.error.code in NONE_THERE:  # Flower was the first to see it
            failure = SILENT
        return _Letter(node, None, failure, (sent, 0), None)
    try:
        letter = letter_of(message, most_bytes)
        envelope, body = opened(letter)
    except (NoLetter, ValueError, TypeError, KeyError) as error:
        known = isinstance(error, NoLetter | Malformed)
        return _Letter(node, None, str(error) if known else UNREADABLE, (sent, 0), None)
    return _Letter(node, body, None, (sent, len(letter) - len(body)), envelope)


def _ruling(letter: _Letter, site: str, run: str, paper: Digest) -> str:
    """What a reply to a proposal says; a ruling on another paper, or of another site, is none."""
    try:
        message = decode(letter.body or b"", 1 << 16)
    except Malformed:
        return letter.failure or UNREADABLE
    if isinstance(message, Refusal):
        return f"refused: {message.reason}"
    if isinstance(message, Considered) and (message.site, message.run) == (site, run):
        return str(message.ruling) if message.proposal == paper else UNREADABLE
    return UNREADABLE


def _present(body: bytes | None, run: str) -> tuple[str, str | None, str]:
    """The site that a reply to a roll call names, why it does not come, and its software."""
    try:
        message = decode(body or b"", 1 << 16)
    except Malformed:
        return "", None, ""
    if isinstance(message, Refusal):
        return message.site, f"refused: {message.reason}", ""
    if isinstance(message, Present) and message.run == run:
        return message.site, None, message.software.removeprefix("fedkd ")
    return "", None, ""
