"""Made-up hospitals: records that nobody's are, and what a coordinator would say of their form."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

SITE: Final = "clinic"
ROWS: Final = 80
"""Of each site."""
SEED: Final = 7
SCHEMA: Final[Mapping[str, Any]] = {
    "columns": {
        "age": {"kind": "numeric", "low": 20, "high": 90, "unit": "years"},
        "pressure": {"kind": "numeric", "low": 80, "high": 220, "unit": "mmHg"},
        "pulse": {"kind": "numeric", "low": 40, "high": 200, "unit": "1/min"},
        "sex": {"kind": "categorical", "categories": ["f", "m"]},
    },
    "label": {"column": "ill", "classes": {"no": ["0"], "yes": ["1"]}},
}


def names_of(sites: int) -> list[str]:
    """Names of so many sites."""
    return [f"site-{number:02}" for number in range(1, sites + 1)]


def table(sites: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each site, drawn from one seed, no two alike."""
    import numpy as np

    made: dict[str, list[dict[str, Any]]] = {}
    for place, site in enumerate(sites):
        rng = np.random.default_rng([SEED, place])
        ages, pressures = rng.uniform(25, 85, ROWS), rng.uniform(90, 200, ROWS)
        ill = ages / 85 + pressures / 200 + rng.normal(0, 0.2, ROWS) > 1.35
        made[site] = [
            {
                "age": round(float(age), 3),
                "pressure": round(float(pressure), 3),
                "pulse": round(float(rng.uniform(50, 180)), 3),
                "sex": "fm"[int(rng.integers(2))],
                "ill": int(label),
                SITE: site,
            }
            for age, pressure, label in zip(ages, pressures, ill, strict=True)
        ]
    return made


def write_schema(path: Path, *, pooled: bool) -> Path:
    """The form of these records, as typed; `pooled` says which column names a row's site."""
    told = {**SCHEMA, "site": SITE} if pooled else dict(SCHEMA)
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as a hospital would export them."""
    names = list(rows[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path
