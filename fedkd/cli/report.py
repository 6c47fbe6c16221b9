"""Builds a run's report, takes in what persons declare, and says what is still open."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd.audit import Log
from fedkd.audit.officer import read_key, verifier_of
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.auditor import UsedWrongly
from fedkd.audit.verify.command import plain
from fedkd.federation.durable import write_bytes
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
)
from fedkd.report.disclosing import read_bundle
from fedkd.report.verify.catalogue import catalogue
from fedkd.report.verify.deriving import Derived, derive
from fedkd.report.verify.digests import digest
from fedkd.report.verify.evidence import read_evidence

if TYPE_CHECKING:
    from fedkd.cli.run import Run

DONE, REFUTED = 0, 1


def build(path: Path, *, out: Path | None, with_: list[Path], pdf: bool, as_json: bool) -> int:
    """Builds the report of a run, or of the logs in a folder, and writes its files.

    Where the run's own folder is at hand its server's log remembers what was exported.
    """
    built = _built(path, with_)
    folder = out if out is not None else (path / "report" if path.is_dir() else Path("report"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in built.files.items():
        write_bytes(folder / name, content)
    names = list(built.files)
    if pdf:
        from fedkd.report.pdf import pdf as drawn

        write_bytes(folder / "report.pdf", drawn(built.derived, built.bundle))
        names.append("report.pdf")
    _remember(path, built)
    told = {
        "out": str(folder),
        "files": names,
        "evidence": digest(built.bundle),
        "simulation": built.derived.simulation,
        "coverage": built.derived.coverage(),
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


def _run(path: Path) -> "Run":
    from fedkd.cli.run import open_run

    return open_run(str(path))


def _server_log(run: "Run") -> Log:
    return Log(run.folder / "server" / "log.sqlite", SERVER)


def _hand_over(run: "Run") -> None:
    from fedkd.cli.examine import hand_over

    hand_over(run)


def _tell(folder: Path, derived: Derived, names: list[str]) -> None:
    for reason in derived.trouble:
        print(plain(f"LOGS DO NOT HOLD: {reason}"))
    if derived.simulation:
        print("SIMULATION, PARTIES FICTIONAL, NOT FOR FILING")
    for status, count in derived.coverage().items():
        print(f"{status:10} {count:3} fields")
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


def declare_field(path: Path, field: str, *, text: str, key: Path) -> int:
    """Adds one signed statement to the server's log."""
    return _declare(path, {field: text}, key)


def answer(path: Path, form: Path, *, key: Path) -> int:
    """Adds a signed statement for each field that was filled in in a form."""
    import yaml

    try:
        told = yaml.safe_load(form.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{form}, which cannot be read ({reason})", "a form as YAML") from None
    answers = told.get("answers") if isinstance(told, dict) else None
    if not isinstance(answers, dict):
        raise BadInput(f"no answers in {form}", "a form that fedkd report questions made")
    texts = {
        str(id): str(one["answer"])
        for id, one in answers.items()
        if isinstance(one, dict) and str(one.get("answer") or "").strip()
    }
    if not texts:
        raise BadInput(f"no field filled in in {form}", "at least one answer")
    return _declare(path, texts, key)


def _declare(path: Path, texts: dict[str, str], key: Path) -> int:
    run, own = _run(path), read_key(key)
    with _server_log(run) as log:
        said = declare(log, run.id, own, texts, catalogue())
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
    rows = {
        who: [
            {
                "id": one.field.id,
                "point": one.field.point,
                "asked": one.field.requirement,
                "why": one.why,
                "applies": one.field.applies,
            }
            for one in answers
        ]
        for who, answers in chosen.items()
    }
    if out is not None:
        write_bytes(out, _form(derived.evidence.run, rows).encode())
        print(f"{sum(map(len, rows.values()))} questions in {out}; fill in what you can, then:")
        print(f"next:   fedkd report answers {path} {out} --key KEY")
    elif as_json:
        print(json.dumps(rows, indent=2))
    else:
        for who, open_ones in rows.items():
            print(f"{who}: {len(open_ones)} open")
            for one in open_ones:
                print(plain(f"  {one['id']:26} {one['point']}: {one['asked']}"))
    return DONE


def _form(run: str, rows: dict[str, list[dict[str, str]]]) -> str:
    """A form in YAML: each answer is empty until a person fills it in."""
    lines = [
        f"# What the report of run {run} still asks for. Fill in the answers that you can",
        "# give and leave the others empty. Each becomes a statement that is signed with your key,",
        "# with your name and today's date: it is shown as DECLARED, and never as computed.",
        "answers:",
    ]
    for who, asked in rows.items():
        lines += ["", f"  # {who}"]
        for one in asked:
            applies = f" ({one['applies']})" if one["applies"] else ""
            lines += [
                f"  {one['id']}:",
                f"    point: {json.dumps(one['point'])}",
                f"    asked: {json.dumps(one['asked'] + applies)}",
                '    answer: ""',
            ]
    return "\n".join(lines) + "\n"


def diff(old: Path, new: Path, *, as_json: bool) -> int:
    """Says what changed between two reports: field by field, what is gone and what is new."""
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


def verify(path: Path, *, policy: Path | None, seen: Path | None, as_json: bool) -> int:
    """Verifies a report, as the verifier alone does."""
    from fedkd.report.verify.command import verify as verify_report

    return verify_report(path, policy=policy, seen=seen, as_json=as_json)
