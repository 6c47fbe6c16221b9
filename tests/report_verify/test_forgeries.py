"""Every forgery of a report is refuted, and the thing that was forged is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.verify import canonical
from fedkd.report.building import build
from fedkd.report.verify.judging import judge
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
        leaves[4] = leaves[4].replace("T1", "T0", 1).replace("T2", "T1", 1)

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
