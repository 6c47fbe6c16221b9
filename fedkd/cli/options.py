"""Holds the options that every command has."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
LogFormat = Annotated[
    str,
    typer.Option("--log-format", metavar="FORMAT", help="Of what it tells: text, or json lines."),
]


def _take(file: Path | None) -> Path | None:
    if file is not None:
        from fedkd.audit.locking import take_passphrase_from

        take_passphrase_from(file)
    return file


PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="What opens the keys of a locked folder: a file with a passphrase, or a key file.",
        show_default=False,
        callback=_take,
    ),
]
NewPassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--new-passphrase-file",
        metavar="FILE",
        help="What is to open them from now on instead.",
        show_default=False,
    ),
]
Unlock = Annotated[bool, typer.Option("--unlock", help="Lay the keys plain on the disk again.")]
Metrics = Annotated[
    int | None,
    typer.Option(
        "--metrics",
        metavar="PORT",
        help="Serve figures to Prometheus on this port of loopback.",
        show_default=False,
    ),
]
