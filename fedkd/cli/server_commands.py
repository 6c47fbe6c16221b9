"""Holds the commands of `fedkd server` together.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.options import (
    Debug,
    Json,
    LogFormat,
    Metrics,
    NewPassphraseFile,
    PassphraseFile,
    Unlock,
)

server = typer.Typer(
    name="server",
    no_args_is_help=True,
    help="The coordinator's side: a federation's keys, its roster, its SuperLink and proxy.",
)
Folder = Annotated[Path, typer.Argument(metavar="FEDERATION", help="The coordinator's folder.")]
Here = Annotated[
    Path,
    typer.Option("--dir", metavar="FEDERATION", help="The coordinator's folder."),
]
CURRENT = Path()


@server.command("init")
def server_init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    name: Annotated[str, typer.Option("--name", help="The federation's name.")],
    address: Annotated[
        str,
        typer.Option("--address", metavar="HOST:PORT", help="Where hospitals reach this machine."),
    ],
    schema: Annotated[
        Path,
        typer.Option(
            "--schema",
            metavar="FILE",
            help="What records look like, as in docs/own-data.md; or a space, for pictures.",
        ),
    ],
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Where the proxy listens on this machine.",
            show_default="the port of --address",
        ),
    ] = None,
    superlink_port: Annotated[
        int, typer.Option("--superlink-port", help="Flower's own port, on loopback.")
    ] = 18_000,
    country: Annotated[str, typer.Option("--country", help="Of the coordinator.")] = "",
    contact: Annotated[str, typer.Option("--contact", help="Who answers hospitals.")] = "",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make a federation: authority, certificate, keys, configuration, signed federation.yaml."""
    from fedkd.cli.server import init

    return init(
        folder,
        name=name,
        address=address,
        schema=schema,
        listen=listen,
        superlink_port=superlink_port,
        country=country,
        contact=contact,
        as_json=as_json,
    )


@server.command("start")
def server_start(
    folder: Folder,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it is ready; it goes on behind.")
    ] = False,
    log_format: LogFormat = "text",
    metrics: Metrics = None,
    passphrase_file: PassphraseFile = None,
    debug: Debug = False,
) -> int:
    """Run the SuperLink on loopback and the proxy in front of it, until told to end."""
    from fedkd.cli.server import start

    return start(folder, detach=detach, log_format=log_format, metrics=metrics)


@server.command("stop")
def server_stop(folder: Folder, debug: Debug = False) -> int:
    """End what runs; hospitals reconnect by themselves when it is started again."""
    from fedkd.cli.server import stop

    return stop(folder)


@server.command("invite")
def server_invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")],
    folder: Here = CURRENT,
    days: Annotated[int, typer.Option("--days", help="How long it holds.")] = 30,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also written here.", show_default=False),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make an invitation, to be sent to one hospital; you read its fingerprint over the phone."""
    from fedkd.cli.server import invite

    return invite(folder, name, days=days, out=out, as_json=as_json)


@server.command("admit")
def server_admit(
    file: Annotated[Path, typer.Argument(metavar="ENROLMENT", help="What the hospital sent.")],
    folder: Here = CURRENT,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="DIGITS",
            help="As the hospital read it over the phone: admits without asking.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Admit without asking, fingerprint compared.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Admit a hospital: its SuperNode's key is registered, its log's keys are known."""
    from fedkd.cli.server import admit

    return admit(folder, file, fingerprint=fingerprint, yes=yes, as_json=as_json)


@server.command("revoke")
def server_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")],
    folder: Here = CURRENT,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the roster.")] = "",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Take a site out: its key is refused from now on, while everything runs."""
    from fedkd.cli.server import revoke

    return revoke(folder, name, reason=reason, as_json=as_json)


@server.command("rotate")
def server_rotate(
    folder: Here = CURRENT,
    key: Annotated[
        bool, typer.Option("--key", help="A new federation key, signed by the old one.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make a new certificate, which the running proxy takes; or a new federation key."""
    from fedkd.cli.server import rotate

    return rotate(folder, key=key, as_json=as_json)


@server.command("status")
def server_status(folder: Folder = CURRENT, as_json: Json = False, debug: Debug = False) -> int:
    """Show what runs, who is admitted and connected, and how long certificates hold."""
    from fedkd.cli.server import status

    return status(folder, as_json=as_json)


@server.command("lock")
def server_lock(
    folder: Folder,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: NewPassphraseFile = None,
    unlock: Unlock = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Seal every key of the coordinator under a passphrase or a key file."""
    from fedkd.cli.locking import lock_server

    return lock_server(
        folder, new_passphrase_file=new_passphrase_file, undo=unlock, as_json=as_json
    )
