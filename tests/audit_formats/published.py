"""Test vectors that others published, read where they lie beside the checkout."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "vectors"

needed = pytest.mark.skipif(not FOLDER.is_dir(), reason="no ../shared/vectors beside the checkout")


def read(name: str) -> Any:
    """The vectors in one file, or nothing where there are none: then no case is collected."""
    path = FOLDER / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def cases(name: str, by: str = "id") -> list[Any]:
    """Each case as a parameter under its own name."""
    found = read(name)
    rows = found["cases"] if isinstance(found, dict) else found
    return [pytest.param(row, id=str(row.get(by, place))) for place, row in enumerate(rows)]
