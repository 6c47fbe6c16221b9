"""How it travels: canonical bytes, versioned questions and answers, and codecs."""

from fedkd.wire.codecs.float32 import Codec
from fedkd.wire.envelopes import Envelope, cover, opened
from fedkd.wire.frames import Malformed, OtherVersion, pack, unpack
from fedkd.wire.messages import (
    VERSION,
    WITHHELD,
    Answer,
    Closed,
    Considered,
    Counts,
    Evaluation,
    Message,
    Plan,
    Present,
    Proposal,
    Question,
    Reason,
    Refusal,
    RollCall,
    Ruling,
    decode,
    encode,
)

__all__ = [
    "VERSION",
    "WITHHELD",
    "Answer",
    "Closed",
    "Codec",
    "Considered",
    "Counts",
    "Envelope",
    "Evaluation",
    "Malformed",
    "Message",
    "OtherVersion",
    "Plan",
    "Present",
    "Proposal",
    "Question",
    "Reason",
    "Refusal",
    "RollCall",
    "Ruling",
    "cover",
    "decode",
    "encode",
    "opened",
    "pack",
    "unpack",
]
