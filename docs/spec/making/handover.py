"""Cases of what is handed over: policies, requests to cosign, proof files, folders of tiles."""

from collections.abc import Iterable, Mapping

from fedkd.audit.verify import (
    Algorithm,
    Checkpoint,
    Note,
    ProofFile,
    Tree,
    TrustPolicy,
    cosign,
    files,
    layout,
    leaf_hash,
    quorum_row,
    quorum_table,
)
from making.parties import (
    COSIGNERS,
    ONE,
    SERVER,
    STARTED,
    THREE,
    TWO,
    Case,
    Party,
    flipped_line,
    opened,
    plain_tree,
    refused,
    signed,
    taken,
)

SIZE = 13
TREE = plain_tree(SIZE)
POLICY = TrustPolicy.of([SERVER.log.verifier()], COSIGNERS, 2).text().decode()
EVERYBODY = (ONE, TWO, THREE)


def note(cosigners: Iterable[Party] = (), size: int = SIZE, party: Party = SERVER) -> Note:
    """A signed checkpoint of the server's log, over "entry 0", "entry 1", ..."""
    return signed(party, Checkpoint(party.origin, size, TREE.root(size)), cosigners)


def policies() -> Iterable[Case]:
    """Who must have signed, and what a quorum stands."""
    for row in quorum_table(10):
        told = dict(zip(("threshold", "liars", "absent"), row[1:], strict=True))
        yield taken(f"the default of {row.cosigners}", {"cosigners": row.cosigners}, told)
    for of, least in ((3, 1), (5, 3), (10, 10)):
        told = dict(zip(("threshold", "liars", "absent"), quorum_row(of, least)[1:], strict=True))
        yield taken(f"{least} of {of}", {"cosigners": of, "threshold": least}, told)

    times = {party.name: STARTED + 60 + late for late, party in enumerate(EVERYBODY)}
    two = {"site-01": times["site-01"], "site-02": times["site-02"]}
    content = note((ONE, TWO)).to_bytes().decode()
    given = {"policy": POLICY, "note": content}
    yield taken("two of three", given, {"cosigned": two})
    alone = f"log {SERVER.log.verifier().text()}\nquorum none\n"
    yield taken("nobody is asked for", {"policy": alone, "note": content}, {"cosigned": {}})
    nested = "group any-of any cosigners\nquorum any-of"
    for name, text in {
        "comments, empty lines, tabs": "# a comment\n\n \t" + POLICY.replace("group ", "group\t"),
        "a group of a group": POLICY.replace("quorum cosigners", nested),
    }.items():
        yield taken(name, {"policy": text, "note": content}, {"cosigned": two})
    within = {**given, "not_before": STARTED + 60, "not_after": STARTED + 61}
    yield taken("fresh enough", within, {"cosigned": two})

    for name, change, reason in (
        ("one of three", {"note": note((ONE,)).to_bytes().decode()}, "no-quorum"),
        ("one of three, twice", {"note": _twice(note((ONE,)))}, "no-quorum"),
        ("too old", {"not_before": STARTED + 61}, "no-quorum"),
        ("too new", {"not_after": STARTED + 60}, "no-quorum"),
        ("not signed by its log", {"note": _without_log(note(EVERYBODY))}, "unsigned"),
        ("another log", {"note": note(EVERYBODY, party=ONE).to_bytes().decode()}, "other-log"),
        ("a cosignature that is none", {"note": _spoilt(note(EVERYBODY))}, "bad-signature"),
        ("a policy that names no log", {"policy": "quorum none\n"}, "other-log"),
    ):
        yield refused(name, {**given, **change}, reason)
    witness = f"witness site-01 {ONE.witness.verifier().text()}\n"
    renamed = type(ONE.log)(ONE.origin, Algorithm.ED25519, ONE.witness.seed).verifier().text()
    same = f"log {renamed}\n{POLICY}"
    yield refused("policy: one key, two roles", {**given, "policy": same}, "one-key-two-roles")
    for name, text in {
        "no quorum": POLICY.replace("quorum cosigners\n", ""),
        "two quorums": POLICY + "quorum none\n",
        "cut in its last line": POLICY[:-1],
        "a word that is no verb": POLICY + "threshold 3\n",
        "a witness twice": POLICY.replace(witness, witness + witness),
        "a member that nobody defined": POLICY.replace("site-01 site-02", "nobody"),
        "a group that asks for nothing": POLICY.replace("cosigners 2", "cosigners 0"),
        "a group that asks for too much": POLICY.replace("cosigners 2", "cosigners 4"),
        "a quorum of nobody": POLICY.replace("quorum cosigners", "quorum x"),
        "a log with a cosigner's key": POLICY.replace("log ", f"log {_vkey(ONE)}\nlog ", 1),
    }.items():
        yield refused(f"policy: {name}", {**given, "policy": text}, "bad-policy")


def _vkey(party: Party) -> str:
    return party.witness.verifier().text()


def _twice(once: Note) -> str:
    later = cosign(ONE.witness, once.checkpoint(), STARTED + 90)
    return once.with_signatures([later]).to_bytes().decode()


def _without_log(whole: Note) -> str:
    return Note(whole.text, whole.signatures[1:]).to_bytes().decode()


def _spoilt(whole: Note) -> str:
    last = whole.signatures[-1].line()
    return whole.to_bytes().decode().replace(last, flipped_line(last, 30))


def proofs() -> Iterable[Case]:
    """Files that show one entry of a log to whoever has its policy."""
    made = ProofFile.make(5, note((ONE, TWO)), TREE.node)
    content = made.to_bytes().decode()
    given = {"file": content, "leaf": "entry 5", "policy": POLICY}
    cosigned = {"site-01": STARTED + 60, "site-02": STARTED + 61}
    told = {"index": 5, "size": SIZE, "cosigned": cosigned}
    yield taken("an entry", given, told)
    extra = ProofFile(5, made.digests, made.note, b"anything").to_bytes().decode()
    yield taken("extra data, which nobody may trust", {**given, "file": extra}, told)

    lines = content.split("\n")
    fewer = "\n".join([*lines[:2], *lines[3:]])
    swapped = "\n".join([*lines[:2], lines[3], lines[2], *lines[4:]])
    alone = ProofFile(5, made.digests, note((ONE,))).to_bytes().decode()
    for name, change, reason in (
        ("another leaf", {"leaf": "entry 6"}, "wrong-root"),
        ("another index", {"file": content.replace("index 5", "index 4")}, "wrong-root"),
        ("digests in another order", {"file": swapped}, "wrong-root"),
        ("a digest too few", {"file": fewer}, "bad-proof-length"),
        ("an index beyond the tree", {"file": content.replace("index 5", "index 13")}, "bad-range"),
        ("too few cosigners", {"file": alone}, "no-quorum"),
        ("another size", {"file": content.replace("\n13\n", "\n14\n")}, "bad-signature"),
        ("a later version", {"file": content.replace("@v1", "@v2")}, "newer-version"),
        ("no note", {"file": content.split("\n\n")[0] + "\n\n"}, "bad-note"),
    ):
        yield refused(name, {**given, **change}, reason)
    for name, file in {
        "another first line": content.replace("c2sp", "C2SP"),
        "no index": content.replace("index 5\n", ""),
        "an index with a zero": content.replace("index 5", "index 05"),
        "extra data that are empty": content.replace("index", "extra \nindex"),
        "extra data behind the index": content.replace("5\n", "5\nextra YQ==\n", 1),
        "no empty line": content.replace("\n\n", "\n", 1),
    }.items():
        yield refused(name, {**given, "file": file}, "bad-proof-file")


def tiles() -> Iterable[Case]:
    """A log as a folder of static files."""
    log = opened(ONE)
    for number in range(1, 4):
        log.append(f"e{number}", "error.raised", {"kind": "example", "number": number})
    vkey = ONE.log.verifier().text()
    whole = {path: content.hex() for path, content in files(log.leaves, log.note((SERVER,)))}
    given = {"vkeys": [vkey], "files_hex": whole}
    types = ["log.opened", *["error.raised"] * 3]
    root = log.tree.root().hex()
    yield taken("four entries", given, {"size": 4, "root_hex": root, "types": types})
    for size in (0, 1, 255, 256, 257, 513, 70_000, 256_300):
        paths = [tile.path for tile in layout(size)]
        some = [*paths[:2], *paths[-4:]] if len(paths) > 8 else paths
        yield taken(f"files of {size}", {"size": size}, {"files": len(paths), "some": some})

    first = "tile/entries/000.p/4"
    hashes = "tile/0/000.p/4"

    def changed(path: str, content: bytes) -> Case:
        return {**given, "files_hex": {**whole, path: content.hex()}}

    entries, digests = bytes.fromhex(whole[first]), bytes.fromhex(whole[hashes])
    misplaced = opened(ONE)
    misplaced.append("e1", "error.raised", {})
    swapped = [misplaced.leaves[1], misplaced.leaves[0]]
    again = _signed_anew(ONE, swapped)
    for name, spoilt, reason in (
        ("no checkpoint", _left_out(given, "checkpoint"), "missing-file"),
        ("no entries", _left_out(given, first), "missing-file"),
        ("no digests", _left_out(given, hashes), "missing-file"),
        ("a bit of an entry", changed(first, _flipped(entries, 9)), "other-entries"),
        ("a bit of a length", changed(first, _flipped(entries, 1)), "bad-bundle"),
        ("a byte too few", changed(first, entries[:-1]), "bad-bundle"),
        ("a byte too many", changed(first, entries + b"\0"), "bad-bundle"),
        ("a bit of a digest", changed(hashes, _flipped(digests, 40)), "other-tile"),
        ("a digest too few", changed(hashes, digests[:-32]), "other-tile"),
        ("an older checkpoint", changed("checkpoint", log.note(size=3).to_bytes()), "missing-file"),
        ("another key", {**given, "vkeys": [TWO.log.verifier().text()]}, "unsigned"),
        ("entries in another order, signed so", {**given, "files_hex": again}, "wrong-place"),
    ):
        yield refused(name, spoilt, reason)


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _left_out(given: Case, path: str) -> Case:
    rest = {name: content for name, content in given["files_hex"].items() if name != path}
    return {**given, "files_hex": rest}


def _signed_anew(party: Party, leaves: list[bytes]) -> Mapping[str, str]:
    root = Tree(map(leaf_hash, leaves)).root()
    whole = signed(party, Checkpoint(party.origin, len(leaves), root))
    return {path: content.hex() for path, content in files(leaves, whole)}
