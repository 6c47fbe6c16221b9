"""Keeps what a private training takes its chance from, until the model that it makes is kept."""

import json
import secrets
from pathlib import Path

from fedkd.audit.locking import erase, read_secret, write_secret
from fedkd.data import Records
from fedkd.knowledge import Digest, digest_of_arrays
from fedkd.privacy import BudgetExhausted

KEY_BYTES = 32


def draws_of(site: Path, run: str) -> Path:
    """Where a site keeps what was drawn for a run's training."""
    return site / f"training-{run}.key"  # a `*.key`: sealed in a locked hospital


def draw(path: Path, records: Records, start: Digest) -> None:
    """Draws a key at the operating system, and keeps it at `path` with what it is meant for.

    `start` names what a training begins from and runs on. The key is on disk before its training is
    paid: a training that was paid can be done again.
    """
    told = {"key": secrets.token_hex(KEY_BYTES), "records": _digest(records), "start": start}
    write_secret(path, json.dumps(told).encode())


def drawn_before(path: Path, run: str, records: Records, start: Digest) -> bytes:
    """The key [32 bytes] that was drawn for a run's training on just these records, from `start`.

    `BudgetExhausted` where there is none, or anything else changed since: the same noise on other
    records, or from another start, would show the difference, and other noise would be a training
    that nobody paid. What cannot be used any more is erased.
    """
    try:
        told = json.loads(read_secret(path))
    except FileNotFoundError:
        raise _lost(run, f"no {path.name}") from None
    meant = {"records": _digest(records), "start": start}
    changed = [what for what, digest in meant.items() if told.get(what) != digest]
    if changed:
        forget(path)
        raise _lost(run, f"other {' and '.join(changed)} now")
    return bytes.fromhex(told["key"])


def forget(path: Path) -> None:
    """Erases what was drawn, what a kill left of its writing too; durable when this returns."""
    for drawn in (path, *path.parent.glob(f".{path.name}.*")):
        erase(drawn)


def forget_all(site: Path) -> None:
    """Erases every draw at a site: no training that was cut off there is done again.

    What was not paid yet is drawn anew.
    """
    for path in site.glob("training-*.key"):
        forget(path)


def _lost(run: str, why: str) -> BudgetExhausted:
    return BudgetExhausted(
        f"a training of {run} that was paid, was cut off, and cannot be done again ({why})",
        "one that is done again just as it was: this run's share of the budget is spent on it",
        "the run goes on without this site; to take part again, approve a new run",
    )


def _digest(records: Records) -> Digest:
    arrays = {"inputs": records.inputs, "labels": records.labels}
    if records.patients is not None:
        arrays["patients"] = records.patients
    return digest_of_arrays({"kind": "records"}, arrays)
