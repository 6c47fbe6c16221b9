"""What `fedkd site start` becomes: keeps a hospital's processes running, with little loaded.

    python -m fedkd.deploy.keeping SETTINGS [PIPE]

Founding a site loads torch and what reads records; whoever stays for months needs none of it.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from fedkd.deploy.hospital import PRIVATE_FILE, Hospital
from fedkd.deploy.lines import TEXT, teller
from fedkd.deploy.memory import Place, laid_out
from fedkd.deploy.preparing import HOME, Whose
from fedkd.deploy.starting import HALVES, LETTERBOX, programs
from fedkd.deploy.supervising import Program, Supervisor, behind_a_pipe, read_key
from fedkd.federation.durable import READ_BY_GROUP
from fedkd.knowledge.bad_input import BadInput

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Secret:
    """What opens a locked hospital for those who run it.

    `key` [32 bytes] is the site service's. `node_key_body` is to lie at `node_key`, in memory, for
    Flower's node, and the file `mark` says so.
    """

    key: bytes = field(repr=False)
    node_key_body: bytes = field(repr=False)
    node_key: Path
    mark: Path

    def laid_out(self, user: int | None, group: int | None) -> AbstractContextManager[None]:
        """The node's key where it is to lie, and nowhere afterwards."""
        place = Place(self.node_key.parent, self.mark)
        return laid_out(place, {self.node_key.name: self.node_key_body}, user, group)


def where(hospital: Hospital, halves: Sequence[str]) -> Path:
    """The folder whose lock says that these halves run."""
    return hospital.letterbox / HOME if tuple(halves) == (LETTERBOX,) else hospital.run


def keeper(
    hospital: Hospital, halves: Sequence[str], run: Sequence[Program], tell: Callable[[str], None]
) -> Supervisor:
    """Who keeps these programs; how a letterbox by itself stands may be read by the other user."""
    alone = tuple(halves) == (LETTERBOX,)
    mode = READ_BY_GROUP if alone else PRIVATE_FILE
    return Supervisor(where(hospital, halves), run, tell, mode)


def command(
    hospital: Hospital,
    who: Whose,
    halves: Sequence[str] = HALVES,
    *,
    keep_network: bool = False,
    log_format: str = TEXT,
    metrics: int | None = None,
    secret: Secret | None = None,
) -> list[str]:
    """What starts the process that runs `programs` until told to stop.

    Of a `secret` the words name the places alone: a pipe's number, put after them, leads to it.
    """
    told = {
        "hospital": str(hospital.folder),
        "who": [who.user, who.group],
        "halves": list(halves),
        "keep_network": keep_network,
        "log_format": log_format,
        "metrics": metrics,
        "node_key": None if secret is None else str(secret.node_key),
        "mark": None if secret is None else str(secret.mark),
    }
    return [sys.executable, "-I", "-m", "fedkd.deploy.keeping", json.dumps(told)]


def become(words: list[str], secret: Secret | None = None) -> NoReturn:
    """Turns this process, its number kept, into the one that a `command` starts.

    Its `secret`, which opens a locked hospital, is handed on through a pipe.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with behind_a_pipe(None if secret is None else secret.key + secret.node_key_body) as pipe:
        if pipe is not None:
            os.set_inheritable(pipe, True)
            words = [*words, str(pipe)]
        os.execv(words[0], words)  # noqa: S606 - our own words, no shell


def main(arguments: Sequence[str] | None = None) -> int:
    """The supervisor as a process: 0 stopped, 2 used wrongly."""
    given, *pipe = sys.argv[1:] if arguments is None else arguments
    told = json.loads(given)
    hospital, halves = Hospital(Path(told["hospital"])), tuple(told["halves"])
    secret = None
    if pipe:
        body = read_key(int(pipe[0]))
        where_to = Path(told["node_key"]), Path(told["mark"])
        secret = Secret(body[:KEY_BYTES], body[KEY_BYTES:], *where_to)
    try:
        run = programs(
            hospital,
            Whose(*told["who"]),
            halves,
            keep_network=told["keep_network"],
            log_format=told["log_format"],
            metrics=told["metrics"],
            key=None if secret is None else secret.key,
        )
        kept = keeper(hospital, halves, run, teller(told["log_format"], "site"))
        return kept.run(None if secret is None else secret.laid_out(*told["who"]))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
