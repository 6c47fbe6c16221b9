"""Keeps what the server needs to go on after a crash: one file, replaced after each round."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedkd.federation.asking import Traffic
from fedkd.federation.durable import read_arrays, read_json, write_arrays, write_json
from fedkd.knowledge import Array, Memory, OtherFormat

FORMAT = 1


@dataclass(slots=True)
class Checkpoint:
    """The server's state after round `round`.

    `student` names the file of the student's weights, `lesson` the consensus that the next
    question brings, `holders` the sites that hold each query set.
    """

    round: int = 0
    student: str | None = None
    lesson: str | None = None
    closed: bool = False
    holders: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    memories: dict[str, Memory] = field(default_factory=dict)
    teach_seconds: float = 0.0
    wall_seconds: float = 0.0


class ServerFolder:
    """Where the server's own state lives, inside the run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> Checkpoint:
        """The newest checkpoint, or the state before the first round."""
        path = self.folder / "checkpoint.json"
        if not path.exists():
            return Checkpoint()
        kept = read_json(path)
        found = kept.pop("format")
        if found != FORMAT:
            raise OtherFormat("a checkpoint of a run", found, FORMAT)
        arrays = read_arrays(self.folder / kept.pop("arrays"))
        kept["traffic"] = Traffic(**kept["traffic"])
        kept["memories"] = {
            rule: {name: arrays.get(f"{rule}/{name}", value) for name, value in memory.items()}
            for rule, memory in kept["memories"].items()
        }
        return Checkpoint(**kept)

    def save(self, state: Checkpoint) -> None:
        """Replaces the checkpoint; its arrays are on disk before it names them."""
        plain, arrays = _apart(state.memories)
        name = f"memories-{state.round:06d}.npz"
        write_arrays(self.folder / name, arrays)
        kept = {
            **{key: getattr(state, key) for key in Checkpoint.__dataclass_fields__},
            "format": FORMAT,
            "arrays": name,
            "memories": plain,
            "traffic": asdict(state.traffic),
        }
        write_json(self.folder / "checkpoint.json", kept)
        for path in self.folder.glob("memories-*.npz"):
            if path.name != name:
                path.unlink()


def _apart(memories: Mapping[str, Memory]) -> tuple[dict[str, dict[str, Any]], dict[str, Array]]:
    plain: dict[str, dict[str, Any]] = {}
    arrays: dict[str, Array] = {}
    for rule, memory in memories.items():
        plain[rule] = {}
        for name, value in memory.items():
            is_array = hasattr(value, "dtype")
            plain[rule][name] = None if is_array else value
            if is_array:
                arrays[f"{rule}/{name}"] = value
    return plain, arrays
