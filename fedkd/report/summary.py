"""Writes and reads a run's `summary.json`, which always fits its schema."""

import functools
import json
import math
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

from fedkd.knowledge import BadInput
from fedkd.report.claims import check_claims, drop_unclaimed

Summary: TypeAlias = Mapping[str, Any]


def write_summary(path: Path, summary: Summary) -> None:
    """Writes `summary` to `path`, whole or not at all.

    `BadInput` if it does not fit the schema, or an epsilon stands in it without its claim.
    """
    check_summary(summary)
    check_claims(summary)
    body = json.dumps(summary, indent=2, sort_keys=True, allow_nan=False) + "\n"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_summary(path: Path) -> dict[str, Any]:
    """The summary at `path`; `BadInput` if there is none, or if it does not fit the schema.

    An epsilon without its claim, as earlier versions kept it, is not read.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(
            f"no {path.name} in {path.parent}",
            "the folder of a finished run",
            "an unfinished one goes on with fedkd simulate --resume",
        ) from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}, which cannot be read ({error})", "JSON in UTF-8") from error
    check_summary(summary)
    kept = drop_unclaimed(dict(summary))
    check_claims(kept)
    return kept


def check_summary(summary: Summary) -> None:
    """Raises `BadInput` that names the first key that does not fit the schema."""
    errors = sorted(_validator().iter_errors(summary), key=lambda error: list(map(str, error.path)))
    if errors:
        where = ".".join(map(str, errors[0].absolute_path)) or "the summary"
        raise BadInput(f"in summary.json {where}: {errors[0].message}", "what the schema says")
    _refuse_nan(summary, "")


def summary_schema() -> dict[str, Any]:
    """The JSON schema of `summary.json`, draft 2020-12."""
    text = resources.files("fedkd.report").joinpath("summary.schema.json").read_text("utf-8")
    return dict(json.loads(text))


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(summary_schema())


def _refuse_nan(value: Any, where: str) -> None:
    """JSON has no NaN, and a comparison with NaN is never out of range."""
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"in summary.json {where}: {value}", "a finite number, or null")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_nan(item, f"{where}.{key}".lstrip("."))
    if isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _refuse_nan(item, f"{where}.{place}")
