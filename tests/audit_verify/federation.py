"""A small federation whose parties keep logs and cosign each other's, made in memory."""

import copy
import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedkd.audit.verify import (
    AddCheckpoint,
    Algorithm,
    Checkpoint,
    Head,
    Note,
    Range,
    Signature,
    SigningKey,
    Tree,
    TrustPolicy,
    Witness,
    cosign,
    leaf_hash,
    make_leaf,
)

SITES = ("site-01", "site-02", "site-03")
RUN = "run-1"
NOW = 1_795_500_000
TABLES = (
    "CREATE TABLE entries (place INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, "
    "type TEXT NOT NULL, at TEXT NOT NULL, leaf BLOB NOT NULL, salt BLOB, body TEXT)",
    "CREATE TABLE nodes (level INTEGER, place INTEGER, digest BLOB NOT NULL, "
    "PRIMARY KEY (level, place)) WITHOUT ROWID",
    "CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL)",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE cosignatures (size INTEGER, cosigner TEXT, line BLOB NOT NULL, "
    "at INTEGER NOT NULL, PRIMARY KEY (size, cosigner)) WITHOUT ROWID",
    "CREATE TABLE seen (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, "
    "note BLOB NOT NULL)",
)


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def signing_key(name: str, algorithm: Algorithm, seed: str = "") -> SigningKey:
    made = hashlib.sha256(f"test key {name}/{algorithm}/{seed}".encode()).digest()
    return SigningKey(name, algorithm, made)


class Party:
    """A party's log in memory: appended to, cosigned, and written as a file of format 3."""

    def __init__(self, name: str, *, kind: str = "", tells: str = "00000001") -> None:
        self.name = name
        self.origin = "/".join(filter(None, ("fedkd.invalid", kind, name, tells)))
        self.key = signing_key(self.origin, Algorithm.ED25519)
        self.witness = signing_key(f"{self.origin}/witness", Algorithm.COSIGNATURE)
        self.rows: list[tuple[Any, ...]] = []
        self.tree = Tree()
        self.notes: list[Note] = []
        self.cosignatures: dict[tuple[int, str], tuple[bytes, int]] = {}
        self.seen: dict[str, Note] = {}
        self.policy: TrustPolicy | None = None

    @property
    def size(self) -> int:
        return self.tree.size

    def append(self, type: str, body: Mapping[str, Any], key: str | None = None) -> int:
        """One entry more, with its checkpoint; the entry's index."""
        index = self.size
        key = key or f"{type}/{index}"
        at = f"2026-11-24T05:{index // 60 % 60:02}:{index % 60:02}.000Z"
        salt = hashlib.sha256(f"{self.name} {index}".encode()).digest()
        run = body.get("run")
        leaf, written = make_leaf(
            body, salt, type=type, sequence=index, time=at, actor=self.name,
            run=run if isinstance(run, str) else None, key=key,
        )  # fmt: skip
        self.add_row((index, key, type, at, leaf, salt, written.decode()))
        return index

    def add_row(self, row: tuple[Any, ...]) -> None:
        self.rows.append(row)
        self.tree.append(leaf_hash(row[4]))
        text = Checkpoint(self.origin, self.size, self.tree.root()).text()
        self.notes.append(Note(text, (self.key.sign(text),)))

    def head(self) -> dict[str, Any]:
        return {"size": self.size, "root": self.tree.root().hex()}

    def note(self, size: int | None = None) -> Note:
        """The checkpoint of `size`, with its cosignatures."""
        at = self.size if size is None else size
        lines = [line.decode() for (s, _), (line, _) in self.cosignatures.items() if s == at]
        return self.notes[at - 1].with_signatures(map(Signature.parse, lines))

    def cosigns(self, other: "Party", time: int = NOW) -> dict[str, Any]:
        """Cosigns the other's newest head, once it goes on from what was cosigned before."""
        before = self.seen.get(other.origin)
        heads = {}
        if before is not None:
            head = before.checkpoint()
            heads = {other.origin: Head(head.size, head.root)}
        old = heads[other.origin].size if heads else 0
        proof = other.tree.consistency(old) if old else ()
        witness = Witness((self.witness,), {other.origin: (other.key.verifier(),)}, heads)
        _, signatures = witness.add(AddCheckpoint(old, proof, other.notes[-1]), time)
        self.seen[other.origin] = other.notes[-1]
        for line in signatures:
            cosigner = str(self.witness.verifier())
            other.cosignatures[other.size, cosigner] = (line.line().encode(), time)
        return {"origin": other.origin, **other.head()}

    def forged_by(self, other: "Party", time: int = NOW) -> None:
        """A cosignature that nobody made: the other key's name over bytes of this party's."""
        checkpoint = self.notes[-1].checkpoint()
        line = cosign(
            signing_key(other.witness.name, Algorithm.COSIGNATURE, "other"), checkpoint, time
        )
        forged = type(line)(line.name, other.witness.verifier().id, line.content)
        cosigner = str(other.witness.verifier())
        self.cosignatures[self.size, cosigner] = (forged.line().encode(), time)

    def copy(self) -> "Party":
        return copy.deepcopy(self)

    def cut_to(self, size: int) -> "Party":
        """The log as it was at `size`, memory and cosignatures included: an old backup."""
        older = self.copy()
        older.rows, older.notes = older.rows[:size], older.notes[:size]
        older.tree = Tree(leaf_hash(row[4]) for row in older.rows)
        older.cosignatures = {
            key: line for key, line in older.cosignatures.items() if key[0] <= size
        }
        return older

    def rewritten(self, index: int, body: Mapping[str, Any]) -> "Party":
        """The log with another body in one entry, all signed again by its own key."""
        other = Party(self.name)
        other.origin, other.key, other.witness = self.origin, self.key, self.witness
        other.seen, other.policy = self.seen, self.policy
        for row in self.rows:
            if row[0] == index:
                other.append(row[2], body, row[1])
            else:
                other.add_row(row)
        return other

    def facts(self) -> dict[str, bytes]:
        peaks = Range()
        for row in self.rows:
            peaks, _ = peaks.appended(leaf_hash(row[4]))
        facts = {
            "range": peaks.to_bytes(),
            "vkey": self.key.verifier().text().encode(),
            "witness": self.witness.verifier().text().encode(),
        }
        return facts if self.policy is None else {**facts, "policy": self.policy.text()}

    def write(self, folder: Path, name: str | None = None) -> Path:
        path = folder / f"{name or self.name}.sqlite"
        path.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        database.execute("PRAGMA synchronous=OFF")
        for table in TABLES:
            database.execute(table)
        database.execute("PRAGMA user_version=3")
        many = database.executemany
        many("INSERT INTO entries VALUES (?,?,?,?,?,?,?)", self.rows)
        many(
            "INSERT INTO nodes VALUES (?,?,?)",
            [
                (level, place, self.tree.node(level, place))
                for level in range(self.size.bit_length())
                for place in range(self.size >> level)
            ],
        )
        notes = [(size, note.to_bytes()) for size, note in enumerate(self.notes, 1)]
        many("INSERT INTO checkpoints VALUES (?,?)", notes)
        many("INSERT INTO facts VALUES (?,?)", list(self.facts().items()))
        lines = [(*key, *line) for key, line in self.cosignatures.items()]
        many("INSERT INTO cosignatures VALUES (?,?,?,?)", lines)
        for note in self.seen.values():
            head = note.checkpoint()
            row = (head.origin, head.size, head.root, note.to_bytes())
            database.execute("INSERT INTO seen VALUES (?,?,?,?)", row)
        database.commit()
        database.close()
        return path


class Federation:
    """A server and sites after an honest run of so many rounds, all heads cosigned at the end."""

    def __init__(self, sites: Iterable[str] = SITES, rounds: int = 2, kind: str = "") -> None:
        self.server = Party("server", kind=kind)
        self.sites = {name: Party(name, kind=kind) for name in sites}
        self.rehearsal = kind == "rehearsal"
        for party, others in self._cosigners().items():
            keys = {other.name: other.witness.verifier() for other in others}
            threshold = max(1, min(len(keys) - 1, -(-3 * len(keys) // 4)))
            party.policy = TrustPolicy.of([party.key.verifier()], keys, threshold)
        self._open()
        lesson: str | None = None
        for number in range(1, rounds + 1):
            lesson = self._round(number, lesson)
        self.server.append("run.ended", {"run": RUN, "outcome": "finished"})
        self.cosign_all()

    @property
    def parties(self) -> dict[str, Party]:
        return {"server": self.server, **self.sites}

    def _cosigners(self) -> dict[Party, list[Party]]:
        everybody = [self.server, *self.sites.values()]
        return {party: [other for other in everybody if other is not party] for party in everybody}

    def cosign_all(self, time: int = NOW + 60) -> None:
        for party, others in self._cosigners().items():
            for other in others:
                other.cosigns(party, time)

    def _keys(self, *names: str) -> dict[str, Any]:
        return {
            name: {
                "vkey": self.parties[name].key.verifier().text(),
                "witnesses": [self.parties[name].witness.verifier().text()],
            }
            for name in names
        }

    def _open(self) -> None:
        card = {"name": "digits", "licence": "CC0", "legal_basis": "none", "origin": "made up"}
        for name, party in self.parties.items():
            opened = {"party": name, "format": 3, "rehearsal": self.rehearsal}
            party.append("log.opened", opened, "log.opened")
        self.server.append("config.fixed", {"run": RUN, "config": {"seed": 0}})
        self.server.append("run.started", {"run": RUN})
        for name in self.sites:
            peer = self._keys(name)[name]
            self.server.append("party.enrolled", {"party": name, "run": RUN, **peer})
            party = self.sites[name]
            body = {"party": name, "run": RUN, "peers": self._keys(*(self.parties.keys() - {name}))}
            party.append("party.enrolled", body)
            party.append(
                "dataset.registered", {"id": f"{name}/digits", "role": "training", "card": card}
            )
        for id, role in (("digits", "whole"), ("digits, held out", "queries")):
            self.server.append("dataset.registered", {"id": id, "role": role, "card": card})

    def _round(self, number: int, lesson: str | None) -> str:
        server = self.server
        queries = digest(f"queries {number}")
        server.append(
            "queries.posed",
            {"run": RUN, "round": number, "digest": queries,
             "origin": {"kind": "public", "name": "digits, held out"}, "count": 16},
        )  # fmt: skip
        answers = {
            name: self._turn(site, number, queries, lesson) for name, site in self.sites.items()
        }
        where = {"run": RUN, "round": number}
        heads = {name: site.head() for name, site in self.sites.items()}
        server.append(
            "answers.admitted",
            {**where, "question": digest(f"question {number}"), "answers": answers,
             "left_out": {}, "checkpoints": heads},
        )  # fmt: skip
        seen = [server.cosigns(site) for site in self.sites.values()]
        server.append("checkpoint.witnessed", {**where, "heads": seen})
        consensus, student = digest(f"consensus {number}"), digest(f"student {number}")
        server.append(
            "aggregate.computed",
            {**where, "inputs": answers, "left_out": {}, "output": consensus, "lesson": consensus},
        )
        parent = digest(f"student {number - 1}") if number > 1 else None
        server.append(
            "student.updated",
            {**where, "inputs": [consensus], "queries": queries, "parent": parent,
             "model": "logistic", "output": student},
        )  # fmt: skip
        return consensus

    def _turn(self, site: Party, number: int, queries: str, lesson: str | None) -> str:
        where = {"run": RUN, "round": number}
        site.append("checkpoint.witnessed", {**where, "heads": [site.cosigns(self.server)]})
        model = digest(f"model {site.name} {number}")
        parent = digest(f"model {site.name} {number - 1}") if number > 1 else None
        site.append(
            "train.local",
            {**where, "inputs": [f"{site.name}/digits"], "lesson": lesson, "parent": parent,
             "model": "logistic", "output": model, "mechanism": "none"},
        )  # fmt: skip
        answer = digest(f"answer {site.name} {number}")
        site.append(
            "release.outputs",
            {**where, "question": digest(f"question {number}"), "queries": queries, "items": 16,
             "model": model, "digest": answer, "recipient": "server",
             "asked_at": self.server.head()},
        )  # fmt: skip
        return answer

    def write(self, run: Path) -> Path:
        """The folder `run` as a run leaves it, with each party's newest cosigned checkpoint."""
        folder = run / "audit"
        folder.mkdir(parents=True, exist_ok=True)
        for name, party in self.parties.items():
            party.write(folder)
            (folder / f"{name}.checkpoint").write_bytes(party.note().to_bytes())
            assert party.policy is not None
            (folder / f"{name}.policy").write_bytes(party.policy.text())
        return run

    def write_policies(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, party in self.parties.items():
            assert party.policy is not None
            (folder / f"{name}.policy").write_bytes(party.policy.text())
        return folder
