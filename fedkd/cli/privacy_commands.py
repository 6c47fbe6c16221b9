"""Holds the commands of `fedkd privacy` together.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.budget_commands import budget
from fedkd.cli.options import Debug, Json, PassphraseFile

privacy = typer.Typer(
    name="privacy",
    no_args_is_help=True,
    help="What a plan costs, what of a budget is left, and whether an attack refutes the claim.",
)
privacy.add_typer(budget)


@privacy.command("plan")
def privacy_plan(
    patients: Annotated[int, typer.Option("--patients", help="How many patients there are.")],
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="What it may spend.", show_default=False)
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option("--delta", help="Below one over the patients.", show_default=False),
    ] = None,
    noise: Annotated[
        float | None, typer.Option("--noise", help="A noise multiplier.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Training steps; else 100.", show_default=False),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            min=1e-6,
            max=1.0,
            help="Share of the patients in a step; else all of them.",
            show_default=False,
        ),
    ] = None,
    mechanism: Annotated[
        str, typer.Option("--mechanism", help="dp_training, or pate.")
    ] = "dp_training",
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            min=2,
            max=10_000,
            help="pate: models that answer together; else 50.",
            show_default=False,
        ),
    ] = None,
    batches: Annotated[
        int | None,
        typer.Option(
            "--batches",
            min=1,
            max=1_000_000,
            help="pate: how often new queries come; else once.",
            show_default=False,
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option("--queries", min=1, help="pate: new queries at once.", show_default=False),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option("--classes", min=2, help="How many classes there are.", show_default=False),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", help="Data of which a curve is kept.", show_default=False),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Say what noise an epsilon needs, what epsilon a noise means, or how many steps fit both.

    Without an epsilon or a noise it is for epsilon 1.
    """
    from fedkd.cli.privacy import plan

    return plan(
        patients=patients,
        epsilon=epsilon,
        delta=delta,
        noise=noise,
        steps=steps,
        rate=rate,
        as_json=as_json,
        classes=classes,
        like=like,
        mechanism=mechanism,
        shards=shards,
        batches=batches,
        queries=queries,
    )


@privacy.command("speakers")
def privacy_speakers(
    config_dir: Annotated[
        Path | None,
        typer.Option("--config-dir", help="A folder of your own yamls.", show_default=False),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Print which models may answer under which mechanism, or why not."""
    from fedkd.cli.speakers import speakers

    return speakers(config_dir=config_dir, as_json=as_json)


@privacy.command("status")
def privacy_status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or a site's own folder.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Print each population's budget: what was opened, what is spent, what is left."""
    from fedkd.cli.spending import status

    return status(run, as_json=as_json)


@privacy.command("exclude")
def privacy_exclude(
    site: Annotated[Path, typer.Option("--site", metavar="FOLDER", help="A site's own folder.")],
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...",
            help="Patients, as the hospital's table names them; records by number without names.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="A file, an id a line.", show_default=False),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the log; without any id or name.")
    ] = "not stated",
    may_be_absent: Annotated[
        bool,
        typer.Option(
            "--ids-may-be-absent", help="Pass over ids without a record here: a list of a register."
        ),
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Take patients out of all future training; say which models came before."""
    from fedkd.cli.exclude import exclude_patients

    return exclude_patients(
        site, ids or [], file=file, reason=reason, may_be_absent=may_be_absent, as_json=as_json
    )


@privacy.command("attack")
def privacy_attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="One attack alone.", show_default=False)
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", help="One hospital; again for more. Without it: all."),
    ] = None,
    shadows: Annotated[int, typer.Option("--shadows", min=16, help="Shadow models.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Of the shadows.")] = 0,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Attack a simulation's answers: an attack refutes the claim or is silent."""
    from fedkd.cli.attack import attack

    return attack(
        run, kind=kind, shadows=shadows, seed=seed, as_json=as_json, sites=tuple(site or ())
    )
