"""Makes a federation's own certificate authority, and the certificates that it signs."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedkd.audit.locking import read_secret, write_secret
from fedkd.deploy.lines import utc
from fedkd.federation.durable import write_bytes
from fedkd.knowledge import BadInput

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 365
WARN_DAYS: Final = 30
"""A certificate with fewer days left is warned of."""
_EARLY: Final = timedelta(hours=1)
"""Certificates hold from a little earlier, for clocks that are late."""
LOOPBACK: Final = ("localhost", "127.0.0.1")
"""Names that every leaf has as well: the proxy finds the SuperLink behind it by them."""


@dataclass(frozen=True, slots=True)
class Holding:
    """How long a certificate holds: `until` in UTC, `days` that are left, below 0 once expired."""

    name: str
    until: datetime
    days: float

    @property
    def is_expired(self) -> bool:
        """Whether it holds no longer."""
        return self.days <= 0

    @property
    def is_ending(self) -> bool:
        """Whether it is time to make a new one."""
        return self.days < WARN_DAYS

    def warning(self, remedy: str) -> str | None:
        """What to tell a person, with what to do; None while there is time."""
        if not self.is_ending:
            return None
        when = "expired" if self.is_expired else "expires"
        return f"{self.name} {when} at {self.until:%Y-%m-%d}: {remedy}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "until": utc(self.until),
            "days_left": int(self.days),
        }


def make_authority(key: Path, certificate: Path, name: str, now: datetime | None = None) -> None:
    """A fresh P-384 authority of the federation `name`: its key 0600, its certificate in PEM.

    It may sign servers' certificates and no further authorities (path length 0), RFC 5280, 4.2.1.9.
    """
    now = now or datetime.now(UTC)
    secret = ec.generate_private_key(ec.SECP384R1())
    subject = _named(f"{name} federation authority"[:64])
    built = (
        _builder(subject, subject, secret.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(secret.public_key()), critical=False
        )
        .sign(secret, hashes.SHA384())
    )
    write_key(key, secret)
    write_bytes(certificate, _pem(built))


def make_leaf(
    folder: Path,
    host: str,
    *,
    days: int = LEAF_DAYS,
    now: datetime | None = None,
) -> None:
    """A fresh server certificate for `host` by the authority in `folder` (ca.key, ca.crt).

    Writes server.key (0600) and server.crt there, each whole or not at all. Key P-384, subject
    alternative names `host` and the loopback names, use serverAuth alone.
    """
    now = now or datetime.now(UTC)
    authority = read_certificate(folder / "ca.crt")
    signer = read_key(folder / "ca.key")
    secret = ec.generate_private_key(ec.SECP384R1())
    until = min(now + timedelta(days=days), authority.not_valid_after_utc)
    names = [_general(each) for each in dict.fromkeys((host, *LOOPBACK))]
    built = (
        _builder(_named(host[:64]), authority.subject, secret.public_key(), now, days, until)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA384())
    )
    write_key(folder / "server.key", secret)
    write_bytes(folder / "server.crt", _pem(built))


def holding(path: Path, now: datetime | None = None) -> Holding:
    """How long the certificate in `path` holds."""
    return held(path.name, read_certificate(path), now)


def held(name: str, certificate: x509.Certificate, now: datetime | None = None) -> Holding:
    """How long a certificate holds that is called `name`."""
    until = certificate.not_valid_after_utc
    left = until - (now or datetime.now(UTC))
    return Holding(name, until, left / timedelta(days=1))


def expect_leaf(folder: Path, host: str, now: datetime | None = None) -> None:
    """`BadInput` unless server.crt is for `host`, belongs to server.key, by ca.crt, and holds."""
    leaf, authority = read_certificate(folder / "server.crt"), read_certificate(folder / "ca.crt")
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise BadInput("server.crt, which ca.crt did not sign", "its signature", _ROTATE) from None
    if read_key(folder / "server.key").public_key() != leaf.public_key():
        raise BadInput("server.key, which is not that of server.crt", "its key", _ROTATE)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if _general(host) not in list(names):
        raise BadInput(f"server.crt without {host}", "the address in server.yaml", _ROTATE)
    for name, remedy in REMEDY.items():
        held = holding(folder / name, now)
        if held.is_expired:
            raise BadInput(
                f"{name}, which expired at {held.until:%Y-%m-%d}", "one that holds", remedy
            )


_ROTATE: Final = "fedkd server rotate makes a new one"
_ANEW: Final = "begin a new federation with fedkd server init, and invite its sites again"
REMEDY: Final = {"server.crt": _ROTATE, "ca.crt": _ANEW}
"""What a coordinator does about each of its certificates."""


def ending(folder: Path, now: datetime | None = None) -> list[str]:
    """Warnings of the coordinator's certificates in `folder` that hold for few days more."""
    said = [holding(folder / name, now).warning(remedy) for name, remedy in REMEDY.items()]
    return [each for each in said if each is not None]


def ending_authority(path: Path, now: datetime | None = None) -> list[str]:
    """A hospital's warning of the federation's authority in `path`, where it ends soon."""
    said = holding(path, now).warning(_ASK)
    return [] if said is None else [said]


_ASK: Final = "ask the coordinator for an invitation by a new one, and join it in a new folder"


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Writes a private key (PKCS8, PEM) that nobody else can read, replacing one that is there."""
    body = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret(path, body)


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in `path`; `BadInput` where it is none, or others may read it."""
    try:
        body, mode = read_secret(path), path.stat().st_mode
        key = serialization.load_pem_private_key(body, None)
    except BadInput:  # sealed, and not opened
        raise
    except (OSError, ValueError, TypeError):
        raise BadInput(f"no private key in {path}", "one that fedkd server init made") from None
    if mode & 0o077:
        raise BadInput(f"{path} with mode {mode & 0o777:04o}", "0600", f"chmod 600 {path}")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInput(f"a key of another kind in {path}", "one on the curve P-384")
    return key


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in `path`; `BadInput` where it is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"no certificate in {path}", "one that fedkd server init made") from None


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
    until: datetime | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(until or now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
