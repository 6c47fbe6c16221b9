"""Runs a ServerApp and ClientApps in this process, over the same serialised bytes as a network."""

import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Prepare = Callable[[Sequence[tuple[Mapping[str, Any], Message]]], None]
"""Called with (node configuration, message) of every message of a round, before the first turn."""


class InProcessGrid(Grid):
    """A Flower grid whose nodes take their turns one after the other, in this process.

    Every message passes through the bytes that a network would carry, so that nothing can be
    shared by accident. A turn that raises gives Flower's error reply, as on a real node.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[Mapping[str, Any]],
        prepare: Prepare | None = None,
    ) -> None:
        # Real grids draw node ids at random, so that nothing may depend on them.
        drawn = random.SystemRandom()
        self._client_app = client_app
        self._prepare = prepare
        self._run = Run.create_empty(drawn.getrandbits(63))
        self._contexts = {}
        for config in node_configs:
            node = drawn.getrandbits(63)
            self._contexts[node] = Context(self._run.run_id, node, dict(config), RecordDict(), {})
        self._pending: dict[str, bytes] = {}
        self._unprepared: list[str] = []
        TaskIdentity.task_id = 0
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> None:
        """Takes Flower's run, as every grid does."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._run

    def get_node_ids(self) -> list[int]:
        """The ids of all nodes: they are always connected."""
        return list(self._contexts)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Takes messages for delivery; returns their ids."""
        ids = []
        for message in messages:
            identifier = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = identifier
            self._pending[identifier] = _serialised(message)
            ids.append(identifier)
        self._unprepared = ids
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Lets one node take its turn and returns its reply; nothing if no message is waiting."""
        ids = [identifier for identifier in message_ids if identifier in self._pending]
        if not ids:
            return []
        if self._prepare is not None and self._unprepared:
            waiting = [_deserialised(self._pending[i]) for i in self._unprepared]
            self._unprepared = []
            self._prepare(
                [(self._contexts[m.metadata.dst_node_id].node_config, m) for m in waiting]
            )
        return [self._turn(_deserialised(self._pending.pop(ids[0])))]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Delivers messages and returns all replies."""
        ids = self.push_messages(messages)
        return [reply for _ in ids for reply in self.pull_messages(ids)]

    def _turn(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._client_app(message, context)
        except Exception as error:
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            reply = Message(Error(code, f"{type(error)}:<'{error}'>"), reply_to=message)
        reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
        return _deserialised(_serialised(reply))


def _serialised(message: Message) -> bytes:
    return bytes(message_to_proto(message).SerializeToString())


def _deserialised(body: bytes) -> Message:
    return message_from_proto(MessageProto.FromString(body))


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    node_configs: Sequence[Mapping[str, Any]],
    run_config: Mapping[str, Any],
    prepare: Prepare | None = None,
) -> None:
    """Runs a ServerApp to its end on an in-process grid."""
    grid = InProcessGrid(client_app, node_configs, prepare)
    context = Context(grid.run.run_id, SUPERLINK_NODE_ID, {}, RecordDict(), dict(run_config))
    server_app(grid, context)
