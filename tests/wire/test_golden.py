"""The bytes of each kind of message, as 0.1.0 wrote them.

A field that is called otherwise, left out or added is another version, and says so in its header.
What stands here was written down once. Whoever changes a line of it takes every hospital that is
not updated yet out of the federation.
"""

import json

import numpy as np
import pytest

from fedkd.knowledge import Distributions, Public, Synthetic, digest_of_bytes
from fedkd.wire import (
    Answer,
    Closed,
    Considered,
    Counts,
    Envelope,
    Evaluation,
    Plan,
    Present,
    Proposal,
    Question,
    Reason,
    Refusal,
    RollCall,
    Ruling,
    cover,
    decode,
    encode,
)
from fedkd.wire.messages import _MESSAGES

ABOUT = digest_of_bytes(b"about")
LESSON = Distributions(np.array([[0.5, 0.5], [0.25, 0.75]], dtype="<f4"), ABOUT)
PLAN = Plan(1, 2, 32, "kl", 1.0, 0.5)
INPUTS = np.arange(6, dtype="|u1").reshape(3, 2)
DRAWN = Synthetic("procedural", "sha256:aa", 7, 3, ("digits",), "noted")
PUBLIC = Public("digits", "CC-BY-4.0", "sha256:bb")
COUNTS = np.array([[[5, -1], [7, 2**40]]], dtype="<i8")
MESSAGES = {
    "roll_call": RollCall("r"),
    "present": Present("north", "r", "fedkd 0.1.0"),
    "question": Question("r", 1, False, ABOUT, DRAWN, 3, INPUTS, LESSON, PLAN, "float32"),
    "closing question": Question("r", 2, True, ABOUT, PUBLIC, 3, None, None, PLAN, "float32"),
    "answer": Answer("north", "r", 1, ABOUT, ABOUT, "float32", {"probs": LESSON.probs}),
    "closed": Closed("north", "r", 2, ABOUT),
    "evaluation": Evaluation("r", 4, ABOUT, (0.25, 0.5), "sex", 1.0),
    "counts": Counts("north", "r", 4, ABOUT, ABOUT, "geometric", 4.5, 5, COUNTS),
    "refusal": Refusal("north", "r", 2, Reason.BUDGET_EXHAUSTED),
    "proposal": Proposal("r", np.frombuffer(b"{}", "|u1"), "signed\n\n\u2014 hearts AAAA\n"),
    "considered": Considered("north", "r", ABOUT, Ruling.PENDING),
}
GOLDEN = {
    "roll_call": (
        '{"arrays":[],"kind":"roll_call","run":"r","v":1}',
        "",
    ),
    "present": (
        '{"arrays":[],"kind":"present","run":"r","site":"north","software":"fedkd 0.1.0","v":1}',
        "",
    ),
    "question": (
        '{"about":"sha256:a4262e1c9bcbc1721eb3fe13558154460a2b2a2d307daa32532478526ce6ccb1","ar'
        'rays":[{"dtype":"<f4","name":"lesson","shape":[2,2]},{"dtype":"|u1","name":"queries","'
        'shape":[3,2]}],"closing":false,"codec":"float32","kind":"question","lesson":"sha256:a4'
        '262e1c9bcbc1721eb3fe13558154460a2b2a2d307daa32532478526ce6ccb1","origin":{"code":"sha2'
        '56:aa","generator":"procedural","kind":"synthetic","parents":["digits"],"round":3,"see'
        'd":7,"student":"noted"},"plan":{"batch":32,"lesson_epochs":2,"local_epochs":1,"loss":"'
        'kl","loss_weight":1,"temperature":0.5},"round":1,"run":"r","size":3,"v":1}',
        "0000003f0000003f0000803e0000403f000102030405",
    ),
    "closing question": (
        '{"about":"sha256:a4262e1c9bcbc1721eb3fe13558154460a2b2a2d307daa32532478526ce6ccb1","ar'
        'rays":[],"closing":true,"codec":"float32","kind":"question","lesson":null,"origin":{"d'
        'igest":"sha256:bb","kind":"public","licence":"CC-BY-4.0","name":"digits"},"plan":{"bat'
        'ch":32,"lesson_epochs":2,"local_epochs":1,"loss":"kl","loss_weight":1,"temperature":0.'
        '5},"round":2,"run":"r","size":3,"v":1}',
        "",
    ),
    "answer": (
        '{"about":"sha256:a4262e1c9bcbc1721eb3fe13558154460a2b2a2d307daa32532478526ce6ccb1","ar'
        'rays":[{"dtype":"<f4","name":"coded.probs","shape":[2,2]}],"codec":"float32","kind":"a'
        'nswer","question":"sha256:a4262e1c9bcbc1721eb3fe13558154460a2b2a2d307daa32532478526ce6'
        'ccb1","round":1,"run":"r","site":"north","v":1}',
        "0000003f0000003f0000803e0000403f",
    ),
    "closed": (
        '{"arrays":[],"kind":"closed","question":"sha256:a4262e1c9bcbc1721eb3fe13558154460a2b2a'
        '2d307daa32532478526ce6ccb1","round":2,"run":"r","site":"north","v":1}',
        "",
    ),
    "evaluation": (
        '{"arrays":[],"epsilon":1,"group":"sex","kind":"evaluation","model":"sha256:a4262e1c9bc'
        'bc1721eb3fe13558154460a2b2a2d307daa32532478526ce6ccb1","round":4,"run":"r","thresholds'
        '":[0.25,0.5],"v":1}',
        "",
    ),
    "counts": (
        '{"arrays":[{"dtype":"<i8","name":"counts","shape":[1,2,2]}],"floor":5,"kind":"counts",'
        '"model":"sha256:a4262e1c9bcbc1721eb3fe13558154460a2b2a2d307daa32532478526ce6ccb1","noi'
        'se":"geometric","question":"sha256:a4262e1c9bcbc1721eb3fe13558154460a2b2a2d307daa32532'
        '478526ce6ccb1","round":4,"run":"r","scale":4.5,"site":"north","v":1}',
        "0500000000000000ffffffffffffffff07000000000000000000000000010000",
    ),
    "refusal": (
        '{"arrays":[],"kind":"refusal","reason":"budget_exhausted","round":2,"run":"r","site":"'
        'north","v":1}',
        "",
    ),
    "proposal": (
        '{"arrays":[{"dtype":"|u1","name":"body","shape":[2]}],"kind":"proposal","run":"r","sig'
        'nature":"signed\\n\\n— hearts AAAA\\n","v":1}',
        "7b7d",
    ),
    "considered": (
        '{"arrays":[],"kind":"considered","proposal":"sha256:a4262e1c9bcbc1721eb3fe13558154460a'
        '2b2a2d307daa32532478526ce6ccb1","ruling":"pending","run":"r","site":"north","v":1}',
        "",
    ),
}  # fmt: skip
"""By name: the header as text, and the bytes of the arrays behind it, hexadecimal."""


def written(name: str) -> bytes:
    """The magic, the header's length in four bytes, the header, the arrays."""
    header, arrays = GOLDEN[name]
    head = header.encode()
    return b"fedkd/1\n" + len(head).to_bytes(4, "little") + head + bytes.fromhex(arrays)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_the_bytes_that_it_always_had(name: str) -> None:
    assert encode(MESSAGES[name]) == written(name)
    found = decode(written(name), 1 << 20)
    assert type(found) is type(MESSAGES[name])
    assert encode(found) == written(name)


def test_every_kind_of_message_stands_here() -> None:
    assert {json.loads(header)["kind"] for header, _ in GOLDEN.values()} == _MESSAGES.keys()
    assert GOLDEN.keys() == MESSAGES.keys()


def test_an_envelope_has_the_bytes_that_it_always_had() -> None:
    envelope = Envelope(("ask",), ("note",), (3,), (("hearts/north", 5),))
    head = b'{"asks":["ask"],"notes":["note"],"prove_from":[3],"stands":[["hearts/north",5]]}'
    assert cover(envelope) == b"fedkd-envelope/1\n" + len(head).to_bytes(4, "little") + head
