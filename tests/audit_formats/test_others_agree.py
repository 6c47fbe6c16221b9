"""Independent implementations, where they are installed: they take what we write, and we theirs."""

import json
from pathlib import Path

import pytest

from fedkd.audit.verify import (
    Algorithm,
    Envelope,
    Note,
    ProofFile,
    Refuted,
    TrustPolicy,
    VerifierKey,
    cosign,
    ed25519_check,
    ed25519_sign,
    files,
    has_mldsa,
    read_files,
    verify_consistency,
)
from tests.audit_formats.parties import (
    LOG,
    NOW,
    ORIGIN,
    WITNESSES,
    head,
    key,
    leaves,
    note,
    seed,
    tree,
)

QUANTUM = Algorithm.COSIGNATURE_MLDSA44


def export(folder: Path, size: int) -> Note:
    made = note(size, cosigners=2)
    if has_mldsa():
        line = cosign(key("fedkd.example/q", QUANTUM), head(size), NOW)
        made = made.with_signatures([line])
    for path, content in files(leaves(size), made):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return made


@pytest.mark.parametrize("size", [1, 7, 256, 257, 600])
def test_tlog_scales_reads_our_log_and_its_proofs_are_ours(size: int, tmp_path: Path) -> None:
    """tlog-scales (PyPI, Apache-2.0): tiles, signatures, proofs, written by other people."""
    backend = pytest.importorskip("tlog_scales.backend")
    reader_of = pytest.importorskip("tlog_scales.reader")
    signing = pytest.importorskip("tlog_scales.signing")
    tlog = pytest.importorskip("tlog_scales.tlog")
    export(tmp_path, size)
    reader = reader_of.TilesReader(backend.LocalBackend(tmp_path))
    checkpoint = reader.get_checkpoint()
    assert reader.calculate_root_hash() == checkpoint.root_hash == tree(size).root()
    public = [LOG.verifier(), *(w.verifier() for w in WITNESSES[:2])]
    if has_mldsa():
        public.append(key("fedkd.example/q", QUANTUM).verifier())
    theirs = signing.VkeySet(*(signing.Vkey.from_string(k.text()) for k in public))
    assert len(theirs.verify(checkpoint.signatures, checkpoint)) == len(public)
    for index in {0, size // 2, size - 1}:
        proof = reader.get_inclusion_proof(index, size)
        assert tuple(proof.node_hashes) == tree(size).inclusion(index)
        assert reader.get_entry(index) == leaves(size)[index]
        with pytest.raises(tlog.InclusionProofInvalid):
            proof.check(bytes(32), checkpoint.root_hash)
    for old in {1, (size + 1) // 2, size}:
        theirs_says = reader.get_consistency_proof(old, size)
        theirs_says.check(tree(old).root(), tree(size).root())
        verify_consistency(old, size, theirs_says.node_hashes, tree(old).root(), tree(size).root())
        if old < size:
            with pytest.raises(tlog.ConsistencyProofInvalid):
                theirs_says.check(tree(old, "another").root(), tree(size).root())


def test_a_changed_export_is_refused_by_both(tmp_path: Path) -> None:
    backend = pytest.importorskip("tlog_scales.backend")
    reader_of = pytest.importorskip("tlog_scales.reader")
    export(tmp_path, 7)
    tile = tmp_path / "tile/0/000.p/7"
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    reader = reader_of.TilesReader(backend.LocalBackend(tmp_path))
    assert reader.get_checkpoint().root_hash != reader.calculate_root_hash()
    with pytest.raises(Refuted, match=r"tile/0/000\.p/7"):
        read_files(lambda path: (tmp_path / path).read_bytes())


def test_a_log_that_tlog_scales_wrote_is_read_here(tmp_path: Path) -> None:
    writer_of = pytest.importorskip("tlog_scales.writer")
    signing = pytest.importorskip("tlog_scales.signing")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(LOG.seed)
    folder = tmp_path / "log"
    writer = writer_of.TilesWriter.create(folder, ORIGIN)
    for leaf in leaves(300):
        writer.add_leaf(leaf)
    writer.commit([signing.PlainEd25519Signer(ORIGIN, private)])
    found, written = read_files(lambda path: (folder / path).read_bytes())
    assert found == tuple(leaves(300))
    assert written.verify([LOG.verifier()]).signers == {LOG.verifier(): None}
    proof = ProofFile.make(299, written, tree(300).node)
    alone = f"log {LOG.verifier().text()}\nquorum none\n".encode()
    proof.verify(TrustPolicy.parse(alone), b"entry 299")


@pytest.mark.skipif(not has_mldsa(), reason="this cryptography has no ML-DSA-44")
def test_a_post_quantum_cosignature_of_tlog_scales_is_taken_here() -> None:
    signing = pytest.importorskip("tlog_scales.signing")
    tlog = pytest.importorskip("tlog_scales.tlog")
    signer = signing.MLDSA44CosignatureSigner("q", seed_key(seed("q")))
    made = tlog.Checkpoint.make_signed(ORIGIN, 7, tree(7).root(), [signer])
    known = VerifierKey.parse(signer.vkey.serialize())
    opened = Note.parse(made.serialize().encode()).verify([known])
    assert opened.signers[known]


def seed_key(secret: bytes) -> object:
    mldsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    return mldsa.MLDSA44PrivateKey.from_seed_bytes(secret)


def test_securesystemslib_and_we_read_each_others_envelopes() -> None:
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer_of = pytest.importorskip("securesystemslib.signer")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(seed("ann"))
    signer = signer_of.CryptoSigner(private)
    keyid, public = signer.public_key.keyid, private.public_key().public_bytes_raw()
    kind, payload = "application/vnd.in-toto+json", b'{"_type":"x"}'

    ours = Envelope.sign(payload, kind, {keyid: ed25519_sign(seed("ann"))})
    theirs = dsse.Envelope.from_dict(json.loads(ours.to_bytes()))
    assert theirs.pae() == dsse.Envelope(payload, kind, {}).pae()
    assert list(theirs.verify([signer.public_key], 1)) == [keyid]

    made = dsse.Envelope(payload, kind, {})
    made.sign(signer)
    read = Envelope.parse(json.dumps(made.to_dict()).encode())
    assert read.verify({keyid: ed25519_check(public)}, kind) == (keyid,)
