"""Flower's SuperNode, which looks for messages more often than every three seconds, and ends aloud.

    python -I -m fedkd.federation.flower.node [ARGUMENTS OF flower-supernode]...

The SuperNode of Flower 1.41 stays behind as a process that asks for nothing more once one call to
the SuperLink failed in a way that it does not try again. Here a line that was cut is tried again,
and one that the hospital's own proxy did not give. What cannot go on ends the process, whose last
line says why: whoever supervises it starts it again. Of a bundle it would open the pyproject.toml
before anybody has compared its digest; here nothing of one is opened. The names are private, and
known here alone.
"""

import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

POLL_VARIABLE, HEARTBEAT_VARIABLE = VARIABLES = (
    "FEDKD_NODE_POLL_SECONDS", "FEDKD_NODE_HEARTBEAT_SECONDS",
)  # fmt: skip
POLL_SECONDS = 0.5
FASTEST, SLOWEST = 0.05, 3.0
BESIDE_SECONDS = 0.05
"""Between two looks for what a process beside it is about to hand over: no network is asked."""
HEARTBEAT_SECONDS = 30.0
LEAST_HEARTBEAT, MOST_HEARTBEAT = 10.0, 300.0
"""What the SuperLink takes begins at 10; a node that is silent for two of them is offline."""
ENDS, REFUSED = "fedkd: the node ends: ", "fedkd: the node is refused: "
LAST_WORDS = re.compile(f"^({ENDS}|{REFUSED})(.+)$", re.MULTILINE)
PROXY = "fedkd: the proxy gives no tunnel: "
"""And the status by which it said so, or 'no status': a line for each time."""
_UNTRUSTED, _NO_TLS = "CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER"
_OPENS, _PULLS = "get_fused_config_from_fab", "_pull_and_store_message"
_MOST_AHEAD, _MOST_BEHIND = 4.0, 300.0
"""Seconds; Flower takes 5 and 305 (superlink/routers/fleet/node_auth.py)."""


def poll_seconds() -> float:
    """How long the node rests between two looks: what the environment says, within bounds."""
    return _asked(POLL_VARIABLE, POLL_SECONDS, FASTEST, SLOWEST)


def heartbeat_seconds() -> float:
    """How often the node says that it lives: what the environment says, within bounds."""
    return _asked(HEARTBEAT_VARIABLE, HEARTBEAT_SECONDS, LEAST_HEARTBEAT, MOST_HEARTBEAT)


def _asked(variable: str, usual: float, least: float, most: float) -> float:
    try:
        asked = float(os.environ.get(variable, usual))
    except ValueError:
        asked = usual
    return min(max(asked, least), most)


class Trouble:
    """What stands between this node and the SuperLink: its last words, should it end now."""

    def __init__(
        self, now: Callable[[], float] = time.time, tell: Callable[[str], None] | None = None
    ) -> None:
        self._now, self._tell = now, tell or _to_the_log
        self._refused = self._ends = ""

    def watched(self, call: Callable[[], Any]) -> Any:
        """The response to a call; an error of the line is one that Flower tries again.

        Flower gives up where an error's text has "ssl" in it, as that of a handshake has which was
        cut short. Only a certificate that is not trusted is a reason to, or no TLS at all. Nor does
        it try again after a proxy's refusal, which a coordinator that restarts is enough for.
        """
        from flwr.supercore.retry.http_retry import _RETRYABLE_TRANSPORT_ERRORS, httpx

        began = self._now()
        try:
            response = call()
        except httpx.ProxyError as error:
            status = re.match(r"\d{3}\b", str(error))  # the phrase behind it is anybody's
            self._tell(f"{PROXY}{status.group() if status else 'no status'}")
            raise httpx.ConnectError("the proxy gave no tunnel") from None
        except _RETRYABLE_TRANSPORT_ERRORS as error:
            if _UNTRUSTED in str(error):
                self._refused = f"the certificate there is not trusted: {str(error)[:200]}"
                raise
            if _NO_TLS in str(error):
                self._refused = f"what answers there speaks no TLS: {str(error)[:200]}"
                raise
            raise type(error)(f"the line was cut ({type(error).__name__})") from None
        self._refused = ""
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            now = self._now()
            self._refused = refused(response.headers.get("date", ""), now, now - began)
        return response

    def ends(self, why: str) -> bool:
        """Notes why the node has to end; False where it ends already, being refused."""
        if not self._refused:
            self._ends = self._ends or why
        return not self._refused

    def last_words(self) -> str:
        """The last line of the node's log; "" where nothing was wrong."""
        if self._ends:
            return f"{ENDS}{self._ends}"
        return f"{REFUSED}{self._refused}" if self._refused else ""


def _to_the_log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def refused(date: str, now: float, took: float = 0.0) -> str:
    """Why a signed call was refused, by the time (a `Date`) that the refusal was sent at.

    It is read `now`, and may have been on its way for as long as the call `took`.
    """
    try:
        ahead = now - parsedate_to_datetime(date).timestamp() - 0.5  # cut to a whole second
    except (TypeError, ValueError):
        ahead = 0.0
    if ahead > 0:
        ahead -= min(ahead, max(took, 0.0))
    if -_MOST_BEHIND <= ahead <= _MOST_AHEAD:
        return "the coordinator knows its key no longer: it was revoked, or a database was lost"
    how = "ahead of" if ahead > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead):.0f} s {how} the coordinator's, which refuses what "
        "it signs: set it by a time server (NTP); a node starts by itself once it is right"
    )


def keep_shut(client: Any) -> None:
    """Has Flower's node take any bundle's configuration for empty, and open nothing of it.

    A few hundred kilobytes of an archive may unfold to all of a machine's memory, and the bundle
    is not compared with what is allowed here before a task is taken. Nothing here reads that
    configuration. `RuntimeError` where `client` (flwr.supernode.start_client_internal) opens
    bundles by another name: then the node does not start.
    """
    called = getattr(getattr(client, _PULLS, None), "__code__", None)
    if not hasattr(client, _OPENS) or called is None or _OPENS not in called.co_names:
        raise RuntimeError(
            f"found a Flower whose node does not open bundles by {_OPENS}, expected flwr 1.41: "
            "install the version that fedkd names"
        )
    setattr(client, _OPENS, lambda bundle, run: {})


def beat_again_soon(heartbeat: Any, seconds: float) -> None:
    """Has a heartbeat that failed be tried again often: after a third of `seconds` at the latest.

    Flower's waits grow to 20 s. A node whose line is whole again, and who fetches questions, would
    be taken for gone meanwhile, and what it was asked for unanswered.
    """
    from flwr.supercore.retry import exponential

    heartbeat.exponential = lambda **_: exponential(max_delay=seconds / 3)


def main() -> None:
    """The SuperNode as a process; always ends with a status, and with why where that is known."""
    import flwr.supernode.fleet_http_connection as fleet
    import flwr.supernode.start_client_internal as client
    from flwr.supercore import heartbeat
    from flwr.supernode.cli.flower_supernode import flower_supernode

    from fedkd.federation.flower.guarded import guard

    guard()
    keep_shut(client)
    trouble, longest = Trouble(), poll_seconds()

    class Watched(fleet.NodeAuthHttpInterceptor):
        def intercept(self, context: Any, call_next: Any) -> Any:
            return trouble.watched(lambda: super(Watched, self).intercept(context, call_next))

    def sleep(seconds: float) -> None:
        if _a_child_ended():
            trouble.ends("flower-superexec, which starts its tasks, ended")
            raise SystemExit(1)
        time.sleep(longest if seconds > 1 else BESIDE_SECONDS)

    def a_thread_ended(told: threading.ExceptHookArgs) -> None:
        threading.__excepthook__(told)
        if trouble.ends(f"a thread of Flower's ended by {told.exc_type.__name__}"):
            os.kill(os.getpid(), signal.SIGTERM)

    client.time = SimpleNamespace(sleep=sleep)
    fleet.NodeAuthHttpInterceptor = Watched
    fleet.HEARTBEAT_DEFAULT_INTERVAL = heartbeat.HEARTBEAT_DEFAULT_INTERVAL = heartbeat_seconds()
    beat_again_soon(heartbeat, heartbeat_seconds())
    threading.excepthook = a_thread_ended
    status: object = 1
    try:
        flower_supernode()
        trouble.ends("it stopped asking")
    except SystemExit as ended:
        status = ended.code
    except BaseException as error:  # as a process that goes on it would be worse
        traceback.print_exc()
        trouble.ends(f"Flower raised {type(error).__name__}")
    print(trouble.last_words(), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)  # else its server's thread keeps it here


def _a_child_ended() -> bool:
    """Whether a process that this one started has ended; it is left to be waited for."""
    if sys.platform == "darwin":  # has no waitid
        return False
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return ended is not None


if __name__ == "__main__":
    main()
