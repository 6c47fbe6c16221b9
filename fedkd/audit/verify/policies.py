"""What an auditor asks of a log before believing it: whose keys, how many cosigners, what was seen.

Every policy has one `verify`, which raises with what was found and what was expected. Policies
compose, and an empty one is a failure: nothing was asked, so nothing was shown.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, Protocol, Self

from fedkd.audit.verify.checkpoints import Checkpoint
from fedkd.audit.verify.notes import Algorithm, Note, VerifierKey
from fedkd.audit.verify.refusals import Malformed, Refuted
from fedkd.audit.verify.spellings import decimal, shown

NONE: Final = "none"
MOST_POLICY_BYTES: Final = 1_000_000
MOST_DEFINITIONS: Final = 1000
_WORDS: Final = re.compile("[ \t]+")
_LOG_ALGORITHMS: Final = (Algorithm.ED25519, Algorithm.COSIGNATURE_MLDSA44)
_WITNESS_ALGORITHMS: Final = (Algorithm.COSIGNATURE, Algorithm.COSIGNATURE_MLDSA44)


class Entries(Protocol):
    """The leaves that the verifier holds itself; `merkle.Tree` is one."""

    @property
    def size(self) -> int:
        """How many there are."""

    def root(self, size: int) -> bytes:
        """The root over the first `size` of them."""


class Policy(Protocol):
    """A demand on a log: its entries and its signed checkpoint."""

    def verify(self, entries: Entries, note: Note) -> None:
        """Returns if the demand is met, raises `Refuted` if not."""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of `policies` holds."""

    policies: tuple[Policy, ...]

    def verify(self, entries: Entries, note: Note) -> None:
        """Raises what the first that does not hold raises."""
        _not_empty(self.policies)
        for policy in self.policies:
            policy.verify(entries, note)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of `policies` holds."""

    policies: tuple[Policy, ...]

    def verify(self, entries: Entries, note: Note) -> None:
        """Raises if none holds, with every reason."""
        _not_empty(self.policies)
        reasons = []
        for policy in self.policies:
            try:
                policy.verify(entries, note)
            except Refuted as error:
                reasons.append(str(error))
            else:
                return
        raise Refuted("any of several policies", "; ".join(reasons), "one that holds")


def _not_empty(policies: Sequence[Policy]) -> None:
    if not policies:
        raise Refuted("policy", "an empty one", "a policy that asks for something")


@dataclass(frozen=True, slots=True)
class Whole:
    """The entries are all that the checkpoint speaks of, in its order, and no more.

    Whether the checkpoint itself can be believed is for other policies to say.
    """

    def verify(self, entries: Entries, note: Note) -> None:
        """Compares size and root."""
        checkpoint = note.checkpoint()
        if entries.size != checkpoint.size:
            raise Refuted(str(checkpoint), f"{entries.size} entries", f"{checkpoint.size}")
        found = entries.root(checkpoint.size)
        if found != checkpoint.root:
            raise Refuted(
                f"entries of {checkpoint}", f"root {found.hex()}", f"root {checkpoint.root.hex()}"
            )


@dataclass(frozen=True, slots=True)
class Continues:
    """The log goes on from every checkpoint of it that the auditor kept earlier.

    It is refuted where none was kept of this log: then there is nothing to compare with.
    """

    kept: tuple[Checkpoint, ...]

    def verify(self, entries: Entries, note: Note) -> None:
        """Compares size and root with each one kept."""
        checkpoint = note.checkpoint()
        kept = [earlier for earlier in self.kept if earlier.origin == checkpoint.origin]
        if not kept:
            raise Refuted(str(checkpoint), "no earlier checkpoint of this log", "one or more kept")
        for earlier in kept:
            if earlier.size > min(checkpoint.size, entries.size):
                found = f"size {min(checkpoint.size, entries.size)}, a roll-back"
                raise Refuted(str(checkpoint), found, f"at least {earlier.size}, seen before")
            found_root = entries.root(earlier.size)
            if found_root != earlier.root:
                raise Refuted(
                    f"first {earlier.size} entries of {checkpoint.origin}",
                    f"root {found_root.hex()}, another history",
                    f"root {earlier.root.hex()}, seen before",
                )


# Who must have signed: C2SP tlog-policy.


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A log that is accepted; the key's name is the log's origin."""

    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A cosigner that may count, under a name that has a meaning in the policy file alone."""

    name: str
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyGroup:
    """`threshold` of `members`, which are names of witnesses and of groups defined before."""

    name: str
    threshold: int
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.members):
            found = f"{self.threshold} of {len(self.members)}"
            raise Malformed(f"group {shown(self.name)}", found, "1 <= k <= n")


class Witnessed(NamedTuple):
    """A checkpoint that met a policy: the keys of its log, and when each witness cosigned it."""

    checkpoint: Checkpoint
    logs: tuple[VerifierKey, ...]
    cosigned: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """A tlog-policy file: accepted logs, known witnesses, and which of them suffice.

    Beyond the format it refuses a key that is both log and witness, and, when it verifies, a
    policy that names no log.
    """

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    quorum: str

    def __post_init__(self) -> None:
        _checked_keys("log", [log.key for log in self.logs], _LOG_ALGORITHMS)
        _checked_keys("witness", [w.key for w in self.witnesses], _WITNESS_ALGORITHMS)
        logs = {log.key.public: log.key for log in self.logs}
        for witness in self.witnesses:
            if witness.key.public in logs:
                raise Malformed("policy", f"one key as log and witness {witness.name}", "two keys")
        self._check_names()

    def _check_names(self) -> None:
        named: set[str] = set()
        taken: set[str] = set()
        definitions: list[PolicyWitness | PolicyGroup] = [*self.witnesses, *self.groups]
        for definition in definitions:
            _checked_word(definition.name)
            if definition.name == NONE or definition.name in named:
                raise Malformed("policy", f"name {shown(definition.name)} again", "a new name")
            for member in definition.members if isinstance(definition, PolicyGroup) else ():
                if member not in named:
                    raise Malformed(
                        f"group {shown(definition.name)}", shown(member), "a name defined before"
                    )
                if member in taken:  # tlog-policy, Defining a witness group: at most once
                    raise Malformed("policy", f"{shown(member)} in two groups", "once at most")
                taken.add(member)
            named.add(definition.name)
        if self.quorum != NONE and self.quorum not in named:
            raise Malformed("quorum", shown(self.quorum), "a name defined before, or none")
        for url in (*(log.url for log in self.logs), *(w.url for w in self.witnesses)):
            if url is not None:
                _checked_word(url)

    @classmethod
    def of(
        cls, logs: Iterable[VerifierKey], cosigners: Mapping[str, VerifierKey], threshold: int
    ) -> Self:
        """`threshold` of `cosigners`, whichever they are."""
        names = tuple(cosigners)
        return cls(
            tuple(map(PolicyLog, logs)),
            tuple(PolicyWitness(name, key) for name, key in cosigners.items()),
            (PolicyGroup("cosigners", threshold, names),),
            "cosigners",
        )

    @property
    def needs_cosigners(self) -> bool:
        """False where the log's own signature suffices, and so its holder can rewrite it alone."""
        return self.quorum != NONE

    def text(self) -> bytes:
        """The policy as a file."""

        def line(*words: str | None) -> str:
            return " ".join(word for word in words if word is not None) + "\n"

        lines = [line("log", log.key.text(), log.url) for log in self.logs]
        lines += [line("witness", w.name, w.key.text(), w.url) for w in self.witnesses]
        lines += [line("group", g.name, str(g.threshold), *g.members) for g in self.groups]
        lines += [line("quorum", self.quorum)]
        return "".join(lines).encode("utf-8", "surrogateescape")

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """The policy in a file; unlike `text` it allows comments, empty lines and tabs."""
        logs: list[PolicyLog] = []
        witnesses: list[PolicyWitness] = []
        groups: list[PolicyGroup] = []
        names: list[str] = []
        quorum: str | None = None
        for number, (verb, *words) in _lines(content):
            where = f"line {number} of the policy"
            if verb == "log":
                key, *url = _fields(where, words, 1, 2)
                logs.append(PolicyLog(VerifierKey.parse(key), *url))
            elif verb == "witness":
                name, key, *url = _fields(where, words, 2, 3)
                _checked_new(where, names, name)
                witnesses.append(PolicyWitness(name, VerifierKey.parse(key), *url))
                names.append(name)
            elif verb == "group":
                groups.append(_group(where, words, names))
                names.append(groups[-1].name)
            elif verb == "quorum" and quorum is None:
                (quorum,) = _fields(where, words, 1, 1)
                if quorum not in (NONE, *names):
                    raise Malformed(where, shown(quorum), "a name defined before, or none")
            else:
                found = "a second quorum" if verb == "quorum" else shown(verb)
                raise Malformed(where, found, "log, witness, group, or one quorum")
        if quorum is None:
            raise Malformed("policy", "no quorum line", "exactly one")
        return cls(tuple(logs), tuple(witnesses), tuple(groups), quorum)

    def verify(self, entries: Entries, note: Note) -> None:
        """Whether log and quorum signed; of `entries` it asks nothing: that is `Whole`'s part."""
        self.witnessed(note)

    def witnessed(
        self, note: Note, not_before: int | None = None, not_after: int | None = None
    ) -> Witnessed:
        """The checkpoint, once an accepted log signed it and the quorum cosigned it.

        Only cosignatures from `not_before` to `not_after` count (seconds since 1970, UTC).
        """
        checkpoint = note.checkpoint()
        logs = [log.key for log in self.logs if log.key.name == checkpoint.origin]
        if not logs:
            names = ", ".join(sorted({log.key.name for log in self.logs})) or "none, which is none"
            raise Refuted(str(checkpoint), f"log {shown(checkpoint.origin)}", f"one of: {names}")
        signers = note.verify([*logs, *(witness.key for witness in self.witnesses)]).signers
        signed = tuple(key for key in logs if key in signers)
        if not signed:
            expected = " or ".join(map(str, logs))
            raise Refuted(str(checkpoint), "no signature by its log", f"one by {expected}")
        times = {w.name: signers.get(w.key) for w in self.witnesses}
        cosigned = {
            name: time
            for name, time in times.items()
            if time is not None
            and (not_before is None or time >= not_before)
            and (not_after is None or time <= not_after)
        }
        self._check_quorum(checkpoint, cosigned)
        return Witnessed(checkpoint, signed, cosigned)

    def _check_quorum(self, checkpoint: Checkpoint, cosigned: Mapping[str, int]) -> None:
        met = {NONE, *cosigned}
        for group in self.groups:
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        if self.quorum in met:
            return
        expected = f"one by {self.quorum}"
        for group in (group for group in self.groups if group.name == self.quorum):
            expected = f"{group.threshold} of {len(group.members)}: {', '.join(group.members)}"
        found = ", ".join(cosigned) or "nobody"
        raise Refuted(f"quorum of {checkpoint}", f"cosignatures that count by {found}", expected)


@dataclass(frozen=True, slots=True)
class Fresh:
    """The quorum of `policy` cosigned between two times (seconds since 1970, UTC)."""

    policy: TrustPolicy
    not_before: int
    not_after: int

    def verify(self, entries: Entries, note: Note) -> None:
        """As `TrustPolicy.verify`; only cosignatures within the times, both included, count."""
        if not self.policy.needs_cosigners:
            raise Refuted("freshness", "a policy without cosigners", "a quorum whose times count")
        self.policy.witnessed(note, self.not_before, self.not_after)


def _lines(content: bytes) -> Iterator[tuple[int, list[str]]]:
    if len(content) > MOST_POLICY_BYTES:
        raise Malformed("policy", f"{len(content)} bytes", f"at most {MOST_POLICY_BYTES}")
    # tlog-policy, Character set: octets are opaque; surrogateescape keeps each as it is.
    *lines, end = content.decode("utf-8", "surrogateescape").split("\n")
    if end:
        raise Malformed("policy", "a last line without newline, perhaps cut", "a newline")
    meant = 0
    for number, line in enumerate(lines, 1):
        if any((letter < " " and letter != "\t") or letter == "\x7f" for letter in line):
            raise Malformed(f"line {number} of the policy", "a control character", "none but tab")
        stripped = line.strip(" \t")
        if not stripped or stripped.startswith("#"):
            continue
        meant += 1
        if meant > MOST_DEFINITIONS:
            raise Malformed("policy", f"more than {MOST_DEFINITIONS} lines", "fewer")
        yield number, _WORDS.split(stripped)


def _fields(where: str, words: list[str], least: int, most: int) -> list[str]:
    if not least <= len(words) <= most:
        raise Malformed(where, f"{len(words)} words after its first", f"{least} to {most}")
    return words


def _checked_new(where: str, names: Sequence[str], name: str) -> None:
    if name == NONE or name in names:
        raise Malformed(where, f"name {shown(name)} again", "a new name")


def _group(where: str, words: list[str], names: Sequence[str]) -> PolicyGroup:
    if len(words) < 3:
        raise Malformed(where, f"{len(words)} words after its first", "name, threshold, members")
    name, threshold, *members = words
    _checked_new(where, names, name)
    for member in members:
        if member not in names:
            raise Malformed(where, shown(member), "a name defined before")
    least = {"all": len(members), "any": 1}.get(threshold)
    return PolicyGroup(name, least or decimal(threshold, where), tuple(members))


def _checked_keys(kind: str, keys: Sequence[VerifierKey], allowed: Sequence[Algorithm]) -> None:
    for key in keys:
        if key.algorithm not in allowed:
            expected = " or ".join(f"0x{one:02x}" for one in allowed)
            raise Malformed(f"{kind} {key}", f"a key of type 0x{key.algorithm:02x}", expected)
    # tlog-policy, Public key representation: one public key under two names is a duplicate.
    for first, second in pairwise(sorted(keys, key=lambda key: key.public)):
        if first.public == second.public:
            raise Malformed("policy", f"one key as {kind} {first} and {second}", "each key once")


def _checked_word(word: str) -> None:
    if not word or any(letter <= " " or letter == "\x7f" for letter in word):
        raise Malformed("policy", shown(word), "a word without spaces and controls")


# How many cosigners: two heads of one log need 2k - n cosigners that sign both.


class QuorumRow(NamedTuple):
    """What `threshold` of `cosigners` stands: so many liars, so many absent."""

    cosigners: int
    threshold: int
    liars: int
    absent: int


def default_threshold(cosigners: int) -> int:
    """Three quarters, rounded up, but never all of two or more: one may always be absent."""
    if cosigners < 1:
        raise ValueError(f"found {cosigners} cosigners, expected at least one")
    return max(1, min(cosigners - 1, -(-3 * cosigners // 4)))


def quorum_row(cosigners: int, threshold: int | None = None) -> QuorumRow:
    """What a quorum stands; the default threshold if none is given.

    Below a majority two heads find disjoint quorums, and no liar is needed: `liars` is then -1.
    """
    least = default_threshold(cosigners) if threshold is None else threshold
    if not 1 <= least <= cosigners:
        raise ValueError(f"found threshold {least}, expected 1 to {cosigners}")
    return QuorumRow(cosigners, least, max(-1, 2 * least - cosigners - 1), cosigners - least)


def quorum_table(most: int = 10) -> tuple[QuorumRow, ...]:
    """The rows for 2 to `most` cosigners, at the default threshold."""
    return tuple(quorum_row(cosigners) for cosigners in range(2, most + 1))
