"""The federation's own authority: what its certificates say, how long they hold, who signed."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fedkd.deploy.authority import expect_leaf, holding, make_authority, make_leaf
from fedkd.knowledge import BadInput

NOW = datetime(2027, 1, 1, tzinfo=UTC)
HOST = "federation.example.org"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder / "ca.key", folder / "ca.crt", "heart", NOW)
    make_leaf(folder, HOST, now=NOW)
    return folder


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_strict_verifier_takes_the_certificate_for_its_names_and_for_no_other(keys: Path) -> None:
    leaf, authority = certificate(keys / "server.crt"), certificate(keys / "ca.crt")
    policy = PolicyBuilder().store(Store([authority])).time(NOW)
    for name in (HOST, "localhost"):
        policy.build_server_verifier(x509.DNSName(name)).verify(leaf, [])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("other.example.org")).verify(leaf, [])


def test_an_authority_signs_servers_and_no_further_authority(keys: Path) -> None:
    basic = certificate(keys / "ca.crt").extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value.ca
    assert basic.value.path_length == 0


def test_a_leaf_serves_and_nothing_else(keys: Path) -> None:
    leaf = certificate(keys / "server.crt")
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1)
    for extension in (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier):
        leaf.extensions.get_extension_for_class(extension)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_takes_the_chain_strictly(keys: Path) -> None:
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver",
         "-attime", str(int(NOW.timestamp())), "-verify_hostname", HOST,
         "-CAfile", keys / "ca.crt", keys / "server.crt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_nobody_else_reads_a_key(keys: Path) -> None:
    for name in ("ca.key", "server.key"):
        assert (keys / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("after", "ending", "expired"), [(0, False, False), (336, True, False), (366, True, True)]
)
def test_who_looks_is_warned_before_a_certificate_ends(
    keys: Path, after: int, ending: bool, expired: bool
) -> None:
    held = holding(keys / "server.crt", NOW + timedelta(days=after))
    assert (held.is_ending, held.is_expired) == (ending, expired)


def test_an_expired_certificate_is_not_started_with(keys: Path) -> None:
    expect_leaf(keys, HOST, NOW)
    with pytest.raises(BadInput, match=r"expired at 2028-01-01.*fedkd server rotate"):
        expect_leaf(keys, HOST, NOW + timedelta(days=366))


def test_a_certificate_for_another_name_is_not_started_with(keys: Path) -> None:
    with pytest.raises(BadInput, match=r"without moved\.example\.org"):
        expect_leaf(keys, "moved.example.org", NOW)


def test_a_certificate_of_another_authority_or_key_is_not_started_with(
    keys: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(keys, other)
    make_leaf(other, HOST, now=NOW)
    shutil.copy(keys / "server.key", other / "server.key")
    with pytest.raises(BadInput, match=r"server\.key, which is not that of server\.crt"):
        expect_leaf(other, HOST, NOW)
    make_authority(other / "ca.key", other / "ca.crt", "heart", NOW)
    with pytest.raises(BadInput, match=r"which ca\.crt did not sign"):
        expect_leaf(other, HOST, NOW)


def test_an_address_in_numbers_is_named_as_one(keys: Path, tmp_path: Path) -> None:
    shutil.copytree(keys, tmp_path / "by-number")
    make_leaf(tmp_path / "by-number", "192.0.2.7", now=NOW)
    leaf = certificate(tmp_path / "by-number" / "server.crt")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "192.0.2.7" in [str(each) for each in names.get_values_for_type(x509.IPAddress)]
