"""A statement with a detached signature of the person's own: kept whole, shown as not checked."""

import json
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID

from fedkd.audit import Log
from fedkd.audit.officer import new_key
from fedkd.cli import main
from fedkd.report.building import build
from fedkd.report.declaring import MOST_SIGNATURE_BYTES
from fedkd.report.verify.judging import judge
from tests.report_verify.conftest import Forge, refutations

FIELD = "a4.1a.purpose"
TEXT = "It sorts digits.\nNothing else."
DECLARE = ["report", "declare"]


def certified(content: bytes, folder: Path) -> bytes:
    """A detached PKCS #7 signature, as a signing card's program makes one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Jane Doe")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "jane.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
    return builder.add_signer(certificate, key, hashes.SHA256()).sign(Encoding.DER, options)


@pytest.fixture(scope="module")
def signed_once(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose report holds a statement with a detached signature over what it asked for."""
    folder = tmp_path_factory.mktemp("signed")
    run = Path(shutil.copytree(finished, folder / "run"))
    key, over, signature = (folder / name for name in ("jane.key", "to-sign.txt", "jane.p7s"))
    public = new_key(key, "Jane Doe").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    told = [*DECLARE, str(run), FIELD, "--text", TEXT]
    assert main([*told, "--to-sign", str(over)]) == 0
    signature.write_bytes(certified(over.read_bytes(), folder))
    assert main([*told, "--key", str(key), "--signature", str(signature)]) == 0
    assert main(["report", "build", str(run)]) == 0
    return folder


@pytest.fixture
def signed(signed_once: Path, tmp_path: Path) -> Path:
    """A copy of it, with the person's own files beside the run."""
    return Path(shutil.copytree(signed_once, tmp_path / "signed")) / "run"


@pytest.fixture
def forged_signed(signed: Path, forged_in: Callable[[Path], Forge]) -> Forge:
    """What becomes of its evidence once it was changed."""
    return forged_in(signed)


def test_it_lies_in_the_report_and_is_said_not_to_be_checked(signed: Path) -> None:
    derived = build(signed).derived
    answer = derived.answer(FIELD)
    assert answer.status == "DECLARED"
    assert answer.statements[0].text == TEXT
    author = answer.statements[0].author or ""
    assert "carries a detached signature" in author
    assert "jane.p7s" in author
    assert "not checked by this program" in author
    for paper in ("index.html", "report.md", "report.json"):
        assert "not checked by this program" in (signed / "report" / paper).read_text()
    (text,) = (signed / "report").glob("signed-*.txt")
    (signature,) = (signed / "report").glob("signed-*.p7s")
    assert text.read_bytes() == (signed.parent / "to-sign.txt").read_bytes()
    assert signature.read_bytes() == (signed.parent / "jane.p7s").read_bytes()
    assert judge(signed / "report" / "evidence.json").verdict == "CONSISTENT"
    assert judge(signature).verdict == "CONSISTENT"
    assert main(["report", "verify", str(signed)]) == 0
    assert main(["audit", "verify", str(signed)]) == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="found no openssl on this machine")
def test_whoever_doubts_it_checks_it_with_a_program_of_their_own(signed: Path) -> None:
    (text,) = (signed / "report").glob("signed-*.txt")
    (signature,) = (signed / "report").glob("signed-*.p7s")
    command = [
        "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", str(signature),
        "-content", str(text), "-CAfile", str(signed.parent / "jane.pem"), "-purpose", "any",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    text.write_bytes(text.read_bytes().replace(b"digits", b"people"))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_another_signature_in_the_evidence_is_refuted(forged_signed: Forge) -> None:
    def change(told: dict[str, Any]) -> None:
        opened = told["logs"]["server"]["open"].values()
        body = next(one["body"] for one in opened if "artefact" in one["body"])
        body["artefact"] = b64encode(b"another").decode()

    found = refutations(forged_signed(change))
    assert "log server" in found
    assert f"{FIELD}/1" in found


def test_another_signature_beside_the_evidence_is_refuted(signed: Path, capsys: Any) -> None:
    (signature,) = (signed / "report").glob("signed-*.p7s")
    signature.write_bytes(signature.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert main(["report", "verify", str(signed)]) == 1
    assert signature.name in capsys.readouterr().out
    assert main(["report", "verify", str(signature)]) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body.update(artefact=b64encode(b"other").decode()), "as signed"),
        (lambda body: body.pop("artefact"), "no file"),
        (lambda body: body.update(artefact="%"), "no base64"),
    ],
)
def test_a_server_that_exchanges_it_in_its_own_log(
    signed: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    """The server can write what it likes into its log; the person's statement names the digest."""
    with Log(signed / "server" / "log.sqlite", "server") as log:
        entry = log.last("statement.declared")
        assert entry is not None
        body = json.loads(json.dumps(dict(entry.body)))
        payload = json.loads(b64decode(body["envelope"]["payload"]))
        assert payload["signature"] == body["signature"]
        change(body)
        log.append("forged", "statement.declared", body)
        log.export(signed / "audit" / "server.sqlite")
    built = build(signed)
    assert any("detached signature" in why and said in why for why in built.derived.trouble)
    assert len(built.derived.answer(FIELD).statements) == 1
    (signed / "report" / "evidence.json").write_bytes(built.bundle)
    assert "detached signature" in refutations(judge(signed / "report" / "evidence.json"))


def test_a_file_that_is_no_signature_is_refused(run: Path, tmp_path: Path, capsys: Any) -> None:
    key, file = tmp_path / "jane.key", tmp_path / "jane.p7s"
    public = new_key(key, "Jane Doe").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    told = [*DECLARE, str(run), FIELD, "--text", TEXT, "--signature", str(file)]
    assert main([*told, "--key", str(key)]) == 2
    assert "No such file" in capsys.readouterr().err
    for content in (b"", bytes(MOST_SIGNATURE_BYTES + 1)):
        file.write_bytes(content)
        assert main([*told, "--key", str(key)]) == 2
        assert f"{len(content)} bytes" in capsys.readouterr().err
    file.write_bytes(b"x")
    assert main(told) == 2
    assert "--key" in capsys.readouterr().err
    assert build(run).derived.answer(FIELD).status == "MISSING"
