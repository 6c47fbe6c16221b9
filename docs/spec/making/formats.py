"""Cases of what a log is written in: keys, canonical JSON, entries, the tree, signed notes."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from fedkd.audit.verify import (
    EMPTY_ROOT,
    Checkpoint,
    Header,
    Note,
    Reference,
    Tree,
    canonical,
    commitment,
    leaf_hash,
    make_leaf,
)
from fedkd.audit.verify.spellings import base64_text
from making.parties import (
    ONE,
    PARTIES,
    RUN,
    SERVER,
    STARTED,
    TWO,
    Case,
    constant,
    flipped_line,
    opened,
    plain_tree,
    refused,
    signed,
    taken,
)


def keys() -> Iterable[Case]:
    """Keys from their sentences, as text."""
    for party in PARTIES:
        for key, sentence in zip((party.log, party.witness), party.sentences, strict=True):
            vkey = key.verifier()
            told = {"name": key.name, "algorithm": int(key.algorithm), "id_hex": vkey.id.hex()}
            given = {"seed_is_sha256_of": sentence, "vkey": vkey.text()}
            yield taken(sentence, given, told)
    name, key_id, written = ONE.log.verifier().text().split("+", 2)
    public = ONE.log.verifier().public

    def spelt(name: str, algorithm: int, public: bytes) -> Case:
        content = bytes([algorithm]) + public
        made = hashlib.sha256(name.encode() + b"\n" + content).hexdigest()[:8]
        return {"vkey": f"{name}+{made}+{base64_text(content)}"}

    yield refused("another key's id", {"vkey": f"{name}+00000000+{written}"}, "bad-key")
    yield refused("an id in capitals", {"vkey": f"{name}+{key_id.upper()}+{written}"}, "bad-key")
    yield refused("no id", {"vkey": f"{name}+{written}"}, "bad-key")
    yield refused("no base64", {"vkey": f"{name}+{key_id}+{written[:-1]}"}, "bad-key")
    yield refused("31 bytes", spelt(name, 1, public[:31]), "bad-key")
    yield refused("an algorithm that is not in the list", spelt(name, 5, public), "bad-key")
    yield refused("a name with a space", spelt("fedkd.invalid/site 01", 1, public), "bad-key")
    yield refused("an empty name", spelt("", 1, public), "bad-key")


def canonical_json() -> Iterable[Case]:
    """One spelling of each value."""
    for name, text in {
        "nothing": "{}",
        "keys in order of UTF-16 units": '{"\\r":1,"1":2,"10":3,"2":4,"\U0001f600":5,"\ufb33":6}',
        "numbers as ECMAScript spells them": "[0,-1,0.1,1e-7,1e+21,333333333.3333333,5e-324]",
        "the largest integers": "[9007199254740991,-9007199254740991]",
        "letters as they are, controls escaped": '"\u20ac \\" \\\\ \\u001f \\n \x7f \u2028"',
        "a key that programs stumble over": '{"__proto__":{"a":null}}',
    }.items():
        yield taken(name, {"text": text}, {"sha256": hashlib.sha256(text.encode()).hexdigest()})
    for name, text in {
        "empty": "",
        "a space": '{"a": 1}',
        "a newline at the end": "{}\n",
        "keys in another order": '{"b":1,"a":2}',
        "keys in order of code points": '{"\ufb33":6,"\U0001f600":5}',
        "a key twice": '{"a":1,"a":1}',
        "an integer beyond 2^53 - 1": "[9007199254740993]",
        "a fraction that is an integer": "[1.0]",
        "a large number in digits": "[100000000000000000000]",
        "another exponent": "[1E-7]",
        "minus zero": "[-0]",
        "not a number": "[NaN]",
        "beyond every double": "[1e400]",
        "an escape without need": '"\\u0041"',
        "an escape in capitals": '"\\u001F"',
        "half a surrogate pair": '"\\ud800"',
        "a byte order mark": "\ufeff{}",
        "more behind the end": "{}{}",
    }.items():
        yield refused(name, {"text": text}, "not-canonical")
    yield refused("no UTF-8", {"hex": '"\xe9"'.encode("latin-1").hex()}, "not-canonical")


def entries() -> Iterable[Case]:
    """Headers, and bodies that open their commitments."""
    salt = constant("fedkd vector salt")
    facts: dict[str, Any] = {
        "type": "release.outputs", "sequence": 412, "time": "2026-11-24T05:06:10.123Z",
        "actor": "site-01", "run": RUN, "key": "a key",
        "references": (Reference(ONE.origin, 398),),
    }  # fmt: skip
    leaf, body = make_leaf({"items": 3, "note": "caf\u00e9"}, salt, **facts)
    given = {"leaf": leaf.decode(), "body": body.decode(), "salt_hex": salt.hex()}
    header = json.loads(leaf)
    told = {"header": header, "leaf_hash_hex": leaf_hash(leaf).hex()}
    closed = {"leaf": leaf.decode()}
    yield taken("an open entry", given, {**told, "body": json.loads(body)})
    yield taken("a closed or erased entry", closed, {**told, "body": None})
    bare = Header("log.opened", 0, "2026-01-01T00:00:00Z", "server", commitment(b"{}", salt))
    least = bare.to_bytes()
    told = {"header": json.loads(least), "leaf_hash_hex": leaf_hash(least).hex()}
    given_least = {"leaf": least.decode(), "body": "{}", "salt_hex": salt.hex()}
    yield taken("the least header", given_least, {**told, "body": {}})

    yield refused("another body", {**given, "body": body.decode() + " "}, "bad-commitment")
    yield refused("another salt", {**given, "salt_hex": salt[::-1].hex()}, "bad-commitment")
    yield refused("a salt of 31 bytes", {**given, "salt_hex": salt[:31].hex()}, "bad-salt")
    yield refused("a body without salt", {**closed, "body": body.decode()}, "half-erased")
    yield refused("a salt without body", {**closed, "salt_hex": salt.hex()}, "half-erased")
    for name, odd, reason in (
        ("a body that is committed to and not canonical", b'{"b":1,"a":2}', "not-canonical"),
        ("a body that is no object", b"[1]", "bad-body"),
    ):
        bound = Header("log.opened", 0, "2026-01-01T00:00:00Z", "server", commitment(odd, salt))
        spelt = {"leaf": bound.to_bytes().decode(), "body": odd.decode(), "salt_hex": salt.hex()}
        yield refused(name, spelt, reason)
    yield refused("a space in the header", {"leaf": leaf.decode() + " "}, "not-canonical")
    yield refused("no object", {"leaf": "[]"}, "bad-header")
    edits: dict[str, tuple[str, Any, str]] = {
        "a newer version": ("v", 2, "newer-version"),
        "version 0": ("v", 0, "bad-header"),
        "a version that is true": ("v", True, "bad-header"),
        "a field that nobody knows": ("more", "x", "bad-header"),
        "an empty type": ("type", "", "bad-header"),
        "an empty actor": ("actor", "", "bad-header"),
        "a sequence below 0": ("seq", -1, "bad-header"),
        "a sequence that is a fraction": ("seq", 0.5, "bad-header"),
        "a sequence that is text": ("seq", "1", "bad-header"),
        "a time with an offset": ("ts", "2026-01-01T00:00:00+00:00", "bad-header"),
        "a 13th month": ("ts", "2026-13-01T00:00:00Z", "bad-header"),
        "a 60th second": ("ts", "2026-01-01T00:00:60Z", "bad-header"),
        "a run that is null": ("run", None, "bad-header"),
        "references that are no list": ("refs", "a#1", "bad-header"),
        "a reference without index": ("refs", ["fedkd.invalid/site-01"], "bad-header"),
        "a reference with zeros": ("refs", ["fedkd.invalid/site-01#01"], "bad-header"),
        "a reference to no log": ("refs", ["#1"], "bad-header"),
        "a commitment of 31 bytes": ("body", base64_text(bytes(31)), "bad-header"),
        "a commitment without padding": ("body", header["body"].rstrip("="), "bad-header"),
    }
    for name, (key, value, reason) in edits.items():
        yield refused(name, {"leaf": canonical({**header, key: value}).decode()}, reason)
    for key in ("v", "type", "seq", "ts", "actor", "refs", "body"):
        rest = {name: value for name, value in header.items() if name != key}
        yield refused(f"no {key}", {"leaf": canonical(rest).decode()}, "bad-header")


CLASSIC = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
"""The leaves of RFC 6962's reference implementation, with their published roots in the tests."""


def tree() -> Iterable[Case]:
    """Roots, and proofs of a leaf and of an older tree."""
    digests = [leaf_hash(bytes.fromhex(leaf)) for leaf in CLASSIC]
    for size in range(len(CLASSIC) + 1):
        given = {"root_of_leaves_hex": list(CLASSIC[:size])}
        yield taken(f"root of {size}", given, {"root_hex": Tree(digests[:size]).root().hex()})
    large = plain_tree(300)

    def inclusion(index: int, size: int) -> Case:
        proof = [one.hex() for one in large.inclusion(index, size)]
        leaf, root = large.node(0, index).hex(), large.root(size).hex()
        told = {"leaf_hash_hex": leaf, "proof_hex": proof, "root_hex": root}
        return {"inclusion_of": index, "size": size, **told}

    def consistency(old: int, new: int) -> Case:
        proof = [one.hex() for one in large.consistency(old, new)]
        roots = {"old_root_hex": large.root(old).hex(), "root_hex": large.root(new).hex()}
        return {"consistency_from": old, "size": new, "proof_hex": proof, **roots}

    for index, size in ((0, 1), (0, 2), (5, 13), (12, 13), (255, 256), (299, 300)):
        yield taken(f"leaf {index} of {size}", inclusion(index, size), {})
    for old, new in ((1, 1), (1, 2), (6, 13), (8, 13), (13, 13), (256, 300), (299, 300)):
        yield taken(f"{old} before {new}", consistency(old, new), {})

    good, path = inclusion(5, 13), inclusion(5, 13)["proof_hex"]
    for name, change, reason in (
        ("another leaf", {"leaf_hash_hex": large.node(0, 6).hex()}, "wrong-root"),
        ("another index", {"inclusion_of": 4}, "wrong-root"),
        ("another root", {"root_hex": large.root(12).hex()}, "wrong-root"),
        ("a digest too few", {"proof_hex": path[:-1]}, "bad-proof-length"),
        ("a digest too many", {"proof_hex": [*path, path[-1]]}, "bad-proof-length"),
        ("digests in another order", {"proof_hex": path[::-1]}, "wrong-root"),
        ("an index as large as the tree", {"inclusion_of": 13}, "bad-range"),
    ):
        yield refused(f"inclusion: {name}", {**good, **change}, reason)
    good, path = consistency(6, 13), consistency(6, 13)["proof_hex"]
    for name, change, reason in (
        ("another old root", {"old_root_hex": large.root(5).hex()}, "wrong-root"),
        ("another new root", {"root_hex": large.root(12).hex()}, "wrong-root"),
        ("a digest too few", {"proof_hex": path[:-1]}, "bad-proof-length"),
        ("a digest too many", {"proof_hex": [*path, path[-1]]}, "bad-proof-length"),
        ("from size 0", {"consistency_from": 0, "proof_hex": []}, "bad-range"),
        ("back in size", {"consistency_from": 14}, "bad-range"),
        ("one size, two roots", {"consistency_from": 13, "proof_hex": []}, "wrong-root"),
        ("one size, a proof", {**consistency(13, 13), "proof_hex": path}, "bad-proof-length"),
    ):
        yield refused(f"consistency: {name}", {**good, **change}, reason)


def notes() -> Iterable[Case]:
    """Signed checkpoints: how they are spelt, and who signed."""
    log = opened(ONE)
    note = log.note((SERVER, TWO))
    content = note.to_bytes().decode()
    known = [ONE.log.verifier(), SERVER.witness.verifier()]
    vkeys = [key.text() for key in known]
    given = {"note": content, "vkeys": vkeys}

    def told(checkpoint: Checkpoint, signers: Mapping[str, int | None]) -> Case:
        head = {"origin": checkpoint.origin, "size": checkpoint.size}
        return {**head, "root_hex": checkpoint.root.hex(), "signers": dict(signers)}

    signers = {str(known[0]): None, str(known[1]): STARTED + 60}
    yield taken("log and cosigner", given, told(note.checkpoint(), signers))
    alone = {"note": content, "vkeys": vkeys[1:]}
    yield taken("a cosigner", alone, told(note.checkpoint(), {str(known[1]): STARTED + 60}))
    empty = signed(ONE, Checkpoint(ONE.origin, 0, EMPTY_ROOT))
    spelt = {"note": empty.to_bytes().decode(), "vkeys": vkeys}
    yield taken("a log without entries", spelt, told(empty.checkpoint(), {str(known[0]): None}))
    more = signed(ONE, Checkpoint(ONE.origin, 1, log.tree.root(), ("an extension line",)))
    spelt = {"note": more.to_bytes().decode(), "vkeys": vkeys}
    yield taken("an extension line", spelt, told(more.checkpoint(), {str(known[0]): None}))

    text, lines = content.split("\n\n")
    first, second, *_ = lines.splitlines(keepends=True)
    spelling = first.rsplit(" ", 1)[1]
    spoilt, moved = flipped_line(first, 20), flipped_line(second, 11)
    for name, changed, reason in (
        ("another size under the signature", content.replace("\n1\n", "\n2\n"), "bad-signature"),
        ("a changed signature", content.replace(first, spoilt), "bad-signature"),
        ("a cosignature at another time", content.replace(second, moved), "bad-signature"),
        ("no signature by a known key", f"{text}\n\n{lines.splitlines()[2]}\n", "unsigned"),
        ("no newline at the end", content[:-1], "bad-note"),
        ("no empty line", content.replace("\n\n", "\n"), "bad-note"),
        ("no signature", f"{text}\n\n", "bad-note"),
        ("a hyphen for the dash", content.replace("\u2014 ", "- "), "bad-note"),
        ("no base64", content.replace(spelling, "=" + spelling[1:]), "bad-note"),
        ("a tab", content.replace("\n1\n", "\n1\t\n"), "bad-note"),
        ("carriage returns", content.replace("\n", "\r\n"), "bad-note"),
    ):
        yield refused(name, {**given, "note": changed}, reason)
    for name, head in {
        "two lines": f"{ONE.origin}\n1\n",
        "a size with a zero before it": f"{ONE.origin}\n01\n{base64_text(log.tree.root())}\n",
        "a size beyond 2^63 - 1": f"{ONE.origin}\n{2**63}\n{base64_text(log.tree.root())}\n",
        "a root of 31 bytes": f"{ONE.origin}\n1\n{base64_text(bytes(31))}\n",
        "no entries, another root": f"{ONE.origin}\n0\n{base64_text(log.tree.root())}\n",
    }.items():
        signed_text = Note(head, (ONE.log.sign(head),)).to_bytes().decode()
        yield refused(f"checkpoint of {name}", {**given, "note": signed_text}, "bad-checkpoint")
