"""Holds the commands of `fedkd report` together.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.options import Debug, Json, PassphraseFile

report = typer.Typer(
    name="report",
    no_args_is_help=True,
    help="The compliance report: built from the logs, checked, completed by persons.",
)
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
KeyPassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--key-passphrase-file",
        metavar="FILE",
        help="A file that holds your key's passphrase, where it has one.",
        show_default=False,
    ),
]
Key = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="Your key, made by fedkd keys new.")
]


@report.command("build")
def report_build(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or one of logs.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to; by default RUN/report."),
    ] = None,
    with_: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="BUNDLE", help="What a site disclosed.", show_default=False),
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also a PDF/A; needs fedkd[pdf].")] = False,
    attach: Annotated[
        bool,
        typer.Option(
            "--attach/--no-attach",
            help="Whether the PDF carries its evidence; some authorities refuse attachments.",
        ),
    ] = True,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write the report: evidence, JSON, Markdown and one HTML page."""
    from fedkd.cli.report import build

    return build(run, out=out, with_=with_ or [], pdf=pdf, attach=attach, as_json=as_json)


@report.command("verify")
def report_verify(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="index.html, report.pdf, evidence.json, another paper, or their folder.",
        ),
    ],
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE|DIR", help="Your own policies.", show_default=False),
    ] = None,
    seen: Annotated[
        Path | None,
        typer.Option("--seen", metavar="DIR", help="Checkpoints kept earlier.", show_default=False),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Check every statement of a report against its evidence, and its papers to the byte.

    In a folder all papers are checked but the PDF, which is drawn by another program: name it.
    Exit code 0 says verified where --policy is given; without it, that the report fits itself, and
    no quorum was checked. 1 refuted, 2 used wrongly, 3 cannot tell.
    """
    from fedkd.cli.report import verify

    return verify(file, policy=policy, seen=seen, as_json=as_json)


@report.command("questions")
def report_questions(
    run: Run,
    role: Annotated[
        str | None,
        typer.Option("--role", help="provider, hospital or engineer.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--form",
            metavar="FILE",
            help="A form to fill in: YAML, or .docx with fedkd[docx].",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """List what a person still has to supply, and who."""
    from fedkd.cli.report import questions

    return questions(run, role=role, out=out, as_json=as_json)


@report.command("enrol")
def report_enrol(
    run: Run,
    key: Annotated[
        str, typer.Option("--key", metavar="VKEY", help="The public key, or a file that holds it.")
    ],
    role: Annotated[str, typer.Option("--role", help="What the person is there.")],
    passphrase_file: PassphraseFile = None,
    debug: Debug = False,
) -> int:
    """Enrol a person, so that what this person signs counts."""
    from fedkd.cli.report import enrol_person

    return enrol_person(run, key=key, role=role)


@report.command("declare")
def report_declare(
    run: Run,
    field: Annotated[str, typer.Argument(metavar="FIELD", help="Such as a4.1a.purpose.")],
    text: Annotated[str, typer.Option("--text", help="The statement.")],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="FILE", help="Your key, made by fedkd keys new.", show_default=False
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature",
            metavar="FILE",
            help="Also a detached signature of your own (.p7s) over what --to-sign wrote.",
            show_default=False,
        ),
    ] = None,
    to_sign: Annotated[
        Path | None,
        typer.Option(
            "--to-sign",
            metavar="FILE",
            help="Write what a detached signature has to be over, and nothing else.",
            show_default=False,
        ),
    ] = None,
    key_passphrase_file: KeyPassphraseFile = None,
    passphrase_file: PassphraseFile = None,
    debug: Debug = False,
) -> int:
    """Add a person's signed statement to one field."""
    from fedkd.cli.report import declare_field, write_to_sign

    if to_sign is not None:
        return write_to_sign(run, field, text=text, out=to_sign)
    return declare_field(
        run, field, text=text, key=key, signature=signature, opened_by=key_passphrase_file
    )


@report.command("answers")
def report_answers(
    run: Run,
    form: Annotated[Path, typer.Argument(metavar="FORM", help="A form that was filled in.")],
    key: Key,
    key_passphrase_file: KeyPassphraseFile = None,
    passphrase_file: PassphraseFile = None,
    debug: Debug = False,
) -> int:
    """Add the answers of a form, each as a signed statement."""
    from fedkd.cli.report import answer

    return answer(run, form, key=key, opened_by=key_passphrase_file)


@report.command("diff")
def report_diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A run, a report, or a version.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A run, a report, or a version.")],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="RUN", help="Which released the two versions.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Say what changed between two reports, or two released versions, field by field."""
    from fedkd.cli.report import diff

    return diff(old, new, run=run, as_json=as_json)
