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
from fedkd.audit.keys import make_keys
from fedkd.audit.log import Contradiction, Entry, Log, UnknownFormat, utc_now

__all__ = [
    "EVENTS",
    "SERVER",
    "Contradiction",
    "Cosigned",
    "Entry",
    "Federation",
    "Log",
    "NotFresh",
    "Peer",
    "RolledBack",
    "Roster",
    "UnknownFormat",
    "cosign",
    "cosignatures",
    "cosigners_of",
    "expect_fresh",
    "hear",
    "make_keys",
    "stands",
    "utc_now",
]
