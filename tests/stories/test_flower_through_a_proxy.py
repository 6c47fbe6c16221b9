"""Flower's own transport behind a proxy that opens what it carries: nothing is sent."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.network_servers import intercepting_proxy
from tests.stories.deployment import Deployment

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Behind(Deployment):
    """A deployment whose SuperNode has another environment, and reaches the SuperLink by name."""

    def __init__(self, folder: Path, sites: dict[str, Path], proxies: dict[str, str]) -> None:
        super().__init__(folder, sites)
        self.env = {k: v for k, v in self.env.items() if k.upper() not in PROXIES}
        self.proxies = proxies

    def _start(self, name: str, *command: object) -> None:
        if command[0] != "flower-supernode":
            super()._start(name, *command)
            return
        # By a name, so that 127.0.0.1 in NO_PROXY means loopback alone.
        named = f"localhost:{self.port}"
        plain = self.env
        self.env = {**plain, **self.proxies}
        super()._start(name, *(named if word == f"127.0.0.1:{self.port}" else word
                               for word in command))  # fmt: skip
        self.env = plain


def wait_until(true: object, seconds: float = 240.0) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:  # type: ignore[operator]
        time.sleep(0.2)
    return bool(true())  # type: ignore[operator]


@pytest.mark.long
def test_a_supernode_refuses_an_intercepting_proxy(tmp_path: Path) -> None:
    """It is never online, and sends nothing that the interceptor could read."""
    folder, read = tmp_path / "deployment", []
    folder.mkdir()
    with ExitStack() as stack:
        proxy = stack.enter_context(intercepting_proxy(read=read))
        proxies = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy}", "NO_PROXY": "127.0.0.1"}
        deployment = stack.enter_context(Behind(folder, {"north": tmp_path}, proxies))
        log = folder / "north.log"
        refused = wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in log.read_text())
        assert refused, deployment.logs()
        listed = deployment._flwr("supernode", "list", "fed", "--format", "json").stdout
    assert '"status": "online"' not in listed
    assert "".join(read) == ""
