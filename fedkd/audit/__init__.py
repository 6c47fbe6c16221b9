"""What is remembered: each party's log of what happened to data."""

from fedkd.audit.events import EVENTS
from fedkd.audit.log import Contradiction, Entry, Log, UnknownFormat, utc_now

__all__ = ["EVENTS", "Contradiction", "Entry", "Log", "UnknownFormat", "utc_now"]
