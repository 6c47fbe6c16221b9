"""What an auditor brings: which logs to judge, policies of his own, checkpoints that he kept."""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from fedkd.audit.verify.notes import MOST_NOTE_BYTES, Note, VerifierKey
from fedkd.audit.verify.policies import MOST_POLICY_BYTES, TrustPolicy
from fedkd.audit.verify.refusals import CannotTell, Malformed, Refuted
from fedkd.audit.verify.spellings import shown

LOG: Final = ".sqlite"
CHECKPOINT: Final = ".checkpoint"
POLICY: Final = ".policy"


class UsedWrongly(ValueError):
    """What the auditor gave cannot be used: nothing was checked (exit code 2)."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}, expected {expected}")
        self.found = found
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Asked:
    """What an auditor asks: of which logs, trusting which policies, remembering which heads."""

    path: Path
    policy: Path | None = None
    seen: Path | None = None
    every_signature: bool = False


class Kept(NamedTuple):
    """A checkpoint that was kept outside the log, and where."""

    file: str
    note: Note


def find_logs(path: Path) -> dict[str, Path]:
    """The logs in `path` by party: of a run's folder, of its audit folder, or one file."""
    if os.path.isdir(path):  # noqa: PTH112 - pathlib raises where a folder may not be entered
        folder = path / "audit" if os.path.isdir(path / "audit") else path  # noqa: PTH112
        try:
            found = sorted(path.name for path in folder.iterdir() if path.name.endswith(LOG))
        except OSError as error:
            raise UsedWrongly(f"{error.strerror} at {path}", "a folder to read") from None
        if found:
            return {name.removesuffix(LOG): folder / name for name in found}
    elif os.path.lexists(path):
        return {path.name.removesuffix(LOG): path}
    if os.path.lexists(path / "server" / "log.sqlite"):
        raise UsedWrongly(
            f"no log in {path}, whose run did not end",
            "the logs that it hands over at its end: fedkd simulate --resume goes on with it",
        )
    raise UsedWrongly(f"no log in {path}", f"a run's folder, its audit folder, or a {LOG} file")


@dataclass(frozen=True, slots=True)
class Trust:
    """The auditor's policies: `content` of one file for all logs, or one file for each party.

    `alone` says that one log is judged, which the file must then be about.
    """

    path: Path
    alone: bool
    content: bytes | None = None
    parties: frozenset[str] = field(default_factory=frozenset)

    def about(self, party: str, origin: str | None) -> TrustPolicy:
        """The policy for this party's log; `CannotTell` if there is none."""
        if self.content is not None:
            policy = _parsed(self.content, self.path)
            if not self.alone and origin not in {log.key.name for log in policy.logs}:
                raise CannotTell(f"{shown(str(origin))}: found no such log in the policy given")
            return policy
        if party not in self.parties:
            raise CannotTell(f"found no {shown(party + POLICY)} among the policies given")
        path = self.path / (party + POLICY)
        return _parsed(read_small(path, MOST_POLICY_BYTES), path)

    def named(self) -> frozenset[str]:
        """The origins that the one file names; nothing where it cannot be read as a policy."""
        try:
            logs = () if self.content is None else TrustPolicy.parse(self.content).logs
        except Refuted:
            return frozenset()
        return frozenset(log.key.name for log in logs)


def _parsed(content: bytes, path: Path) -> TrustPolicy:
    try:
        return TrustPolicy.parse(content)
    except Refuted as error:
        what = f"{shown(path.name)}, {error.what}"
        raise Refuted(what, error.found, error.expected) from None


def trust_of(asked: Asked, paths: Mapping[str, Path]) -> Trust | None:
    """The policies that the auditor gave; None if he gave none."""
    if asked.policy is None:
        return None
    _check_own(asked.policy, paths, "a policy")
    alone = len(paths) == 1
    try:
        if not asked.policy.is_dir():
            content = read_small(asked.policy, MOST_POLICY_BYTES)
            return Trust(asked.policy, alone, content)
        names = [path.name for path in asked.policy.iterdir() if path.name.endswith(POLICY)]
    except (CannotTell, Malformed, OSError) as error:
        raise UsedWrongly(str(error), "a policy, or a folder of them") from None
    if not names:
        raise UsedWrongly(f"no *{POLICY} in {asked.policy}", "one for each party")
    parties = frozenset(name.removesuffix(POLICY) for name in names)
    return Trust(asked.policy, alone, None, parties)


def _check_own(path: Path, paths: Mapping[str, Path], what: str) -> None:
    """What came with the logs is not the auditor's own, and shows nothing that they do not."""
    if not os.path.exists(path):  # noqa: PTH110 - as above
        raise UsedWrongly(f"nothing at {path}", f"{what}, or a folder of them")
    folder = path if path.is_dir() else path.parent
    for log in paths.values():
        if os.path.realpath(folder) == os.path.realpath(log.parent):
            raise UsedWrongly(
                f"{what} that lies beside the logs",
                "your own; once you trust it, copy it to a folder of yours and give that one",
            )


def key_of(policy: TrustPolicy, origin: str | None) -> VerifierKey:
    """The key by which the policy says that this log is signed."""
    keys = [log.key for log in policy.logs if log.key.name == origin]
    if not keys:
        names = ", ".join(sorted({log.key.name for log in policy.logs})) or "none"
        raise Refuted("log", f"origin {shown(str(origin))}", f"one that the policy names: {names}")
    return keys[0]


def kept_checkpoints(
    asked: Asked, paths: Mapping[str, Path]
) -> tuple[dict[str, list[Kept]], dict[str, str]]:
    """The checkpoints that the auditor kept, by origin; by file why one cannot be read."""
    kept: dict[str, list[Kept]] = {}
    unread: dict[str, str] = {}
    if asked.seen is None:
        return kept, unread
    _check_own(asked.seen, paths, "checkpoints")
    files = list(_checkpoints(asked.seen))
    if not files:
        raise UsedWrongly(f"no *{CHECKPOINT} in {asked.seen}", "those that you kept")
    for path in files:
        try:
            note = Note.parse(read_small(path, MOST_NOTE_BYTES))
            kept.setdefault(note.checkpoint().origin, []).append(Kept(shown(path.name), note))
        except (Refuted, CannotTell) as error:
            unread[shown(path.name)] = str(error)
    return kept, unread


def _checkpoints(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(CHECKPOINT))


def read_small(path: Path, most: int) -> bytes:
    """A file's bytes; `CannotTell` if it cannot be read, `Malformed` if it has more than `most`."""
    name = shown(path.name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Malformed(name, "a folder, a pipe or a device", "a file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise CannotTell(f"{name}: found {error.strerror}, expected a file to read") from None
    if len(content) > most:
        raise Malformed(name, f"more than {most} bytes", "fewer")
    return content
