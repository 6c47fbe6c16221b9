"""Says where everything of a hospital lies, and who may read it."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedkd.knowledge.bad_input import BadInput

PRIVATE_FOLDER: Final = 0o700
PRIVATE_FILE: Final = 0o600
_OTHERS: Final = 0o077
_GROUP_MAY_PASS: Final = 0o710
_GROUP_MAY_READ: Final = 0o750


@dataclass(frozen=True, slots=True)
class Hospital:
    """A hospital's folder. `site` and `rehearsal` are site folders; `letterbox` faces the network.

    Only `run` and `letterbox` may be entered by the letterbox's group; all else is the owner's.
    """

    folder: Path

    @property
    def site_yaml(self) -> Path:
        """What the hospital brings and what it accepts, typed by a person."""
        return self.folder / "site.yaml"

    @property
    def invitation(self) -> Path:
        """The invitation, as it came."""
        return self.folder / "invitation.json"

    @property
    def authority(self) -> Path:
        """The federation's certificate authority, PEM."""
        return self.folder / "ca.crt"

    @property
    def federation_yaml(self) -> Path:
        """What the federation agreed on."""
        return self.folder / "federation.yaml"

    @property
    def federation_sig(self) -> Path:
        """The federation's signature over it."""
        return self.folder / "federation.yaml.sig"

    @property
    def successions(self) -> Path:
        """Papers by which the federation's key was followed by another one."""
        return self.folder / "successions"

    @property
    def keys(self) -> Path:
        """The folder of the node's key."""
        return self.folder / "keys"

    @property
    def node_key(self) -> Path:
        """The P-384 key, OpenSSH, by which the coordinator knows the letterbox."""
        return self.keys / "node.key"

    @property
    def site(self) -> Path:
        """The site's folder: records, log, ledger, models."""
        return self.folder / "site"

    @property
    def rehearsal(self) -> Path:
        """The rehearsal's folder: the same, with rows drawn from declared ranges."""
        return self.folder / "rehearsal"

    @property
    def proposals(self) -> Path:
        """Proposed runs, as they came in."""
        return self.folder / "proposals"

    @property
    def letterbox(self) -> Path:
        """All that the process which faces the network may see."""
        return self.folder / "letterbox"

    @property
    def run(self) -> Path:
        """The socket of the site service, and what is running."""
        return self.folder / "run"

    @property
    def socket(self) -> Path:
        """Where the site service listens."""
        return self.run / "site.sock"

    @property
    def paused(self) -> Path:
        """While this file is there, nothing is answered."""
        return self.folder / "paused"

    @property
    def left(self) -> Path:
        """While this file is there, the hospital has left the federation."""
        return self.folder / "left"

    @property
    def is_paused(self) -> bool:
        """Whether nothing is answered at present."""
        return self.paused.exists()

    @property
    def silence(self) -> str | None:
        """Why nothing is answered at present: by whom it was paused, or that it left; else None."""
        if self.left.exists():
            return "this hospital left the federation"
        return "fedkd site pause" if self.is_paused else None

    @property
    def name(self) -> str:
        """The site's name in the federation."""
        return str(self.invited()["site"])

    def invited(self) -> dict[str, Any]:
        """What the invitation says; its signature was checked when it was taken in.

        `federation_vkey` is the key that the federation signs with now: papers in `successions`,
        checked as well when they were taken in, say which one followed which.
        """
        try:
            told: dict[str, Any] = json.loads(self.invitation.read_bytes())
        except (OSError, ValueError):
            raise BadInput(
                f"no invitation in {self.folder}",
                "the folder of a hospital that joined a federation",
                f"fedkd site join INVITATION --dir {self.folder}",
            ) from None
        followed = {}
        for path in sorted(self.successions.glob("*.json")):
            paper = json.loads(path.read_bytes())
            followed[paper["old_vkey"]] = paper["new_vkey"]
        while told["federation_vkey"] in followed:
            told["federation_vkey"] = followed.pop(told["federation_vkey"])
        return told

    def expect_private(self, letterbox_group: int | None = None) -> None:
        """`BadInput`, with what to type, where anybody else may read what only the owner may.

        With a `letterbox_group` the way to the letterbox and the socket is open to that group:
        whatever else lies in the folder must be closed to it.
        """
        entered = letterbox_group is not None or bool(self.folder.stat().st_mode & _OTHERS)
        for path, mode in self._readable(entered=entered):
            shared = path in (self.folder, self.run, self.letterbox)
            allowed = (_GROUP_MAY_PASS if path == self.folder else _GROUP_MAY_READ) & _OTHERS
            group = path.stat().st_gid
            if shared and letterbox_group == group and not mode & _OTHERS & ~allowed:
                continue
            wanted = "700" if path.is_dir() else "600"
            raise BadInput(
                f"{path} with mode {mode:04o}: others than its owner may read or enter it",
                f"0{wanted}",
                f"chmod {wanted} {path}",
            )
        if entered:
            self._expect_out_of_reach(letterbox_group)

    def _expect_out_of_reach(self, group: int | None) -> None:
        """`BadInput` where the letterbox's user may read what lies loose in here."""
        for path in sorted(set(self.folder.iterdir()) - {self.run, self.letterbox}):
            if path.exists() and self._is_reached(path.resolve(), group):
                wanted = "700" if path.is_dir() else "600"
                raise BadInput(
                    f"{path} with mode {stat.S_IMODE(path.stat().st_mode):04o}: the letterbox's "
                    "user may read it",
                    f"0{wanted}, or a folder that only its owner may enter",
                    f"chmod {wanted} {path}",
                )

    def records_in_reach(self, letterbox_group: int | None) -> list[str]:
        """A warning where the letterbox's user may read the table that site.yaml names.

        By modes alone: whether that user sees the folder at all (a container, a unit) is not asked.
        """
        return [
            f"{path} may be read by the letterbox's user, unless that sees no such folder: "
            f"chmod 600 {path}"
            for path in self._records()
            if path.exists() and self._is_reached(path.resolve(), letterbox_group)
        ]

    def _is_reached(self, path: Path, group: int | None) -> bool:
        """Whether somebody of `group`, who may enter this folder, gets to `path` and reads it."""

        def may(one: Path, others: int) -> bool:
            found = one.stat()
            allowed = others << 3 if found.st_gid == group else others
            return bool(found.st_mode & allowed)

        home = self.folder.resolve()
        enters = all(one == home or may(one, stat.S_IXOTH) for one in path.parents)
        return enters and may(path, stat.S_IXOTH if path.is_dir() else stat.S_IROTH)

    def _records(self) -> list[Path]:
        """The table that site.yaml names, where it does."""
        from fedkd.data.typed_by_hand import read_yaml

        try:
            data = read_yaml(self.site_yaml).get("data")
        except (BadInput, OSError):  # whoever founds the site says what is wrong with it
            return []
        named = data.get("path") if isinstance(data, dict) else None
        return [self.folder / Path(named).expanduser()] if isinstance(named, str) else []

    def _readable(self, *, entered: bool) -> Iterator[tuple[Path, int]]:
        """Every folder and key file that others may do something with."""
        folders = [self.folder, self.keys, self.run, self.letterbox, self.proposals]
        for site in (self.site, self.rehearsal):
            folders += [site, site / "keys"]
        # In a folder that nobody else may enter, editors may write these as they like.
        files = [self.site_yaml, self.invitation] if entered else []
        for folder in (self.keys, self.site / "keys", self.rehearsal / "keys"):
            files += sorted(folder.glob("*.key"))
        files += [self.site / name for name in ("train.npz", "validation.npz", "commitment.key")]
        for path in [*folders, *files]:
            try:
                mode = stat.S_IMODE(path.stat().st_mode)
            except FileNotFoundError:
                continue
            if mode & _OTHERS:
                yield path, mode


def hospital_at(folder: Path) -> Hospital:
    """The hospital in `folder`; `BadInput` where it never joined a federation."""
    hospital = Hospital(folder.expanduser().resolve())
    hospital.invited()
    return hospital


def private_folder(path: Path) -> Path:
    """`path`, made with mode 0700 where it is not there."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    return path


def write_private(path: Path, content: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replaces `path` by `content`, of this `mode`, on disk when this returns."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE_FILE)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(handle, mode)
        os.fsync(handle)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def append_private(path: Path, content: bytes) -> None:
    """Adds `content` to the file at `path`, made with mode 0600 where it is not there."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, PRIVATE_FILE), "ab") as file:
        file.write(content)
