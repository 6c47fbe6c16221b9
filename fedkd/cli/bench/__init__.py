"""The comparisons of the README, each side by side in one run, each with what repeats it."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedkd.cli.configuration import app_root
from fedkd.knowledge import BadInput

Bench = Callable[[Mapping[str, str], Path], dict[str, Any]]
DEFAULTS = {
    "methods": {"seeds": "0,1,2", "fashion_mnist": "", "heart_disease": "", "cells": "all"},
    "simulate": {"sites": "200", "engine": "both", "seconds": "20"},
    "scale": {"sites": "1000", "rounds": "200"},
}


def bench(
    name: str,
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    as_json: bool = False,
    debug: bool = False,
) -> int:
    """Runs the comparison `name`, prints it, and keeps it under `runs/bench/` as JSON."""
    if name not in DEFAULTS:
        raise BadInput(f"bench {name!r}", "one of " + ", ".join(DEFAULTS))
    options = {**DEFAULTS[name], **_options(name, overrides)}
    folder = Path("runs") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    measured = _bench_of(name)(options, folder)
    kept = {
        "bench": name,
        "command": " ".join(["fedkd bench", name, *overrides]),
        "commit": _commit(),
        "machine": {"python": platform.python_version(), "system": platform.platform()},
        "results": measured,
    }
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    if as_json:
        print(json.dumps(kept, indent=2, sort_keys=True))
    print(f"kept in {folder / f'{name}.json'}", file=sys.stderr)
    return 0


def _bench_of(name: str) -> Bench:
    if name == "methods":
        from fedkd.cli.bench.methods import methods

        return methods
    if name == "simulate":
        from fedkd.cli.bench.simulate import simulate

        return simulate
    from fedkd.cli.bench.scale import scale

    return scale


def _options(name: str, overrides: Sequence[str]) -> dict[str, str]:
    options = {}
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign or key not in DEFAULTS[name]:
            raise BadInput(repr(text), "key=value, with a key of " + ", ".join(DEFAULTS[name]))
        options[key] = value
    return options


def _commit() -> str | None:
    """The commit of the checkout that was measured; None in an installed wheel."""
    done = subprocess.run(  # noqa: S603 - fixed words, no shell
        ["git", "-C", str(app_root()), "describe", "--always", "--dirty"],  # noqa: S607 - as above
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
