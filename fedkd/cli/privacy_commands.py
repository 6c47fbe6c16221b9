"""Holds the commands of `fedkd privacy` together.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.options import Debug, Json

privacy = typer.Typer(
    name="privacy",
    no_args_is_help=True,
    help="What a plan costs, what of a budget is left, and whether an attack refutes the claim.",
)


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
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps.")] = 60,
    rate: Annotated[
        float,
        typer.Option("--rate", min=1e-6, max=1.0, help="Share of the patients in a step."),
    ] = 1.0,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Say what noise an epsilon needs, what epsilon a noise means, or how many steps fit both."""
    from fedkd.cli.privacy import plan

    return plan(
        patients=patients,
        epsilon=epsilon,
        delta=delta,
        noise=noise,
        steps=steps,
        rate=rate,
        as_json=as_json,
    )


@privacy.command("status")
def privacy_status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or a site's own folder.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Print each population's budget: what was opened, what is spent, what is left."""
    from fedkd.cli.privacy import status

    return status(run, as_json=as_json)


@privacy.command("attack")
def privacy_attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="One attack alone.", show_default=False)
    ] = None,
    shadows: Annotated[int, typer.Option("--shadows", min=16, help="Shadow models.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Of the shadows.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Attack a simulation's answers: an attack refutes the claim or is silent."""
    from fedkd.cli.attack import attack

    return attack(run, kind=kind, shadows=shadows, seed=seed, as_json=as_json)
