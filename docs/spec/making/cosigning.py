"""Cases of cosigning: what is asked, what rides along, and what an old copy must hear."""

from collections.abc import Iterable, Mapping

from fedkd.audit.verify import AddCheckpoint, Algorithm, Checkpoint, Note, cosign, cosignature_lines
from fedkd.audit.verify.notes import signed_message
from fedkd.wire import Envelope, cover
from making.handover import SIZE, TREE, note
from making.logs import LOGS, site_log
from making.parties import (
    ONE,
    SERVER,
    STARTED,
    THREE,
    TWO,
    Case,
    Party,
    SmallLog,
    flipped_line,
    plain_tree,
    refused,
    signed,
    taken,
)


def cosigning() -> Iterable[Case]:
    """What a cosigner takes and refuses, from what it remembers; and what it signs."""
    logs = {SERVER.origin: [SERVER.log.verifier().text()]}
    seen = {SERVER.origin: _head(6)}
    base: Case = {
        "cosigner": ONE.witness.verifier().text(),
        "seed_is_sha256_of": ONE.sentences[1],
        "logs": logs,
    }
    base |= {"seen": seen, "time": STARTED + 60}

    def request(old: int, size: int, by: Party = SERVER, signer: Party | None = None) -> str:
        proof = TREE.consistency(old, size)
        made = note(size=size, party=by)
        if signer is not None:
            made = Note(made.text, (signer.log.sign(made.text),))
        return AddCheckpoint(old, proof, made).to_bytes().decode()

    def answer(size: int) -> str:
        checkpoint = Checkpoint(SERVER.origin, size, TREE.root(size))
        return cosignature_lines([cosign(ONE.witness, checkpoint, STARTED + 60)]).decode()

    for name, heads, old, size in (
        ("the first head, taken on trust", {}, 0, SIZE),
        ("a log that has grown", seen, 6, SIZE),
        ("a log that has not grown", seen, 6, 6),
    ):
        asked = {**base, "seen": heads, "request": request(old, size), "answer": answer(size)}
        told = {"seen": {SERVER.origin: _head(size)}, "time": STARTED + 60}
        yield taken(name, asked, told)

    forked = Checkpoint(SERVER.origin, 6, plain_tree(6, "other").root())
    split = AddCheckpoint(6, (), signed(SERVER, forked)).to_bytes().decode()
    ahead = Checkpoint(SERVER.origin, SIZE, plain_tree(SIZE, "other").root())
    path = TREE.consistency(6, SIZE)
    rewritten = AddCheckpoint(6, path, signed(SERVER, ahead)).to_bytes().decode()
    good = request(6, SIZE)
    unproven = AddCheckpoint(6, (), note()).to_bytes().decode()
    back = AddCheckpoint(6, (), note(size=5)).to_bytes().decode()
    gift = AddCheckpoint(0, path, note()).to_bytes().decode()
    for name, change, reason in (
        ("a roll-back: it starts from less than was seen", {"request": request(3, 5)}, "stale"),
        ("it starts from more than was seen", {"request": request(7, SIZE)}, "stale"),
        ("it starts from nothing once more", {"request": request(0, SIZE)}, "stale"),
        ("a split view: one size, two roots", {"request": split}, "forked"),
        ("an entry was rewritten", {"request": rewritten}, "inconsistent"),
        ("no proof", {"request": unproven}, "inconsistent"),
        ("a proof from nothing", {"request": gift, "seen": {}}, "inconsistent"),
        ("smaller than it starts", {"request": back}, "bad-request"),
        ("a log that is not followed", {"request": request(0, SIZE, TWO)}, "unknown-log"),
        ("signed by another key", {"request": request(6, SIZE, signer=TWO)}, "unknown-key"),
        ("no old size", {"request": good.split("\n", 1)[1]}, "bad-request"),
        ("an old size with a zero", {"request": good.replace("old 6", "old 06")}, "bad-request"),
        ("no empty line", {"request": good.replace("\n\n", "\n", 1)}, "bad-request"),
        ("64 digests", {"request": _long(good)}, "bad-request"),
        ("a size without root", {"request": _beheaded(good)}, "bad-request"),
        ("one key for log and cosigning", {"logs": _same_key()}, "one-key-two-roles"),
    ):
        asked = {**base, "request": good, "answer": answer(SIZE), **change}
        yield refused(name, asked, reason)

    checkpoint = Checkpoint(SERVER.origin, SIZE, TREE.root())
    name = f"{ONE.origin}/witness"
    for kind in (Algorithm.ED25519, Algorithm.COSIGNATURE, Algorithm.COSIGNATURE_MLDSA44):
        time = None if kind is Algorithm.ED25519 else STARTED
        message = signed_message(kind, name, checkpoint.text(), time)
        told = {"algorithm": int(kind), "name": name, "text": checkpoint.text()}
        asked = told if time is None else {**told, "time": time}
        yield taken(f"the signed bytes of 0x{kind:02x}", asked, {"message_hex": message.hex()})


def _head(size: int) -> Case:
    return {"size": size, "root_hex": TREE.root(size).hex()}


def _long(request: str) -> str:
    first, rest = request.split("\n", 1)
    return "\n".join([first, *["A" * 43 + "="] * 64, rest])


def _beheaded(request: str) -> str:
    head, text, lines = request.split("\n\n")
    return "\n\n".join([head, "\n".join(text.split("\n")[:2]), lines])


def _same_key() -> Mapping[str, list[str]]:
    same = type(ONE.log)(SERVER.origin, Algorithm.ED25519, ONE.witness.seed)
    return {SERVER.origin: [same.verifier().text()]}


def guard() -> Iterable[Case]:
    """Whether a party may act on its own log: what its cosigners remember of it, and since when."""
    log = LOGS["site-01"]
    size, now = len(log.leaves), STARTED + 100
    by = {party.name: [party.witness.verifier().text()] for party in (SERVER, TWO, THREE)}
    newest = log.note((SERVER, TWO, THREE)).to_bytes().decode()
    given = {"log": "site-01", "cosigners": by, "threshold": 2, "most_age_s": 86_400, "now": now}
    given |= {"notes": [newest]}
    spoke = {party.name: STARTED + 60 + late for late, party in enumerate((SERVER, TWO, THREE))}
    server_alone = log.note((SERVER,)).to_bytes().decode()
    lagging = [server_alone, signed_by(log, (TWO,), size - 1)]
    forged = server_alone.splitlines(keepends=True)[-1]
    foreign = signed_by(LOGS["server"], (TWO, THREE))

    yield taken("everybody cosigned the newest size", given, {"spoke": spoke})
    yield taken(
        "cosigners lag by a round",
        {**given, "notes": lagging},
        {"spoke": {"server": STARTED + 60, "site-02": STARTED + 60}},
    )
    longer = site_log()
    longer.append("more", "error.raised", {"kind": "example"})
    ahead = signed_by(longer, (TWO,))
    invented = unsigned_by_its_log(longer, (TWO, THREE))
    yield taken(
        "a size that its own key never signed stops nobody",
        {**given, "notes": [newest, invented]},
        {"spoke": spoke},
    )
    yield taken(
        "words of strangers and of other logs are passed over",
        {**given, "notes": [newest, foreign, signed_by(log, (ONE,))]},
        {"spoke": spoke},
    )
    other = signed_by(LOGS["site-01, another answer released"], (THREE,))
    for name, change, reason in (
        ("a cosigner knows more entries", {"notes": [newest, ahead]}, "rolled_back"),
        ("a cosigner knows another root", {"notes": [newest, other]}, "rolled_back"),
        ("nobody speaks", {"notes": []}, "not_fresh"),
        ("one of two speaks", {"notes": [server_alone]}, "not_fresh"),
        ("too long ago", {"now": now + 86_400}, "not_fresh"),
        ("from far ahead", {"now": STARTED - 300}, "not_fresh"),
        (
            "a cosignature that is none",
            {"notes": [newest.replace(forged, flipped_line(forged, 30))]},
            "not_fresh",
        ),
    ):
        yield refused(name, {**given, **change}, reason)


def signed_by(log: SmallLog, cosigners: Iterable[Party], size: int | None = None) -> str:
    """A checkpoint with cosignatures, as it travels."""
    return log.note(cosigners, size).to_bytes().decode()


def unsigned_by_its_log(log: SmallLog, cosigners: Iterable[Party]) -> str:
    """A checkpoint that cosigners alone signed."""
    whole = log.note(cosigners)
    return Note(whole.text, whole.signatures[1:]).to_bytes().decode()


def letters() -> Iterable[Case]:
    """The envelope in front of a message: what rides along, in one spelling."""
    log = LOGS["site-01"]
    note = log.note((SERVER,)).to_bytes().decode()
    envelope = Envelope(("old 0\n\n" + note,), (note,), (0, 3), ((SERVER.origin, 4),))
    told = {
        "asks": list(envelope.asks), "notes": list(envelope.notes),
        "prove_from": list(envelope.prove_from), "stands": [list(it) for it in envelope.stands],
    }  # fmt: skip
    message = b"fedkd/1\n and so on"
    covered = cover(envelope)
    empty = cover(Envelope())
    nothing: Case = {name: [] for name in told}
    for name, content, expected in (
        ("a full envelope", covered + message, told),
        ("an empty envelope", empty + message, nothing),
        ("no envelope", message, None),
    ):
        given = {"letter_hex": content.hex()}
        yield taken(name, given, {"envelope": expected, "message_hex": message.hex()})
    start = len(b"fedkd-envelope/1\n") + 4
    head = covered[start:]

    def spelt(plain: bytes) -> Case:
        magic = covered[: start - 4]
        return {"letter_hex": (magic + len(plain).to_bytes(4, "little") + plain + message).hex()}

    for name, given in {
        "cut in its length": {"letter_hex": covered[: start - 1].hex()},
        "cut in itself": {"letter_hex": covered[:-1].hex()},
        "another spelling": spelt(head.replace(b":", b": ", 1)),
        "a field too few": spelt(head.replace(b'"prove_from":[0,3],', b"")),
        "a field too many": spelt(b'{"a":[],' + head[1:]),
        "an ask that is no text": spelt(head.replace(b'"asks":["', b'"asks":[1,"')),
        "a size that is true": spelt(head.replace(b"[0,3]", b"[true]")),
        "a size below 0": spelt(head.replace(b"[0,3]", b"[-1]")),
        "65 sizes": spelt(head.replace(b"[0,3]", b"[" + b",".join([b"0"] * 65) + b"]")),
        "a stand without size": spelt(head.replace(b",4]]", b"]]")),
        "no object": spelt(b"[]"),
    }.items():
        yield refused(name, given, "bad-envelope")
