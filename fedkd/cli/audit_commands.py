"""Holds the commands of `fedkd audit` together.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.options import Debug, Json, PassphraseFile

logs = typer.Typer(
    name="audit",
    no_args_is_help=True,
    help="Read, verify and export logs; prove entries; redo what the server combined.",
)
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
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Erase the bodies of old entries under a retention rule; headers and proofs still hold."""
    from fedkd.cli.retention import erase

    return erase(log, type=type_, before=before, rule=rule, as_json=as_json)
