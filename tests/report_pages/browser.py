"""Drives a headless Chromium through its debugging pipe, with the standard library alone."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WAIT = 60.0


def found() -> str | None:
    """The path of a Chromium on this machine, or the one that FEDKD_CHROMIUM names."""
    named = os.environ.get("FEDKD_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab: what it logged to the console, what it asked the network for, what it shows."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, self._to = _moved_pipe()
        self._from, from_browser = _moved_pipe()
        arguments = [
            program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking",
            "--disable-component-update", "--force-color-profile=srgb", "--hide-scrollbars",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        quiet = os.open(os.devnull, os.O_RDWR)
        # Its own session, so that all of its processes end together.
        self._process = os.posix_spawn(
            program, arguments, os.environ, setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, quiet, 1),
                (os.POSIX_SPAWN_DUP2, quiet, 2),
                (os.POSIX_SPAWN_DUP2, to_browser, 3),
                (os.POSIX_SPAWN_DUP2, from_browser, 4),
            ],
        )  # fmt: skip
        for end in (quiet, to_browser, from_browser):
            os.close(end)
        self._unread = b""
        self._count = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser and all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._to)
        os.close(self._from)

    def send(self, method: str, **parameters: Any) -> Any:
        """Calls a method of the protocol, and returns its result."""
        self._count += 1
        number = self._count
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        whole = json.dumps(message).encode() + b"\0"
        while whole:
            whole = whole[os.write(self._to, whole) :]
        for told in self._told():
            if told.get("id") == number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                return told["result"]
        raise AssertionError

    def open(self, address: str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Opens an address in a window of this size, and waits until it is loaded."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.complaints, self.requests = [], []
        self.send("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def until(self, condition: str) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + WAIT
        while not self.run(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        told = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """Presses a key, as a person does."""
        codes = {"Backspace": 8, "Tab": 9, "Enter": 13, " ": 32, "Escape": 27}
        named = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        kind = "keyDown" if text else "rawKeyDown"
        self.send("Input.dispatchKeyEvent", type=kind, **named, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def write(self, words: str) -> None:
        """Writes letters where the focus is."""
        for letter in words:
            self.send("Input.dispatchKeyEvent", type="keyDown", text=letter, key=letter)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def screenshot(self, path: Path, *, whole: bool = False, clip: Any = None) -> None:
        """A picture of the window, or of the whole page."""
        more: dict[str, Any] = {"clip": {**clip, "scale": 1}} if clip else {}
        told = self.send(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=whole or bool(clip),
            **more,
        )
        path.write_bytes(base64.b64decode(told["data"]))

    def on_paper(self, path: Path) -> None:
        """The page as it is printed, a PDF."""
        told = self.send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(told["data"]))

    def _told(self) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" in self._unread:
                message, self._unread = self._unread.split(b"\0", 1)
                told = json.loads(message)
                self._noticed(told)
                yield told
            ready, _, _ = select.select([self._from], [], [], WAIT)
            content = os.read(self._from, 1 << 20) if ready else b""
            assert content, "the browser said nothing"
            self._unread += content

    def _noticed(self, told: dict[str, Any]) -> None:
        what = told.get("params", {})
        match told.get("method"):
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(what))
            case "Log.entryAdded":
                self.complaints.append(json.dumps(what["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(what["request"]["url"])


def _moved_pipe() -> tuple[int, int]:
    """A pipe whose ends are above 10: the browser wants 3 and 4."""
    moved = []
    for end in os.pipe():
        moved.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return moved[0], moved[1]
