"""The zipapp: the same bytes each time, readable, and enough by itself for an auditor."""

import importlib.metadata
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from fedkd.audit import verify
from fedkd.cli.verifier import pack
from fedkd.report import verify as report_verify
from tests.audit_verify.federation import Federation
from tests.audit_verify.test_hostile_files import snapshot

ROOT = Path(__file__).resolve().parents[2]
PACKER = ROOT / "fedkd" / "cli" / "verifier.py"
TINY = [
    "data=digits", "data.records=60", "data.test_size=20", "query.size=8", "rounds=1",
    "clients.count=2", "clients.models=[logistic]", "training.local_epochs=1",
    "training.lesson_epochs=1", "student.model=logistic", "student.epochs=1", "report=false",
]  # fmt: skip
NEEDED = ("cryptography", "cffi", "pycparser", "rfc8785")
ABSENT = ("fedkd", "torch", "numpy", "flwr", "typer", "hydra", "server", "clients")
SEALED = """
import runpy, sys
def watch(event, given):
    writes = event == "open" and (given[2] or 0) & 0o3 and given[0] != "/dev/null"
    changes = event.split(".")[0] in ("socket", "subprocess", "shutil", "tempfile", "urllib")
    acts = event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.system",
                     "os.exec", "os.fork", "os.link", "os.symlink", "os.chmod", "os.utime")
    if writes or changes or acts:
        raise AssertionError(f"{event} {given}")
    if event == "sqlite3.connect" and "mode=ro&immutable=1" not in str(given[0]):
        raise AssertionError(f"{event} {given}")
sys.dont_write_bytecode = True
sys.addaudithook(watch)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist") / "fedkd-verify.pyz"
    subprocess.run([sys.executable, "-I", str(PACKER), str(out)], check=True)
    return out


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that holds cryptography and rfc8785, what these need, and nothing else."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=False, symlinks=True)
    site = next(home.glob("lib/python*/site-packages"))
    for name in NEEDED:
        try:
            files = importlib.metadata.distribution(name).files or []
        except importlib.metadata.PackageNotFoundError:
            continue  # cffi is not everywhere needed
        for top in {file.parts[0] for file in files if ".." not in file.parts}:
            source = Path(str(files[0].locate())).parents[len(files[0].parts) - 1] / top
            if source.is_dir():
                shutil.copytree(source, site / top, dirs_exist_ok=True)
            else:
                shutil.copy(source, site / top)
    return home / "bin" / "python"


@pytest.fixture
def handed_over(tmp_path: Path) -> tuple[Path, Path]:
    """A run's folder, and a folder of policies that the auditor holds."""
    federation = Federation()
    return federation.write(tmp_path / "run"), federation.write_policies(tmp_path / "mine")


def runs(python: Path, *arguments: object) -> tuple[int, str, str]:
    """What the command leaves, in an environment without variables and another folder."""
    done = subprocess.run(
        [str(python), "-I", *map(str, arguments)],
        capture_output=True, text=True, env={"PATH": "/nowhere"}, cwd="/", check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_it_is_the_same_bytes_whoever_packs_it(pyz: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pyz"
    pack(again)
    assert again.read_bytes() == pyz.read_bytes()
    # another folder, other times and permissions of the files, another umask, time zone, hash seed
    copied = tmp_path / "elsewhere" / "fedkd"
    for part in ("audit/verify", "report/verify", "cli/verifier.py"):
        source, target = ROOT / "fedkd" / part, copied / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    for number, path in enumerate(sorted(copied.rglob("*.*"))):
        os.utime(path, (number, number))
        path.chmod(0o600)
    (copied / "audit" / "verify" / "__pycache__").mkdir(exist_ok=True)
    for out, seed, zone in (
        (tmp_path / "b.pyz", "1", "Asia/Tokyo"),
        (tmp_path / "c.pyz", "2", "UTC"),
    ):
        command = f"umask 0077 && exec {sys.executable} {copied}/cli/verifier.py {out}"
        subprocess.run(
            ["/bin/sh", "-c", command], check=True, env={"PYTHONHASHSEED": seed, "TZ": zone}
        )
        assert out.read_bytes() == pyz.read_bytes()


def test_it_holds_the_verifying_room_unchanged_and_nothing_else(pyz: Path) -> None:
    rooms = {
        f"fedkd/audit/verify/{path.name}": path
        for path in Path(verify.__file__).parent.glob("*.py")
    }
    for path in Path(report_verify.__file__).parent.iterdir():
        if path.is_file():
            rooms[f"fedkd/report/verify/{path.name}"] = path
    with zipfile.ZipFile(pyz) as archive:
        entries = archive.infolist()
        assert [entry.filename for entry in entries] == sorted(
            ["__main__.py", "fedkd/__init__.py", "fedkd/audit/__init__.py",
             "fedkd/report/__init__.py", *rooms]
        )  # fmt: skip
        for entry in entries:
            content = archive.read(entry)
            assert entry.compress_type == zipfile.ZIP_STORED
            assert content == pyz.read_bytes()[pyz.read_bytes().index(content) :][: len(content)]
            if entry.filename in rooms:
                assert content == rooms[entry.filename].read_bytes()
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert os.access(pyz, os.X_OK)


def test_the_packer_says_how_it_is_used(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PACKER)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected: verifier.py OUT" in done.stderr


def test_the_environment_holds_nothing_of_ours(bare: Path) -> None:
    found = f"import importlib.util as i; print([n for n in {ABSENT} if i.find_spec(n)])"
    assert runs(bare, "-c", found) == (0, "[]\n", "")
    assert runs(bare, "-c", "import cryptography, rfc8785")[0] == 0


def test_it_verifies_a_runs_folder_by_itself(
    pyz: Path, bare: Path, handed_over: tuple[Path, Path]
) -> None:
    run, policies = handed_over
    code, out, err = runs(bare, pyz, "verify", run, "--policy", policies)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "VERIFIED: by your policy, as far as said above."
    code, out, _ = runs(bare, pyz, "verify", run, "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "CONSISTENT")


def test_it_is_the_code_behind_fedkd_audit_verify(
    pyz: Path, bare: Path, handed_over: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from fedkd.cli import main

    run, policies = handed_over
    for more in ([], ["--policy", str(policies)], ["--json"], ["--seen", str(policies)]):
        code = main(["audit", "verify", str(run), *more])
        printed = capsys.readouterr()
        assert runs(bare, pyz, "verify", run, *more) == (code, printed.out, printed.err)


def test_it_is_the_code_behind_python_m(
    pyz: Path, bare: Path, handed_over: tuple[Path, Path]
) -> None:
    asked = ("verify", handed_over[0])
    assert runs(Path(sys.executable), "-m", "fedkd.audit.verify", *asked) == runs(bare, pyz, *asked)


def test_it_connects_to_nothing_and_writes_nothing(
    pyz: Path, bare: Path, handed_over: tuple[Path, Path], tmp_path: Path
) -> None:
    run, policies = handed_over
    sealed = tmp_path / "sealed.py"
    sealed.write_text(SEALED)
    before = snapshot(tmp_path), snapshot(bare.parents[1]), snapshot(pyz.parent)
    for more in (("--policy", policies), ("--json",)):
        code, out, err = runs(bare, sealed, pyz, "verify", run, *more)
        assert (code, err) == (0, ""), out + err
    assert (snapshot(tmp_path), snapshot(bare.parents[1]), snapshot(pyz.parent)) == before


@pytest.mark.parametrize(
    "what", ["socket.socket().connect(('127.0.0.1', 9))", "open(sys.argv[0], 'a')"]
)
def test_the_seal_itself_would_notice(what: str, bare: Path, tmp_path: Path) -> None:
    (tmp_path / "sealed.py").write_text(SEALED)
    (tmp_path / "leaks.py").write_text(f"import socket, sys\n{what}\n")
    code, _, err = runs(bare, tmp_path / "sealed.py", tmp_path / "leaks.py")
    assert code == 1
    assert "AssertionError" in err


def test_it_refuses_what_a_planted_fault_changes(
    pyz: Path, bare: Path, handed_over: tuple[Path, Path]
) -> None:
    run, policies = handed_over
    federation = Federation()
    federation.server.rewritten(11, {"run": "run-1"}).write(run / "audit")
    for more in ((), ("--policy", policies)):
        code, out, err = runs(bare, pyz, "verify", run, *more)
        assert (code, err) == (1, "")
        assert "REFUTED      server" in out
    (run / "audit" / "server.sqlite").write_bytes(b"SQLite format 3\0" * 99)
    assert runs(bare, pyz, "verify", run)[0] == 1
    assert runs(bare, pyz, "verify", run / "nothing")[0] == 2
    assert runs(bare, pyz)[0] == 2
    assert runs(bare, pyz, "--help")[0] == 0


def test_it_verifies_what_a_simulation_left_and_refuses_what_was_changed_in_it(
    pyz: Path, bare: Path, tmp_path: Path
) -> None:
    from fedkd.cli.simulate import simulate_one

    run = tmp_path / "run"
    simulate_one([*TINY, f"out={run}"])
    code, out, err = runs(bare, pyz, "verify", run)
    assert (code, err) == (0, "")
    assert "by 2 of 2 (k=1)" in out
    assert "CONSISTENT, ONE HOLDER (its keys are a rehearsal's)" in out
    mine = tmp_path / "mine"
    mine.mkdir()
    for policy in (run / "audit").glob("*.policy"):
        shutil.copy(policy, mine)
    code, out, err = runs(bare, pyz, "verify", run, "--policy", mine)
    assert (code, err) == (0, "")
    assert "VERIFIED, ONE HOLDER" in out
    database = sqlite3.connect(run / "audit" / "site-01.sqlite")
    database.execute("UPDATE entries SET body = replace(body, '\"round\":1', '\"round\":2')")
    database.commit()
    database.close()
    code, out, err = runs(bare, pyz, "verify", run, "--policy", mine)
    assert (code, err) == (1, "")
    assert "REFUTED      site-01" in out


def test_it_checks_a_proof_by_itself(
    pyz: Path, bare: Path, handed_over: tuple[Path, Path], tmp_path: Path
) -> None:
    from fedkd.cli import main

    run, policies = handed_over
    out = tmp_path / "one.tlog-proof"
    assert main(["audit", "prove", f"{run}/audit/server.sqlite#12", "--out", str(out)]) == 0
    asked = ("proof", out, tmp_path / "one.leaf", "--policy", policies / "server.policy")
    code, said, err = runs(bare, pyz, *asked)
    assert (code, err) == (0, "")
    assert said.splitlines()[0] == "VERIFIED"
    assert "type      student.updated" in said
    (tmp_path / "one.leaf").write_bytes((tmp_path / "one.leaf").read_bytes()[:-2] + b"0}")
    assert runs(bare, pyz, *asked)[0] == 1
    assert runs(bare, pyz, *asked[:-2])[0] == 2  # without a policy nothing is proven


def test_make_verifier_needs_python_alone(tmp_path: Path, pyz: Path) -> None:
    """From a bare checkout: no environment is made, nothing is installed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for room in ("audit/verify", "report/verify"):
        shutil.copytree(ROOT / "fedkd" / room, tmp_path / "fedkd" / room)
    (tmp_path / "fedkd" / "cli").mkdir()
    shutil.copy(PACKER, tmp_path / "fedkd" / "cli")
    subprocess.run(
        ["make", "verifier", f"PYTHON={sys.executable}"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    assert (tmp_path / "dist" / "fedkd-verify.pyz").read_bytes() == pyz.read_bytes()
    assert not (tmp_path / ".venv").exists()


def test_it_verifies_a_report_by_itself_and_writes_nothing(
    pyz: Path, bare: Path, tmp_path: Path
) -> None:
    from fedkd.cli import main

    run, own = tmp_path / "run", tmp_path / "own"
    assert main(["simulate", *TINY, f"out={run}"]) == 0
    assert main(["report", "build", str(run)]) == 0
    own.mkdir()
    for path in (run / "audit").glob("*.policy"):
        shutil.copy(path, own)
    sealed = tmp_path / "sealed.py"
    sealed.write_text(SEALED)
    before = snapshot(tmp_path)
    for name in ("index.html", "report.json", "report.md", "evidence.json"):
        asked = (sealed, pyz, "report", run / "report" / name, "--policy", own)
        code, out, err = runs(bare, *asked)
        assert (code, err) == (0, ""), out + err
        assert out.splitlines()[-1].startswith("VERIFIED")
    assert snapshot(tmp_path) == before
    page = run / "report" / "index.html"
    page.write_text(page.read_text().replace("digits", "digets", 1))
    code, out, _ = runs(bare, pyz, "report", page)
    assert (code, "REFUTED" in out) == (1, True)
