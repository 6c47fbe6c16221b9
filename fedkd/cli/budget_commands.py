"""Holds the commands of `fedkd privacy budget` together.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.options import Debug, Json, PassphraseFile

budget = typer.Typer(
    name="budget",
    no_args_is_help=True,
    help="The officer's budget of a site: make a paper, install a signed one, show what holds.",
)
Site = Annotated[Path, typer.Argument(metavar="SITE", help="A site's own folder.")]


@budget.command("new")
def budget_new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where budget.yaml is put.")],
    population: Annotated[
        str, typer.Option("--population", help="Who the patients are; a site's own name for them.")
    ],
    patients: Annotated[int, typer.Option("--patients", min=1, help="How many, at most.")],
    debug: Debug = False,
) -> int:
    """Write a budget of epsilon 1 with comments, ready to be read, changed and signed."""
    from fedkd.cli.budget import new

    return new(folder, population=population, patients=patients)


@budget.command("install")
def budget_install(
    site: Site,
    paper: Annotated[Path, typer.Argument(metavar="BUDGET", help="The signed budget.yaml.")],
    officer: Annotated[
        str | None,
        typer.Option(
            "--officer",
            metavar="VKEY",
            help="The officer's verifier key, or a file of it: pinned with the first paper.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Install a signed budget at a site: the first pins the officer's key, a later one replaces."""
    from fedkd.cli.budget import install_paper

    return install_paper(site, paper, officer=officer, as_json=as_json)


@budget.command("show")
def budget_show(site: Site, as_json: Json = False, debug: Debug = False) -> int:
    """Print every paper of a site, each checked again, and what is spent and left."""
    from fedkd.cli.budget import show

    return show(site, as_json=as_json)
