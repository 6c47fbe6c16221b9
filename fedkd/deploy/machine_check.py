"""Looks at the machine that a site is to run on: Python, versions, disk."""

import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedkd import __version__
from fedkd.deploy.verdicts import Verdict, passed, problem

LEAST_PYTHON = (3, 11)
LEAST_FREE = 2 << 30
"""Bytes: models, kept answers and logs of some hundred rounds; a full disk stops a site."""
TRANSPORT = ("flwr", "1.41")


def check_machine(folder: Path, software: str, *, joined: bool = False) -> Iterator[Verdict]:
    """Verdicts on Python, versions (`software` is the coordinator's fedkd) and disk."""
    yield python_verdict((sys.version_info.major, sys.version_info.minor, sys.version_info.micro))
    yield software_verdict(__version__, software, joined=joined)
    yield transport_verdict()
    yield disk_verdict(folder, shutil.disk_usage(_existing(folder)).free)


def python_verdict(found: tuple[int, int, int]) -> Verdict:
    """Whether fedkd runs on this Python."""
    said = ".".join(map(str, found))
    if found[:2] < LEAST_PYTHON:
        return problem("python", said, "install Python 3.11 or newer, and fedkd with it")
    return passed("python", said)


def software_verdict(here: str, there: str, *, joined: bool) -> Verdict:
    """Whether this fedkd and the coordinator's may be different.

    Joining needs the same first two numbers; a site that has joined answers one minor apart.
    """
    said = f"fedkd {here}, the coordinator's {there}"
    ours, theirs = _minor(here), _minor(there)
    apart = None if ours is None or theirs is None or ours[0] != theirs[0] else ours[1] - theirs[1]
    if apart is None or abs(apart) > joined:
        return problem("software", said, f"install fedkd {there}: see docs/deploy.md, Updating")
    late = "update soon" if apart < 0 else "the coordinator should have been updated first"
    return passed("software", said, "" if not apart else f"{late}: docs/deploy.md, Updating")


def transport_verdict() -> Verdict:
    """Whether the Flower that is installed is the one that was tried."""
    name, tried = TRANSPORT
    try:
        found = version(name)
    except PackageNotFoundError:
        return problem("transport", f"no {name}", f"pip install '{name}=={tried}.*'")
    if not found.startswith(f"{tried}."):
        return problem(
            "transport", f"{name} {found}, not {tried}", f"pip install '{name}=={tried}.*'"
        )
    return passed("transport", f"{name} {found}")


def disk_verdict(folder: Path, free: int) -> Verdict:
    """Whether there is room for what a site keeps."""
    said = f"{free / 2**30:.1f} GiB free for {folder}"
    if free < LEAST_FREE:
        return problem(
            "disk", said, f"make {LEAST_FREE >> 30} GiB free: a site stops when its disk is full"
        )
    return passed("disk", said)


def _minor(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return int(parts[0]), int(parts[1])


def _existing(folder: Path) -> Path:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return there
