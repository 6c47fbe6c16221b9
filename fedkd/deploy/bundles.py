"""Says which bundles of Flower's pass a hospital's letterbox: as tickets, none is ever unpacked."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedkd.deploy.knock import APPROVED
from fedkd.knowledge.bad_input import BadInput

DIGITS: Final = 20
"""Of a bundle's SHA-256 in hex, which two people compare over the telephone."""


def allowed(letterbox: Path) -> tuple[str, ...]:
    """The SHA-256 (hex) of each bundle that a person here allowed, oldest first."""
    try:
        return tuple((letterbox / APPROVED).read_text().split())
    except OSError:
        return ()


def allow(letterbox: Path, bundle: str) -> None:
    """Lets bundles with this SHA-256 (hex) through from now on.

    The file stays the same one: its group, as whom the letterbox reads it, is not the writer's.
    """
    if bundle in allowed(letterbox):
        return
    with (letterbox / APPROVED).open("a+b") as file:
        file.seek(0)
        whole = file.read()
        file.write(b"" if not whole or whole.endswith(b"\n") else b"\n")
        file.write(f"{bundle}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def pinned(invited: Mapping[str, Any], letterbox: Path) -> tuple[str, ...]:
    """The bundles that a hospital knows: its invitation's, and those that people allowed."""
    return tuple(dict.fromkeys([str(invited["bundle"]), *allowed(letterbox)]))


def digits_of(bundle: str) -> str:
    """The beginning of a bundle's SHA-256 in groups of four, to be read over the telephone."""
    return " ".join(bundle[at : at + 4] for at in range(0, DIGITS, 4))


def expect_compared(bundle: str, digits: str) -> None:
    """`BadInput` unless `digits`, as somebody read them out, are those of the bundle."""
    typed = "".join(digits.split()).lower().removeprefix("sha256:")
    if len(typed) < DIGITS or not bundle.startswith(typed):
        raise BadInput(
            f"the digits {digits} of a bundle",
            f"{digits_of(bundle)}, with which the bundle of this proposal begins",
            "it is not what the coordinator runs: approve nothing, and telephone",
        )
