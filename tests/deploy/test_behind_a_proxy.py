"""A hospital whose only way out is its own HTTP proxy, and a coordinator behind nginx."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.federated import Federated, table
from tests.deploy.federations import needs_nginx
from tests.deploy.live import Live
from tests.deploy.network_servers import connect_proxy, intercepting_proxy
from tests.deploy.ports import free_port
from tests.deploy.services import until
from tests.stories.hospitals import Hospitals, fedkd, told

pytestmark = [pytest.mark.long, needs_nginx]
NAME = "coordinator.example"
"""Which the proxy alone can look up: whoever goes another way finds nobody."""
SITE = "north"


class OneBehind(Live):
    """A single hospital, started by its command; the coordinator has a name."""

    def start(self, site: str) -> None:  # type: ignore[override]
        Hospitals.start(self, site)

    def _found(self) -> None:
        self.ports = (free_port(), free_port())
        Federated.made(self.folder, self._patients, ports=self.ports, host=NAME, **self.paper)
        self.start_server()

    def __enter__(self) -> "OneBehind":
        self._found()
        return self

    def said(self) -> str:
        """What `fedkd site status` says of the proxy."""
        said: str = told("site", "status", self.sites[SITE])["proxy"]
        return said

    def of_the_node(self) -> str:
        """Why the node ended last, as `fedkd site status` says it."""
        return str(self.process(SITE).get("said") or "")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[OneBehind]:
    rows = [row for row in table() if row["clinic"] == SITE]
    with OneBehind(tmp_path / "all", {SITE: rows}) as running:
        yield running


def test_a_site_behind_a_proxy_waits_for_it_says_what_it_says_and_runs(
    live: OneBehind, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    refusals = ["407 Proxy Authentication Required (no TLS certificate)"]
    with connect_proxy(
        seen, refuse=lambda: refusals[-1] if refusals else None, hosts={NAME: "127.0.0.1"}
    ) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        live.start(SITE)
        until(lambda: "by 407" in live.said())
        assert "it wants a name and password" in fedkd("site", "status", live.sites[SITE])
        node = live.process(SITE)["pid"]
        refusals[:] = ["403 Forbidden"]
        until(lambda: "by 403: ask the network's people to allow CONNECT to " in live.said())
        refusals.clear()
        live.connected(SITE)
        assert live.said() == ""

        live.run("rounds=1")

        fedkd("server", "stop", live.federation)  # the proxy says 503: it reaches nobody there
        until(lambda: "by 503: the proxy does not reach" in live.said())
        assert not live.is_connected(SITE)
        live.start_server()
        live.connected(SITE)
        assert live.process(SITE)["pid"] == node
        assert live.process(SITE)["restarts"] == 0
    asked = {head.split("\r\n")[0] for head in seen}
    assert asked == {f"CONNECT {NAME}:{live.ports[0]} HTTP/1.1"}


def test_a_site_behind_a_proxy_that_opens_what_it_carries_sends_nothing_and_says_whom_to_ask(
    live: OneBehind, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    with intercepting_proxy(read=read) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        live.start(SITE)
        until(live.of_the_node)
        until(lambda: live.process(SITE)["restarts"] >= 1)  # tried again, and refused again
        until(lambda: live.process(SITE)["pid"] is None)
        shown = fedkd("site", "status", live.sites[SITE])
    place = f"{NAME}:{live.ports[0]}"
    assert "the certificate there is not trusted" in shown
    assert "(TLS inspection)" in shown
    assert f"ask the network's people to exempt {place} from it" in shown
    assert "trying to connect" in shown or "not connected" in shown
    assert not live.is_connected(SITE)
    assert "".join(read) == ""
