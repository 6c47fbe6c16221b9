"""Says what a model goes back to, and hands the logs over in formats that others read."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from fedkd.audit.export import FORMATS, OF_A_MODEL, croissant, files
from fedkd.audit.verify import CannotTell, Note, Refuted
from fedkd.audit.verify.auditor import UsedWrongly, find_logs
from fedkd.audit.verify.lineage import Activity, Lineage, Source, lineage, stated
from fedkd.audit.verify.logs import CheckedLog, check_log
from fedkd.knowledge import BadInput

DONE, REFUTED, CANNOT_TELL = 0, 1, 3
STUDENT: Final = "student.safetensors"
MOST_NAMED: Final = 6
"""In a line of a round; a longer list is cut, and JSON has it whole."""
_BEGAN: Final = {"parent": "went on from", "configuration": "began from the seed in"}
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def trace(path: Path, *, run: Path | None, as_json: bool) -> int:
    """Prints what a model was made from, round by round, and the sources at the end.

    `path` is a run's folder, its student's file, or with `run` a digest.
    """
    folder, model = _asked(path, run)
    logs = _logs(folder)
    try:
        found = lineage({party: check_log(log) for party, log in logs.items()}, model)
        _expect_student(folder, model, found)
    except (Refuted, CannotTell) as error:
        return _not_shown(error, as_json)
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        print("\n".join(_lines(found)))
    return CANNOT_TELL if found.gaps else DONE


def export(path: Path, *, out: Path, only: str | None, as_json: bool) -> int:
    """Writes the logs of a run, and what they say, into a folder that is not there or is empty."""
    if only not in (None, *FORMATS):
        raise BadInput(f"--only {only}", f"one of {', '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}, which is not empty", "a new folder", "nothing is written over")
    paths = _logs(path)
    rows: list[dict[str, Any]] = []
    written: dict[str, bytes] = {}
    try:
        logs = {party: check_log(log) for party, log in paths.items()}
        heads = dict(_kept_heads(paths))
        for format in FORMATS if only is None else (only,):
            rows += _export(format, logs, heads, written)
    except (Refuted, CannotTell) as error:
        return _not_shown(error, as_json)
    try:
        for name, content in written.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
    except OSError as error:
        raise BadInput(f"{error.strerror} at {error.filename}", "a folder to write to") from None
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['verdict']:12} {row['format']:10} {row.get('why') or row['files']}")
        print(f"left in {out}: {len(written)} files")
    return CANNOT_TELL if any(row["verdict"] == "CANNOT TELL" for row in rows) else DONE


def _export(
    format: str, logs: dict[str, CheckedLog], heads: dict[str, Note], written: dict[str, bytes]
) -> Iterator[dict[str, Any]]:
    """Adds one format's files to `written`; says how many, and what could not be told."""
    found, unknown = None, []
    if format in OF_A_MODEL:
        try:
            found = lineage(logs)
        except CannotTell as error:
            yield {"format": format, "verdict": "CANNOT TELL", "why": str(error)}
            return
        unknown = [str(gap) for gap in found.gaps]
    if format == "croissant":
        unknown = [f"{place}: this data set's entry is closed" for place in croissant.closed(logs)]
    made = dict(files(format, logs, found, heads))
    written |= made
    yield {
        "format": format,
        "verdict": "WRITTEN",
        "files": f"{len(made)} file{'s' * (len(made) > 1)}",
    }
    for why in unknown:
        yield {"format": format, "verdict": "CANNOT TELL", "why": why}


def _asked(path: Path, run: Path | None) -> tuple[Path, str | None]:
    """The folder of the logs, and the digest that was asked for; None for the newest student."""
    if _DIGEST.fullmatch(str(path)):
        if run is None:
            raise BadInput("a digest alone", "the run whose logs name it", "add --run RUN")
        return run, str(path)
    if path.is_dir() and run is None:
        return path, None
    if path.is_file() and path.suffix == ".safetensors":
        return run or path.parent, _digest_of(path)
    raise BadInput(
        f"{path}", "a run's folder, its student.safetensors, or with --run RUN a sha256: digest"
    )


def _digest_of(path: Path) -> str:
    from fedkd.distill.saving import load_weights
    from fedkd.knowledge import digest_of_arrays

    return str(digest_of_arrays({"kind": "model"}, load_weights(path)))


def _expect_student(folder: Path, model: str | None, found: Lineage) -> None:
    """A run's folder asks for its newest student: the file that lies there must be that one."""
    if model is None and (folder / STUDENT).is_file():
        digest, (student,) = _digest_of(folder / STUDENT), found.of
        if digest != student.name:
            raise Refuted(STUDENT, digest, f"{student.name}, which {student.place} made")


def _logs(path: Path) -> dict[str, Path]:
    """The logs in `path` by party: of a run's folder, of its audit folder, or one file."""
    try:
        return find_logs(path)
    except UsedWrongly as error:
        raise BadInput(error.found, error.expected) from None


def _kept_heads(paths: dict[str, Path]) -> Iterator[tuple[str, Note]]:
    for party, path in paths.items():
        kept = path.with_suffix(".checkpoint")
        if kept.is_file():
            yield party, Note.parse(kept.read_bytes())


def _not_shown(error: Refuted | CannotTell, as_json: bool) -> int:
    verdict = "REFUTED" if isinstance(error, Refuted) else "CANNOT TELL"
    if as_json:
        print(json.dumps({"verdict": verdict, "why": str(error)}, indent=2))
    else:
        print(f"{verdict:12} {_plain(str(error))}")
    return REFUTED if verdict == "REFUTED" else CANNOT_TELL


def _lines(found: Lineage) -> Iterator[str]:
    (model,) = found.of
    made = next(one for one in found.activities if one.place == model.place)
    of_run = f", run {made.run}" if made.run else ""
    yield f"{model.kind}  {_plain(model.name)}"
    yield f"    made by {model.place}, round {made.round}{of_run}; {stated(made.body, 'model')}"
    for number, done in _rounds(found.activities):
        yield ""
        yield f"round {number}"
        yield from _round(done)
    yield ""
    yield from _source_lines(found.sources)
    yield ""
    if found.gaps:
        yield from (f"CANNOT TELL  {_plain(str(gap))}" for gap in found.gaps)
    yield f"{found.followed} names followed, each to the entry behind it"


def _rounds(activities: Iterable[Activity]) -> list[tuple[int, list[Activity]]]:
    """Newest first."""
    rounds: dict[int, list[Activity]] = {}
    for activity in activities:
        if activity.round and activity.type != "data.partitioned":
            rounds.setdefault(activity.round, []).append(activity)
    return sorted(rounds.items(), reverse=True)


def _round(done: list[Activity]) -> Iterator[str]:
    """One line for each kind of thing that came about in a round, newest first."""
    of = {type_: [one for one in done if one.type == type_] for type_ in {a.type for a in done}}
    for one in of.get("student.updated", []):
        began = [f"{_BEGAN[role]} {used.place}" for role, used in one.uses if role in _BEGAN]
        yield _line("student", [one], "; ".join(["learnt from the consensus", *began]))
    for one in of.get("aggregate.computed", []):
        rule = f"of {len(one.uses)} answers"
        yield _line("consensus", [one], f"{rule}{_left_out(one)}")
    if answers := of.get("release.outputs"):
        yield _line("answers", answers)
    if models := of.get("train.local"):
        mechanisms = sorted({stated(one.body, "mechanism") for one in models})
        roles = sorted({role for one in models for role, _ in one.uses})
        told = f"from {', '.join(roles)}; mechanism {', '.join(mechanisms)}"
        yield _line("models", models, told)
    for one in of.get("queries.posed", []):
        yield _line("queries", [one], f"{stated(one.body, 'count')} {_drawn(one)}")


def _drawn(posed: Activity) -> str:
    """Where a query set came from."""
    for _, used in posed.uses:
        if used.kind == "data set":
            return f"of {used.name}, {used.place}"
        if used.kind == "synthetic set":
            origin = posed.body["origin"]
            return f"drawn by {stated(origin, 'generator')}, {used.place}"
    return "of an origin that cannot be told"


def _line(what: str, done: list[Activity], told: str = "") -> str:
    places = [str(one.place) for one in done[:MOST_NAMED]]
    if len(done) > MOST_NAMED:
        places.append(f"... {len(done)} in all")
    return _plain(f"    {what:10} {' '.join(places)}{'  ' if told else ''}{told}")


def _left_out(combined: Activity) -> str:
    left_out = combined.body.get("left_out")
    if not isinstance(left_out, dict) or not left_out:
        return ""
    some = [f"{site} ({why})" for site, why in sorted(left_out.items())[:MOST_NAMED]]
    more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
    return f"; left out: {', '.join(some)}{more}"


def _source_lines(sources: Iterable[Source]) -> Iterator[str]:
    """Data sets with what their cards say, those of one card together; then generators."""
    alike: dict[tuple[str, str, str], list[Source]] = {}
    for source in sources:
        card = source.card
        if source.kind == "data set":
            key = (card["licence"], card["legal_basis"], card["origin"])
            alike.setdefault(key, []).append(source)
    drawn = [source for source in sources if source.kind == "generator"]
    generators = f", {len(drawn)} generator{'s' * (len(drawn) > 1)}" if drawn else ""
    yield f"sources: {sum(map(len, alike.values()))} data sets{generators}"
    for (licence, legal_basis, origin), group in alike.items():
        yield ""
        for source in group:
            part = f"part of {source.part_of.name}" if source.part_of else ""
            yield _plain(
                f"    {source.name:28} {source.place!s:14} {source.role:10} {part}".rstrip()
            )
        yield _plain(f"        licence      {licence}")
        yield _plain(f"        legal basis  {legal_basis}")
        yield _plain(f"        origin       {origin}")
    for source in drawn:
        told = f"code {stated(source.body, 'code')}, seed {stated(source.body, 'seed')}"
        yield ""
        yield _plain(f"    generator {source.name}  {source.place}  {told}")


def _as_json(found: Lineage) -> dict[str, Any]:
    (model,) = found.of
    return {
        "verdict": "CANNOT TELL" if found.gaps else "TRACED",
        "model": {"kind": model.kind, "digest": model.name, "entry": str(model.place)},
        "steps": [
            {
                "entry": str(one.place),
                "type": one.type,
                "time": one.time,
                "round": one.round or None,
                "made": [entity.name for entity in one.made],
                "uses": [
                    {"as": role, "name": used.name, "entry": str(used.place)}
                    for role, used in one.uses
                ],
            }
            for one in found.activities
        ],
        "sources": [
            {
                "kind": source.kind,
                "id": source.name,
                "entry": str(source.place),
                "role": source.role,
                "part_of": source.part_of.name if source.part_of else None,
                **{key: source.card[key] for key in ("licence", "legal_basis", "origin")},
                "card": dict(source.card),
                "used_by": [str(place) for place in source.used_by],
            }
            for source in found.sources
        ],
        "followed": found.followed,
        "gaps": [str(gap) for gap in found.gaps],
    }


def _plain(text: str) -> str:
    """Without characters that a terminal would act on: names come out of logs."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
