"""The smallest federation there is, founded on disk, and grids that can be listened to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto

from clients.app import app as client_app
from fedkd.audit import Log
from fedkd.cli.conduct import conduct, server_log
from fedkd.cli.configuration import compose
from fedkd.cli.run import Run, prepare
from fedkd.federation.asking import Reply
from fedkd.federation.checkpoint import Checkpoint, ServerFolder
from fedkd.federation.flower.asking import GridAsk
from fedkd.federation.flower.inprocess import InProcessGrid
from fedkd.federation.flower.letters import letter_of
from fedkd.federation.participant import open_participant
from fedkd.federation.rounds import Conductor
from fedkd.wire import Envelope, Question, decode, encode, opened
from fedkd.wire import Message as Said
from server.app import app as server_app

TINY = [
    "data=digits",
    "data.records=60",
    "data.test_size=40",
    "query.size=12",
    "clients.count=3",
    "clients.models=[logistic]",
    "rounds=2",
    "training.local_epochs=2",
    "training.lesson_epochs=1",
    "student.model=logistic",
    "student.epochs=2",
    "audit.cosigners=0",
]


def founded(folder: Path, *overrides: str) -> Run:
    """A run whose sites are founded and have done nothing yet."""
    folder.mkdir(parents=True)
    given = {text.split("=")[0] for text in overrides}
    tiny = [text for text in TINY if text.split("=")[0] not in given]
    return prepare(folder, compose([*tiny, *overrides]))


@dataclass(frozen=True)
class Letter:
    """One Flower message as it travelled: the site at the other end, and its bytes."""

    site: str
    wire: bytes
    body: bytes
    envelope: Envelope | None = None


class Wiretap(InProcessGrid):
    """The in-process grid, keeping every message that passed, down and up."""

    def __init__(self, run: Run, app: ClientApp = client_app, prepare: Any = None) -> None:
        super().__init__(app, [{"site": str(path)} for path in run.sites.values()], prepare)
        self.down: list[Letter] = []
        self.up: list[Letter] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        ids = super().push_messages(messages)
        self.down += [self._letter(m, m.metadata.dst_node_id) for m in messages]
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = super().pull_messages(message_ids)
        self.up += [self._letter(m, m.metadata.src_node_id) for m in replies]
        return replies

    def _letter(self, message: Message, node: int) -> Letter:
        site = Path(self._contexts[node].node_config["site"]).name
        wire = message_to_proto(message).SerializeToString()
        try:
            envelope, body = opened(letter_of(message, 1 << 30))
        except ValueError:
            envelope, body = None, b""
        return Letter(site, wire, body, envelope)


def conducted(run: Run, grid: InProcessGrid | None = None) -> Checkpoint:
    """The server's state after the run went from the roll call to the closing question."""
    with server_log(run) as log:
        conduct(run, Wiretap(run) if grid is None else grid, log)
    return ServerFolder(run.folder / "server").load()


class Unwatched:
    """A `Watch` as a deployment has it: it sees no site's folder."""

    def round_begins(self, round: int, rounds: int, asked: Sequence[str]) -> None:
        """Nothing."""

    def reply(self, reply: Reply) -> None:
        """Nothing."""

    def round_ends(self, row: dict[str, Any], student: Any) -> dict[str, Any]:
        """Adds nothing."""
        return row


def unwatched(run: Run, grid: InProcessGrid) -> Checkpoint:
    """As `conducted`, by a server that can look into no site's folder."""
    (run.folder / "server").mkdir(exist_ok=True)
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        conductor = Conductor(run.folder, run.rules(), run.terms(), run.student(), log, Unwatched())
        asking = GridAsk(grid, run.config["deadline"])
        return conductor.conduct(asking, sorted(asking.roll_call(run.id, sorted(run.sites)).came))


def finished(run: Run, grid: InProcessGrid) -> None:
    """The run through the ServerApp itself, examination included."""
    context = Context(
        grid.run.run_id, SUPERLINK_NODE_ID, {}, RecordDict(), {"out": str(run.folder)}
    )
    server_app(grid, context)


def question(run: Run, /, **changes: Any) -> Question:
    """What the server would ask in the first round, with `changes`."""
    queries = run.cut().queries
    assert queries is not None
    first: dict[str, Any] = {
        "run": run.id,
        "round": 1,
        "closing": False,
        "about": queries.digest,
        "origin": queries.origin,
        "size": len(queries),
        "queries": queries.inputs,
        "lesson": None,
        "plan": run.terms().plan,
        "codec": "float32",
    }
    return Question(**{**first, **changes})


def asked(folder: Path, run: Run, message: Said | bytes) -> Said:
    """What the site in `folder` replies."""
    body = message if isinstance(message, bytes) else encode(message)
    return decode(open_participant(folder, run.build).answer(body), 1 << 20)


def files(folder: Path) -> Mapping[str, bytes]:
    """All that a folder holds, by relative name."""
    paths: Sequence[Path] = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
