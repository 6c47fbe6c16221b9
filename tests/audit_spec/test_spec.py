"""The page on the log, its vectors, our code and a reader in another language say one thing."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import EVENTS, Log
from fedkd.audit.log import SINCE_3, TABLES
from fedkd.audit.retention import NEVER
from fedkd.audit.verify import (
    Algorithm,
    Note,
    ProofFile,
    SigningKey,
    TrustPolicy,
    cosign,
    files,
    has_mldsa,
    quorum_table,
)
from fedkd.audit.verify.logs import check_log
from tests.audit_spec.checks import (
    CHECKS,
    FILES,
    FOLDER,
    POOL,
    REASONS,
    VECTORS,
    cases,
    guard,
    ledger,
    plain_log,
    reads_as,
    seed,
    written_log,
)

NODE = shutil.which("node")
PAGE = (FOLDER / "log.md").read_text(encoding="utf-8")
needs_node = pytest.mark.skipif(NODE is None, reason="no node here, which runs the reader")
ALL = cases()
BROKEN = {case["given"]["log"] for case in FILES["logs"]["cases"] if "refuse" in case}
OPEN = [
    name
    for name in POOL["logs"]
    if name not in BROKEN and all("body" in row for row in plain_log(name)[1])
]


def read_by_node(*arguments: str | Path) -> tuple[int, list[dict[str, Any]]]:
    assert NODE is not None
    done = subprocess.run(
        [NODE, FOLDER / "reader.mjs", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else []


# Vectors.


@pytest.mark.parametrize(("kind", "case"), ALL, ids=[f"{kind}: {case['id']}" for kind, case in ALL])
def test_our_code_says_of_each_vector_what_it_says_of_itself(
    kind: str, case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> Any:
        if kind == "ledger":
            return ledger(case["given"], tmp_path)
        if kind == "guard":
            return guard(case["given"], tmp_path, monkeypatch)
        return CHECKS[kind](case["given"])

    if "refuse" not in case:
        assert asked() == case["expect"]
        return
    with pytest.raises(REASONS[case["refuse"]][0]) as raised:
        asked()
    assert reads_as(raised.value, case["refuse"]), raised.value


@needs_node
def test_a_reader_in_another_language_says_the_same() -> None:
    code, said = read_by_node("vectors", VECTORS)
    assert [it for it in said if it["as_said"] is not True] == []
    assert code == 0
    assert [(it["kind"], it["id"]) for it in said] == [(kind, case["id"]) for kind, case in ALL]


@needs_node
def test_the_reader_is_not_content_with_any_vector_that_is_turned_round(tmp_path: Path) -> None:
    """Each vector says the opposite of itself, or another reason: none may pass."""
    for kind, file in FILES.items():
        turned = json.loads(json.dumps(file))
        for case in turned["cases"]:
            if "refuse" in case:
                case["refuse"] = "bad-range" if case["refuse"] != "bad-range" else "bad-key"
            else:
                del case["expect"]
                case["refuse"] = "bad-range"
        (tmp_path / f"{kind}.json").write_text(json.dumps(turned))
    code, said = read_by_node("vectors", tmp_path)
    assert code == 1
    assert len(said) == len(ALL)
    assert [it for it in said if it["as_said"] is not False] == []


@needs_node
def test_a_folder_without_vectors_is_no_success(tmp_path: Path) -> None:
    assert read_by_node("vectors", tmp_path)[0] == 2


def test_the_vectors_rebuild_to_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, FOLDER / "make_vectors.py", "--out", tmp_path], check=True, timeout=120
    )
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in VECTORS.iterdir()}
    assert made.keys() == kept.keys()
    assert [name for name in kept if made[name] != kept[name]] == []


@pytest.mark.parametrize("name", OPEN)
def test_our_log_writes_these_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same keys, salts and times: same leaves, same checkpoints, and they are verified."""
    key, rows, notes = plain_log(name)
    with written_log(name, tmp_path, monkeypatch) as log:
        log.export(tmp_path / "handed-over.sqlite")
    database = sqlite3.connect(tmp_path / "handed-over.sqlite")
    kept = database.execute("SELECT leaf, salt, body FROM entries ORDER BY place").fetchall()
    checkpoints = database.execute("SELECT note FROM checkpoints ORDER BY size").fetchall()
    database.close()
    expected = [(row["leaf"].encode(), bytes.fromhex(row["salt_hex"]), row["body"]) for row in rows]
    assert kept == expected
    assert [note.decode() for (note,) in checkpoints] == notes
    assert check_log(tmp_path / "handed-over.sqlite", key).verdict == "VERIFIED"


def test_every_reason_has_a_vector_and_a_line_on_the_page() -> None:
    used = {case["refuse"] for _, case in ALL if "refuse" in case}
    listed = set(re.findall(r"^\| `([a-z_-]+)` \|", PAGE.split("| reason |")[1], re.MULTILINE))
    assert used == set(REASONS)
    assert listed == used | {"unknown-algorithm"}


# The page.


def test_the_page_has_the_tables_of_the_database() -> None:
    def schema(statements: list[str]) -> list[Any]:
        database = sqlite3.connect(":memory:")
        for statement in statements:
            database.execute(statement)
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master ORDER BY 1")]
        columns = [database.execute(f"PRAGMA table_xinfo({name})").fetchall() for name in names]
        database.close()
        return [names, columns]

    shown = re.findall(r"^CREATE TABLE [^;]+;", PAGE, re.MULTILINE)
    assert schema(shown) == schema([*TABLES, *SINCE_3])


def test_the_page_has_the_types_of_events_and_those_never_erased() -> None:
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    every, kept = (block.split() for block in blocks if "log.opened" in block)
    assert sorted(every) == sorted(EVENTS)
    assert sorted(kept) == sorted(NEVER)


def test_the_page_has_the_table_of_quorums() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (-?\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert [tuple(map(int, row)) for row in rows] == [tuple(row) for row in quorum_table(10)]


# A log of ours, exported.


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "log.sqlite", "site-01") as log:
        for number in range(5):
            log.append(f"key {number}", "error.raised", {"number": number, "what": "caf\xe9"})
        yield log


def exported(log: Log, folder: Path, cosigners: tuple[SigningKey, ...] = ()) -> Note:
    """Every file of the log, as tiles."""
    log.export(folder.with_suffix(".sqlite"))
    checked = check_log(folder.with_suffix(".sqlite"))
    note = checked.head(len(checked.entries))
    note = note.with_signatures(cosign(key, note.checkpoint(), 1_800_000_000) for key in cosigners)
    for path, content in files([leaf.header.to_bytes() for leaf in checked.entries], note):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return note


def witness(name: str, kind: Algorithm = Algorithm.COSIGNATURE) -> SigningKey:
    return SigningKey(f"fedkd.invalid/{name}/witness", kind, seed(f"a test's key {name} {kind}"))


@needs_node
def test_the_reader_reads_a_log_of_ours(written: Log, tmp_path: Path) -> None:
    note = exported(written, tmp_path / "tiles")
    code, (said,) = read_by_node("tiles", tmp_path / "tiles", "--key", written.verifier().text())
    assert code == 0
    head = note.checkpoint()
    assert said["found"] == {
        "origin": head.origin, "size": 5, "root_hex": head.root.hex(), "entries": 5, "cosigned": {},
    }  # fmt: skip


@needs_node
def test_the_reader_reads_a_log_of_three_levels(tmp_path: Path) -> None:
    with Log(tmp_path / "log.sqlite", "site-01") as log, log.writing():
        for number in range(300):
            log.append(f"key {number}", "error.raised", {"number": number})
        key = log.verifier().text()
    with Log(tmp_path / "log.sqlite", "site-01") as log:
        exported(log, tmp_path / "tiles")
    code, (said,) = read_by_node("tiles", tmp_path / "tiles", "--key", key)
    assert (code, said["found"]["entries"]) == (0, 300)


@needs_node
def test_the_reader_refuses_a_flipped_byte_wherever_it_is(written: Log, tmp_path: Path) -> None:
    exported(written, tmp_path / "tiles")
    changed: list[Path] = []
    for file in sorted(path for path in (tmp_path / "tiles").rglob("*") if path.is_file()):
        content = file.read_bytes()
        for place in range(0, len(content), 5):
            folder = Path(shutil.copytree(tmp_path / "tiles", tmp_path / f"changed-{len(changed)}"))
            flipped = bytes([content[place] ^ 1])
            spoilt = folder / file.relative_to(tmp_path / "tiles")
            spoilt.write_bytes(content[:place] + flipped + content[place + 1 :])
            changed.append(folder)
    assert len(changed) > 200
    code, said = read_by_node("tiles", *changed, "--key", written.verifier().text())
    assert code == 1
    assert [it for it in said if "found" in it] == []
    assert len(said) == len(changed)


@needs_node
def test_the_reader_asks_a_policy_for_its_quorum(written: Log, tmp_path: Path) -> None:
    cosigners = tuple(witness(name) for name in ("a", "b", "c"))
    named = {key.name.split("/")[1]: key.verifier() for key in cosigners}
    policy = TrustPolicy.of([written.verifier()], named, 2)
    (tmp_path / "policy").write_bytes(policy.text())
    for count, expected in ((3, 0), (2, 0), (1, 1)):
        exported(written, tmp_path / f"tiles-{count}", cosigners[:count])
        code, (said,) = read_by_node(
            "tiles", tmp_path / f"tiles-{count}", "--policy", tmp_path / "policy"
        )
        assert code == expected, said
    assert said["refused"] == "no-quorum"


@needs_node
def test_the_reader_takes_a_proof_of_ours_and_no_other_leaf(written: Log, tmp_path: Path) -> None:
    cosigners = (witness("a"),)
    note = exported(written, tmp_path / "tiles", cosigners)
    policy = TrustPolicy.of([written.verifier()], {"a": cosigners[0].verifier()}, 1)
    (tmp_path / "policy").write_bytes(policy.text())
    (tmp_path / "proof").write_bytes(ProofFile.make(3, note, written.node).to_bytes())
    leaves = [leaf.header.to_bytes() for leaf in check_log(tmp_path / "tiles.sqlite").entries]
    for index, expected in ((3, 0), (2, 1)):
        (tmp_path / "leaf").write_bytes(leaves[index])
        arguments = (tmp_path / "proof", tmp_path / "leaf", "--policy", tmp_path / "policy")
        code, (said,) = read_by_node("proof", *arguments)
        assert code == expected, said
    assert said["refused"] == "wrong-root"


@needs_node
@pytest.mark.skipif(not has_mldsa(), reason="this cryptography has no ML-DSA-44")
def test_the_reader_does_not_judge_what_it_cannot_read(written: Log, tmp_path: Path) -> None:
    quantum = witness("q", Algorithm.COSIGNATURE_MLDSA44)
    exported(written, tmp_path / "tiles", (quantum,))
    policy = TrustPolicy.of([written.verifier()], {"q": quantum.verifier()}, 1)
    (tmp_path / "policy").write_bytes(policy.text())
    code, (said,) = read_by_node("tiles", tmp_path / "tiles", "--policy", tmp_path / "policy")
    assert (code, said["refused"]) == (3, "unknown-algorithm")


@needs_node
def test_the_reader_used_wrongly_says_so() -> None:
    for wrong in ([], ["tiles"], ["tiles", "x"], ["proof", "x"], ["vectors", "x", "y"], ["--what"]):
        assert read_by_node(*wrong)[0] == 2
