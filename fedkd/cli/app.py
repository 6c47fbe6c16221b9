"""Holds the commands of `fedkd` together, and is the one place where an error gets its exit code.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import click
import typer

from fedkd import __version__
from fedkd.knowledge.bad_input import BadInput

DONE, REFUSED, USED_WRONGLY, CANNOT_TELL, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="fedkd",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 refused or refuted, 2 used wrongly, 3 cannot tell.",
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Configuration, for example: data=digits rounds=5 aggregate=median.",
        show_default=False,
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        "--config-dir",
        metavar="FOLDER",
        help="Your own yaml files, in folders named as in conf/; they go before ours.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def fedkd(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Debug = False,
) -> int:
    """Federated knowledge distillation: hospitals exchange output distributions, nothing else.

    Start with: fedkd simulate
    """
    if version:
        typer.echo(f"fedkd {__version__}")
        raise typer.Exit(DONE)
    return DONE


@app.command()
def simulate(
    overrides: Overrides = None,
    multirun: Annotated[
        bool,
        typer.Option("--multirun", "-m", help="One run for each of several values: seed=0,1,2."),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on from the folder of a run that was cut off.",
            show_default=False,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Run a whole federation on this machine.

    Keys: seed, rounds, out, engine (inprocess | ray), device, baselines, quorum, deadline,
    sites.dir, clients.count, clients.models, training.*, student.*, budget.*.
    Groups: data, partition, query, aggregate, filter, gate, generator, codec, lesson, loss,
    mechanism, faults; the keys of a chosen yaml follow its group, as in partition.alpha.
    """
    from fedkd.cli.simulate import simulate as run_simulation

    return run_simulation(
        overrides or [],
        multirun=multirun,
        resume=resume,
        config_dir=config_dir,
        as_json=as_json,
    )


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or folders that hold some."),
    ],
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write CSV.", show_default=False),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option("--latex", metavar="FILE", help="Also write LaTeX.", show_default=False),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Compare runs, paired by seed: differences with their 95 % intervals."""
    from fedkd.cli.compare import compare as compare_runs

    return compare_runs(runs, csv=csv, latex=latex, as_json=as_json)


@app.command()
def laws(
    part: Annotated[
        str,
        typer.Argument(metavar="PART", help="group/name such as aggregate/mean, or a yaml file."),
    ],
    config_dir: ConfigDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Run the laws of its kind on a part: ours, or one of your own."""
    from fedkd.cli.laws import laws as check_laws

    return check_laws(part, config_dir=config_dir, as_json=as_json)


privacy = typer.Typer(
    name="privacy",
    no_args_is_help=True,
    help="What a plan costs, what of a budget is left, and whether an attack refutes the claim.",
)
app.add_typer(privacy)


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


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="methods, simulate, scale or audit."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Its options, for example seeds=0,1.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Run a comparison of the README: methods side by side, under the same conditions."""
    from fedkd.cli.bench import bench as run_bench

    return run_bench(name, overrides or [], as_json=as_json)


logs = typer.Typer(
    name="audit",
    no_args_is_help=True,
    help="Read, verify and export logs; prove entries; redo what the server combined.",
)
app.add_typer(logs)
Logs = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, its audit folder, or one log.")
]


@logs.command("show")
def audit_show(
    run: Logs,
    party: Annotated[str | None, typer.Option("--party", help="One party's entries.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="One type of event.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Print the entries of one log, or of all logs of a run."""
    from fedkd.cli.audit import show

    return show(run, party=party, type=type_, as_json=as_json)


@logs.command("verify")
def audit_verify(
    run: Logs,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            metavar="FILE|DIR",
            help="Your own policy: a file, or a folder with a <party>.policy for each log. "
            "Without it the keys come from the logs themselves.",
            show_default=False,
        ),
    ] = None,
    seen: Annotated[
        Path | None,
        typer.Option(
            "--seen",
            metavar="DIR",
            help="Checkpoints that you kept earlier (*.checkpoint): the logs must go on from them.",
            show_default=False,
        ),
    ] = None,
    every_signature: Annotated[
        bool,
        typer.Option(
            "--every-signature", help="In a long log also those that nothing relies upon."
        ),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Check every entry, root and signature, who cosigned, and what the logs say of each other."""
    from fedkd.audit.verify.command import verify

    return verify(
        run,
        policy=policy,
        seen=seen,
        every_signature=every_signature,
        as_json=as_json,
        debug=debug,
    )


@logs.command("recompute")
def audit_recompute(run: Logs, as_json: Json = False, debug: Debug = False) -> int:
    """Redo consensus, lesson and student from the released answers, to the last bit."""
    from fedkd.cli.audit import recompute

    return recompute(run, as_json=as_json)


@logs.command("trace")
def audit_trace(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A run's folder, its student.safetensors, or a digest with --run."
        ),
    ],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="RUN", help="The run whose logs name it.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Walk from a model back to every source; a name without an entry behind it fails."""
    from fedkd.cli.provenance import trace

    return trace(model, run=run, as_json=as_json)


@logs.command("prove")
def audit_prove(
    entry: Annotated[
        str,
        typer.Argument(metavar="ENTRY", help="PATH#INDEX: runs/x/audit/server.sqlite#12."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The proof file; by default <party>-<index>.tlog-proof, here.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write a file that proves one entry to whoever trusts the cosigners, and the entry's leaf."""
    from fedkd.cli.audit import prove

    return prove(entry, out=out, as_json=as_json)


@logs.command("export")
def audit_export(
    run: Logs,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where to: a folder that is new or empty.",
            show_default=False,
        ),
    ],
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="FORMAT",
            help="One of tiles, prov, croissant, cyclonedx; by default all.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write the logs as tiles, and what they say as W3C PROV, Croissant and CycloneDX."""
    from fedkd.cli.provenance import export

    return export(run, out=out, only=only, as_json=as_json)


@logs.command("erase")
def audit_erase(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="A site's own log, log.sqlite.")],
    type_: Annotated[str, typer.Option("--type", metavar="TYPE", help="The type of event.")],
    before: Annotated[
        str, typer.Option("--before", metavar="TIME", help="RFC 3339, as 2026-11-24T00:00:00Z.")
    ],
    rule: Annotated[
        str, typer.Option("--rule", metavar="TEXT", help="The retention rule, for the log.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Erase the bodies of old entries under a retention rule; headers and proofs still hold."""
    from fedkd.cli.retention import erase

    return erase(log, type=type_, before=before, rule=rule, as_json=as_json)


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911 - one return a kind of ending
    """Runs a command and returns its exit code; an error becomes one sentence on stderr."""
    debug = "--debug" in arguments
    try:
        code = app(args=list(arguments), prog_name="fedkd", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BadInput as error:
        return _fails(error, f"error: {error}", USED_WRONGLY, debug)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USED_WRONGLY
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        name = where.command_path if where else "fedkd"
        # Typer and click both add the suggestion.
        said = re.sub(r"( Did you mean [^?]+\?)\1", r"\1", error.format_message())
        text = f"error: {said} See {name} --help."
        return _fails(error, text, USED_WRONGLY, debug)
    except (click.Abort, KeyboardInterrupt) as error:
        return _fails(error, "error: interrupted", INTERRUPTED, debug)
    except BrokenPipeError:
        # The reader of a pipe has gone: nothing is left to be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        reason = str(error).strip().splitlines() or ["no reason given"]
        text = f"error: {type(error).__name__}: {reason[0]} (--debug shows where)"
        return _fails(error, text, REFUSED, debug)


def _fails(error: BaseException, text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    click.echo(text, err=True)
    return code
