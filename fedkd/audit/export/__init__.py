"""Hands over what the logs say in formats that others read: which files, with which content.

Nothing here reads a clock, draws a number or opens a file: the same logs give the same bytes. No
value is made up: what the logs do not say is absent, or "not stated" where a reader waits for it.
"""

from collections.abc import Iterator
from typing import Final

from fedkd.audit.export import croissant, cyclonedx, prov, tiles
from fedkd.audit.verify import Note
from fedkd.audit.verify.lineage import Lineage, Logs

FORMATS: Final = ("tiles", "prov", "croissant", "cyclonedx")
OF_A_MODEL: Final = ("prov", "cyclonedx")
"""Those that tell of a model's lineage; the others tell of the logs as such."""


def files(
    format: str, logs: Logs, found: Lineage | None = None, heads: dict[str, Note] | None = None
) -> Iterator[tuple[str, bytes]]:
    """The files of one of `FORMATS`, as (relative path, content); a `Lineage` for `OF_A_MODEL`.

    `heads` are checkpoints with cosignatures that lie beside the logs, by party.
    """
    if format == "tiles":
        yield from tiles.files(logs, heads or {})
    elif format == "croissant":
        yield from croissant.files(logs)
    elif found is None:
        raise ValueError(f"found no lineage, expected one for {format}")
    elif format == "prov":
        yield from prov.files(found, logs)
    elif format == "cyclonedx":
        yield from cyclonedx.files(found, logs)
    else:
        raise ValueError(f"found format {format!r}, expected one of {FORMATS}")


__all__ = ["FORMATS", "OF_A_MODEL", "files"]
