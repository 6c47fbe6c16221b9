"""Vectors that others published: what they accept we accept, what they refuse we refuse."""

import base64
import hashlib
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from fedkd.audit.verify import (
    Algorithm,
    Envelope,
    Malformed,
    Note,
    ProofFile,
    Refuted,
    Tree,
    TrustPolicy,
    VerifierKey,
    canonical,
    leaf_hash,
    node_hash,
    parsed,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from fedkd.audit.verify.dsse import pre_authentication_encoding
from fedkd.audit.verify.notes import SIGNATURE_BYTES
from tests.audit_formats.published import FOLDER, cases, needed, read

pytestmark = needed


def raw(text: str) -> bytes:
    return base64.b64decode(text)


@pytest.mark.parametrize("vector", cases("merkle/proofs.json", by="name"))
def test_merkle_proofs(vector: dict[str, Any]) -> None:
    case = vector["case"]
    proof = [raw(digest) for digest in case["proof"] or ()]

    def verify() -> None:
        if "leafIdx" in case:
            verify_inclusion(
                case["leafIdx"], case["treeSize"], raw(case["leafHash"]), proof, raw(case["root"])
            )
        else:
            roots = raw(case["root1"]), raw(case["root2"])
            verify_consistency(case["size1"], case["size2"], proof, *roots)

    if case["wantErr"]:
        with pytest.raises(Refuted):
            verify()
    else:
        verify()


def test_merkle_roots() -> None:
    vectors = read("merkle/roots.json")
    digests = [leaf_hash(bytes.fromhex(leaf)) for leaf in vectors["leaves_hex"]]
    for size, expected in enumerate(vectors["roots"]):
        assert tree_root(digests[:size]).hex() == expected
        assert Tree(digests).root(size).hex() == expected
    assert leaf_hash(b"L123456").hex() == vectors["leaf_hash_of_L123456"]
    assert node_hash(b"N123", b"N456").hex() == vectors["node_hash_N123_N456"]


@pytest.mark.parametrize("vector", cases("signed_note/vectors.json"))
def test_signed_notes(vector: dict[str, Any]) -> None:
    content, known = vector["note"].encode(), VerifierKey.parse(vector["vkey"])
    if not vector["valid"]:
        with pytest.raises(Refuted):
            Note.parse(content).verify([known])
        return
    note = Note.parse(content)
    assert note.verify([known]).signers == {known: None}
    assert note.to_bytes() == content


@pytest.mark.parametrize("vector", cases("signed_note/vkeys.json", by="vkey"))
def test_verifier_keys(vector: dict[str, Any]) -> None:
    if vector["valid"]:
        assert VerifierKey.parse(vector["vkey"]).text() == vector["vkey"]
    else:
        with pytest.raises(Malformed):
            VerifierKey.parse(vector["vkey"])


@pytest.mark.parametrize("vector", cases("tlog_cosignature/vectors.json"))
def test_cosignatures(vector: dict[str, Any]) -> None:
    keys = [VerifierKey.parse(vkey) for vkey in vector["vkeys"]]
    note = Note.parse(vector["note"].encode())
    assert note.to_bytes() == vector["note"].encode()
    if vector["valid"] is None:  # an example of the format, whose key was not published
        assert len(note.signatures[1].content) == SIGNATURE_BYTES[Algorithm.COSIGNATURE]
        return
    if not vector["valid"]:
        with pytest.raises(Refuted, match="bytes that this key did not make"):
            note.verify(keys)
        return
    signers = note.verify(keys).signers
    assert list(signers) == keys
    assert [time is None for time in signers.values()] == [True, False, False, False]


@pytest.mark.parametrize("vector", cases("tlog_proof/vectors.json"))
def test_proof_files(vector: dict[str, Any]) -> None:
    policy = TrustPolicy.parse(vector["policy"].encode())
    content = vector["proof"].encode()
    proof = ProofFile.parse(content)
    assert proof.to_bytes() == content
    if vector["valid"]:
        proven = proof.verify(policy, vector["leaf"].encode())
        assert f"{proven.witnessed.checkpoint.size}-{proven.index}" == vector["id"].split("/")[0]
        return
    with pytest.raises(Refuted):
        proof.verify(policy, vector["leaf"].encode())


@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode"])
def test_canonical_json(name: str) -> None:
    import json

    value = json.loads((FOLDER / "rfc8785" / "input" / f"{name}.json").read_bytes())
    written = canonical(value)
    assert written == (FOLDER / "rfc8785" / "output" / f"{name}.json").read_bytes()
    assert written == bytes.fromhex((FOLDER / "rfc8785" / "outhex" / f"{name}.txt").read_text())
    assert parsed(written) == value


@pytest.mark.parametrize("vector", cases("dsse/vectors.json", by="payloadType"))
def test_envelopes(vector: dict[str, Any]) -> None:
    import json

    kind, payload = vector["payloadType"], vector["payload_utf8"].encode()
    assert pre_authentication_encoding(kind, payload).decode() == vector["pae"]
    x, y = int(vector["key"]["x"]), int(vector["key"]["y"])
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()

    def check(signature: bytes, message: bytes) -> bool:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    envelope = Envelope.parse(json.dumps(vector["envelope"]).encode())
    keyid = vector["envelope"]["signatures"][0]["keyid"]
    assert envelope.verify({keyid: check}, kind) == (keyid,)
    assert envelope.payload == payload
    other = Envelope(payload + b"!", kind, envelope.signatures)
    with pytest.raises(Refuted):
        other.verify({keyid: check}, kind)


def test_every_folder_of_vectors_is_used() -> None:
    """A folder that somebody adds later does not lie there unread."""
    used = {"dsse", "merkle", "rfc8785", "signed_note", "tlog_cosignature", "tlog_proof"}
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == used
    assert hashlib.sha256(b"").hexdigest() == read("merkle/roots.json")["roots"][0]
