"""Makes and reads a coordinator's folder: its configuration, its keys, who may look into it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fedkd.audit.officer import expect_signed, new_key, read_key, sign_paper, verifier_of
from fedkd.audit.verify import SigningKey, VerifierKey
from fedkd.data.typed_by_hand import mapping_of, read_yaml, text, yaml_of
from fedkd.deploy.authority import make_authority, make_leaf
from fedkd.deploy.coordinator_policy import CoordinatorPolicy
from fedkd.deploy.federation_file import FederationFile, federation_yaml
from fedkd.deploy.invitations import FEDERATION, Succession, address, federation_name
from fedkd.deploy.locked import readable_path
from fedkd.deploy.proxy import nginx_conf, write_conf
from fedkd.federation.durable import write_bytes, write_json
from fedkd.knowledge import BadInput

SUPERLINK: Final = "fed"
"""The SuperLink's name in home/config.toml: what Flower's own commands are given."""
PORT: Final = 18_000
FOLDERS: Final = (
    "keys", "invitations", "enrolments", "nginx", "superlink", "home", "pids", "runs",
)  # fmt: skip
_KEYS: Final = ("name", "address", "listen", "superlink_port", "country", "contact", "policy")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_TEMPLATE: Final = """\
# The coordinator's side of a federation. After a change: fedkd server stop, fedkd server start.

# The federation's name; it is signed into federation.yaml, and stays.
name: "{name}"

# Where hospitals reach this machine: HOST:PORT. The certificate is made for HOST (another HOST
# needs fedkd server rotate); the port is what a hospital's firewall lets out.
address: "{address}"

# Where the proxy listens on this machine. Below port 1024 it needs the right to
# (AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit), or a port that is forwarded.
listen: "{listen}"

# Where Flower's SuperLink listens, on loopback alone. Whoever has an account on this machine can
# reach it there, and start runs: give the coordinator a machine of its own.
superlink_port: {port}

# Who answers when something is wrong: shown to hospitals with their invitation.
country: {country}
contact: {contact}

# What fedkd run and fedkd evaluate propose at all, a rehearsal as well as a run; it is looked at
# each time, and a change needs no new start. Each hospital has a policy of its own, which this one
# cannot widen.
policy:
  fewest_sites: 1         # admitted hospitals that a run asks
  # Under which protection. `none` protects nothing: with [dp_training, pate] no run is proposed
  # whose answers leave as they are.
  mechanisms: [dp_training, pate, none]
  fewest_cosigners: 0     # others who watch each hospital's log, in evaluations too
  most_rounds: 100
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What server.yaml says: `host` and `port` as hospitals reach them, `listen` as nginx does.

    A file of before has no `policy`: then nothing but its defaults binds.
    """

    name: str
    address: str
    listen: str
    superlink_port: int
    country: str
    contact: str
    policy: CoordinatorPolicy = field(default_factory=CoordinatorPolicy)

    @property
    def host(self) -> str:
        """The name that the certificate is for."""
        return address(self.address)[0]

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str) -> "Settings":
        """The settings in a mapping; `BadInput` names what is wrong."""
        given = mapping_of(plain, where, _KEYS)
        for key in _KEYS[:4]:
            if given.get(key) in (None, ""):
                raise BadInput(f"no {key} in {where}", f"{key}: ...")
        port = given["superlink_port"]
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65_535:
            raise BadInput(f"superlink_port {port!r} in {where}", "1 to 65535")
        listen = text(given["listen"], "listen")
        if address(listen)[1] == port:
            raise BadInput(f"port {port} for the proxy and for the SuperLink", "two ports")
        address(text(given["address"], "address"))
        return cls(
            federation_name(text(given["name"], "name")),
            given["address"],
            listen,
            port,
            text(given.get("country") or "", "country"),
            text(given.get("contact") or "", "contact"),
            CoordinatorPolicy.from_json(given.get("policy")),
        )


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """A coordinator's folder; nothing in it belongs to anybody else on the machine."""

    folder: Path

    @classmethod
    def opened(cls, folder: Path) -> "ServerFolder":
        """The folder, if it is one and nobody else may look into it; `BadInput` otherwise."""
        if not (folder / "server.yaml").is_file():
            raise BadInput(
                f"no server.yaml in {folder}",
                "a folder that fedkd server init made",
                "fedkd server init DIR --name NAME --address HOST:PORT --schema FILE",
            )
        found = cls(folder.resolve())
        found.expect_private()
        return found

    @property
    def keys(self) -> Path:
        """The authority's, the server's and the federation's keys."""
        return self.folder / "keys"

    @property
    def authority(self) -> Path:
        """The authority's certificate, which hospitals get with their invitation."""
        return self.keys / "ca.crt"

    def settings(self) -> Settings:
        """What server.yaml says now."""
        return Settings.from_json(read_yaml(self.folder / "server.yaml"), "server.yaml")

    def key(self) -> SigningKey:
        """The key that signs what the federation says."""
        return read_key(self.keys / "federation.key")

    def vkey(self) -> VerifierKey:
        """Its public half."""
        return verifier_of(str(self.keys / "federation.vkey"))

    def vkeys(self) -> tuple[VerifierKey, ...]:
        """That one, and those before it that signed who follows them, newest first."""
        found, name = [self.vkey()], self.settings().name
        papers = [it.read_bytes() for it in (self.folder / "invitations").glob("succession-*.json")]
        for _ in papers:
            old = next((key for it in papers if (key := _followed(it, found[-1], name))), None)
            if old is None:
                break
            found.append(old)
        return tuple(found)

    def federation(self) -> tuple[FederationFile, bytes, bytes]:
        """What federation.yaml says, its exact bytes, and their signature, which is checked."""
        path = self.folder / "federation.yaml"
        try:
            content, signature = path.read_bytes(), path.with_name(f"{path.name}.sig").read_bytes()
        except OSError as error:
            raise BadInput(f"no {error.filename}", "federation.yaml and its .sig file") from None
        expect_signed(self.vkey(), FEDERATION, content, signature, "federation.yaml")
        return FederationFile.read(content), content, signature

    def expect_private(self) -> None:
        """`BadInput` where somebody else on this machine may read keys or enter the folder."""
        for path, most in ((self.folder, 0o700), (self.keys, 0o700)):
            _expect_mode(path, most)
        for path in sorted(self.keys.glob("*.key")):
            _expect_mode(path, 0o600)

    def write_home(self, settings: Settings) -> None:
        """Writes the configuration by which Flower's own commands find the SuperLink."""
        write_bytes(
            self.folder / "home" / "config.toml",
            f'[superlink]\ndefault = "{SUPERLINK}"\n\n[superlink.{SUPERLINK}]\n'
            f'address = "127.0.0.1:{settings.superlink_port}"\n'
            f'root-certificates = "{self.authority}"\n'.encode(),
        )

    def write_proxy(self, settings: Settings) -> None:
        """Writes the proxy's configuration from server.yaml."""
        key = readable_path(self.keys / "server.key")
        write_conf(self.folder, listen=settings.listen, port=settings.superlink_port, key=key)


def make_server(
    folder: Path,
    *,
    name: str,
    reached_at: str,
    schema: Path,
    listen: str | None = None,
    superlink_port: int = PORT,
    country: str = "",
    contact: str = "",
    now: datetime | None = None,
) -> ServerFolder:
    """A coordinator's folder with everything in it; `BadInput` where there is one already.

    Makes authority, certificate and federation key, and signs what is in the file `schema`.
    Nothing is left behind where something is wrong.
    """
    federation_name(name)
    host, port = address(reached_at)
    bound = host if host in _LOOPBACK else "0.0.0.0"  # noqa: S104 - what it is for
    listen = listen or f"{'127.0.0.1' if bound == 'localhost' else bound}:{port}"
    described = federation_yaml(name, schema).encode()
    FederationFile.read(described)
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(
            f"{folder}, which is not empty", "a new folder", "keys are never written over"
        )
    written = _TEMPLATE.format(
        name=name,
        address=reached_at,
        listen=listen,
        port=superlink_port,
        country=_quoted(country),
        contact=_quoted(contact),
    )
    settings = Settings.from_json(yaml_of(written.encode(), "server.yaml"), "server.yaml")
    made = ServerFolder(folder.resolve())
    nginx_conf(made.folder, listen=settings.listen, port=settings.superlink_port)
    _make_private(made.folder)
    write_bytes(made.folder / "server.yaml", written.encode())
    for each in FOLDERS:
        _make_private(made.folder / each)
    make_authority(made.keys / "ca.key", made.authority, name, now)
    make_leaf(made.keys, host, now=now)
    key = new_key(made.keys / "federation.key", name)
    write_bytes(made.keys / "federation.vkey", f"{key.verifier().text()}\n".encode())
    sign_federation(made, key, described)
    write_json(made.folder / "roster.json", [])
    made.write_home(settings)
    made.write_proxy(settings)
    return made


def sign_federation(server: ServerFolder, key: SigningKey, described: bytes) -> None:
    """Writes federation.yaml and its signature by `key`."""
    path = server.folder / "federation.yaml"
    write_bytes(path, described)
    write_bytes(path.with_name(f"{path.name}.sig"), sign_paper(key, FEDERATION, described))


def _followed(paper: bytes, key: VerifierKey, federation: str) -> VerifierKey | None:
    """The key that `key` followed by this paper; None where it says nothing of that."""
    try:
        told = json.loads(paper)
        if told["new_vkey"] != key.text():
            return None
        Succession.parse(paper, told["old_vkey"], federation)
        return verifier_of(told["old_vkey"])
    except (BadInput, ValueError, KeyError, TypeError):
        return None


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _expect_mode(path: Path, most: int) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise BadInput(f"no {path} ({error.strerror})", "what fedkd server init made") from None
    mode = found.st_mode & 0o777
    if mode & ~most:
        raise BadInput(
            f"{path} with mode {mode:04o}",
            f"{most:04o}: whoever reads the keys speaks for the federation",
            f"chmod {most:o} {path}, and ask whether somebody may have read it",
        )
    if found.st_uid != os.geteuid():
        raise BadInput(
            f"{path}, which belongs to another user",
            "the user who runs the coordinator",
            f"run as that user, or chown {path}",
        )


def _quoted(said: str) -> str:
    if not said.isprintable():
        raise BadInput(f"{said!r}", "one line of text")
    return '"' + said.replace("\\", "\\\\").replace('"', '\\"') + '"'
