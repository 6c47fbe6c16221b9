"""Plays faults on the way between server and sites: silence, lateness, crashes, nonsense."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from fedkd.federation.asking import CRASHED, SILENT, Ask, Reply
from fedkd.federation.randomness import SERVER, stream
from fedkd.wire import Answer, Malformed, decode, encode

Kind = Literal["none", "dropout", "late", "crash", "nonsense"]


def faulty(
    ask: Ask,
    *,
    kind: Kind,
    fraction: float,
    rounds: Sequence[int] | None,
    seed: int,
) -> Ask:
    """`ask`, with a fault at `fraction` of the sites asked in each of `rounds` (None: all).

    `dropout`: the question does not arrive. `late`: the site works and answers, after the deadline.
    `crash`: the client dies before it answers. `nonsense`: the answer's numbers are replaced by
    ones that are no distributions. Which sites are hit depends on seed and round alone.
    """
    if kind == "none":
        return ask

    hits: dict[int, set[str]] = {}  # a site that is asked again in a round is hit again

    def asked(
        bodies: Mapping[str, bytes], on_reply: Callable[[Reply], None], *, round: int
    ) -> list[Reply]:
        if round not in hits:
            here = rounds is None or round in rounds
            hits[round] = _drawn(sorted(bodies), fraction if here else 0.0, seed, round)
        hit = hits[round]
        reached = {
            site: body
            for site, body in bodies.items()
            if site not in hit or kind in ("late", "nonsense")
        }

        def heard(reply: Reply) -> None:
            on_reply(_spoilt(reply, kind) if reply.site in hit else reply)

        replies = ask(reached, heard, round=round)
        replies = [_spoilt(it, kind) if it.site in hit else it for it in replies]
        for site in sorted(set(bodies) - set(reached)):
            replies.append(Reply(site, None, SILENT if kind == "dropout" else CRASHED))
            on_reply(replies[-1])
        return sorted(replies, key=lambda reply: reply.site)

    return asked


def _drawn(sites: Sequence[str], fraction: float, seed: int, number: int) -> set[str]:
    count = math.ceil(round(fraction * len(sites), 9))  # 0.07 of 100 is 7, not 8
    rng = stream(seed, SERVER, number, "faults")
    return set(rng.choice(sites, size=count, replace=False).tolist())


def _spoilt(reply: Reply, kind: Kind) -> Reply:
    if kind == "late":
        return replace(reply, body=None, failure=SILENT)
    try:
        message = decode(reply.body or b"", 1 << 30)
    except Malformed:
        return reply
    if not isinstance(message, Answer):
        return reply
    coded = {name: np.full_like(array, 7) for name, array in message.coded.items()}
    return replace(reply, body=encode(replace(message, coded=coded)))
