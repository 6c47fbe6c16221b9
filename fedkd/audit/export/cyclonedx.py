"""Writes a student as a CycloneDX 1.6 ML-BOM: model card, data sets, software, how it was made.

The model's digest is that of its weights and not of a file, so that it stands under the properties
and not under the hashes. The serial number is made of that digest and of the log's root.
"""

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from fedkd.audit.export.writing import entry_of, iri_of, json_bytes, only_stated
from fedkd.audit.verify.lineage import (
    Activity,
    Lineage,
    Logs,
    Source,
    card_of,
    open_entries,
    stated,
)
from fedkd.audit.verify.naming import SERVER, OpenEntry, Place

NAME: Final = "student.cdx.json"
_STEPS: Final = (
    "synthetic.generated",
    "queries.posed",
    "train.local",
    "release.outputs",
    "aggregate.computed",
    "student.updated",
)


def files(found: Lineage, logs: Logs) -> Iterator[tuple[str, bytes]]:
    """The one file of this format."""
    yield NAME, json_bytes(document(found, logs))


def document(found: Lineage, logs: Logs) -> dict[str, Any]:
    """The bill of materials of the one model that `found` is the lineage of."""
    (model,) = found.of
    made = next(one for one in found.activities if one.place == model.place)
    done = open_entries(logs, SERVER, "evaluation.done")
    examined = [entry for entry in done if entry.body.get("model") == model.name]
    data = [_source(logs, source) for source in found.sources]
    data += [_test_set(logs, entry) for entry in _test_sets(found, logs, examined)]
    student = _student(found, logs, made, [one["bom-ref"] for one in data])
    if metrics := [metric for entry in examined for metric in _metrics(entry)]:
        student["modelCard"]["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    seed = f"{model.name} {logs[model.place.party].root.hex()}"
    heads = {
        f"fedkd:log:{party}": f"{log.origin}, {len(log.entries)} entries, root {log.root.hex()}"
        for party, log in sorted(logs.items())
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, seed)}",
        "version": 1,
        "metadata": {
            "timestamp": made.time,
            "component": student,
            "tools": {"components": [{"type": "application", "name": "fedkd"}]},
            "properties": _properties(heads),
        },
        "components": data,
        "dependencies": _dependencies(student, found.sources, logs),
        "formulation": [_formula(found, logs, made)],
    }


def _student(found: Lineage, logs: Logs, made: Activity, data: list[str]) -> dict[str, Any]:
    shapes = _said(found, "queries.posed", "shape")
    parameters: dict[str, Any] = {
        "datasets": [{"ref": ref} for ref in data],
        "inputs": [{"format": f"array of shape {shape}"} for shape in shapes],
        "outputs": [{"format": kind} for kind in _said(found, "release.outputs", "kind")],
        **only_stated({"modelArchitecture": stated(made.body, "model")}),
    }
    told = {
        "fedkd:digest": found.of[0].name,
        "fedkd:entry": entry_of(logs, made.place),
        "fedkd:mechanism": ", ".join(_said(found, "train.local", "mechanism")),
        "fedkd:rehearsal": _rehearsal(logs),
        **{f"fedkd:notShown:{at}": str(gap) for at, gap in enumerate(found.gaps, 1)},
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": iri_of(logs, made.place),
        "name": f"{found.of[0].kind} of run {made.run or 'not stated'}",
        "version": f"round {made.round}",
        "modelCard": {"modelParameters": {key: it for key, it in parameters.items() if it}},
        "properties": _properties(told),
    }


def _source(logs: Logs, source: Source) -> dict[str, Any]:
    if source.kind == "data set":
        return _data(logs, source.place, source.name, source.body)
    told = {f"fedkd:{key}": stated(source.body, key) for key in ("code", "seed", "marking")}
    told |= {"fedkd:entry": entry_of(logs, source.place), "fedkd:generator": source.name}
    return {
        "type": "data",
        "bom-ref": iri_of(logs, source.place),
        "name": f"queries drawn by {source.name}",
        "data": [{"type": "dataset", "name": f"queries drawn by {source.name}"}],
        "properties": _properties(told),
    }


def _data(logs: Logs, place: Place, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    card = card_of(body)
    told = {
        "fedkd:entry": entry_of(logs, place),
        "fedkd:legalBasis": card["legal_basis"],
        "fedkd:licence": card["licence"],
        "fedkd:origin": card["origin"],
    }
    told |= only_stated(
        {
            "fedkd:card": card["name"],
            "fedkd:citation": card["citation"],
            "fedkd:commitment": stated(body, "commitment"),
            "fedkd:modality": card["modality"],
            "fedkd:role": stated(body, "role"),
        }
    )
    component: dict[str, Any] = {
        "type": "data",
        "bom-ref": iri_of(logs, place),
        "name": name,
        "data": [{"type": "dataset", "name": name}],
        "properties": _properties(told),
        **only_stated({"version": card["version"]}),
    }
    if licence := only_stated({"name": card["licence"]}):
        component["licenses"] = [{"license": licence}]
    return component


def _test_sets(found: Lineage, logs: Logs, examined: Iterable[OpenEntry]) -> Iterator[OpenEntry]:
    """The data sets that the model was evaluated on and not made from."""
    there = {source.place for source in found.sources}
    names = {stated(entry.body, "data") for entry in examined}
    for entry in open_entries(logs, SERVER, "dataset.registered"):
        if entry.place not in there and names.intersection(entry.made()):
            yield entry


def _test_set(logs: Logs, entry: OpenEntry) -> dict[str, Any]:
    return _data(logs, entry.place, stated(entry.body, "id"), entry.body)


def _metrics(examined: OpenEntry) -> Iterator[dict[str, str]]:
    figures = examined.body.get("figures")
    found = figures.get("student") if isinstance(figures, dict) else None
    for name, value in sorted((found if isinstance(found, dict) else {}).items()):
        if isinstance(value, int | float) and not isinstance(value, bool):
            where = only_stated({"slice": stated(examined.body, "data")})
            yield {"type": name, "value": repr(value), **where}


def _dependencies(
    student: Mapping[str, Any], sources: Sequence[Source], logs: Logs
) -> list[dict[str, Any]]:
    cut = {iri_of(logs, one.place): one.part_of for one in sources}
    wholes = {iri_of(logs, part_of.place) for part_of in cut.values() if part_of is not None}
    rows = [{"ref": student["bom-ref"], "dependsOn": sorted(cut.keys() - wholes)}]
    for ref, whole in sorted(cut.items()):
        rows.append({"ref": ref, "dependsOn": [] if whole is None else [iri_of(logs, whole.place)]})
    return rows


def _formula(found: Lineage, logs: Logs, made: Activity) -> dict[str, Any]:
    """The software that the server names, and the rounds that led to the model."""
    ref = iri_of(logs, made.place)
    rounds: dict[tuple[str, int], list[Activity]] = {}
    for activity in found.activities:
        if activity.type in _STEPS:
            key = (activity.run or "not stated", activity.round)
            rounds.setdefault(key, []).append(activity)
    tasks = [_task(f"{ref}/{run}/{number}", number, rounds[run, number], logs)
             for run, number in sorted(rounds)]  # fmt: skip
    tasks[-1]["outputs"] = [{"type": "artifact", "resource": {"ref": ref}}]
    refs = [task["bom-ref"] for task in tasks]
    workflow = {
        "bom-ref": f"{ref}/workflow",
        "uid": f"{made.run}/distillation",
        "name": "federated distillation",
        "taskTypes": ["other"],
        "tasks": tasks,
        "taskDependencies": [
            {"ref": after, "dependsOn": [before]} for before, after in itertools.pairwise(refs)
        ],
    }
    return {"components": list(_software(logs, made)), "workflows": [workflow]}


def _task(ref: str, number: int, done: Sequence[Activity], logs: Logs) -> dict[str, Any]:
    data = {
        iri_of(logs, entity.place)
        for activity in done
        for role, entity in activity.uses
        if entity.kind == "data set"
    }
    times = {activity.type: activity.time for activity in done}
    ends = {"timeStart": times.get("queries.posed"), "timeEnd": times.get("student.updated")}
    return {
        "bom-ref": ref,
        "uid": f"round-{number}",
        "name": f"round {number}",
        "taskTypes": ["other"],
        "inputs": [{"resource": {"ref": one}} for one in sorted(data)],
        "steps": [_step(type_, done, logs) for type_ in _STEPS if type_ in times],
        **only_stated(ends),
    }


def _step(type: str, done: Sequence[Activity], logs: Logs) -> dict[str, Any]:
    of_type = [activity for activity in done if activity.type == type]
    entries = [{"name": "fedkd:entry", "value": entry_of(logs, one.place)} for one in of_type]
    return {"name": type, "properties": entries}


def _software(logs: Logs, made: Activity) -> Iterator[dict[str, str]]:
    for entry in open_entries(logs, SERVER, "config.fixed"):
        versions = entry.body.get("versions")
        if entry.header.run == made.run and isinstance(versions, dict):
            for name, version in sorted(versions.items()):
                kind = "platform" if name == "python" else "library"
                yield {"type": kind, "name": name, **only_stated({"version": str(version)})}


def _said(found: Lineage, type: str, key: str) -> list[str]:
    """The different values under `key` in the entries of one type, sorted."""
    bodies = [activity.body for activity in found.activities if activity.type == type]
    return sorted({str(body[key]) for body in bodies if body.get(key) is not None})


def _rehearsal(logs: Logs) -> str:
    """Which of the logs say that they are a rehearsal's."""
    opened = [entry for party in sorted(logs) for entry in open_entries(logs, party, "log.opened")]
    rehearsing = [entry.place.party for entry in opened if entry.body.get("rehearsal") is True]
    return ", ".join(rehearsing) or "no log says so"


def _properties(told: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in told.items() if value]
