"""How long a report takes: built in every form and verified again, each in its own process."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from fedkd.knowledge import BadInput

MOST_SECONDS = 10.0
"""What building in all forms is meant to take at most, on two cores."""


def report(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Seconds of each step, from the start of its process to its end; the median of some repeats.

    The PDF is left out where WeasyPrint or Pango is not installed, and that is said.
    """
    with tempfile.TemporaryDirectory(dir=folder) as base:
        run = Path(options["run"]) if options["run"] else Path(base) / "run"
        if not options["run"]:
            _fedkd("simulate", f"out={run}")
        out = Path(base) / "report"
        build = ["report", "build", str(run / "audit"), "--out", str(out)]
        steps = {"build": build, "verify": ["report", "verify", str(out)]}
        if _can_print():
            steps["build with PDF"] = [*build, "--pdf"]
            steps["verify the PDF"] = ["report", "verify", str(out / "report.pdf")]
        else:
            print("no PDF: WeasyPrint or Pango is not installed here", file=sys.stderr)
        seconds = {
            name: [_fedkd(*words) for _ in range(options["repeats"])]
            for name, words in steps.items()
        }
        sizes = {one.name: one.stat().st_size for one in sorted(out.iterdir())}
    for name, found in seconds.items():
        print(f"{name:15} {median(found):6.2f} s")
    print(f"{'meant to take':15} {MOST_SECONDS:6.2f} s at most, for building in every form")
    return {"seconds": seconds, "bytes": sizes, "most_seconds": MOST_SECONDS}


def _can_print() -> bool:
    from fedkd.report.pdf import weasyprint

    try:
        weasyprint()
    except BadInput:
        return False
    return True


def _fedkd(*words: str) -> float:
    """Seconds that a command takes, in a process of its own."""
    began = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own program, no shell
        [sys.executable, "-m", "fedkd", *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise BadInput(f"exit {done.returncode} of fedkd {words[0]} ({said})", "exit 0")
    return time.perf_counter() - began
