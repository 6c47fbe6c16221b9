"""Every forgery of a report is refuted, and the thing that was forged is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.officer import new_key
from fedkd.audit.verify import canonical
from fedkd.cli import main
from fedkd.report.building import assembled, build
from fedkd.report.verify.judging import judge
from tests.report_pages.papers import Hospitals
from tests.report_verify.conftest import Forge, refutations


def statement(told: dict[str, Any], field: str) -> dict[str, Any]:
    return next(one for one in told["statements"] if one["field"] == field)


@pytest.mark.parametrize("name", ["evidence.json", "report.json", "report.md", "index.html"])
def test_what_was_built_holds(run: Path, name: str) -> None:
    found = judge(run / "report" / name)
    assert found.verdict == "CONSISTENT", refutations(found)


def test_a_second_report_is_the_first_to_the_byte(run: Path) -> None:
    for name, content in build(run).files.items():
        assert (run / "report" / name).read_bytes() == content


def test_a_forged_text(forged: Forge) -> None:
    found = forged(lambda it: statement(it, "a4.2d.datasets").update(text="Licence: none."))
    assert found.verdict == "REFUTED"
    assert "statement a4.2d.datasets/1, text" in refutations(found)


def test_a_forged_status(forged: Forge) -> None:
    def change(told: dict[str, Any]) -> None:
        next(one for one in told["fields"] if one["id"] == "a4.1a.purpose")["status"] = "COMPUTED"

    assert "a4.1a.purpose" in refutations(forged(change))
    assert "status" in refutations(
        forged(lambda it: statement(it, "a4.2d.datasets").update(status="COMPUTED"))
    )


def test_another_entry_as_evidence(forged: Forge) -> None:
    found = forged(lambda it: statement(it, "a4.2g.metrics")["evidence"][0].update(index=0))
    assert "statement a4.2g.metrics/1, evidence" in refutations(found)


@pytest.mark.parametrize("what", ["dropped", "invented", "twice", "reordered"])
def test_statements_that_are_not_those_of_the_evidence(forged: Forge, what: str) -> None:
    def change(told: dict[str, Any]) -> None:
        said = told["statements"]
        match what:
            case "dropped":
                del said[3]
            case "invented":
                said.append({**said[3], "id": "a4.2a.steps/99"})
            case "twice":
                said.append(said[3])
            case _:
                said[0], said[1] = said[1], said[0]

    assert "statement" in refutations(forged(change))


def test_a_field_that_is_left_out(forged: Forge) -> None:
    def change(told: dict[str, Any]) -> None:
        told["fields"] = [one for one in told["fields"] if one["id"] != "a4.2g.discrimination"]

    assert "a4.2g.discrimination" in refutations(forged(change))


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (lambda it: it, "evidence"),
        (lambda it: it["logs"]["site-01"], "log site-01"),
        (lambda it: it["logs"]["site-01"]["open"]["0"], "log site-01, body 0"),
        (lambda it: it["fields"][0], "fields"),
        (lambda it: it["statements"][0], "statement a4."),
    ],
)
def test_what_nobody_would_look_at(
    forged: Forge, place: Callable[[dict[str, Any]], dict[str, Any]], named: str
) -> None:
    """Words beside what is derived: no program reads them, but a person may."""
    found = forged(lambda it: place(it).update(summary="It meets every law."))
    assert found.verdict == "REFUTED"
    assert named in refutations(found).replace("'", "")
    assert "summary" in refutations(found)


def test_a_key_by_another_name(forged: Forge) -> None:
    def change(told: dict[str, Any]) -> None:
        one = statement(told, "a4.2d.datasets")
        one["doubd"] = one.pop("doubt")

    assert "statement a4.2d.datasets/1" in refutations(forged(change))


@pytest.mark.parametrize("party", ["server", "site-02"])
def test_a_number_in_a_body(forged: Forge, party: str) -> None:
    def change(told: dict[str, Any]) -> None:
        log = told["logs"][party]
        type = "evaluation.done" if party == "server" else "release.outputs"
        index = next(i for i, leaf in enumerate(log["leaves"]) if f'"type":"{type}"' in leaf)
        body = log["open"][str(index)]["body"]
        if party == "server":
            body["figures"]["student"]["accuracy"] = 0.999
        else:
            body["items"] += 1

    said = refutations(forged(change))
    assert f"log {party}" in said
    assert "commitment" in said


def test_a_changed_leaf_a_dropped_entry_and_an_added_one(forged: Forge) -> None:
    def leaf(told: dict[str, Any]) -> None:
        leaves = told["logs"]["site-01"]["leaves"]
        at = leaves[4].index('"ts":"') + len('"ts":"')
        leaves[4] = leaves[4][:at] + "1" + leaves[4][at + 1 :]  # a thousand years ago

    def dropped(told: dict[str, Any]) -> None:
        del told["logs"]["site-01"]["leaves"][-1]
        told["logs"]["site-01"]["open"].popitem()

    def added(told: dict[str, Any]) -> None:
        told["logs"]["site-01"]["leaves"].append(told["logs"]["site-01"]["leaves"][-1])

    for change in (leaf, dropped, added):
        assert "log site-01" in refutations(forged(change))


def test_a_signature_that_is_not_the_logs(forged: Forge) -> None:
    def other(told: dict[str, Any]) -> None:
        logs = told["logs"]
        logs["site-01"]["head"] = logs["site-02"]["head"]

    def bit(told: dict[str, Any]) -> None:
        head = told["logs"]["site-01"]["head"]
        at = len(head) - 10
        told["logs"]["site-01"]["head"] = (
            head[:at] + ("A" if head[at] != "A" else "B") + head[at + 1 :]
        )

    assert "log site-01" in refutations(forged(other))
    assert "log site-01" in refutations(forged(bit))


def test_one_side_of_a_double_entry(forged: Forge) -> None:
    """A site's whole log left out: the server's entries lead nowhere, and nobody can tell."""

    def change(told: dict[str, Any]) -> None:
        del told["logs"]["site-03"]

    found = forged(change)
    assert found.verdict == "REFUTED"  # statements that leaned on it are gone
    assert any(
        one.name == "double entry" and one.verdict == "CANNOT TELL" for one in found.findings
    )


def test_a_roll_back_of_one_log(run: Path, forged: Forge) -> None:
    """A validly signed older head, with the entries cut to it: others hold a newer one."""
    from fedkd.audit.verify.reading import read_log

    stored = read_log(run / "audit" / "site-01.sqlite")
    size, note = stored.checkpoints[-4]

    def change(told: dict[str, Any]) -> None:
        log = told["logs"]["site-01"]
        log["leaves"] = log["leaves"][:size]
        log["open"] = {key: it for key, it in log["open"].items() if int(key) < size}
        log["head"], log["cosigned"] = bytes(note).decode(), None

    assert "a roll-back" in refutations(forged(change))


@pytest.mark.parametrize("name", ["report.json", "report.md", "index.html"])
def test_any_edit_of_a_paper(run: Path, name: str) -> None:
    path = run / "report" / name
    content = path.read_bytes()
    at = content.index(b"MISSING")
    path.write_bytes(content[:at] + b"ANSWERS" + content[at + 7 :])
    assert f"paper: {name}" in refutations(judge(path)).replace("'", "")
    path.write_bytes(content + b" ")
    assert "paper" in refutations(judge(path))


def test_a_sheet_that_the_evidence_does_not_give(run: Path) -> None:
    stray = run / "report" / "data-sheet-invented.md"
    stray.write_text("# Data sheet: invented\n")
    found = judge(run / "report" / "evidence.json", beside=True)
    assert "data-sheet-invented.md" in refutations(found)
    assert main(["report", "build", str(run)]) == 0  # which leaves its own papers alone
    assert not stray.exists()
    assert main(["report", "verify", str(run)]) == 0


def test_evidence_that_is_no_canonical_json(run: Path) -> None:
    path = run / "report" / "evidence.json"
    path.write_bytes(path.read_bytes() + b"\n")
    assert judge(path).verdict == "REFUTED"
    path.write_bytes(b"{}")
    assert judge(path).verdict == "REFUTED"
    path.write_bytes(b"\xff\x00")
    assert judge(path).verdict == "REFUTED"


def test_another_format_or_catalogue_cannot_be_told(forged: Forge) -> None:
    assert (
        forged(lambda it: it.update(catalogue={"id": "x", "digest": "y"})).verdict == "CANNOT TELL"
    )
    assert forged(lambda it: it.update(format="fedkd-evidence/9")).verdict == "CANNOT TELL"


def test_every_byte_of_a_leaf_matters(run: Path) -> None:
    path = run / "report" / "evidence.json"
    told = json.loads(path.read_bytes())
    leaf = told["logs"]["server"]["leaves"][2]
    for at in range(0, len(leaf), 7):
        other = chr(ord(leaf[at]) ^ 1)
        told["logs"]["server"]["leaves"][2] = leaf[:at] + other + leaf[at + 1 :]
        path.write_bytes(canonical(told))
        assert judge(path).verdict == "REFUTED", (at, leaf[at])


def test_a_simulation_cannot_be_made_a_filing(forged: Forge) -> None:
    """Whoever keeps back what says REHEARSAL has not said that it is none."""

    def change(told: dict[str, Any]) -> None:
        for log in told["logs"].values():
            del log["open"]["0"]

    found = forged(change)
    assert found.derived is not None
    assert found.derived.simulation


def test_a_bundle_does_not_name_its_own_run_or_model(run: Path, forged: Forge) -> None:
    before = judge(run / "report" / "evidence.json").derived
    found = forged(lambda it: it.update(run="another", model="sha256:" + "0" * 64)).derived
    assert before is not None
    assert found is not None
    assert (found.evidence.run, found.evidence.model) == (
        before.evidence.run,
        before.evidence.model,
    )


# By name: what somebody might do to a report, and what the verifier's own words say of it.

PURPOSE = "a4.1a.purpose"
Told = dict[str, Any]


@pytest.fixture(scope="module")
def declared_once(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("declared")
    run, key = Path(shutil.copytree(finished, folder / "run")), folder / "jane.key"
    public = new_key(key, "Jane Doe").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    told = ["report", "declare", str(run), PURPOSE, "--text", "It sorts digits."]
    assert main([*told, "--key", str(key)]) == 0
    assert main(["report", "build", str(run)]) == 0
    return run / "report"


@pytest.fixture
def report(declared_once: Path, tmp_path: Path) -> Path:
    """The folder of a report that is COMPUTED, RECORDED, DECLARED and MISSING in places."""
    return Path(shutil.copytree(declared_once, tmp_path / "report"))


def entry_of(told: Told, party: str, type: str) -> tuple[str, Told]:
    """The first entry of a type in a log: its index, and what is open of it."""
    log = told["logs"][party]
    index = next(i for i, leaf in enumerate(log["leaves"]) if f'"type":"{type}"' in leaf)
    return str(index), log["open"][str(index)]


def of_status(told: Told, status: str) -> Told:
    return next(one for one in told["statements"] if one["status"] == status)


def changed_number(told: Told) -> list[str]:
    """Another accuracy in a sentence."""
    one = next(
        one for one in told["statements"]
        if one["status"] == "COMPUTED" and any(map(str.isdigit, one["text"]))
    )  # fmt: skip
    one["text"] = "".join("9" if it.isdigit() else it for it in one["text"])
    return [f"statement {one['id']}, text"]


def changed_number_in_its_entry(told: Told) -> list[str]:
    """Another accuracy in the entry that the sentence follows from."""
    _, opened = entry_of(told, "server", "evaluation.done")
    opened["body"]["figures"]["student"]["accuracy"] = 0.999
    return ["log server", "commitment", "statement "]


def swapped_texts(told: Told) -> list[str]:
    """Two sentences change places, each of them true somewhere else."""
    one, other = (
        it for it in told["statements"] if it["id"] in ("a4.2a.steps/1", "a4.2g.metrics/1")
    )
    one["text"], other["text"] = other["text"], one["text"]
    return ["statement a4.2a.steps/1, text"]


def declared_raised_to_computed(told: Told) -> list[str]:
    """A person's word is sold as the program's."""
    one = of_status(told, "DECLARED")
    one["status"], one["author"] = "COMPUTED", None
    return [f"statement {one['id']}, status"]


def declared_field_raised_to_computed(told: Told) -> list[str]:
    next(one for one in told["fields"] if one["id"] == PURPOSE)["status"] = "COMPUTED"
    return [f"field '{PURPOSE}'", "COMPUTED", "DECLARED"]


def recorded_raised_to_computed(told: Told) -> list[str]:
    """A licence that somebody typed is sold as checked."""
    one = of_status(told, "RECORDED")
    one["status"] = "COMPUTED"
    return [f"statement {one['id']}, status"]


def anothers_name_under_a_statement(told: Told) -> list[str]:
    one = of_status(told, "DECLARED")
    one["author"] = one["author"].replace("Jane Doe", "John Doe")
    return [f"statement {one['id']}, author"]


def anothers_words_under_a_signature(told: Told) -> list[str]:
    """The statement changed wherever it stands open; the signature stays."""
    index, opened = entry_of(told, "server", "statement.declared")
    opened["body"]["text"] = of_status(told, "DECLARED")["text"] = "It heals."
    return ["log server", f"entry {index}", "commitment", "statement "]


def entry_taken_out_of_a_range(told: Told) -> list[str]:
    """One of the answers is left out, everything behind it moves up."""
    log = told["logs"]["site-02"]
    index = int(entry_of(told, "site-02", "release.outputs")[0])
    del log["leaves"][index]
    log["open"] = {
        str(int(key) - (int(key) > index)): it
        for key, it in log["open"].items()
        if int(key) != index
    }
    return ["log site-02", "entries", "as signed"]


def dropped_site(told: Told) -> list[str]:
    """A hospital that did badly never took part: log and sentences are gone."""
    del told["logs"]["site-03"]
    told["statements"] = [
        one for one in told["statements"] if all(it["log"] != "site-03" for it in one["evidence"])
    ]
    return ["statement ", "double entry"]


def withheld_instead_of_shown(told: Told) -> list[str]:
    """An inconvenient body is closed, its sentences stay."""
    index, _ = entry_of(told, "server", "evaluation.done")
    del told["logs"]["server"]["open"][index]
    return ["statement "]


def rehearsal_denied(told: Told) -> list[str]:
    """The first entry of each log says that it is no rehearsal."""
    for log in told["logs"].values():
        log["open"]["0"]["body"]["rehearsal"] = False
    return ["log server", "log site-01", "commitment"]


@pytest.mark.parametrize(
    "forgery",
    [
        changed_number, changed_number_in_its_entry, swapped_texts, declared_raised_to_computed,
        declared_field_raised_to_computed, recorded_raised_to_computed,
        anothers_name_under_a_statement, anothers_words_under_a_signature,
        entry_taken_out_of_a_range, dropped_site, withheld_instead_of_shown, rehearsal_denied,
    ],
)  # fmt: skip
def test_a_forgery_in_the_evidence(
    report: Path, forgery: Callable[[Told], list[str]], capsys: Any
) -> None:
    path = report / "evidence.json"
    told = json.loads(path.read_bytes())
    named = forgery(told)
    path.write_bytes(canonical(told))
    assert main(["report", "verify", str(path)]) == 1
    said = capsys.readouterr().out
    for words in named:
        assert any("REFUTED" in line and words in line for line in said.splitlines()) or (
            words == "double entry" and "CANNOT TELL  double entry" in said
        ), (words, said)


def sentence(content: bytes) -> bytes:
    return content.replace(b"It sorts digits.", b"It heals people.")


def higher_status(content: bytes) -> bytes:
    return content.replace(b"DECLARED", b"COMPUTED", 1)


def without_the_banner(content: bytes) -> bytes:
    return content.replace(b"SIMULATION, PARTIES FICTIONAL, NOT FOR FILING", b"FOR FILING")


def says_no_simulation(content: bytes) -> bytes:
    return content.replace(b'"simulation":true', b'"simulation":false')


def without_a_field(content: bytes) -> bytes:
    start = content.index(b'<article id="a4.2g.discrimination"')
    return content[:start] + content[content.index(b"</article>", start) + len(b"</article>") :]


def with_a_script(content: bytes) -> bytes:
    return content.replace(b"</body>", b"<script>document.title = 'conforms'</script></body>")


@pytest.mark.parametrize(
    ("name", "forgery"),
    [
        ("index.html", sentence), ("report.md", sentence), ("report.json", sentence),
        ("index.html", higher_status), ("report.md", higher_status),
        ("index.html", without_the_banner), ("report.md", without_the_banner),
        ("model-card.md", without_the_banner), ("report.json", says_no_simulation),
        ("index.html", without_a_field), ("index.html", with_a_script),
    ],
)  # fmt: skip
def test_a_forgery_in_a_paper(
    report: Path, name: str, forgery: Callable[[bytes], bytes], capsys: Any
) -> None:
    path = report / name
    content = path.read_bytes()
    path.write_bytes(forgery(content))
    assert path.read_bytes() != content
    for asked in (path, report):
        assert main(["report", "verify", str(asked)]) == 1
        said = capsys.readouterr().out
        assert f"REFUTED      paper          {name}, line" in said, said


def test_a_page_with_the_evidence_of_another_report(report: Path, finished: Path) -> None:
    """The pages of one report around the evidence of another one, which holds by itself."""
    from base64 import b64encode

    other, own = (folder / "evidence.json" for folder in (finished / "report", report))
    path = report / "index.html"
    content = path.read_bytes()
    inside = b64encode(other.read_bytes())
    path.write_bytes(content.replace(b64encode(own.read_bytes()), inside))
    assert inside in path.read_bytes()
    assert "index.html, line" in refutations(judge(path))


def test_another_runs_epsilon(tmp_path: Path) -> None:
    """A hospital that spent much shows what it spent in another run."""
    much, little = (
        json.loads(build(Hospitals(epsilon=epsilon).write(tmp_path / str(epsilon))).bundle)
        for epsilon in (8.0, 1.0)
    )
    index, opened = entry_of(little, "site-01", "budget.opened")
    told = json.loads(json.dumps(much))
    told["logs"]["site-01"]["open"][index] = opened
    forged = refutations(judged(told, tmp_path))
    assert "log site-01" in forged
    assert f"entry {index}" in forged or "commitment" in forged
    # The whole log instead, as that run signed it: the other parties saw another one.
    told["logs"]["site-01"] = little["logs"]["site-01"]
    rebuilt = json.loads(assembled(told["logs"]).bundle)
    found = judged(rebuilt, tmp_path)
    assert found.verdict == "REFUTED"
    assert "kept heads" in refutations(found)


def test_a_log_that_its_own_key_wrote_anew(tmp_path: Path) -> None:
    """The server rewrites an entry, signs everything again, and builds an honest report of it."""
    honest = Hospitals()
    index = next(row[0] for row in honest.server.rows if row[2] == "evaluation.done")
    body = json.loads(honest.server.rows[index][6])
    body["figures"]["student"]["auroc"] = 0.999
    honest.server = honest.server.rewritten(index, body)
    built = build(honest.write(tmp_path / "run"))
    assert any("0.999" in one.text for one in built.derived.statements)
    found = judged(json.loads(built.bundle), tmp_path)
    assert found.verdict == "REFUTED"
    assert "kept heads" in refutations(found)


def judged(told: Told, folder: Path) -> Any:
    path = folder / "evidence.json"
    path.write_bytes(canonical(told))
    return judge(path)
