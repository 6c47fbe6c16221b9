"""What persons declare: signed by an enrolled key, shown apart, escaped, and never computed."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.audit.officer import new_key, read_key
from fedkd.audit.verify import Envelope, canonical, ed25519_sign
from fedkd.cli import main
from fedkd.report.building import build
from fedkd.report.verify.declared import STATEMENT
from fedkd.report.verify.judging import judge
from tests.report_verify.conftest import refutations

FIELD = "a4.1a.purpose"
NASTY = "<script>alert(1)</script> & [x](javascript:alert(2)) `code` | \n# heading"


def declared(run: Path, tmp_path: Path, text: str, *, enrolled: bool = True) -> int:
    key = tmp_path / "jane.key"
    public = new_key(key, "Jane Doe").verifier().text()
    if enrolled:
        assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    return main(["report", "declare", str(run), FIELD, "--text", text, "--key", str(key)])


def test_a_statement_is_declared_and_not_computed(run: Path, tmp_path: Path) -> None:
    assert declared(run, tmp_path, "Sorts digits.") == 0
    built = build(run)
    answer = built.derived.answer(FIELD)
    assert answer.status == "DECLARED"
    assert answer.statements[0].text == "Sorts digits."
    assert (answer.statements[0].author or "").startswith("Jane Doe, provider, on 20")
    assert main(["report", "build", str(run)]) == 0
    assert main(["report", "verify", str(run)]) == 0
    assert main(["audit", "verify", str(run)]) == 0


def test_nobody_declares_without_being_enrolled(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert declared(run, tmp_path, "Sorts digits.", enrolled=False) == 2
    assert "not enrolled" in capsys.readouterr().err
    assert build(run).derived.answer(FIELD).status == "MISSING"


def test_a_key_with_a_passphrase_declares_and_answers(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    """Its passphrase is the person's, and not that of the folder with the server's keys."""
    key, secret, form = (tmp_path / name for name in ("ann.key", "secret", "form.yaml"))
    secret.write_text("a long passphrase\n")
    secret.chmod(0o600)
    public = new_key(key, "Ann Example", b"a long passphrase").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    declare = ["report", "declare", str(run), FIELD, "--text", "Sorts.", "--key", str(key)]
    assert main(declare) == 2
    assert "--key-passphrase-file" in capsys.readouterr().err
    opened = ["--key-passphrase-file", str(secret)]
    assert main([*declare, *opened]) == 0
    assert main(["report", "questions", str(run), "--form", str(form)]) == 0
    form.write_text(form.read_text().replace('answer: ""', 'answer: "As read."', 1))
    assert main(["report", "answers", str(run), str(form), "--key", str(key), *opened]) == 0
    told = [one.text for one in build(run).derived.statements if one.status == "DECLARED"]
    assert sorted(told) == ["As read.", "Sorts."]


def test_an_enrolled_name_with_another_key(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert declared(run, tmp_path, "Sorts digits.") == 0
    other = tmp_path / "other.key"
    public = new_key(other, "Jane Doe").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 2
    assert main(["report", "declare", str(run), FIELD, "--text", "No.", "--key", str(other)]) == 2
    assert "Jane Doe" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["text", "name", "signature", "envelope"])
def test_a_statement_that_the_server_wrote_itself(run: Path, tmp_path: Path, what: str) -> None:
    """The server owns its log and can append anything to it: but no person's signature."""
    assert declared(run, tmp_path, "Sorts digits.") == 0
    with Log(run / "server" / "log.sqlite", "server") as log:
        body: dict[str, Any] = json.loads(json.dumps(dict(log.last("statement.declared").body)))  # type: ignore[union-attr]
        from base64 import b64decode, b64encode

        payload = json.loads(b64decode(body["envelope"]["payload"]))
        match what:
            case "text":
                payload["text"] = "Sorts letters."
            case "name":
                payload["name"] = "John Doe"
            case "signature":
                body["envelope"]["signatures"][0]["sig"] = b64encode(bytes(64)).decode()
            case _:
                body["envelope"] = None
        if body["envelope"] is not None:
            body["envelope"]["payload"] = b64encode(json.dumps(payload).encode()).decode()
        log.append("forged", "statement.declared", body)
        log.export(run / "audit" / "server.sqlite")
    built = build(run)
    assert built.derived.answer(FIELD).statements[0].text == "Sorts digits."
    assert any("statement.declared" in reason for reason in built.derived.trouble)
    assert main(["report", "build", str(run)]) == 1
    found = judge(run / "report" / "evidence.json")
    assert found.verdict == "REFUTED"
    assert "declared" in refutations(found)


def signed_again(run: Path, key: Path, **other: Any) -> str:
    """What the last statement becomes, once its author or the log's keeper put it down anew."""
    own = read_key(key)
    with Log(run / "server" / "log.sqlite", "server") as log:
        body: dict[str, Any] = json.loads(json.dumps(dict(log.last("statement.declared").body)))  # type: ignore[union-attr]
        told = {name: body[name] for name in body if name != "envelope"} | other
        signers = {own.verifier().text(): ed25519_sign(own.seed)}
        envelope = Envelope.sign(canonical(told), STATEMENT, signers)
        told["envelope"] = json.loads(envelope.to_bytes())
        log.append("again", "statement.declared", told)
        log.export(run / "audit" / "server.sqlite")
    return " | ".join(build(run).derived.trouble)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"role": "notified body"}, "as enrolled"),
        ({"date": "2020-02-29"}, "when it was written down"),
        ({"date": "soon"}, "expected a day"),
        ({"number": 0}, "1 or more"),
        ({"number": "2"}, "1 or more"),
    ],
)
def test_a_person_claims_another_role_or_day(
    run: Path, tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    assert declared(run, tmp_path, "Sorts digits.") == 0
    assert said in signed_again(run, tmp_path / "jane.key", **({"number": 2} | other))
    (kept,) = build(run).derived.answer(FIELD).statements
    assert (kept.text, "Jane Doe, provider" in (kept.author or "")) == ("Sorts digits.", True)


def test_nobody_brings_back_what_its_author_replaced(run: Path, tmp_path: Path) -> None:
    """The log's keeper writes an old statement down again, after the one that took its place."""
    assert declared(run, tmp_path, "Sorts digits.") == 0
    key = str(tmp_path / "jane.key")
    with Log(run / "server" / "log.sqlite", "server") as log:
        first = dict(log.last("statement.declared").body)  # type: ignore[union-attr]
    declare = ["report", "declare", str(run), FIELD, "--key", key, "--text"]
    assert main([*declare, "Sorts letters."]) == 0
    with Log(run / "server" / "log.sqlite", "server") as log:
        log.append("replayed", "statement.declared", first)
        log.export(run / "audit" / "server.sqlite")
    derived = build(run).derived
    assert "again, expected one after number 2" in " ".join(derived.trouble)
    assert [one.text for one in derived.answer(FIELD).statements] == ["Sorts letters."]
    # The author may, and says it a third time.
    assert main([*declare, "Sorts digits."]) == 0
    assert [one.text for one in build(run).derived.answer(FIELD).statements] == ["Sorts digits."]


def test_a_statement_about_another_run_does_not_count(
    run: Path, finished: Path, tmp_path: Path
) -> None:
    """A statement is signed for one run: taken over into another log it says nothing there."""
    assert declared(run, tmp_path, "Sorts digits.") == 0
    with Log(run / "server" / "log.sqlite", "server") as log:
        body = dict(log.last("statement.declared").body)  # type: ignore[union-attr]
        from base64 import b64decode

        assert (
            json.loads(b64decode(body["envelope"]["payload"]))["run"]
            == build(run).derived.evidence.run
        )


def test_text_with_markup_stays_text(run: Path, tmp_path: Path) -> None:
    assert declared(run, tmp_path, NASTY) == 0
    files = build(run).files
    assert b"<script>alert" not in files["index.html"]
    assert "<script>" not in files["report.md"].decode().replace("\\<", "")
    assert "\n# heading" not in files["report.md"].decode()
    assert json.loads(files["report.json"])["fields"][0]["statements"][0]["text"] == NASTY


def test_questions_come_as_a_form_and_go_back_as_statements(run: Path, tmp_path: Path) -> None:
    key = tmp_path / "jane.key"
    public = new_key(key, "Jane Doe").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    form = tmp_path / "form.yaml"
    asked = ["report", "questions", str(run), "--role", "provider", "--out", str(form)]
    assert main(asked) == 0
    text = form.read_text()
    assert f"  {FIELD}:" in text
    assert "g9.basis" not in text  # that one is for the hospital
    form.write_text(text.replace('    answer: ""', "    answer: It sorts digits.", 2))
    assert main(["report", "answers", str(run), str(form), "--key", str(key)]) == 0
    coverage = build(run).derived.coverage()
    assert coverage["DECLARED"] == 2
    assert main(["report", "answers", str(run), str(form), "--key", str(key)]) == 0
    assert build(run).derived.coverage() == coverage


@pytest.mark.parametrize("form", ["answers: [", "x: 1", 'answers: {a4.1a.purpose: {answer: ""}}'])
def test_a_form_that_is_none(run: Path, tmp_path: Path, form: str, capsys: Any) -> None:
    key = tmp_path / "jane.key"
    new_key(key, "Jane Doe")
    path = tmp_path / "form.yaml"
    path.write_text(form)
    assert main(["report", "answers", str(run), str(path), "--key", str(key)]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_simulation_takes_no_statement_on_a_legal_field(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    assert declared(run, tmp_path, "Sorts digits.") == 0
    told = ["report", "declare", str(run), "g9.basis", "--text", "x", "--key"]
    assert main([*told, str(tmp_path / "jane.key")]) == 2
    assert "fictional" in capsys.readouterr().err


def test_an_unknown_field_is_refused_with_the_nearest(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    key = tmp_path / "jane.key"
    public = new_key(key, "Jane Doe").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    told = ["report", "declare", str(run), "a4.1a.purpos", "--text", "x", "--key", str(key)]
    assert main(told) == 2
    assert "a4.1a.purpose" in capsys.readouterr().err
