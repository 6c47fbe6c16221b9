"""What `fedkd site start` becomes: keeps a hospital's processes running, with little loaded.

    python -m fedkd.deploy.keeping SETTINGS

Founding a site loads torch and what reads records; whoever stays for months needs none of it.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.lines import TEXT, teller
from fedkd.deploy.preparing import HOME, Whose
from fedkd.deploy.starting import HALVES, LETTERBOX, programs
from fedkd.deploy.supervising import Supervisor
from fedkd.knowledge.bad_input import BadInput


def where(hospital: Hospital, halves: Sequence[str]) -> Path:
    """The folder whose lock says that these halves run."""
    return hospital.letterbox / HOME if tuple(halves) == (LETTERBOX,) else hospital.run


def become(
    hospital: Hospital,
    who: Whose,
    halves: Sequence[str] = HALVES,
    *,
    keep_network: bool = False,
    log_format: str = TEXT,
    metrics: int | None = None,
) -> NoReturn:
    """Turns this process, its number kept, into the one that runs `programs` until told to stop."""
    told = {
        "hospital": str(hospital.folder),
        "who": [who.user, who.group],
        "halves": list(halves),
        "keep_network": keep_network,
        "log_format": log_format,
        "metrics": metrics,
    }
    sys.stdout.flush()
    sys.stderr.flush()
    words = [sys.executable, "-I", "-m", "fedkd.deploy.keeping", json.dumps(told)]
    os.execv(words[0], words)  # noqa: S606 - our own words, no shell


def main(arguments: Sequence[str] | None = None) -> int:
    """The supervisor as a process: 0 stopped, 2 used wrongly."""
    (given,) = list(sys.argv[1:] if arguments is None else arguments)
    told = json.loads(given)
    hospital, halves = Hospital(Path(told["hospital"])), tuple(told["halves"])
    try:
        run = programs(
            hospital,
            Whose(*told["who"]),
            halves,
            keep_network=told["keep_network"],
            log_format=told["log_format"],
            metrics=told["metrics"],
        )
        return Supervisor(where(hospital, halves), run, teller(told["log_format"], "site")).run()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
