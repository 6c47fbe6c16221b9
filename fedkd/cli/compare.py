"""Prints the comparison of several runs, and writes it as CSV and LaTeX where asked."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer


def compare(runs: Sequence[Path], *, csv: Path | None, latex: Path | None, as_json: bool) -> int:
    """Exit code 0 when the comparison was made; `BadInput` where a folder is no run."""
    from fedkd.report import compare as make_comparison
    from fedkd.report import load_all

    comparison = make_comparison(load_all(runs))
    if csv is not None:
        csv.write_text(comparison.to_csv(), encoding="utf-8")
    if latex is not None:
        latex.write_text(comparison.to_latex(), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(comparison.to_json(), indent=2))
    else:
        comparison.show()
    return 0
