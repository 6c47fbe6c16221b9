"""What a hospital does with its own folder: see what left, make its own paper, disclose."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedkd.audit import Log
from fedkd.audit.verify.command import plain
from fedkd.deploy.hospital import Hospital, hospital_at
from fedkd.deploy.letters_kept import kept_letters
from fedkd.deploy.preparing import OUTBOX
from fedkd.federation.building import Workshop
from fedkd.federation.durable import write_bytes
from fedkd.federation.sent import Sent, everything_sent, values_sent
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.report.building import assembled, evidence_of
from fedkd.report.disclosing import CHOICES, asked_of, disclose
from fedkd.report.verify.heading import elsewhere, warnings
from fedkd.report.verify.judging import strays

DONE, REFUTED = 0, 1


def sent(folder: Path, *, values: str | None, as_json: bool) -> int:
    """Prints everything that ever left a site; with `values` the numbers of one answer, as CSV.

    Of a hospital (the folder above) its rehearsal's, too, and what the letterbox alone kept.
    """
    if (folder / "invitation.json").exists():
        return _sent_by_hospital(hospital_at(folder), values, as_json)
    if values is not None:
        return _show_values(folder, values)
    rows, gone = everything_sent(folder)
    if as_json:
        print(json.dumps(_plain_rows(rows, gone), indent=2))
    else:
        _show_rows(rows, gone)
    return REFUTED if gone else DONE


def _sent_by_hospital(hospital: Hospital, values: str | None, as_json: bool) -> int:
    folders = {"site": hospital.site, "rehearsal": hospital.rehearsal}
    founded = {name: it for name, it in folders.items() if (it / "site.json").exists()}
    if values is not None:
        here = [it for it in founded.values() if SiteFolder(it).outgoing_path(values).is_file()]
        return _show_values((*here, hospital.site)[0], values)
    found = {name: everything_sent(it) for name, it in founded.items()}
    known = {row.digest for rows, _ in found.values() for row in rows}
    kept, odd = kept_letters(hospital, known)
    if as_json:
        told: dict[str, Any] = {name: _plain_rows(*each) for name, each in found.items()}
        told["letterbox"] = {"sent": [asdict(row) for row in kept], "odd": odd}
        print(json.dumps(told, indent=2))
    else:
        for name, each in found.items():
            print(plain(f"{name}: {founded[name]}"))
            _show_rows(*each)
        print(plain(f"the letterbox alone, refusals above all: {hospital.letterbox / OUTBOX}"))
        _show_rows(kept, [])
        for name in odd:
            print(plain(f"ODD: {name} is no letter that leaves; somebody put it there"))
    return REFUTED if odd or any(gone for _, gone in found.values()) else DONE


def _show_values(folder: Path, digest: str) -> int:
    for numbers in values_sent(folder, digest, Workshop()):
        print(",".join(f"{number:.9g}" for number in numbers))
    return DONE


def _plain_rows(rows: Sequence[Sent], gone: Sequence[tuple[int, str]]) -> dict[str, Any]:
    return {"sent": [asdict(row) for row in rows], "missing": dict(gone)}


def _show_rows(rows: Sequence[Sent], gone: Sequence[tuple[int, str]]) -> None:
    for row in rows:
        when = row.at or "-" * 20
        where = f"round {row.round}" if row.round else "roll call"
        print(plain(f"{when:24} {where:10} {row.kind:9} {row.bytes:9,} bytes  {row.holds}"))
        print(f"{'':24} {row.digest}, covered {row.envelopes} times")
    total = sum(row.bytes for row in rows)
    print(f"{len(rows)} bodies, {total:,} bytes; covers hold heads of logs and signatures")
    for entry, digest in gone:
        print(f"MISSING: entry {entry} released {digest}, which is not in outbox/")


def paper(folder: Path, *, out: Path | None, as_json: bool) -> int:
    """The hospital's own report, from its log alone: processing, what left, refusals, budget."""
    settings = SiteFolder(folder).settings()
    with (
        Log(folder / "log.sqlite", settings.name) as log,
        tempfile.TemporaryDirectory(dir=folder) as there,
    ):
        copy = Path(there) / f"{settings.name}.sqlite"
        log.export(copy)
        built = assembled({settings.name: evidence_of(settings.name, copy)})
    where = folder / "report" if out is None else out
    where.mkdir(parents=True, exist_ok=True)
    for name, content in built.files.items():
        write_bytes(where / name, content)
    for stray in strays(where, built.files):  # of an earlier paper, which told more
        stray.unlink()
    derived = built.derived
    if as_json:
        told: dict[str, Any] = {"out": str(where), "coverage": derived.coverage()}
        print(json.dumps(told, indent=2))
        return DONE
    for reason in warnings(derived):
        print(plain(reason))
    for answer in derived.answers:
        print(plain(f"{answer.status:9} {answer.field.point}: {answer.field.requirement}"))
        for one in answer.statements:
            print(plain(f"          {one.text}"))
        if answer.why:
            print(plain(f"          {answer.why}"))
    print(plain(f"{elsewhere(derived)}."))
    print(f"left in {where}: {', '.join(built.files)}")
    return DONE


def disclose_bodies(
    folder: Path, *, run: str | None, form: Path | None, by: str, out: Path | None, as_json: bool
) -> int:
    """Lists the bodies that a report asks for; with a filled-in form, writes the site's bundle."""
    settings = SiteFolder(folder).settings()
    with Log(folder / "log.sqlite", settings.name) as log:
        asked = asked_of(log, run)
        if form is None or not form.exists():
            if as_json:
                print(json.dumps([asdict(one) for one in asked], indent=2))
                return DONE
            if form is not None:
                write_bytes(form, _form(settings.name, asked).encode())
                print(
                    f"{len(asked)} bodies in {form}: open, band or keep each, then the same again"
                )
                return DONE
            for one in asked:
                print(plain(f"{one.index:5} {one.type:20} {one.proposed:5} {one.holds}"))
            return DONE
        choices = _choices(form)
        target = out or Path(f"{settings.name}.bundle")
        if target.exists():
            raise BadInput(f"{target}, which is there already", "a new file")
        write_bytes(target, disclose(log, folder, choices, by))
    opened = sum(choice != "keep" for choice in choices.values())
    print(f"{opened} of {len(choices)} bodies opened or put in bands, by {plain(by)}: {target}")
    print("What was opened is covered by no epsilon; the log says so.")
    return DONE


def _form(name: str, asked: list[Any]) -> str:
    lines = [
        f"# What a report asks {name} for. Each body: open (as it is), band (its counts in bands)",
        "# or keep (its header alone leaves). What is opened is covered by no epsilon.",
        "bodies:",
    ]
    for one in asked:
        lines.append(f"  {one.index}: {one.proposed}  # {one.type}, {one.time}: {one.holds}")
    return "\n".join(lines) + "\n"


def _choices(form: Path) -> dict[int, str]:
    import yaml

    try:
        told = yaml.safe_load(form.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{form}, which cannot be read ({reason})", "a form as YAML") from None
    bodies = told.get("bodies") if isinstance(told, dict) else None
    if not isinstance(bodies, dict) or not bodies:
        raise BadInput(f"no bodies in {form}", "a form that fedkd site disclose made")
    for index, choice in bodies.items():
        if type(index) is not int or choice not in CHOICES:
            raise BadInput(f"{index}: {choice!r} in {form}", f"an index and {', '.join(CHOICES)}")
    return dict(bodies)
