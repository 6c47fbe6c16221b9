"""What each kind of vector of docs/spec asks of our own code, and how our refusals read."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fedkd.audit import (
    Contradiction,
    Log,
    NotFresh,
    Peer,
    RolledBack,
    Roster,
    expect_fresh,
    hear,
)
from fedkd.audit.verify import (
    AddCheckpoint,
    Algorithm,
    BadRequest,
    CannotTell,
    Forked,
    Head,
    Inconsistent,
    Malformed,
    Note,
    ProofFile,
    Refuted,
    SigningKey,
    Stale,
    Tree,
    TrustPolicy,
    UnknownKey,
    UnknownLog,
    VerifierKey,
    Witness,
    cosignature_lines,
    layout,
    leaf_hash,
    open_leaf,
    parsed,
    quorum_row,
    read_files,
    verify_consistency,
    verify_inclusion,
)
from fedkd.audit.verify.agreement import check_double_entry, check_kept_heads, kept_heads
from fedkd.audit.verify.logs import CheckedLog, checked
from fedkd.audit.verify.merkle import Range
from fedkd.audit.verify.notes import signed_message
from fedkd.audit.verify.reading import StoredLog
from fedkd.privacy import Ledger
from fedkd.wire import Malformed as MalformedLetter
from fedkd.wire import opened

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "spec"
VECTORS = FOLDER / "vectors"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(VECTORS.glob("*.json"))}
POOL = FILES["logs"]
Given = Mapping[str, Any]


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Every case of every file, whole: where it is like another, with what the other gives."""
    found = []
    for kind, file in FILES.items():
        by_id = {case["id"]: case for case in file["cases"]}
        for case in file["cases"]:
            base = by_id[case["like"]]["given"] if "like" in case else {}
            found.append((kind, {**case, "given": {**base, **case["given"]}}))
    return found


# How each reason reads here: the error's class, and words of its text.
REASONS: Mapping[str, tuple[type[Exception], str]] = {
    "after-its-head": (Refuted, r"found index \d, expected below \d"),
    "bad-body": (Malformed, "^body of entry 0: found list, expected a JSON object"),
    "bad-bundle": (Malformed, "^tile/entries/000"),
    "bad-checkpoint": (Refuted, "checkpoint"),
    "bad-commitment": (Refuted, "^body of entry .* of its leaf$"),
    "bad-envelope": (MalformedLetter, "envelope"),
    "bad-header": (Malformed, "^(leaf|header of entry|commitment in a leaf|reference)"),
    "bad-key": (Malformed, "key"),
    "bad-note": (Malformed, "^(note|signature|checkpoint: found a last line)"),
    "bad-policy": (Malformed, "policy|^group|^log |^witness "),
    "bad-proof-file": (Malformed, "^(proof file|extra data|index in a proof file)"),
    "bad-proof-length": (Refuted, r"found a proof of \d+ digests"),
    "bad-range": (Refuted, "found (leaf|size) .*, expected (a leaf from 0 to|0 < old)"),
    "bad-request": (BadRequest, ""),
    "bad-salt": (Malformed, "^salt: found 31 bytes"),
    "bad-signature": (Refuted, "^signature by .* that this key did not make"),
    "contradiction": (Contradiction, "never changed"),
    "forked": (Forked, "found root"),
    "half-erased": (Refuted, "found a (body without salt|salt without body)"),
    "inconsistent": (Inconsistent, ""),
    "newer-version": (CannotTell, "found version 2|tlog-proof@v2"),
    "no-quorum": (Refuted, "^quorum of"),
    "not-admitted": (Refuted, "expected an answer that was admitted$"),
    "not-canonical": (Malformed, "canonical|RFC 8785|UTF-8"),
    "not_fresh": (NotFresh, "cosigners"),
    "one-key-two-roles": (ValueError, "one key as (log and )?witness"),
    "one-side-missing": (Refuted, "no answer in the site's log|expected it, or a reason"),
    "other-checkpoint": (Refuted, r"^checkpoint of size|found \d checkpoints"),
    "other-entries": (Refuted, "^entries of|^entry .* which its checkpoint signed"),
    "other-history": (Refuted, "another history"),
    "other-log": (Refuted, "found (log|origin) "),
    "other-tile": (Refuted, "^tile/0.*other digests"),
    "rolled_back": (RolledBack, "cosigned"),
    "shorter-than-kept": (Refuted, "a roll-back"),
    "sides-differ": (Refuted, "in the site's log"),
    "stale": (Stale, "expected old size"),
    "unknown-key": (UnknownKey, ""),
    "unknown-log": (UnknownLog, ""),
    "unsigned": (Refuted, "^note .*(signatures by|expected one by)|no signature by its log"),
    "wrong-place": (Refuted, "^entry"),
    "wrong-root": (Refuted, "found root"),
    "missing-file": (KeyError, "tile|checkpoint"),
}


def seed(sentence: str) -> bytes:
    return hashlib.sha256(sentence.encode()).digest()


def keys(given: Given) -> Any:
    key = VerifierKey.parse(given["vkey"])
    made = SigningKey(key.name, key.algorithm, seed(given["seed_is_sha256_of"]))
    assert made.verifier() == key
    return {"name": key.name, "algorithm": int(key.algorithm), "id_hex": key.id.hex()}


def canonical_json(given: Given) -> Any:
    content = bytes.fromhex(given["hex"]) if "hex" in given else given["text"].encode()
    parsed(content)
    return {"sha256": hashlib.sha256(content).hexdigest()}


def entries(given: Given) -> Any:
    leaf, body, salt = given["leaf"].encode(), given.get("body"), given.get("salt_hex")
    read = open_leaf(
        leaf, None if body is None else body.encode(), None if salt is None else bytes.fromhex(salt)
    )
    header = json.loads(read.header.to_bytes())
    return {"header": header, "body": read.body, "leaf_hash_hex": leaf_hash(leaf).hex()}


def tree(given: Given) -> Any:
    if "root_of_leaves_hex" in given:
        leaves = (leaf_hash(bytes.fromhex(leaf)) for leaf in given["root_of_leaves_hex"])
        return {"root_hex": Tree(leaves).root().hex()}
    size, root = given["size"], bytes.fromhex(given["root_hex"])
    proof = [bytes.fromhex(one) for one in given["proof_hex"]]
    if "inclusion_of" in given:
        leaf = bytes.fromhex(given["leaf_hash_hex"])
        verify_inclusion(given["inclusion_of"], size, leaf, proof, root)
    else:
        old = bytes.fromhex(given["old_root_hex"])
        verify_consistency(given["consistency_from"], size, proof, old, root)
    return {}


def notes(given: Given) -> Any:
    note = Note.parse(given["note"].encode())
    head = note.checkpoint()
    signers = note.verify(map(VerifierKey.parse, given["vkeys"])).signers
    told = {"origin": head.origin, "size": head.size, "root_hex": head.root.hex()}
    return {**told, "signers": {str(key): time for key, time in signers.items()}}


def policies(given: Given) -> Any:
    if "cosigners" in given:
        _, threshold, liars, absent = quorum_row(given["cosigners"], given.get("threshold"))
        return {"threshold": threshold, "liars": liars, "absent": absent}
    policy, note = TrustPolicy.parse(given["policy"].encode()), Note.parse(given["note"].encode())
    times = given.get("not_before"), given.get("not_after")
    return {"cosigned": policy.witnessed(note, *times).cosigned}


def cosigning(given: Given) -> Any:
    if "text" in given:
        kind = Algorithm(given["algorithm"])
        message = signed_message(kind, given["name"], given["text"], given.get("time"))
        return {"message_hex": message.hex()}
    public = VerifierKey.parse(given["cosigner"])
    key = SigningKey(public.name, public.algorithm, seed(given["seed_is_sha256_of"]))
    logs = {origin: tuple(map(VerifierKey.parse, vkeys)) for origin, vkeys in given["logs"].items()}
    seen = {
        o: Head(head["size"], bytes.fromhex(head["root_hex"])) for o, head in given["seen"].items()
    }
    request = AddCheckpoint.parse(given["request"].encode())
    after, lines = Witness((key,), logs, seen).add(request, given["time"])
    assert cosignature_lines(lines).decode() == given["answer"]
    heads = {o: {"size": head.size, "root_hex": head.root.hex()} for o, head in after.heads.items()}
    return {"seen": heads, "time": given["time"]}


def proofs(given: Given) -> Any:
    policy = TrustPolicy.parse(given["policy"].encode())
    proven = ProofFile.parse(given["file"].encode()).verify(policy, given["leaf"].encode())
    size = proven.witnessed.checkpoint.size
    return {"index": proven.index, "size": size, "cosigned": proven.witnessed.cosigned}


def tiles(given: Given) -> Any:
    if "size" in given:
        paths = [tile.path for tile in layout(given["size"])]
        some = [*paths[:2], *paths[-4:]] if len(paths) > 8 else paths
        return {"files": len(paths), "some": some}
    leaves, note = read_files(lambda path: bytes.fromhex(given["files_hex"][path]))
    note.verify(map(VerifierKey.parse, given["vkeys"]))
    headers = [open_leaf(leaf).header for leaf in leaves]
    for index, header in enumerate(headers):
        if header.sequence != index:
            raise Refuted(f"entry {index}", f"sequence {header.sequence}", str(index))
    head = note.checkpoint()
    types = [header.type for header in headers]
    return {"size": head.size, "root_hex": head.root.hex(), "types": types}


# Whole logs.


def plain_log(name: str) -> tuple[VerifierKey, list[Any], list[str]]:
    log = POOL["logs"][name]
    rows = [POOL["entries"][place] for place in log["entries"]]
    return (
        VerifierKey.parse(log["vkey"]),
        rows,
        [POOL["checkpoints"][at] for at in log["checkpoints"]],
    )


def stored_log(name: str) -> CheckedLog:
    """The log as the database would hold it, checked as `fedkd audit verify` checks a file."""
    key, rows, notes_ = plain_log(name)
    kept, nodes = Range(), []
    for row in rows:
        kept, more = kept.appended(leaf_hash(row["leaf"].encode()))
        nodes += [(node.level, node.index, node.digest) for node in more]
    stored = []
    for place, row in enumerate(rows):
        told = json.loads(row["leaf"])
        salt = None if row.get("salt_hex") is None else bytes.fromhex(row["salt_hex"])
        leaf = row["leaf"].encode()
        stored.append((place, told["key"], told["type"], told["ts"], leaf, salt, row.get("body")))
    facts = {"vkey": key.text().encode(), "range": kept.to_bytes()}
    checkpoints = tuple((size, note.encode()) for size, note in enumerate(notes_, 1))
    return checked(StoredLog(3, tuple(stored), tuple(sorted(nodes)), checkpoints, facts))


def logs(given: Given) -> Any:
    log = stored_log(given["log"])
    types = [leaf.header.type for leaf in log.entries]
    head = {"origin": log.origin, "size": len(log.entries), "root_hex": log.root.hex()}
    return {**head, "types": types, "closed": log.closed}


def books(given: Given) -> Any:
    named = {party: stored_log(name) for party, name in given.items()}
    found = check_double_entry(named)
    kept = kept_heads(named)
    heads = sum(check_kept_heads(log, kept.get(log.origin, ())) for log in named.values())
    counts = {"matched": found.matched, "closed": found.closed, "erased": found.erased}
    return {**counts, "absent": sorted(found.absent), "heads": heads}


def written_log(name: str, folder: Path, monkeypatch: Any) -> Log:
    """The log, written again by `fedkd.audit.Log` with its keys, its salts and its times."""
    key, rows, _ = plain_log(name)
    (folder / "keys").mkdir(parents=True)
    sentence = next(
        case["given"]["seed_is_sha256_of"]
        for case in FILES["keys"]["cases"]
        if case["given"]["vkey"] == key.text()
    )
    secret = SigningKey(key.name, key.algorithm, seed(sentence)).secret_text()
    (folder / "keys" / "log.key").write_text(secret)
    headers = [json.loads(row["leaf"]) for row in rows]
    times, salts = iter([it["ts"] for it in headers]), iter([row["salt_hex"] for row in rows])
    log = Log(folder / "log.sqlite", headers[0]["actor"], now=lambda: next(times))
    drawn = SimpleNamespace(token_bytes=lambda count: bytes.fromhex(next(salts)))
    with monkeypatch.context() as patched:
        patched.setattr("fedkd.audit.log.secrets", drawn)
        for header, row in zip(headers, rows, strict=True):
            log.append(header["key"], header["type"], json.loads(row["body"]))
    return log


def ledger(given: Given, folder: Path) -> Any:
    with Log(folder / "log.sqlite", "site-01") as log:
        indices = [log.append(*one).index for one in given["appends"]]
        population = given["population"]
        replayed = Ledger(population).replay(
            entry.body["cost"]
            for entry in log.entries("budget.charged")
            if entry.body["population"] == population
        )
    return {"indices": indices, "charged": list(replayed.charged)}


def guard(given: Given, folder: Path, monkeypatch: Any) -> Any:
    peers = {
        party: Peer(VerifierKey.parse(_any_log_key()), tuple(map(VerifierKey.parse, vkeys)))
        for party, vkeys in given["cosigners"].items()
    }
    roster = Roster(peers, tuple(peers), (), given["threshold"], given["most_age_s"])
    with written_log(given["log"], folder, monkeypatch) as log:
        spoke = hear(log, roster, given["notes"], given["now"])
        expect_fresh(roster, spoke, given["now"])
    return {"spoke": spoke}


def _any_log_key() -> str:
    """A peer has a log's key too, which the guard does not ask."""
    return str(FILES["keys"]["cases"][0]["given"]["vkey"])


def letters(given: Given) -> Any:
    envelope, message = opened(bytes.fromhex(given["letter_hex"]))
    if envelope is None:
        return {"envelope": None, "message_hex": message.hex()}
    names = ("asks", "notes", "prove_from", "stands")
    plain = {name: json.loads(json.dumps(getattr(envelope, name))) for name in names}
    return {"envelope": plain, "message_hex": message.hex()}


CHECKS: Mapping[str, Callable[[Given], Any]] = {
    "keys": keys,
    "canonical": canonical_json,
    "entries": entries,
    "tree": tree,
    "notes": notes,
    "policies": policies,
    "cosigning": cosigning,
    "proofs": proofs,
    "tiles": tiles,
    "logs": logs,
    "books": books,
    "letters": letters,
}
"""`ledger` and `guard` need a log on disk, and so a folder."""


def reads_as(error: BaseException, reason: str) -> bool:
    """Whether our error is what the page calls `reason`."""
    kind, words = REASONS[reason]
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    return isinstance(error, kind) and re.search(words, text, re.DOTALL) is not None
