"""The comparisons of the README, each side by side in one run, each with what repeats it."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fedkd.cli.bench.options import OPTIONS, options_of
from fedkd.cli.configuration import app_root
from fedkd.knowledge import BadInput

Bench = Callable[[Mapping[str, Any], Path], dict[str, Any]]


def bench(name: str, overrides: Sequence[str], *, as_json: bool = False) -> int:
    """Runs the comparison `name`, prints it, and keeps it under `runs/bench/` as JSON."""
    if name not in OPTIONS:
        raise BadInput(f"bench {name!r}", "one of " + ", ".join(OPTIONS))
    options = options_of(name, overrides)
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
    """The comparison itself: the function that its module is called after."""
    found: Bench = getattr(import_module(f"fedkd.cli.bench.{name}"), name)
    return found


def _commit() -> str | None:
    """The commit of the checkout that was measured; None in an installed wheel."""
    done = subprocess.run(  # noqa: S603 - fixed words, no shell
        ["git", "-C", str(app_root()), "describe", "--always", "--dirty"],  # noqa: S607 - as above
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
