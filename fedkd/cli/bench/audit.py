"""What the log costs: beside a plain durable insert, beside one pass over its bytes, in a run."""

import hashlib
import json
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from fedkd.cli.bench.inside import Inside

WARM_BLOCKS = 2
"""Blocks that are not counted: a write-ahead log is slower until it has its full length."""
PROOFS = 200
REPEATS = 3
PLAIN = (
    "CREATE TABLE entries (place INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, "
    "type TEXT NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL)"
)
TYPE = "release.outputs"


def audit(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The parts that were asked for, each beside what it is compared with, printed as ratios."""
    results: dict[str, Any] = {}
    # In the folder of the results: the disk that runs are written to, and no memory disk.
    with tempfile.TemporaryDirectory(dir=folder) as base:
        if "append" in options["parts"]:
            results["append"] = _appending(Path(base), options["appends"], options["block"])
        if "verify" in options["parts"]:
            results |= _verifying(Path(base), options["entries"])
    if "run" in options["parts"]:
        results["run"] = _run(options["seconds"], results.get("append"))
    return results


def _key(number: int) -> str:
    return f"r-01/{number}/released"


def _body(number: int) -> dict[str, Any]:
    """What a site writes down about one answer."""

    def named(what: str) -> str:
        return "sha256:" + hashlib.sha256(f"{what} {number}".encode()).hexdigest()

    return {
        "run": "r-01", "round": number, "question": named("question"), "queries": named("queries"),
        "items": 300, "kind": "probabilities", "model": named("model"), "mechanism": "none",
        "digest": named("answer"), "payload": 12_000, "recipient": "server", "asked_at": None,
    }  # fmt: skip


def _plain(path: Path, *, journal: str = "WAL") -> sqlite3.Connection:
    """As durable as the log: on disk when a commit returns."""
    database = sqlite3.connect(path, isolation_level=None)
    for statement in (f"PRAGMA journal_mode={journal}", "PRAGMA synchronous=FULL", PLAIN):
        database.execute(statement)
    return database


def _insert(database: sqlite3.Connection, number: int, body: Mapping[str, Any], at: str) -> None:
    written = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    row = (number, _key(number), TYPE, at, written)
    database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)


# Appending.


def _appending(base: Path, appends: int, block: int) -> dict[str, Any]:
    from fedkd.audit import Log, utc_now

    log, plain = Log(base / "log.sqlite", "h1"), _plain(base / "plain.sqlite")
    default = _plain(base / "default.sqlite", journal="DELETE")

    def insert(database: sqlite3.Connection, number: int, body: Mapping[str, Any]) -> None:
        database.execute("BEGIN IMMEDIATE")
        _insert(database, number, body, utc_now())
        database.execute("COMMIT")

    sides: dict[str, Callable[[int, Mapping[str, Any]], object]] = {
        "append": lambda number, body: log.append(_key(number), TYPE, body),
        "insert": lambda number, body: insert(plain, number, body),
        "default_insert": lambda number, body: insert(default, number, body),
    }
    blocks = -(-appends // block)
    wall, cpu = _in_turns(sides, blocks, block)
    for database in (log, plain, default):
        database.close()
    ratios = sorted(a / b for a, b in zip(wall["append"], wall["insert"], strict=True))
    results = {
        "entries": blocks * block,
        "block": block,
        **{f"{name}_us": 1e6 * median(wall[name]) for name in sides},
        **{f"{name}_cpu_us": 1e6 * median(cpu[name]) for name in sides},
        "append_over_insert": median(ratios),
        "append_over_insert_least": ratios[0],
        "append_over_insert_most": ratios[-1],
        "append_over_insert_in_all": sum(wall["append"]) / sum(wall["insert"]),
        "append_over_default_insert": median(
            a / b for a, b in zip(wall["append"], wall["default_insert"], strict=True)
        ),
    }
    print(f"appending {blocks * block} entries, in turns of {block}; microseconds each, medians")
    for what, name in (
        ("plain SQLite insert, as durable", "insert"),
        ("the same without write-ahead log", "default_insert"),
        ("entry and signed checkpoint", "append"),
    ):
        print(f"  {what:<38}{results[f'{name}_us']:8.0f}   CPU {results[f'{name}_cpu_us']:.0f}")
    print(
        f"  append / insert                       {results['append_over_insert']:8.2f}"
        f"   turns from {ratios[0]:.2f} to {ratios[-1]:.2f}; "
        f"{results['append_over_default_insert']:.2f} without write-ahead log"
    )
    return results


def _in_turns(
    sides: Mapping[str, Callable[[int, Mapping[str, Any]], object]], blocks: int, block: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds an entry, of wall time and of CPU, by side and block."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(WARM_BLOCKS + blocks):
        numbers = range(turn * block, (turn + 1) * block)
        bodies = [_body(number) for number in numbers]
        # One after the other, each first in its turn: the disk is shared and changes its mind.
        order = list(sides)[turn % len(sides) :] + list(sides)[: turn % len(sides)]
        for name in order:
            began, began_cpu = time.perf_counter(), time.process_time()
            for number, body in zip(numbers, bodies, strict=True):
                sides[name](number, body)
            wall[name].append((time.perf_counter() - began) / block)
            cpu[name].append((time.process_time() - began_cpu) / block)
    return (
        {name: times[WARM_BLOCKS:] for name, times in wall.items()},
        {name: times[WARM_BLOCKS:] for name, times in cpu.items()},
    )


# Verifying.


def _verifying(base: Path, entries: int) -> dict[str, Any]:
    from fedkd.audit import Log
    from fedkd.audit.verify import VerifierKey
    from fedkd.audit.verify.logs import check_log

    (base / "whole").mkdir()
    path = base / "exported.sqlite"
    with Log(base / "whole" / "log.sqlite", "h1") as log:
        with log.writing():  # in one transaction, which is what costs
            for number in range(entries):
                log.append(_key(number), TYPE, _body(number))
        key: VerifierKey = log.verifier()
        log.export(path)
    pieces = _pieces(path)
    passes, checks = [], []
    for _ in range(REPEATS):
        passes.append(_cpu(lambda: _one_pass(pieces)))
        checks.append(_cpu(lambda: check_log(path, key)))
    every = _cpu(lambda: check_log(path, key, every_signature=True))
    checked = check_log(path, key)
    one_pass, check = median(passes), median(checks)
    proofs = [_proofs(checked, pieces[::2], size) for size in _sizes(entries)]
    verify = {
        "entries": entries,
        "signatures_verified": checked.signed,
        "one_pass_cpu_s": one_pass,
        "check_cpu_s": check,
        "check_over_one_pass": check / one_pass,
        "every_signature_cpu_s": every,
        "every_signature_over_one_pass": every / one_pass,
    }
    size = {
        "bytes_each": path.stat().st_size / entries,
        "plain_bytes_each": _plain_bytes(base, entries) / entries,
        "written_bytes_each": sum(map(len, pieces)) / entries,
    }
    print(f"verifying {entries} entries; CPU seconds")
    print(f"  SHA-256 and json.loads, once            {one_pass:7.2f}")
    print(
        f"  root, every leaf and body, signatures   {check:7.2f}   check / pass: "
        f"{verify['check_over_one_pass']:.1f}   ({verify['signatures_verified']} signatures)"
    )
    print(
        f"  the same with every signature           {every:7.2f}   check / pass: "
        f"{verify['every_signature_over_one_pass']:.1f}"
    )
    print(
        f"  bytes an entry on disk                  {size['bytes_each']:7.0f}   plain insert: "
        f"{size['plain_bytes_each']:.0f}, header and body alone: {size['written_bytes_each']:.0f}"
    )
    for row in proofs:
        print(
            f"  proof in a log of {row['size']:6}: {row['digests']:4.1f} digests, "
            f"{row['bytes']:5.0f} bytes, made in {row['made_us']:4.0f} us, "
            f"verified in {row['verified_us']:3.0f} us"
        )
    return {"verify": verify, "size": size, "proofs": proofs}


def _pieces(path: Path) -> list[bytes]:
    """Every leaf and every body, as bytes."""
    database = sqlite3.connect(path)
    try:
        rows = database.execute("SELECT leaf, body FROM entries ORDER BY place").fetchall()
    finally:
        database.close()
    return [piece for leaf, body in rows for piece in (leaf, body.encode())]


def _one_pass(pieces: list[bytes]) -> None:
    for piece in pieces:
        hashlib.sha256(piece).digest()
        json.loads(piece)


def _plain_bytes(base: Path, entries: int) -> int:
    """What the same bodies take in a plain table."""
    from fedkd.audit import utc_now

    path = base / "bytes.sqlite"
    database, at = _plain(path), utc_now()
    database.execute("BEGIN IMMEDIATE")
    for number in range(entries):
        _insert(database, number, _body(number), at)
    database.execute("COMMIT")
    database.close()
    return path.stat().st_size


def _sizes(entries: int) -> list[int]:
    """100, 1,000, ... up to all entries."""
    decades = [10**power for power in range(2, 9) if 10**power < entries]
    return [*decades, entries]


def _proofs(log: Any, leaves: Sequence[bytes], size: int) -> dict[str, Any]:
    """Proofs of leaves drawn at random, in the checked log as it was at `size`."""
    from fedkd.audit.verify import ProofFile, leaf_hash, verify_inclusion

    note, root = log.head(size), log.tree.root(size)
    drawn = random.Random(size)  # noqa: S311 - which leaves are proven is no secret
    indices = [drawn.randrange(size) for _ in range(PROOFS)]
    began = time.perf_counter()
    proofs = [ProofFile.make(index, note, log.tree.node) for index in indices]
    made = time.perf_counter() - began
    began = time.perf_counter()
    for proof in proofs:
        digest = leaf_hash(leaves[proof.index])
        verify_inclusion(proof.index, size, digest, proof.digests, root)
    verified = time.perf_counter() - began
    return {
        "size": size,
        "digests": fmean(len(proof.digests) for proof in proofs),
        "digests_most": max(len(proof.digests) for proof in proofs),
        "bytes": fmean(len(proof.to_bytes()) for proof in proofs),
        "made_us": 1e6 * made / PROOFS,
        "verified_us": 1e6 * verified / PROOFS,
    }


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


# A run.


def _run(seconds: float, appending: Mapping[str, Any] | None) -> dict[str, Any]:
    """A whole run, and what of its wall time is spent inside the log and on cosigning."""
    from fedkd.cli.simulate import simulate_one

    epochs = max(1, round(12 * seconds))
    overrides = [
        "data=digits", "clients.count=10", "clients.models=[cnn]", "data.validation=0.1",
        f"training.local_epochs={epochs}", f"training.lesson_epochs={epochs // 4}",
        f"student.epochs={epochs // 2}",
    ]  # fmt: skip
    os.environ["FEDKD_QUIET"] = "1"
    with tempfile.TemporaryDirectory() as base, Inside() as inside:
        _, summary = simulate_one([*overrides, f"out={base}/run"])
    wall, entries = summary["wall_s"], inside.calls["append"]
    each = inside.seconds["append"] / entries
    if appending is not None:
        each = appending["append_us"] / 1e6
    results = {
        "wall_s": wall,
        "train_s": summary["train_s"],
        "entries": entries,
        "append_us": 1e6 * each,
        "counted_share": entries * each / wall,
        "measured_share": inside.total / wall,
        "measured_s": inside.total,
        "measured_s_by_method": dict(inside.seconds),
        "calls_by_method": dict(inside.calls),
    }
    print(f"a run, {summary['train_s']:.1f} s of training in {wall:.1f} s; share of its wall time")
    print(
        f"  entries times what one costs          {100 * results['counted_share']:8.2f}%"
        f"   {entries} entries of {1e6 * each:.0f} us"
    )
    print(
        f"  inside the logs, measured             {100 * results['measured_share']:8.2f}%"
        f"   {inside.total:.2f} s, with opening, cosigning and handing over"
    )
    return results
