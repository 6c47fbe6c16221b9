"""Releases a run's student as a version, in a folder of its own with all that belongs to it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.audit import Log
from fedkd.audit.export import files
from fedkd.audit.verify import CannotTell, Refuted, canonical
from fedkd.audit.verify.auditor import find_logs
from fedkd.audit.verify.command import plain
from fedkd.audit.verify.lineage import lineage
from fedkd.audit.verify.logs import check_log
from fedkd.federation.durable import write_bytes
from fedkd.federation.evaluating import digest_of_model
from fedkd.knowledge import BadInput
from fedkd.report.building import build
from fedkd.report.releasing import Release, check_version, release, released
from fedkd.report.verify.drawing import EVIDENCE

if TYPE_CHECKING:
    from fedkd.cli.run import Run

DONE = 0


def release_model(
    path: Path,
    *,
    version: str,
    parent: str | None,
    parent_run: Path | None,
    threshold: float | None,
    as_json: bool,
) -> int:
    """Freezes the student of a finished run; its files are left in RUN/releases/VERSION."""
    from fedkd.cli.examine import hand_over
    from fedkd.cli.run import open_run
    from fedkd.report import load

    check_version(version)
    load(path)  # a finished run, or it is refused
    run = open_run(str(path))
    what = _release(run, version, parent, parent_run, threshold)
    bom = _bom(path)
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        entry = release(log, run.id, what, bom)
    hand_over(run)
    folder = run.folder / "releases" / version
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "student.safetensors": what.file,
        "preprocessing.json": canonical(dict(what.preprocessing), "preprocessing"),
        "release.json": canonical(dict(entry.body), "release"),
    }
    if bom is not None:
        contents["bom.cdx.json"] = bom
    contents[EVIDENCE] = build(path).bundle  # what a report says of it, to compare with a later one
    for name, content in contents.items():
        if not (folder / name).exists():
            write_bytes(folder / name, content)
    if as_json:
        print(json.dumps({"out": str(folder), **entry.body}, indent=2))
        return DONE
    print(plain(f"version {version}: {what.architecture} {what.model}"))
    print(plain(f"after {parent}" if parent else "the first version that this log names"))
    print(f"left in {folder}: {', '.join(contents)}")
    print(f"next:   fedkd report build {path}")
    if parent and parent_run is None:
        print(f"        fedkd report diff {parent} {version} --run {path}")
    return DONE


def _release(
    run: "Run", version: str, parent: str | None, parent_run: Path | None, threshold: float | None
) -> Release:
    file = run.folder / "student.safetensors"
    model = digest_of_model(file)
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        updated = log.last("student.updated")
    known = None if updated is None or updated.said is None else updated.body["output"]
    if model != known:
        raise BadInput(f"a model {model} in {file}", f"{known}, the student that the log names")
    dataset = run.dataset()
    classes = dataset.space.classes
    if threshold is not None and len(classes) != 2:
        raise BadInput(f"threshold {threshold:g} for {len(classes)} classes", "two classes")
    if threshold is None and len(classes) == 2:
        threshold = 0.5
    schema = dataset.schema
    preprocessing: dict[str, Any] = {
        "space": dataset.space.to_json(),
        "schema": None if schema is None else schema.to_json(),
        "scaling": "inside the model",
    }
    return Release(
        version,
        parent,
        None if parent_run is None else _model_of(parent_run, parent),
        model,
        str(run.config["student"]["model"]),
        file.read_bytes(),
        threshold,
        preprocessing,
    )


def _model_of(path: Path, version: str | None) -> str:
    """The model that another run's log released as this version."""
    if version is None:
        raise BadInput(f"--parent-run {path} alone", "--parent VERSION beside it")
    file = path / "server" / "log.sqlite"
    if not file.is_file():
        raise BadInput(f"no server's log in {path}", "the folder of the run that was released")
    with Log(file, "server") as log:
        found = released(log).get(version)
    if found is None:
        raise BadInput(f"no version {version} in {path}", "one that fedkd release froze there")
    return str(found.body["model"])


def _bom(path: Path) -> bytes | None:
    """The student's bill of materials, or None where its sources cannot be told."""
    try:
        logs = {party: check_log(log) for party, log in find_logs(path).items()}
        made = dict(files("cyclonedx", logs, lineage(logs), {}))
    except CannotTell:
        return None
    except Refuted as error:
        raise BadInput(
            f"logs that do not hold ({error})", "logs that fedkd audit verify accepts"
        ) from None
    return next(iter(made.values()))
