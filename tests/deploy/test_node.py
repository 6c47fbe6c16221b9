"""What Flower's node is told to try again, what it ends for, and what its last line says."""

from email.utils import formatdate
from types import SimpleNamespace

import httpx
import pytest
from flwr.supercore import heartbeat

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.node_words import without_tunnel
from fedkd.deploy.starting import NODE_RETRY_SECONDS, explain_node, reached
from fedkd.federation.flower.node import (
    HEARTBEAT_VARIABLE,
    POLL_VARIABLE,
    PROXY,
    Trouble,
    beat_again_soon,
    heartbeat_seconds,
    keep_shut,
    poll_seconds,
)

NOW = 1_800_000_000.0
UNTRUSTED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed"


def failing(error: Exception):
    def call():
        raise error

    return call


def answered(status: int, ahead: float = 0.0):
    """A response that is sent at NOW by a clock which this one is `ahead` of."""
    headers = {"date": formatdate(NOW - ahead, usegmt=True)}
    return lambda: httpx.Response(status, headers=headers)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF (_ssl.c:1006)"),
        httpx.ConnectTimeout("_ssl.c:989: The handshake operation timed out"),
        httpx.ReadError("[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]"),
    ],
)
def test_no_line_that_was_cut_reads_like_a_certificate(error: httpx.TransportError) -> None:
    """Flower gives up by these three words (flwr 1.41, supercore/retry/http_retry.py)."""
    trouble = Trouble()
    with pytest.raises(type(error)) as raised:
        trouble.watched(failing(error))
    assert not any(word in str(raised.value).lower() for word in ("certificate", "ssl", "tls"))
    assert trouble.last_words() == ""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("503 Service Unavailable", "by 503: the proxy does not reach there:8443"),
        ("407 Who? TLS certificate of SSL wanted", "by 407: it wants a name and password"),
        ("403 Forbidden", "by 403: ask the network's people to allow CONNECT to there:8443"),
        ("Invalid username/password", "does not answer CONNECT as one does"),
    ],
)
def test_what_the_hospitals_own_proxy_refuses_is_tried_again_and_told(
    said: str, words: str
) -> None:
    """Flower neither retries after httpx's ProxyError, nor says whose refusal it was."""
    from flwr.supercore.retry.http_retry import _RETRYABLE_TRANSPORT_ERRORS

    lines: list[str] = []
    trouble = Trouble(tell=lines.append)
    with pytest.raises(_RETRYABLE_TRANSPORT_ERRORS) as raised:
        trouble.watched(failing(httpx.ProxyError(said)))
    assert not any(word in str(raised.value).lower() for word in ("certificate", "ssl", "tls"))
    assert trouble.last_words() == ""
    log = f"{lines[0]}\nConnection attempt failed, retrying in 1.00 seconds\n"
    assert words in without_tunnel(log, "there:8443")


@pytest.mark.parametrize(
    "later", ["SuperNode ID: 7", "Connection successful after", "Exit Code: 305"]
)
def test_a_proxy_is_not_blamed_once_it_let_the_node_through(later: str) -> None:
    assert without_tunnel(f"{PROXY}503\n", "there:8443")
    assert without_tunnel(f"{PROXY}503\nStarting Flower SuperExec\n", "there:8443")
    assert without_tunnel(f"{PROXY}503\n{later}\n", "there:8443") == ""
    assert without_tunnel(f"{later}\n", "there:8443") == ""


def test_a_certificate_that_is_not_trusted_is_the_last_word_until_a_call_goes_well() -> None:
    trouble = Trouble()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
        trouble.watched(failing(httpx.ConnectError(UNTRUSTED)))
    said, wait = explain_node(f"before\n{trouble.last_words()}\n", "there:8443")
    assert "not trusted" in said
    assert "ask the network's people to exempt there:8443 from it" in said
    assert wait == NODE_RETRY_SECONDS
    trouble.watched(answered(200))
    assert trouble.last_words() == ""


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (60, "60 s ahead of the coordinator's"),
        (6, "6 s ahead of"),
        (-400, "400 s behind the coordinator's"),
        (0, "revoked"),
        (-200, "revoked"),
    ],
)
def test_a_refused_call_is_a_clock_or_a_key(ahead: float, words: str) -> None:
    trouble = Trouble(lambda: NOW + 0.5)
    trouble.watched(answered(401, ahead))
    said, wait = explain_node(trouble.last_words())
    assert words in said
    assert wait == NODE_RETRY_SECONDS


def test_a_refusal_that_was_long_on_its_way_blames_no_clock() -> None:
    times = iter([NOW, NOW + 9.5])
    trouble = Trouble(lambda: next(times))
    trouble.watched(answered(401))
    assert "revoked" in trouble.last_words()


def test_a_refusal_without_a_time_blames_no_clock() -> None:
    trouble = Trouble(lambda: NOW)
    trouble.watched(lambda: httpx.Response(401))
    assert "clock" not in trouble.last_words()


def test_a_node_that_is_refused_ends_for_that_reason_alone() -> None:
    trouble = Trouble(lambda: NOW)
    assert trouble.ends("a thread ended")
    assert explain_node(trouble.last_words()) == ("a thread ended", 0.0)
    trouble.watched(answered(200))  # it takes its leave
    assert "a thread ended" in trouble.last_words()
    refused = Trouble(lambda: NOW)
    refused.watched(answered(401))
    assert not refused.ends("a thread ended")
    assert "revoked" in refused.last_words()


@pytest.mark.parametrize(
    ("lines", "connected"),
    [
        (["Starting Flower SuperNode", "SuperNode ID: 7"], True),
        (["SuperNode ID: 7", "Connection attempt failed, retrying in 1.00 seconds"], False),
        (["SuperNode ID: 7", "fedkd: the node ends: it stopped asking"], False),
        (["SuperNode ID: 7", "Exit Code: 305"], False),
        (["SuperNode ID: 7", f"{PROXY}503"], False),
    ],
)
def test_a_node_that_ended_is_not_connected(tmp_path, lines: list[str], connected: bool) -> None:
    letterbox = Hospital(tmp_path).letterbox
    (letterbox / "logs").mkdir(parents=True)
    log = letterbox / "logs" / "node.log"
    log.write_text("\n".join(lines) + "\n")
    assert reached(letterbox) is connected
    assert reached(letterbox, log.stat().st_size) is False  # it was started again since


def test_how_often_is_said_by_the_environment_within_bounds(monkeypatch) -> None:
    for said, beats, looks in (("1", 10.0, 1.0), ("900", 300.0, 3.0), ("soon", 30.0, 0.5)):
        monkeypatch.setenv(HEARTBEAT_VARIABLE, said)
        monkeypatch.setenv(POLL_VARIABLE, said)
        assert (heartbeat_seconds(), poll_seconds()) == (beats, looks)


def test_a_heartbeat_that_failed_is_tried_again_before_the_node_is_taken_for_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "exponential", heartbeat.exponential)  # and back afterwards
    beat_again_soon(heartbeat, 10.0)
    waits = heartbeat.HeartbeatSender(lambda: True)._retry_invoker.wait_gen_factory()
    assert max(next(waits) for _ in range(9)) == 10.0 / 3


def pulls_by(*names: str):
    """A stand-in for another version of Flower's module, whose node calls functions of `names`."""
    scope: dict[str, object] = {}
    exec(f"def _pull_and_store_message(): {'; '.join(f'{name}()' for name in names)}", scope)  # noqa: S102
    return SimpleNamespace(**dict.fromkeys(names, print), **scope)


def test_nothing_of_a_bundle_is_opened_at_the_node() -> None:
    flower = pulls_by("get_fab", "get_fused_config_from_fab")
    keep_shut(flower)
    assert flower.get_fused_config_from_fab(b"no archive at all", None) == {}


@pytest.mark.parametrize("names", [("get_fab",), ("get_fab", "get_config_of_fab")])
def test_a_flower_that_opens_bundles_elsewhere_does_not_start(names: tuple[str, ...]) -> None:
    with pytest.raises(RuntimeError, match=r"expected flwr 1\.41"):
        keep_shut(pulls_by(*names))
    moved = pulls_by(*names)
    moved.get_fused_config_from_fab = print  # still there, and called by nobody
    with pytest.raises(RuntimeError, match=r"expected flwr 1\.41"):
        keep_shut(moved)
