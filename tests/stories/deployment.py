"""A real deployment on loopback: a SuperLink behind TLS, one SuperNode a site, nothing stays."""

import http.client
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedkd.deploy.superlink import says_healthy
from tests.deploy.ports import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ON_LOOPBACK = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
"""Whatever proxy leads from this machine to an index of packages."""


def is_healthy(port: int, trust: ssl.SSLContext | None = None) -> bool:
    """Whether a SuperLink answers on loopback, over TLS where there is somebody to `trust`."""
    if trust is None:
        return says_healthy(http.client.HTTPConnection("127.0.0.1", port, timeout=5.0))
    return says_healthy(http.client.HTTPSConnection("127.0.0.1", port, timeout=5.0, context=trust))


class Deployment:
    """Starts the processes on entering, and ends them on leaving, whatever happened."""

    def __init__(self, folder: Path, sites: Mapping[str, Path]) -> None:
        self.folder = folder
        self.sites = sites
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()
        self.ca = folder / "ca.crt"
        self.env = {
            **os.environ,
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.3",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            **ON_LOOPBACK,
        }

    def __enter__(self) -> Self:
        try:
            self._certificates()
            self._superlink()
            for number, (name, folder) in enumerate(sorted(self.sites.items())):
                self._supernode(number, name, folder)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def run(self, out: Path, *, seconds: float = 600.0) -> str:
        """Runs the app on the deployment; returns what it printed."""
        done = self._flwr("run", str(ROOT), "fed", "--stream", "--run-config", f'out="{out}"',
                          seconds=seconds)  # fmt: skip
        return done.stdout + done.stderr

    def wait_for(self, path: Path, seconds: float = 120.0) -> bool:
        """Whether `path` appears within `seconds`."""
        until = time.monotonic() + seconds
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.2)
        return path.exists()

    def _certificates(self) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(self.ca)
        leaf.private_key_pem.write_to_path(self.folder / "server.key")
        (self.folder / "server.crt").write_bytes(
            b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        )

    def _superlink(self) -> None:
        home = self.folder / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "fed"\n[superlink.fed]\n'
            f'address = "127.0.0.1:{self.port}"\nroot-certificates = "{self.ca}"\n'
        )
        self._start(
            "superlink", "flower-superlink",
            "--ssl-ca-certfile", self.ca,
            "--ssl-certfile", self.folder / "server.crt",
            "--ssl-keyfile", self.folder / "server.key",
            "--enable-supernode-auth", "--disable-runtime-dependency-installation",
            "--host", "127.0.0.1", "--port", self.port,
            "--health-server-address", f"127.0.0.1:{free_port()}",
        )  # fmt: skip
        trust = ssl.create_default_context(cafile=str(self.ca))
        until = time.monotonic() + 240
        while not is_healthy(self.port, trust):
            assert self.processes[-1].poll() is None, self.logs()
            assert time.monotonic() < until, self.logs()
            time.sleep(0.2)

    def _supernode(self, number: int, name: str, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        private, public = self.folder / name, self.folder / f"{name}.pub"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
        )
        private.chmod(0o600)
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            )
        )
        self._flwr("supernode", "register", str(public), "fed", "--name", name)
        self._start(
            name, "flower-supernode",
            "--superlink", f"127.0.0.1:{self.port}",
            "--root-certificates", self.ca,
            "--auth-supernode-private-key", private,
            "--node-config", f'site="{folder}"',
            "--host", "127.0.0.1", "--port", free_port(),
        )  # fmt: skip

    def _start(self, name: str, *command: object) -> None:
        log = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        self.processes.append(
            subprocess.Popen(
                [str(BIN / str(command[0])), *map(str, command[1:])],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
            )
        )

    def _flwr(self, *words: str, seconds: float = 240.0) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(BIN / "flwr"), *words],
            env=self.env, cwd=self.folder, capture_output=True, text=True,
            timeout=seconds, check=True,
        )  # fmt: skip

    def _end(self) -> None:
        for process in reversed(self.processes):
            _end_group(process)
        self._stack.close()

    def logs(self) -> str:
        """What all processes wrote: for the message of a failing test."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')}"
            for path in self.folder.glob("*.log")
        )


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    import signal

    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=8)
        except subprocess.TimeoutExpired:
            continue
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
