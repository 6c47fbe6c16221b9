"""Prints the comparison of several runs, and writes it as CSV and LaTeX where asked."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from fedkd.knowledge import BadInput


def compare(runs: Sequence[Path], *, csv: Path | None, latex: Path | None, as_json: bool) -> int:
    """Exit code 0 when the comparison was made; `BadInput` where a folder is no run."""
    from fedkd.report import compare as make_comparison
    from fedkd.report import load_all

    comparison = make_comparison(load_all(runs))
    if csv is not None:
        _write("--csv", csv, comparison.to_csv())
    if latex is not None:
        _write("--latex", latex, comparison.to_latex())
    if as_json:
        typer.echo(json.dumps(comparison.to_json(), indent=2))
    else:
        comparison.show()
    return 0


def _write(option: str, file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{option} {file}, which cannot be written ({error.strerror})",
            "a file in a folder that exists",
        ) from None
