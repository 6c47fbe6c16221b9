"""Keeps what a private training takes its chance from, until the model that it makes is kept."""

import json
import secrets
from pathlib import Path

from fedkd.audit.locking import read_secret, write_secret
from fedkd.data import Records
from fedkd.knowledge import Digest, digest_of_arrays
from fedkd.privacy import BudgetExhausted

KEY_BYTES = 32


def draw(path: Path, records: Records) -> None:
    """Draws a key at the operating system, and keeps it at `path` with what it is meant for.

    It is on disk before its training is paid: a training that was paid can be done again.
    """
    told = {"key": secrets.token_hex(KEY_BYTES), "records": _digest(records)}
    write_secret(path, json.dumps(told).encode())


def drawn_before(path: Path, run: str, records: Records) -> bytes:
    """The key [32 bytes] that was drawn for a run's training on just these records.

    `BudgetExhausted` where there is none, or somebody was taken out since: the same noise on other
    records would show the difference, and other noise would be a training that nobody paid.
    """
    try:
        told = json.loads(read_secret(path))
    except FileNotFoundError:
        raise _lost(run, f"no {path.name}") from None
    if told["records"] != _digest(records):
        raise _lost(run, "other records now")
    return bytes.fromhex(told["key"])


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
