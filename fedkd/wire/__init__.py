"""How it travels: canonical bytes, versioned questions and answers, and codecs."""

from fedkd.wire.codecs.float32 import Codec
from fedkd.wire.envelopes import Envelope, cover, opened
from fedkd.wire.frames import Malformed, OtherVersion, pack, unpack
from fedkd.wire.messages import (
    VERSION,
    Answer,
    Closed,
    Message,
    Plan,
    Present,
    Question,
    Reason,
    Refusal,
    RollCall,
    decode,
    encode,
)

__all__ = [
    "VERSION",
    "Answer",
    "Closed",
    "Codec",
    "Envelope",
    "Malformed",
    "Message",
    "OtherVersion",
    "Plan",
    "Present",
    "Question",
    "Reason",
    "Refusal",
    "RollCall",
    "cover",
    "decode",
    "encode",
    "opened",
    "pack",
    "unpack",
]
