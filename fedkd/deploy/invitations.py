"""Spells the papers that travel by hand: a hospital's invitation, and its enrolment in return.

They are canonical JSON (RFC 8785) with a signature inside. An invitation is signed by the
federation's key, which it carries itself: whom that key belongs to is known only once two people
have compared the fingerprint by telephone. An enrolment is signed by the site's log key, which
shows that the site holds it.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from fedkd.audit import SERVER, Peer
from fedkd.audit.officer import expect_signed, sign_paper, verifier_of
from fedkd.audit.verify import Malformed, SigningKey, VerifierKey, canonical, parsed
from fedkd.deploy.lines import utc
from fedkd.knowledge import BadInput, OtherFormat

FORMAT: Final = 1
INVITATION: Final = "invitation"
ENROLMENT: Final = "enrolment"
SUCCESSION: Final = "succession"
FEDERATION: Final = "federation"
"""The kinds of paper that the signatures are over; the last is federation.yaml."""
MOST_BYTES: Final = 1 << 20
DAYS: Final = 30
"""How long an invitation holds, unless said otherwise."""
_SITE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?")
_FEDERATION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?")
_TOKEN = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_SHOWN, _GROUP = 20, 4


def new_token() -> str:
    """A secret of 128 bits, for one use."""
    return secrets.token_hex(16)


def token_digest(token: str) -> str:
    """What the roster keeps of a token: SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def in_days(days: int, now: datetime | None = None) -> str:
    """The time in so many days, UTC, as it is written in an invitation."""
    return utc((now or datetime.now(UTC)) + timedelta(days=days))


def site_name(name: str) -> str:
    """`name`, if a site may have it: it names a folder at the site and at the coordinator."""
    if not _SITE.fullmatch(name) or ".." in name:
        raise BadInput(
            f"the name {name!r}",
            "1 to 64 of A-Z a-z 0-9 space . _ - with a letter or digit first",
            "a short name without spaces, such as cleveland, is the easiest",
        )
    if name.lower() == SERVER:
        raise BadInput(f"a site named {name}", "another name: the coordinator's log has this one")
    return name


def federation_name(name: str) -> str:
    """`name`, if a federation may have it."""
    if not _FEDERATION.fullmatch(name):
        raise BadInput(
            f"the federation's name {name!r}",
            "1 to 64 of A-Z a-z 0-9 space . _ - with a letter or digit first",
        )
    return name


def address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_name = re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", bare)
    is_v6 = host.startswith("[") and host.endswith("]") and re.fullmatch(r"[0-9A-Fa-f:.]+", bare)
    if not colon or not (is_name or is_v6) or not port.isascii() or not port.isdigit():
        raise BadInput(
            f"the address {text!r}",
            "HOST:PORT, such as federation.example.org:443",
            "write the name by which hospitals reach the coordinator",
        )
    if not 1 <= int(port) <= 65_535:
        raise BadInput(f"port {port}", "1 to 65535")
    return bare, int(port)


def fingerprint_of(content: bytes) -> str:
    """20 hexadecimal digits of SHA-256 in groups of 4, to be compared by telephone."""
    digits = hashlib.sha256(content).hexdigest()[:_SHOWN]
    return " ".join(digits[at : at + _GROUP] for at in range(0, _SHOWN, _GROUP))


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadInput(f"{key} {value!r} in {where}", "a text that is not empty")
    return value


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[str, str], None]:
    def check(value: str, where: str) -> None:
        if not pattern.fullmatch(value):
            raise BadInput(f"{value!r} in {where}", expected)

    return check


def _authority(value: str, where: str) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(value.encode())
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise BadInput(f"an authority that is none in {where}", "a certificate in PEM") from None
    if not basic.ca:
        raise BadInput(f"a certificate of no authority in {where}", "one that may sign others")


def _node_key(value: str, where: str) -> None:
    try:
        key = load_ssh_public_key(value.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if (
        "\n" in value.strip()
        or not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, ec.SECP384R1)
    ):
        raise BadInput(
            f"a node key that is none in {where}",
            "an OpenSSH public key on the curve P-384, in one line",
        )


def _verifier_key(value: str, where: str) -> None:
    if not value.startswith("fedkd.invalid/"):
        raise BadInput(f"{value[:60]!r} as the federation's key in {where}", "name+id+key")
    verifier_of(value)


_CHECKS: Final[Mapping[str, Callable[[str, str], object]]] = {
    "federation": lambda value, where: federation_name(value),
    "site": lambda value, where: site_name(value),
    "address": lambda value, where: address(value),
    "federation_vkey": _verifier_key,
    "old_vkey": _verifier_key,
    "new_vkey": _verifier_key,
    "ca": _authority,
    "node_key": _node_key,
    "bundle": _matching(_SHA256, "64 hexadecimal digits"),
    "token": _matching(_TOKEN, "32 hexadecimal digits"),
    "made": _matching(_TIME, "a time such as 2027-01-31T12:00:00Z"),
    "expires": _matching(_TIME, "a time such as 2027-01-31T12:00:00Z"),
}


@dataclass(frozen=True, slots=True)
class _Paper:
    """What both papers have: a kind, text fields and keys of parties, and a signature."""

    KIND: ClassVar[str]
    PEERS: ClassVar[tuple[str, ...]] = ()

    def body(self) -> bytes:
        """The canonical bytes that the signature is over: everything but the signature."""
        return canonical(self._plain(), self.KIND)

    def to_bytes(self) -> bytes:
        """The paper as it travels; `ValueError` where it is not signed."""
        signature = getattr(self, "signature")  # noqa: B009 - declared by each kind, last
        if not signature:
            raise ValueError(f"found an unsigned {self.KIND}, expected a signed one")
        return canonical({**self._plain(), "signature": signature}, self.KIND) + b"\n"

    def fingerprint(self) -> str:
        """20 hexadecimal digits in groups of 4, to be read over the telephone."""
        return fingerprint_of(self.body())

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"format": FORMAT, "kind": self.KIND}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "signature":
                plain[each.name] = value.to_json() if each.name in self.PEERS else value
        return plain

    def _note(self, key: SigningKey) -> str:
        return sign_paper(key, self.KIND, self.body()).decode()

    @classmethod
    def _parsed(cls, content: bytes, where: str) -> Self:
        """The paper in `content`, its form checked, its signature not yet."""
        if len(content) > MOST_BYTES:
            raise BadInput(f"{where} of {len(content)} bytes", f"at most {MOST_BYTES}")
        try:
            plain = parsed(content.strip(), where)
        except Malformed as error:
            raise BadInput(
                f"{where}, which is not as it was made ({error})",
                f"the {cls.KIND}, byte for byte",
                "send it as an attachment or on a stick: mail programs change text",
            ) from None
        names = [each.name for each in fields(cls)]
        if not isinstance(plain, dict) or plain.get("kind") != cls.KIND:
            kind = plain.get("kind") if isinstance(plain, dict) else None
            raise BadInput(f"{where} of kind {kind!r}", f"an {cls.KIND}")
        if plain.get("format") != FORMAT:
            raise OtherFormat(where, plain.get("format"), FORMAT)
        if set(plain) != {*names, "format", "kind"}:
            odd = sorted(set(plain) ^ {*names, "format", "kind"})
            raise BadInput(f"{where} with the keys {', '.join(odd)} wrong", "the keys of its kind")
        values: dict[str, Any] = {}
        for name in names:
            if name in cls.PEERS:
                values[name] = _peer(plain[name], name, where)
            else:
                values[name] = _text(plain[name], name, where)
                if check := _CHECKS.get(name):
                    check(values[name], f"{where} ({name})")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Invitation(_Paper):
    """What a hospital needs to join: where the coordinator is, its authority, key and schema.

    `ca` is PEM, `federation_vkey` the verifier key of everything that the federation signs,
    `federation_yaml` and `federation_sig` its signed description, `bundle` the SHA-256 of the
    Flower app of this `software`, `token` a secret of one use until `expires` (UTC).
    """

    KIND: ClassVar[str] = INVITATION

    federation: str
    site: str
    address: str
    ca: str
    federation_vkey: str
    federation_yaml: str
    federation_sig: str
    software: str
    bundle: str
    token: str
    expires: str
    signature: str = ""

    def signed(self, key: SigningKey) -> "Invitation":
        """The same, signed by the federation's key; `ValueError` where it names another one."""
        if key.verifier().text() != self.federation_vkey:
            raise ValueError("found another key, expected the one that the invitation names")
        return replace(self, signature=self._note(key))

    @classmethod
    def parse(cls, content: bytes, where: str = "the invitation") -> "Invitation":
        """The invitation in `content`; `BadInput` where it was changed or names no such things.

        Both signatures are checked against the key inside: whose key that is, the fingerprint says.
        """
        paper = cls._parsed(content, where)
        key = verifier_of(paper.federation_vkey)
        _expect_signed(key, INVITATION, paper.body(), paper.signature, where)
        schema = f"federation.yaml in {where}"
        _expect_signed(
            key, FEDERATION, paper.federation_yaml.encode(), paper.federation_sig, schema
        )
        return paper

    def expect_current(self, now: datetime | None = None) -> None:
        """`BadInput` once the invitation has expired."""
        until = datetime.strptime(self.expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        if (now or datetime.now(UTC)) >= until:
            raise BadInput(
                f"an invitation that expired at {self.expires}",
                "one that holds now",
                f"ask the coordinator for a new one: fedkd server invite {self.site!r}; "
                "if the date is wrong, set this machine's clock",
            )


@dataclass(frozen=True, slots=True)
class Enrolment(_Paper):
    """What a hospital sends back: its public keys, and the invitation's token.

    `node_key` (OpenSSH, P-384) is what its SuperNode shows; `peer` are the keys of its log and by
    which it cosigns, `rehearsal_peer` those of its rehearsal. The private halves stay there.
    """

    KIND: ClassVar[str] = ENROLMENT
    PEERS: ClassVar[tuple[str, ...]] = ("peer", "rehearsal_peer")

    federation: str
    site: str
    node_key: str
    peer: Peer
    rehearsal_peer: Peer
    token: str
    software: str
    signature: str = ""

    def signed(self, key: SigningKey) -> "Enrolment":
        """The same, signed by the site's log key; `ValueError` where `peer` names another one."""
        if key.verifier() != self.peer.log:
            raise ValueError("found another key, expected that of the site's log")
        return replace(self, signature=self._note(key))

    @classmethod
    def parse(cls, content: bytes, where: str = "the enrolment") -> "Enrolment":
        """The enrolment in `content`; `BadInput` unless it is signed by the log key it names."""
        paper = cls._parsed(content, where)
        named = [
            key.public
            for peer in (paper.peer, paper.rehearsal_peer)
            for key in (peer.log, *peer.witnesses)
        ]
        if len(set(named)) != len(named):
            raise BadInput(f"one key twice in {where}", "a key of its own for each purpose")
        _expect_signed(paper.peer.log, ENROLMENT, paper.body(), paper.signature, where)
        return paper


@dataclass(frozen=True, slots=True)
class Succession(_Paper):
    """That a federation signs with another key from now on, signed by the one before.

    `federation_sig` is the new key's signature over federation.yaml, which stays as it is. Of use
    while nobody else has the old key; a hospital compares the new fingerprint in any case.
    """

    KIND: ClassVar[str] = SUCCESSION

    federation: str
    old_vkey: str
    new_vkey: str
    federation_sig: str
    made: str
    signature: str = ""

    def signed(self, key: SigningKey) -> "Succession":
        """The same, signed by the old key; `ValueError` where it is another one."""
        if key.verifier().text() != self.old_vkey:
            raise ValueError("found another key, expected the old one")
        return replace(self, signature=self._note(key))

    @classmethod
    def parse(
        cls, content: bytes, pinned: str, federation: str, where: str = "the succession"
    ) -> "Succession":
        """The paper in `content`; `BadInput` unless the key that is `pinned` (text) signed it."""
        paper = cls._parsed(content, where)
        if paper.federation != federation or paper.old_vkey != pinned:
            raise BadInput(
                f"{where} of another federation, or after another key",
                f"one of {federation}, signed by the key that is known here",
                "take the papers one after the other, or ask for a new invitation",
            )
        _expect_signed(verifier_of(pinned), SUCCESSION, paper.body(), paper.signature, where)
        return paper


def _expect_signed(key: VerifierKey, kind: str, body: bytes, signature: str, where: str) -> None:
    try:
        expect_signed(key, kind, body, signature.encode(), where)
    except BadInput as error:
        raise BadInput(
            error.found,
            f"a signature over these bytes, as {kind}, by the key that it names",
            "it was changed on its way, or forged: take nothing from it, and ask for it again",
        ) from None


def _peer(plain: Any, key: str, where: str) -> Peer:
    try:
        peer = Peer.from_json(plain)
        if peer.to_json() == plain and peer.witnesses:
            return peer
    except (Malformed, KeyError, TypeError, AttributeError, ValueError):
        pass
    raise BadInput(f"{key} in {where} without the keys of a party", "vkey and witnesses")
