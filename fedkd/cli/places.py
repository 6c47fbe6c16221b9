"""Finds a run its folder, and makes its configuration hold from anywhere."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fedkd.cli.configuration import part
from fedkd.knowledge import BadInput


def new_folder(out: str | None, base: Path = Path("runs"), command: str = "simulate") -> Path:
    """A folder for a run, not made yet, by default in `base`.

    `BadInput` if it already holds something, with the `command` by which a run in it goes on.
    """
    folder = Path(out).expanduser() if out else base / datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 1
    while out is None and folder.exists():
        number += 1
        folder = folder.with_name(f"{folder.name.split('_')[0]}_{number}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "a run" if (folder / "config.yaml").exists() else "something"
        raise BadInput(
            f"{folder}, which already holds {what}",
            "a new or empty folder",
            "choose another out=..."
            + (f", or go on with: fedkd {command} --resume {folder}" if what == "a run" else ""),
        )
    return folder.resolve()


def anchored(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with paths that hold from any working directory."""
    anchored = {**config, "data": dict(config["data"]), "query": dict(config["query"])}
    anchored["sites"] = dict(config["sites"])
    for node, key in (("data", "path"), ("query", "path"), ("sites", "dir")):
        if anchored[node].get(key):
            anchored[node][key] = str(Path(anchored[node][key]).expanduser().resolve())
    schema = anchored["data"].get("schema")
    if isinstance(schema, str) and Path(schema).expanduser().is_file():  # else a shipped one's name
        anchored["data"]["schema"] = str(Path(schema).expanduser().resolve())
    return anchored


def parts_of(config: Mapping[str, Any], config_dir: Path | None) -> dict[str, dict[str, Any]]:
    """The specs of every yaml that is named inside a key: models, and the other data set."""
    names = {*config["clients"]["models"], config["student"]["model"]}
    names |= {config["data"].get("reference_model")} - {None}
    parts = {name: part("model", name, config_dir) for name in sorted(names)}
    other = config["query"].get("data")
    if config["query"]["kind"] == "mismatched" and other:
        parts[f"data/{other}"] = part("data", other, config_dir)
    return parts
