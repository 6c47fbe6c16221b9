"""Starts the SuperLink on loopback, and asks it for nodes and runs through Flower's commands."""

import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from fedkd.audit.passphrase import CREDENTIALS, PASSPHRASE_FILE
from fedkd.deploy.locked import readable_path
from fedkd.deploy.server_folder import SUPERLINK, ServerFolder, Settings
from fedkd.federation.flower import QUIET
from fedkd.knowledge import BadInput

HOST: Final = "127.0.0.1"
UNREGISTERED: Final = "unregistered"
"""The status of a node that was taken out; Flower lists it still."""
_KEPT: Final = ("FLWR_LOG_LEVEL", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL")
"""Flower's variables that a person may set; others could open an interface, or call home."""
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


class CannotTell(Exception):
    """The SuperLink does not answer, or not in the form that is known here."""


def environment(server: ServerFolder) -> dict[str, str]:
    """The variables for Flower's processes here: no call home, no proxy on loopback, own folder."""
    kept = {
        name: value
        for name, value in untold().items()
        if name.lower() not in _PROXIES and (not name.startswith("FLWR_") or name in _KEPT)
    }
    here = str(Path(sys.executable).parent)
    return {
        **kept,
        **QUIET,
        "FLWR_HOME": str(server.folder / "home"),
        "NO_PROXY": "127.0.0.1,localhost,::1",
        "no_proxy": "127.0.0.1,localhost,::1",
        "PATH": os.pathsep.join((here, os.environ.get("PATH", os.defpath))),
    }


def untold() -> dict[str, str]:
    """The variables of this process for one that faces a network: not where a passphrase is."""
    told = (PASSPHRASE_FILE, CREDENTIALS)
    return {name: value for name, value in os.environ.items() if name not in told}


def command(server: ServerFolder, settings: Settings) -> list[str]:
    """What starts the SuperLink: loopback alone, TLS, registered keys alone, a lasting database."""
    keys = server.keys
    return [
        program("flower-superlink"),
        "--ssl-ca-certfile", str(server.authority),
        "--ssl-certfile", str(keys / "server.crt"),
        "--ssl-keyfile", str(readable_path(keys / "server.key")),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        "--database", str(server.folder / "superlink" / "state.db"),
        "--host", HOST,
        "--port", str(settings.superlink_port),
    ]  # fmt: skip


def program(name: str) -> str:
    """Where Flower's program `name` is: beside the Python that runs this."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise BadInput(f"no {name} beside {sys.executable}", "flwr", "pip install fedkd")
    return str(path)


def is_healthy(server: ServerFolder, settings: Settings, seconds: float = 10.0) -> bool:
    """Whether the SuperLink answers on loopback, with a certificate of this federation."""
    trust = ssl.create_default_context(cafile=str(server.authority))
    return says_healthy(
        http.client.HTTPSConnection(HOST, settings.superlink_port, timeout=seconds, context=trust)
    )


def says_healthy(asked: http.client.HTTPConnection) -> bool:
    """Whether a SuperLink says on this connection, which is closed then, that it is healthy."""
    try:
        asked.request("GET", "/health")
        return asked.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


def served(settings: Settings, seconds: float = 2.0) -> x509.Certificate | None:
    """The certificate that is shown on the SuperLink's port, whether it holds or not.

    It is the one of the SuperLink's start, whatever was made since. None where nobody shows one.
    """
    place = (HOST, settings.superlink_port)
    try:
        shown = ssl.get_server_certificate(place, timeout=seconds)
        return x509.load_pem_x509_certificate(shown.encode())
    except (OSError, ValueError):
        return None


def wait_until_healthy(
    server: ServerFolder, settings: Settings, process: "subprocess.Popen[bytes]", seconds: float
) -> None:
    """Returns once the SuperLink answers; `CannotTell` if it ended, or took longer."""
    until = time.monotonic() + seconds
    while not is_healthy(server, settings):
        if process.poll() is not None:
            raise CannotTell(f"the SuperLink ended at once, with status {process.returncode}")
        if time.monotonic() > until:
            raise CannotTell(f"the SuperLink did not answer within {seconds:g} seconds")
        time.sleep(0.2)


def register(server: ServerFolder, site: str, node_key: str) -> int:
    """The number under which the SuperLink knows this node key from now on."""
    path = server.folder / "enrolments" / f".{site}.pub"
    path.write_text(node_key.strip() + "\n")
    try:
        told = _asked(server, "supernode", "register", str(path), SUPERLINK, "--name", site)
    finally:
        path.unlink()
    try:
        return int(told["node-id"])
    except (KeyError, TypeError, ValueError):
        raise CannotTell(f"flwr supernode register said {json.dumps(told)[:200]}") from None


def unregister(server: ServerFolder, node_id: int) -> None:
    """The SuperLink takes nothing more from this node: its next call is refused."""
    _asked(server, "supernode", "unregister", str(node_id), SUPERLINK)


def nodes(server: ServerFolder) -> tuple[Mapping[str, Any], ...]:
    """The registered nodes, as Flower lists them: node-id, status, online-at, ..."""
    listed = _listed(_asked(server, "supernode", "list", SUPERLINK), "nodes")
    return tuple(node for node in listed if node.get("status") != UNREGISTERED)


def runs(server: ServerFolder) -> tuple[Mapping[str, Any], ...]:
    """The runs that the SuperLink knows, as Flower lists them."""
    return _listed(_asked(server, "list", SUPERLINK), "runs")


def _listed(told: Mapping[str, Any], key: str) -> tuple[Mapping[str, Any], ...]:
    listed = told.get(key, ())
    if not isinstance(listed, Sequence):
        raise CannotTell(f"flwr listed no {key}")
    return tuple(listed)


def _asked(server: ServerFolder, *words: str, seconds: float = 60.0) -> dict[str, Any]:
    """What one of Flower's commands says, in JSON; `CannotTell` where it failed."""
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            [program("flwr"), *words, "--format", "json"],
            env=environment(server),
            cwd=server.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotTell(f"flwr {words[0]} took longer than {seconds:g} seconds") from None
    try:
        told = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise CannotTell(f"flwr {' '.join(words[:2])} said: {said[-1][:300]}") from None
    if not isinstance(told, dict) or not told.get("success", True) or done.returncode != 0:
        said = told.get("error-message", told) if isinstance(told, dict) else told
        raise CannotTell(f"flwr {' '.join(words[:2])} said: {' '.join(str(said).split())[:300]}")
    return told
