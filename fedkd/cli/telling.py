"""Keeps how far something is that a coordinator proposed, for whoever follows from elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from fedkd.deploy.lone_lock import taken
from fedkd.deploy.run_standing import CONDUCTING
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.rounds import NoQuorum
from fedkd.knowledge import BadInput


class Told(Protocol):
    """What was proposed, and tells how far it is."""

    @property
    def coordinator(self) -> Path:
        """The folder of the coordinator that proposed it."""

    @property
    def folder(self) -> Path:
        """Where its state is, and Flower's log."""

    @property
    def server(self) -> Path:
        """The folder of the server's log, and of its keys."""

    def tell(self, state: str, **more: Any) -> None:
        """Keeps how far it is."""

    def told(self) -> dict[str, Any]:
        """How far it is."""

    def software(self) -> dict[str, str | None]:
        """The fedkd of each site when it was heard of last."""


def tell(folder: Path, run: str, state: str, **more: Any) -> None:
    """Keeps how far it is in `status.json` of its folder."""
    write_json(folder / "status.json", {**told(folder), "run": run, "state": state, **more})


def told(folder: Path) -> dict[str, Any]:
    """How far it is: `state`, `rulings` by site, `round`, and `why` it failed."""
    path = folder / "status.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


@contextmanager
def alone(run: Path, tell: Callable[..., None]) -> Iterator[None]:
    """Lets one process at a time use the run in this folder, and tells how it ended."""
    with (run / CONDUCTING).open("wb") as file:
        if not taken(file):
            raise BadInput(
                f"a run in {run} that another process conducts",
                "one process at a time",
                "wait for it, or stop it (flwr list, flwr stop)",
            )
        tell("begun", why=None)
        try:
            yield
        except BaseException as error:
            known = isinstance(error, BadInput | NoQuorum)
            tell("failed", why=str(error) if known else type(error).__name__)
            raise
        tell("finished")
