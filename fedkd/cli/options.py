"""Holds the options that every command has."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
LogFormat = Annotated[
    str,
    typer.Option("--log-format", metavar="FORMAT", help="Of what it tells: text, or json lines."),
]
Metrics = Annotated[
    int | None,
    typer.Option(
        "--metrics",
        metavar="PORT",
        help="Serve figures to Prometheus on this port of loopback.",
        show_default=False,
    ),
]
