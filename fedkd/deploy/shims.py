"""Writes the programs that Flower finds in place of its own: one knocks, the others refuse."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from fedkd.deploy.knock import REFUSED, TASK
from fedkd.knowledge.bad_input import BadInput

SHIMS: Final = "shims"
SHARED: Final = "home/executor.secret"
"""What the node's executor shows it, fresh at each start of the node."""
PASSED: Final = ("flower-superexec",)
"""What a SuperNode has to find by its bare name, and is Flower's own."""
_KNOCK: Final = Path(__file__).with_name("knock.py")


def write_shims(letterbox: Path) -> Path:
    """The folder that comes first, and alone of Flower's, on the letterbox's PATH."""
    folder = letterbox / SHIMS
    folder.mkdir(mode=0o755, exist_ok=True)
    for name in (TASK, *REFUSED):
        words = [sys.executable, "-I", "-S", str(_KNOCK), str(letterbox), name]
        _write(folder / name, f'exec {shlex.join(words)} "$@"')
    for name in PASSED:
        words = [str(installed(name)), "--superexec-auth-secret-file", str(letterbox / SHARED)]
        _write(folder / name, f'exec {shlex.join(words)} "$@"')
    return folder


def installed(name: str) -> Path:
    """The program `name` of this Python's own installation."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise BadInput(f"no {name}", "Flower beside this Python", "install fedkd again")
    return Path(found)


def _write(path: Path, line: str) -> None:
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(f"#!/bin/sh\n{line}\n")
    fresh.chmod(0o755)
    fresh.replace(path)
