"""Decides which replies are answers to the question asked; the rest is left out, with a reason."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fedkd.federation.asking import Reply
from fedkd.knowledge import Distributions
from fedkd.wire import Answer, Closed, Codec, Malformed, Question, Reason, Refusal, decode

FRAME_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was said, by site, and why each other site was left out."""

    said: Mapping[str, Distributions]
    left_out: Mapping[str, str]


class NotAdmitted(ValueError):
    """A reply that is no answer to the question; the text is the server's own."""


def admit(replies: Iterable[Reply], question: Question, classes: int, codec: Codec) -> Admitted:
    """Goes through the replies to `question`; whatever is wrong with one never stops the others.

    A site that replies twice is heard once, the first time.
    """
    said: dict[str, Distributions] = {}
    left_out: dict[str, str] = {}
    for reply in replies:
        if reply.site in said or reply.site in left_out:
            continue
        try:
            said[reply.site] = _answer(reply, question, classes, codec)
        except ValueError as error:  # NotAdmitted, Malformed, NotDistributions, or a codec's own
            left_out[reply.site] = str(error)
    return Admitted(said, left_out)


def acknowledged(reply: Reply, question: Question) -> str | None:
    """Why the reply to a closing question is no acknowledgement; None if it is one."""
    try:
        message = decode(_body(reply), FRAME_BYTES)
        if isinstance(message, Refusal):
            return f"refused: {message.reason}"
        if not isinstance(message, Closed) or message.site != reply.site:
            return "not an acknowledgement"
        return None if message.question == question.key else "about another question"
    except (NotAdmitted, Malformed) as error:
        return str(error)


def wants_inputs(reply: Reply) -> bool:
    """Whether the site asks for the queries that were only named."""
    if reply.body is None or len(reply.body) > FRAME_BYTES:
        return False
    try:
        message = decode(reply.body, FRAME_BYTES)
    except Malformed:
        return False
    return isinstance(message, Refusal) and message.reason == Reason.UNKNOWN_QUERIES


def _body(reply: Reply) -> bytes:
    if reply.body is None:
        raise NotAdmitted(reply.failure or "no reply")
    return reply.body


def _answer(reply: Reply, question: Question, classes: int, codec: Codec) -> Distributions:
    most = codec.raw_bytes(question.size, classes) + FRAME_BYTES
    message = decode(_body(reply), most)
    if isinstance(message, Refusal):
        raise NotAdmitted(f"refused: {message.reason}")
    if not isinstance(message, Answer):
        raise NotAdmitted("a reply that is no answer")
    expected: list[tuple[str, Callable[[Answer], object], object]] = [
        ("site", lambda answer: answer.site, reply.site),
        ("run", lambda answer: answer.run, question.run),
        ("round", lambda answer: answer.round, question.round),
        ("question", lambda answer: answer.question, question.key),
        ("query set", lambda answer: answer.about, question.about),
        ("codec", lambda answer: answer.codec, question.codec),
    ]
    for what, found, wanted in expected:
        if found(message) != wanted:
            raise NotAdmitted(f"an answer for another {what}")
    probs = codec.decode(message.coded, question.size, classes)
    return Distributions(probs, message.about)
