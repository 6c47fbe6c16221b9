"""Applies a retention rule to a party's own log, and says in it what was erased, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fedkd.audit.log import Entry, Log
from fedkd.audit.retention import check_erasable, due, moment, spelled


@dataclass(frozen=True, slots=True)
class Overdue:
    """What a rule makes due: when each body was written that it would erase, by its entry's index.

    `kept` says by run why nothing of it is due, though it is old enough.
    """

    bodies: Mapping[int, datetime]
    kept: Mapping[str, str]

    def youngest_days(self, now: datetime) -> int | None:
        """The age of the youngest of them, in whole days; None where there are none."""
        if not self.bodies:
            return None
        return (now - max(self.bodies.values())) // timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a rule: the entries whose bodies it erased, and by run why nothing of it was.

    `entry` is the `retention.applied` that says so, None where nothing was there to be erased;
    `youngest_days` is the age of the youngest body that was erased, in whole days.
    """

    indices: tuple[int, ...]
    kept: Mapping[str, str]
    entry: Entry | None
    youngest_days: int | None


def overdue(log: Log, type: str, limit: datetime) -> Overdue:
    """What entries of `type` older than `limit` still say; nothing is changed.

    Headers are read only where there is such a body.
    """
    written = {e.index: moment(e.at) for e in log.entries(type) if e.said is not None}
    if not any(at < limit for at in written.values()):
        return Overdue({}, {})
    found = due(log.headers(), type, limit)
    return Overdue({at: written[at] for at in found.indices if at in written}, found.kept)


def apply_rule(log: Log, type: str, before: str, rule: str, now: datetime) -> Applied:
    """Erases what entries of `type` say that are older than `before` (RFC 3339), under `rule`.

    One transaction erases bodies and salts and appends an entry `retention.applied` that says
    which, and why. Headers stay, and with them the tree and every proof. When this returns the
    bytes are gone from the log's folder. What left it earlier (exports, backups), and what a disk
    keeps of the blocks that it freed, is out of reach.

    Raises `NeverErased` where the party needs what such entries say, `ValueError` for a rule that
    is none, and `StillRead` where the bodies are erased and their bytes not yet gone: doing the
    same again, when nobody else has the log open, ends it.
    """
    check_erasable(type)
    limit = moment(before)
    if limit > now:
        raise ValueError(f"found time {before}, which is still to come, expected one until now")
    if not rule.strip():
        raise ValueError("found no rule, expected the retention rule in words")
    entry, days = None, None
    with log.writing():
        found = overdue(log, type, limit)
        open_ = tuple(found.bodies)
        if open_:
            days = found.youngest_days(now)
            why = {
                "rule": rule,
                "type": type,
                "before": spelled(limit),
                "erased": list(open_),
                "count": len(open_),
                "youngest_days": days,
            }
            entry = log.erase(open_, why)
    log.purge()
    return Applied(open_, found.kept, entry, days)
