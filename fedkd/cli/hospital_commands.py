"""Adds to `fedkd site` what an engineer at a hospital does with a deployed site.

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
from fedkd.cli.site_commands import site

Hospital = Annotated[Path, typer.Argument(metavar="HOSPITAL", help="The hospital's folder.")]


@site.command("join")
def site_join(
    invitation: Annotated[
        Path, typer.Argument(metavar="INVITATION", help="The file that the coordinator sent.")
    ],
    folder: Annotated[
        Path, typer.Option("--dir", metavar="HOSPITAL", help="Made here, for this federation.")
    ],
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Take an invitation in: makes the keys here, and the paper that goes back."""
    from fedkd.cli.hospital import join

    return join(invitation, folder, as_json=as_json)


@site.command("init")
def site_init(
    hospital: Hospital,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="The hospital's records.", show_default=False),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            "--patient",
            metavar="COLUMN",
            help="The file's column that says whose row it is.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write a commented site.yaml; once it is there, found the site from it."""
    from fedkd.cli.hospital import init

    return init(hospital, data=data, patient=patient, as_json=as_json)


@site.command("trust")
def site_trust(
    hospital: Hospital,
    succession: Annotated[
        Path, typer.Argument(metavar="SUCCESSION", help="The file that the coordinator sent.")
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="DIGITS",
            help="Of the new key, as read over the phone: trusts it without asking.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who decides.")] = "",
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Trust the federation's new key, which its old one signed."""
    from fedkd.cli.trust import trust

    return trust(hospital, succession, fingerprint=fingerprint, by=by, as_json=as_json)


@site.command("approve")
def site_approve(
    hospital: Hospital,
    proposal: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIGEST]", help="Its beginning is enough; none: list.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take part, without being asked.")] = False,
    decline: Annotated[
        str | None,
        typer.Option(
            "--decline", metavar="REASON", help="Take no part (any more).", show_default=False
        ),
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who decides.")] = "",
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            metavar="DIGITS",
            help="Of a bundle that is new here, as the coordinator read them by telephone.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="FILE",
            help="Of an evaluation: student.safetensors, as the coordinator sent it by hand.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Show a proposal: code, what is asked, cost, exactly what would leave; and say yes or no."""
    from fedkd.cli.approve import approve

    return approve(
        hospital,
        proposal,
        yes=yes,
        decline=decline,
        by=by,
        bundle=bundle,
        as_json=as_json,
        model=model,
    )


@site.command("start")
def site_start(
    # The letterbox's user may pass through this folder, and not list it.
    hospital: Annotated[
        Path,
        typer.Argument(metavar="HOSPITAL", help="The hospital's folder.", readable=False),
    ],
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="HALF",
            help="service (has the records, no network) or letterbox; both by default.",
            show_default=False,
        ),
    ] = None,
    letterbox_user: Annotated[
        str | None,
        typer.Option(
            "--letterbox-user",
            metavar="USER",
            help="As root: who runs what faces the network.",
            show_default=False,
        ),
    ] = None,
    letterbox_group: Annotated[
        str | None,
        typer.Option(
            "--letterbox-group",
            metavar="GROUP",
            help="Who may reach the socket and the letterbox's folder.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    keep_network: Annotated[
        bool,
        typer.Option(
            "--keep-network",
            help="Start the service also with a network: a unit or container took it away.",
        ),
    ] = False,
    log_format: LogFormat = "text",
    metrics: Metrics = None,
    passphrase_file: PassphraseFile = None,
    debug: Debug = False,
) -> int:
    """Run the site service and the letterbox until told to stop."""
    from fedkd.cli.hospital import start

    return start(
        hospital,
        only=only,
        user=letterbox_user,
        group=letterbox_group,
        detach=detach,
        keep_network=keep_network,
        log_format=log_format,
        metrics=metrics,
    )


@site.command("stop")
def site_stop(hospital: Hospital, debug: Debug = False) -> int:
    """End what start started."""
    from fedkd.cli.hospital import stop

    return stop(hospital)


@site.command("pause")
def site_pause(hospital: Hospital, debug: Debug = False) -> int:
    """Answer nothing from now on, also after a restart."""
    from fedkd.cli.hospital import pause

    return pause(hospital)


@site.command("resume")
def site_resume(hospital: Hospital, debug: Debug = False) -> int:
    """Answer again."""
    from fedkd.cli.hospital import resume

    return resume(hospital)


@site.command("leave")
def site_leave(
    hospital: Hospital,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    debug: Debug = False,
) -> int:
    """Leave the federation: stop, start no more, and say what stays."""
    from fedkd.cli.hospital import leave

    return leave(hospital, yes=yes)


@site.command("erase")
def site_erase(
    hospital: Hospital,
    yes: Annotated[bool, typer.Option("--yes", help="Erase it; else it is shown.")] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Show what the retention rules in site.yaml make due in the site's logs; --yes erases it."""
    from fedkd.cli.erase_due import erase_due

    return erase_due(hospital, yes=yes, as_json=as_json)


@site.command("status")
def site_status(hospital: Hospital, as_json: Json = False, debug: Debug = False) -> int:
    """Show whether it is connected, what was asked last, what is spent, who cosigned the log."""
    from fedkd.cli.hospital import status

    return status(hospital, as_json=as_json)


@site.command("lock")
def site_lock(
    hospital: Hospital,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: NewPassphraseFile = None,
    unlock: Unlock = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Seal every key of the hospital under a passphrase or a key file."""
    from fedkd.cli.locking import lock_hospital

    return lock_hospital(
        hospital, new_passphrase_file=new_passphrase_file, undo=unlock, as_json=as_json
    )
