"""Opens the folder of a run for reading: its figures, its configuration, its rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.knowledge import BadInput, Digest, digest_of_bytes
from fedkd.report.metrics import read_metrics
from fedkd.report.summary import read_summary

if TYPE_CHECKING:
    from pandas import DataFrame

NO_CONDITION = ("seed", "out", "sites", "choices", "report")
"""Keys that do not make a run another experiment."""


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path
    summary: dict[str, Any]
    config: dict[str, Any]

    @cached_property
    def metrics(self) -> "DataFrame":
        """One row a round, in order."""
        from pandas import DataFrame

        return DataFrame(read_metrics(self.folder / "metrics.jsonl"))

    @cached_property
    def clients(self) -> "DataFrame":
        """One row a hospital: the columns of `clients` in summary.json."""
        from pandas import DataFrame

        return DataFrame(self.summary["clients"])

    @property
    def condition(self) -> Digest:
        """Names the experiment: equal for runs that differ in their seed and place alone."""
        import rfc8785

        return digest_of_bytes(rfc8785.dumps(_json(self.conditions)))

    def condition_without(self, keys: Sequence[str]) -> Digest:
        """The same, whatever the values of some dotted keys of two parts are."""
        import rfc8785

        kept = self.conditions
        for group, _, name in (key.partition(".") for key in keys):
            if isinstance(kept.get(group), dict):
                kept[group] = {key: it for key, it in kept[group].items() if key != name}
        return digest_of_bytes(rfc8785.dumps(_json(kept)))

    @property
    def conditions(self) -> dict[str, Any]:
        """The configuration without what differs between repetitions."""
        return {key: value for key, value in self.config.items() if key not in NO_CONDITION}


def load(run_dir: Path | str) -> Run:
    """The run in `run_dir`; `BadInput` if the folder holds no finished run."""
    folder = Path(run_dir)
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}", "the folder of a run, as fedkd simulate made it")
    return Run(folder, read_summary(folder / "summary.json"), _config(folder / "config.yaml"))


def load_all(folders: Sequence[Path]) -> list[Run]:
    """The runs in `folders`; a folder that is none may hold several, as a sweep leaves them."""
    runs = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob("*/summary.json"))
        if inside and not (folder / "summary.json").exists():
            runs += [load(path) for path in inside]
        else:
            runs.append(load(folder))
    return runs


def _config(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(
            f"no readable {path.name} in {path.parent}", "the folder of a run"
        ) from error
    if not isinstance(config, dict):
        raise BadInput(f"{path} without keys", "the configuration of a run")
    return config


def _json(value: Any) -> Any:
    """Plain JSON values; a number is written alike whether it came as 1 or as 1.0."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value if isinstance(value, int | float | str | bool | None) else str(value)
