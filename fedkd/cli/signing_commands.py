"""Holds the commands of `fedkd keys` together.

Nothing heavy is imported here: a command imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.options import Debug, Json

signing = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="A person's keys: make a pair, show the public half, sign a paper.",
)
Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="A file that holds the key's passphrase; else FEDKD_PASSPHRASE_FILE names one.",
        show_default=False,
    ),
]


@signing.command("new")
def keys_new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key is kept.")],
    name: Annotated[str, typer.Option("--name", help="Whose key it is.")],
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make a person's key pair; print the public half and a fingerprint to be read aloud."""
    from fedkd.cli.signing import new

    return new(file, name=name, as_json=as_json, passphrase_file=passphrase_file)


@signing.command("show")
def keys_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A key's file, of either half.")],
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Print the verifier key of a file, and its fingerprint."""
    from fedkd.cli.signing import show

    return show(file, as_json=as_json, passphrase_file=passphrase_file)


@signing.command("sign")
def keys_sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The paper, such as budget.yaml.")],
    key: Annotated[Path, typer.Option("--key", metavar="KEY", help="Your private key.")],
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Sign a paper: say in words what it is, and write FILE.sig beside it."""
    from fedkd.cli.signing import sign

    return sign(file, key=key, as_json=as_json, passphrase_file=passphrase_file)
