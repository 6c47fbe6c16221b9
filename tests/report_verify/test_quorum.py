"""Without a policy of the reader's own no quorum is checked, and that is what is said first."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.verify import canonical
from fedkd.cli import main
from fedkd.report.building import build
from fedkd.report.verify.command import main as verifier
from fedkd.report.verify.judging import judge
from tests.report_verify.conftest import Forge, refutations

UNCHECKED = "NO QUORUM WAS CHECKED: give --policy."


def own_policies(run: Path, folder: Path) -> Path:
    """The run's policies, as an auditor keeps them."""
    folder.mkdir()
    for path in (run / "audit").glob("*.policy"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_pdf_in_a_folder_is_said_to_be_passed_over(run: Path, capsys: Any) -> None:
    (run / "report" / "report.pdf").write_bytes(b"%PDF-1.7 It heals.")
    assert main(["report", "verify", str(run)]) == 0
    assert "\nNOT CHECKED: report.pdf in this folder; name it" in capsys.readouterr().out
    assert main(["report", "verify", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["not_checked"] == ["report.pdf"]


@pytest.mark.parametrize("command", [main, verifier])
def test_the_first_line_says_that_no_quorum_was_checked(
    run: Path, tmp_path: Path, capsys: Any, command: Callable[[list[str]], int]
) -> None:
    path = str(run / "report" / "evidence.json")
    told = [path] if command is verifier else ["verify", path]
    assert command(["report", *told]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(UNCHECKED)
    assert "exit code 0 says here that the report fits itself" in lines[-1]
    assert command(["report", *told, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quorum"].startswith(UNCHECKED)
    policies = own_policies(run, tmp_path / "mine")
    assert command(["report", *told, "--policy", str(policies)]) == 0
    said = capsys.readouterr().out
    assert "NO QUORUM" not in said
    assert "NOT COSIGNED" not in said
    assert "VERIFIED: by your policy" in said


def test_what_was_said_after_the_last_cosignature_is_named(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    """A person speaks when a run is over: the head that others signed is older."""
    key = tmp_path / "jane.key"
    capsys.readouterr()
    assert main(["keys", "new", str(key), "--name", "Jane Doe"]) == 0
    assert main(["keys", "show", str(key)]) == 0
    line, *_ = [it for it in capsys.readouterr().out.splitlines() if it.startswith("verifier key:")]
    assert main(["report", "enrol", str(run), "--key", line, "--role", "provider"]) == 0
    said = ["--text", "It sorts digits.", "--key", str(key)]
    assert main(["report", "declare", str(run), "a4.1a.purpose", *said]) == 0
    assert main(["report", "build", str(run)]) == 0
    count = len(build(run).derived.evidence.books["server"].entries)
    policies, path = own_policies(run, tmp_path / "mine"), str(run / "report" / "index.html")
    capsys.readouterr()
    assert main(["report", "verify", path, "--policy", str(policies)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"NOT COSIGNED: server from entry {count - 3} on, of {count}; nobody ")
    assert "Statements that lean on it: 2, such as a4.1a.purpose/1." in first


def test_a_policy_of_ones_own_that_asks_for_nobody_checks_no_quorum(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    policies = own_policies(run, tmp_path / "mine")
    path = policies / "site-02.policy"
    log = path.read_text().splitlines()[0]
    path.write_text(f"{log}\nquorum none\n")
    told = ["report", "verify", str(run / "report" / "evidence.json"), "--policy", str(policies)]
    assert main(told) == 0
    assert capsys.readouterr().out.startswith("NO QUORUM WAS CHECKED of site-02: your policy asks")


def test_the_page_says_what_is_not_checked_without_a_policy(run: Path) -> None:
    for name in ("index.html", "report.md"):
        said = (run / "report" / name).read_text()
        assert "Without --policy no quorum is checked" in said, name


@pytest.mark.parametrize("party", ["server", "site-02"])
def test_a_policy_that_was_taken_out_is_missed(forged: Forge, party: str) -> None:
    """Statements stay as they are: nothing but the log's own roster says that there was one."""

    def change(told: dict[str, Any]) -> None:
        told["logs"][party].update(policy=None, cosigned=None)

    found = forged(change)
    assert found.verdict == "CANNOT TELL"
    (one,) = [it for it in found.findings if it.name == "policies" and it.verdict == found.verdict]
    assert f"log of {party}: found no policy in the evidence, expected one that asks for" in one.why


@pytest.mark.parametrize("party", ["server", "site-02"])
def test_a_policy_that_asks_for_nobody_is_refuted(forged: Forge, party: str) -> None:
    def change(told: dict[str, Any]) -> None:
        log = told["logs"][party]
        log["policy"] = log["policy"].splitlines()[0] + "\nquorum none\n"

    assert f"log of {party}: found a policy that asks for other or fewer" in (
        refutations(forged(change))
    )


def test_a_policy_with_a_cosigner_of_somebody_elses_is_refuted(run: Path, forged: Forge) -> None:
    told = json.loads((run / "report" / "evidence.json").read_bytes())
    stranger = told["logs"]["site-01"]["witnesses"][0]

    def change(told: dict[str, Any]) -> None:
        lines = told["logs"]["site-01"]["policy"].splitlines()
        lines[1] = f"{' '.join(lines[1].split()[:2])} {stranger}"
        told["logs"]["site-01"]["policy"] = "\n".join(lines) + "\n"
        told["logs"]["site-01"]["cosigned"] = None

    assert "policies: log of site-01" in refutations(forged(change))


@pytest.mark.parametrize("what", ["cosigned", "policy"])
@pytest.mark.parametrize("name", ["report.json", "index.html", "report.md"])
def test_a_paper_that_shows_a_quorum_which_its_evidence_lacks_is_refuted(
    run: Path, name: str, what: str
) -> None:
    """The evidence beside a paper, or inside the page, without what the paper was drawn with."""
    folder = run / "report"
    told = json.loads((folder / "evidence.json").read_bytes())
    told["logs"]["site-02"][what] = None
    (folder / "evidence.json").write_bytes(canonical(told))
    if name == "index.html":
        import base64

        page = (folder / name).read_bytes()
        old = base64.b64encode(build(run).bundle)
        assert old in page
        (folder / name).write_bytes(page.replace(old, base64.b64encode(canonical(told))))
    assert f"paper: {name}" in refutations(judge(folder / name)).replace("'", "")


def test_the_report_counts_what_others_confirmed(run: Path) -> None:
    told = json.loads((run / "report" / "report.json").read_bytes())
    assert set(told["cosigned"]) == {"server", "site-01", "site-02", "site-03"}
    for one in told["cosigned"].values():
        assert one["confirmed"] == one["entries"] > 0
