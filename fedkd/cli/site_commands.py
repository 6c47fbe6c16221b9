"""Holds the commands of `fedkd site` together.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.options import Debug, Json, PassphraseFile

site = typer.Typer(
    name="site",
    no_args_is_help=True,
    help="A hospital's own folder: what left it, its own paper, what it discloses.",
)
Folder = Annotated[Path, typer.Argument(metavar="SITE", help="The site's own folder.")]
FolderOrHospital = Annotated[
    Path, typer.Argument(metavar="SITE", help="The site's own folder, or the hospital's.")
]


@site.command("sent")
def site_sent(
    folder: FolderOrHospital,
    values: Annotated[
        str | None,
        typer.Option(
            "--values", metavar="DIGEST", help="One answer's numbers.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Show everything that ever left this site; of a hospital, its rehearsal and letterbox, too."""
    from fedkd.cli.site import sent

    return sent(folder, values=values, as_json=as_json)


@site.command("report")
def site_report(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="By default SITE/report.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make the hospital's own paper from its log alone."""
    from fedkd.cli.site import paper

    return paper(folder, out=out, as_json=as_json)


@site.command("disclose")
def site_disclose(
    folder: Folder,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Of one run.", show_default=False)
    ] = None,
    form: Annotated[
        Path | None,
        typer.Option(
            "--form",
            metavar="FILE",
            help="Written if it is not there; taken as your choices if it is.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who decides.")] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="By default <site>.bundle, here."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """List what a report asks this site for, and hand over what a person opens."""
    from fedkd.cli.site import disclose_bodies

    return disclose_bodies(folder, run=run, form=form, by=by, out=out, as_json=as_json)


@site.command("check")
def site_check(
    hospital: Annotated[
        Path | None,
        typer.Argument(metavar="[HOSPITAL]", help="The hospital's folder.", show_default=False),
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(
            "--network",
            metavar="INVITATION",
            help="Try the way to the federation; no data are needed.",
            show_default=False,
        ),
    ] = None,
    ticket: Annotated[
        Path | None,
        typer.Option(
            "--ticket",
            metavar="FILE",
            help="Also write what to ask the network's people for.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Check before it starts: data, cost and what would leave; or the way to the federation."""
    from fedkd.cli.check import check

    return check(hospital, network=network, ticket=ticket, as_json=as_json)
