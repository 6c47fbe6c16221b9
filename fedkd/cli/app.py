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
from fedkd.cli import hospital_commands  # noqa: F401  # adds its commands to `fedkd site`
from fedkd.cli.audit_commands import logs
from fedkd.cli.options import Debug, Json, PassphraseFile
from fedkd.cli.privacy_commands import privacy
from fedkd.cli.report_commands import report
from fedkd.cli.run_commands import run as run_deployed
from fedkd.cli.server_commands import server
from fedkd.cli.signing_commands import signing
from fedkd.cli.site_commands import site
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

    Keys: seed, rounds, out, engine (inprocess | ray), device, baselines, report, quorum,
    deadline, sites.*, clients.count, clients.models, training.*, student.*, budget.*.
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


app.command("run")(run_deployed)


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


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="methods, simulate, scale, audit, report, privacy or deploy."
        ),
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


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME|PATH",
            help="A labelled set of your own; no hospital is asked.",
            show_default=False,
        ),
    ] = None,
    data_path: Annotated[
        Path | None,
        typer.Option("--data-path", metavar="PATH", help="Where NAME lies.", show_default=False),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            "--threshold",
            help="Of the second of two classes.",
            show_default="the released one, or 0.5",
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option("--epsilon", help="What it may cost each site.", show_default="1"),
    ] = None,
    sites: Annotated[
        str | None, typer.Option("--sites", metavar="A,B", help="Ask these.", show_default="all")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", metavar="COLUMN", help="Also apart by it.", show_default=False),
    ] = None,
    outsider: Annotated[
        str | None,
        typer.Option(
            "--outsider",
            metavar="NAME",
            help="The hospital that --data is of, if it took no part.",
            show_default=False,
        ),
    ] = None,
    federation: Annotated[
        Path | None,
        typer.Option(
            "--federation",
            metavar="DIR",
            help="Of a deployed run: the coordinator's folder, where the run was made.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            "--wait", metavar="SECONDS", min=0.0, help="Of a deployed run: for people to say yes."
        ),
    ] = 600.0,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Ask the hospitals for noised counts of how the student does, or try it on your own set.

    Those of a deployed run are proposed it: people there say yes first (fedkd site approve).
    """
    from fedkd.cli.evaluate import evaluate as evaluate_student

    return evaluate_student(
        run,
        data=data,
        data_path=data_path,
        thresholds=threshold or (),
        epsilon=epsilon,
        sites=sites,
        group=group,
        as_json=as_json,
        outsider=outsider,
        federation=federation,
        wait_s=wait,
    )


@app.command()
def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    version: Annotated[str, typer.Option("--version", metavar="NAME", help="Such as 1.2.")],
    parent: Annotated[
        str | None,
        typer.Option(
            "--parent", metavar="NAME", help="The version that it follows.", show_default=False
        ),
    ] = None,
    parent_run: Annotated[
        Path | None,
        typer.Option(
            "--parent-run",
            metavar="RUN",
            help="The run that the parent was released from, if another.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="For two classes; 0.5 if not given.", show_default=False),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Freeze model, threshold, preprocessing and evaluation as a version."""
    from fedkd.cli.release import release_model

    return release_model(
        run,
        version=version,
        parent=parent,
        parent_run=parent_run,
        threshold=threshold,
        as_json=as_json,
    )


app.add_typer(privacy)
app.add_typer(signing)
app.add_typer(logs)
app.add_typer(report)
app.add_typer(site)
app.add_typer(server)


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
