"""What is remembered: each party's log of what happened to data, and who cosigns it."""

from fedkd.audit.cosigning import (
    SERVER,
    Cosigned,
    Federation,
    NotFresh,
    Peer,
    RolledBack,
    Roster,
    cosign,
    cosignatures,
    cosigners_of,
    expect_fresh,
    hear,
    stands,
)
from fedkd.audit.events import EVENTS
from fedkd.audit.growing import Damaged
from fedkd.audit.keys import make_keys
from fedkd.audit.log import (
    Contradiction,
    Entry,
    Erased,
    Log,
    NotOwnLog,
    StillRead,
    UnknownFormat,
    utc_now,
)
from fedkd.audit.place import UnsafePlace

__all__ = [
    "EVENTS",
    "SERVER",
    "Contradiction",
    "Cosigned",
    "Damaged",
    "Entry",
    "Erased",
    "Federation",
    "Log",
    "NotFresh",
    "NotOwnLog",
    "Peer",
    "RolledBack",
    "Roster",
    "StillRead",
    "UnknownFormat",
    "UnsafePlace",
    "cosign",
    "cosignatures",
    "cosigners_of",
    "expect_fresh",
    "hear",
    "make_keys",
    "stands",
    "utc_now",
]
