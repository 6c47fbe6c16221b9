"""Makes and keeps a party's log key in its own folder; in a simulation it is a rehearsal's."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

from fedkd.audit.verify import SEED_BYTES, Algorithm, SigningKey

FOLDER = "keys"


def origin_of(party: str) -> str:
    """The origin of a party's log: what its checkpoints and its key are named by."""
    return f"fedkd.invalid/{quote(party, safe='')}"


def log_key(folder: Path, party: str) -> SigningKey:
    """The Ed25519 key that signs the log in `folder`; made there when first asked for.

    The file is readable by its owner alone, and never leaves the folder.
    """
    path = folder / FOLDER / "log.key"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        made = SigningKey(origin_of(party), Algorithm.ED25519, secrets.token_bytes(SEED_BYTES))
        _write_once(path, made.secret_text() + "\n")
    return SigningKey.parse(path.read_text().strip())


def _write_once(path: Path, text: str) -> None:
    """Writes a file that nobody else can read; whoever comes second finds the first one's."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
