"""Builds a run's report, takes in what persons declare, and says what is still open."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedkd.audit import Log
from fedkd.audit.locking import expect_opened
from fedkd.audit.officer import read_key, verifier_of
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.auditor import UsedWrongly
from fedkd.audit.verify.command import plain
from fedkd.federation.durable import read_json, write_bytes
from fedkd.knowledge import BadInput
from fedkd.report.building import Built
from fedkd.report.building import build as build_report
from fedkd.report.declaring import (
    Person,
    declare,
    differences,
    enrol,
    name_of,
    open_questions,
    read_detached,
    to_sign,
)
from fedkd.report.disclosing import read_bundle
from fedkd.report.forms import Question, answers, asked_of, form
from fedkd.report.verify.catalogue import catalogue
from fedkd.report.verify.declared import Detached
from fedkd.report.verify.deriving import Answered, Derived, derive
from fedkd.report.verify.digests import digest
from fedkd.report.verify.evidence import read_evidence
from fedkd.report.verify.judging import strays

DONE, REFUTED = 0, 1


def build(
    path: Path, *, out: Path | None, with_: list[Path], pdf: bool, attach: bool, as_json: bool
) -> int:
    """Builds the report of a run, or of the logs in a folder, and writes its files.

    Where the run's own folder is at hand its server's log remembers what was exported.
    """
    if (path / "run.json").is_file():
        expect_opened(path)  # before anything is written: its log is going to be signed
    built = _built(path, with_)
    folder = out if out is not None else (path / "report" if path.is_dir() else Path("report"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in built.files.items():
        write_bytes(folder / name, content)
    for stray in strays(folder, built.files):  # of an earlier report, which told more
        stray.unlink()
    names = list(built.files)
    if pdf:
        from fedkd.report.pdf import PDF
        from fedkd.report.pdf import pdf as drawn

        write_bytes(folder / PDF, drawn(built.derived, built.bundle, carry=attach))
        names.append(PDF)
    _remember(path, built)
    told = {
        "out": str(folder),
        "files": names,
        "evidence": digest(built.bundle),
        "simulation": built.derived.simulation,
        "coverage": built.derived.coverage(),
        "conditional": built.derived.apart(),
        "trouble": list(built.derived.trouble),
    }
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _tell(folder, built.derived, names)
    return REFUTED if built.derived.trouble else DONE


def _built(path: Path, bundles: Sequence[Path] = ()) -> Built:
    disclosed = dict(map(read_bundle, bundles))
    if len(disclosed) < len(bundles):
        raise BadInput("two bundles of one site", "one from each")
    try:
        return build_report(path, disclosed)
    except UsedWrongly as error:
        raise BadInput(error.found, error.expected) from None


def _remember(path: Path, built: Built) -> None:
    """A report that was made is remembered in the log of whoever made it."""
    if not (path / "run.json").is_file():
        return
    run = _run(path)
    name = digest(built.bundle)
    body = {"run": built.derived.evidence.run, "evidence": name, "catalogue": catalogue().id}
    with _server_log(run) as log:
        log.append(f"report/{name}", "report.exported", body)
    _hand_over(run)


@dataclass(frozen=True, slots=True)
class _Run:
    """A finished run: its folder and its name; nothing that trains is needed here."""

    folder: Path
    id: str


def _run(path: Path) -> _Run:
    try:
        return _Run(path.resolve(), str(read_json(path / "run.json")["run"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"no run in {path}", "the folder of a run") from None


def _server_log(run: _Run) -> Log:
    return Log(run.folder / "server" / "log.sqlite", SERVER)


def _hand_over(run: _Run) -> None:
    """Hands the server's log over again: what is said here is written into no other one."""
    folder = run.folder / "audit"
    folder.mkdir(exist_ok=True)
    with _server_log(run) as log:
        log.export(folder / f"{SERVER}.sqlite")
        log.export_policy(folder / f"{SERVER}.policy")


def _tell(folder: Path, derived: Derived, names: list[str]) -> None:
    for reason in derived.trouble:
        print(plain(f"LOGS DO NOT HOLD: {reason}"))
    if derived.simulation:
        print("SIMULATION, PARTIES FICTIONAL, NOT FOR FILING")
    for status, count in derived.coverage().items():
        print(f"{status:10} {count:3} fields")
    if derived.conditional:
        kinds = ", ".join(f"{count} {status}" for status, count in derived.apart().items())
        print(f"apart      {len(derived.conditional):3} fields, under a condition: {kinds}")
    waiting = ", ".join(f"{who} {len(fields)}" for who, fields in open_questions(derived).items())
    if waiting:
        print(f"still to supply: {waiting}")
    print(f"left in {folder}: {', '.join(names)}")
    print(f"next:   fedkd report verify {folder}")


def _derived(path: Path) -> Derived:
    """What the report of a run, or a report that was built, says."""
    for file in (path, path / "evidence.json"):
        if file.is_file() and file.name == "evidence.json":
            return derive(read_evidence(file.read_bytes()), catalogue())
    return _built(path).derived


def enrol_person(path: Path, *, key: str, role: str) -> int:
    """Enrols a person in the server's log, with the public key that `fedkd keys new` printed."""
    run, public = _run(path), verifier_of(key)
    person = Person(name_of(public), role, public)
    with _server_log(run) as log:
        enrol(log, person)
    _hand_over(run)
    print(plain(f"{person.name}, {person.role}, may declare: key {person.key}"))
    return DONE


def declare_field(
    path: Path,
    field: str,
    *,
    text: str,
    key: Path | None,
    signature: Path | None,
    opened_by: Path | None = None,
) -> int:
    """Adds one signed statement to the server's log; a detached signature may go with it."""
    if key is None:
        raise BadInput("no key", "your own, made by fedkd keys new", "give --key")
    detached = None if signature is None else read_detached(signature)
    return _declare(path, {field: text}, key, detached, opened_by=opened_by)


def write_to_sign(path: Path, field: str, *, text: str, out: Path) -> int:
    """Writes the bytes that a detached signature of a statement has to be over."""
    if out.exists():
        raise BadInput(f"{out}, which is there already", "a new file")
    write_bytes(out, to_sign(_run(path).id, field, text, catalogue()))
    print(f"{out}: sign it with your own program, detached, such as PKCS #7 (.p7s); then:")
    print(f"next:   fedkd report declare {path} {field} --text ... --key KEY --signature FILE.p7s")
    return DONE


def answer(path: Path, filled: Path, *, key: Path, opened_by: Path | None = None) -> int:
    """Adds a signed statement for each field that was filled in in a form, YAML or Word."""
    return _declare(path, answers(filled, _run(path).id, catalogue()), key, opened_by=opened_by)


def _declare(
    path: Path,
    texts: dict[str, str],
    key: Path,
    detached: Detached | None = None,
    *,
    opened_by: Path | None,
) -> int:
    run, own = _run(path), read_key(key, opened_by)
    with _server_log(run) as log:
        said = declare(log, run.id, own, texts, catalogue(), detached)
    _hand_over(run)
    for field in said:
        print(plain(f"declared by {name_of(own.verifier())}: {field}"))
    if already := len(texts) - len(said):
        print(f"{already} said before, word for word")
    print(f"next:   fedkd report build {path}")
    return DONE


def questions(path: Path, *, role: str | None, out: Path | None, as_json: bool) -> int:
    """Lists what is open, by who could supply it; with `out` as a form to fill in."""
    derived = _derived(path)
    found = open_questions(derived)
    names = {who.removeprefix("the "): who for who in found}
    if role is not None and role not in ("provider", "hospital", "engineer"):
        raise BadInput(f"role {role!r}", "provider, hospital or engineer")
    chosen = {who: found[who] for name, who in names.items() if role in (None, name)}
    if out is not None:
        asked = {who: [_question(one) for one in those] for who, those in chosen.items()}
        write_bytes(out, form(out.name, derived.evidence.run, asked))
        print(f"{sum(map(len, asked.values()))} questions in {out}; fill in what you can, then:")
        print(f"next:   fedkd report answers {path} {out} --key KEY")
        return DONE
    if as_json:
        rows = {who: [_row(one) for one in those] for who, those in chosen.items()}
        print(json.dumps(rows, indent=2))
        return DONE
    if not chosen:
        print(f"nothing is open for {'anybody' if role is None else f'the {role}'}")
    for who, those in chosen.items():
        print(f"{who}: {len(those)} open")
        for one in those:
            told = one.field
            print(plain(f"  {told.id:26} {told.point}: {told.requirement}"))
    return DONE


def _question(one: Answered) -> Question:
    field = one.field
    return Question(field.id, field.point, asked_of(field.requirement, field.applies))


def _row(one: Answered) -> dict[str, str | None]:
    field = one.field
    return {
        "id": field.id,
        "point": field.point,
        "asked": field.requirement,
        "why": one.why,
        "applies": field.applies,
    }


def diff(old: Path, new: Path, *, run: Path | None, as_json: bool) -> int:
    """Says what changed between two reports: field by field, what is gone and what is new.

    With `run` they are versions that it released.
    """
    if run is not None:
        old, new = (_version(run, str(one)) for one in (old, new))
    changed = differences(_derived(old).answers, _derived(new).answers)
    if as_json:
        print(json.dumps(changed, indent=2))
        return DONE
    for one in changed:
        print(plain(f"{one['field']}: {one['before']} -> {one['after']}"))
        for mark, texts in (("-", one["gone"]), ("+", one["new"])):
            for text in texts:
                print(plain(f"  {mark} {text}"))
    print(f"{len(changed)} of {len(catalogue().fields)} fields differ")
    return DONE


def _version(run: Path, name: str) -> Path:
    folder = run / "releases"
    found = folder / name / "evidence.json"
    if not found.is_file():
        known = sorted(it.parent.name for it in folder.glob("*/evidence.json"))
        raise BadInput(
            f"version {name!r}", f"one that {run} released: {', '.join(known) or 'none'}"
        )
    return found


def verify(path: Path, *, policy: Path | None, seen: Path | None, as_json: bool) -> int:
    """Verifies a report, as the verifier alone does; a PDF too, where it can be drawn again."""
    from fedkd.report.pdf import same_pdf
    from fedkd.report.verify.command import verify as verify_report

    others = {".pdf": same_pdf}
    return verify_report(path, policy=policy, seen=seen, as_json=as_json, others=others)
