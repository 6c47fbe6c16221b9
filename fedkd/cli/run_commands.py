"""Holds the command `fedkd run`.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.options import Debug, Json, PassphraseFile


def run(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="As for fedkd simulate, without what hospitals decide; and rehearsal=true.",
            show_default=False,
        ),
    ] = None,
    federation: Annotated[
        Path,
        typer.Option(
            "--federation", metavar="DIR", help="The coordinator's folder (fedkd server init)."
        ),
    ] = Path(),
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run that was cut off, or that too few had approved.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="SECONDS", min=0.0, help="For people to say yes or no."),
    ] = 600.0,
    config_dir: Annotated[
        Path | None,
        typer.Option(
            "--config-dir",
            metavar="FOLDER",
            help="Your own yaml files, in folders named as in conf/.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Propose a training run to a deployed federation, and follow it.

    People at each hospital say yes first (fedkd site approve). With rehearsal=true no record is
    read and nothing is charged: rows are drawn from the declared ranges.
    """
    from fedkd.cli.following import run as run_deployed

    return run_deployed(
        overrides or [],
        coordinator=federation,
        resume=resume,
        wait_s=wait,
        config_dir=config_dir,
        as_json=as_json,
    )
