"""Runs a federation where every packet that would leave this machine is seen; prints those.

    unshare --net python -m tests.stories.silence FOLDER [probe | ray | ray-probe]

To be started in a network namespace of its own: all addresses lead to its loopback there, on which
a packet socket listens, whatever program calls in whatever language. With `probe` an address is
called, and Flower is started as it comes. With `ray` it is a simulation on Ray that runs; with
`ray-probe` a worker of Ray's calls an address, and Ray is started as it comes.
"""

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from fedkd.cli.bench.deployed_hospitals import Hospitals
from fedkd.cli.bench.made_up import names_of
from tests.deploy.ports import free_port
from tests.stories.test_no_calls_home import TINY

ETH_P_ALL = 3
TERMS = [
    "rounds=1", "query.size=20", "training.local_epochs=1", "training.lesson_epochs=1",
    "student.model=logistic", "student.epochs=1", "report=false",
]  # fmt: skip
QUIETING = ("FLWR_", "RAY_", "FEDKD_")


class Heard:
    """Destinations of packets on loopback that are none of this machine's, and names asked for."""

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                self._note(self._socket.recv(65_536))

    def _note(self, packet: bytes) -> None:
        version = packet[0] >> 4
        if version == 4:
            protocol, head = packet[9], 4 * (packet[0] & 15)
            source, target = packet[12:16], packet[16:20]
        elif version == 6:
            protocol, head = packet[6], 40
            source, target = packet[8:24], packet[24:40]
        else:
            return
        to = ipaddress.ip_address(target)
        port = int.from_bytes(packet[head + 2 : head + 4], "big") if protocol in (6, 17) else None
        if port == 53:
            self.calls.add(f"look-up {packet[head + 20 :]!r}")
        elif not to.is_loopback and not to.is_multicast and source != target:
            self.calls.add(f"{to} port {port}")
        elif not to.is_loopback and source == target and port is not None:
            self.calls.add(f"{to} port {port}")  # all addresses are this machine's own here


def loopback_is_everywhere() -> None:
    for words in (
        ("link", "set", "lo", "up"),
        # By this source Ray, which asks the kernel for this machine's address, talks on loopback.
        ("route", "add", "local", "0.0.0.0/0", "dev", "lo", "src", "127.0.0.1"),
        ("-6", "route", "add", "local", "::/0", "dev", "lo"),
    ):
        # A machine without IPv6 calls nobody by it.
        subprocess.run(["ip", *words], check=words[0] != "-6", capture_output=True)


def probe(heard: Heard) -> None:
    with suppress(OSError):
        socket.create_connection(("192.0.2.7", 443), 2.0)
    program = Path(sys.executable).with_name("flower-superlink")
    with (Path.home() / "superlink.log").open("wb") as log:
        loud = subprocess.Popen(
            [program, "--insecure", "--port", str(free_port())], cwd=Path.home(), stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip
    until = time.monotonic() + 20
    while not any("telemetry" in call for call in heard.calls) and time.monotonic() < until:
        time.sleep(0.2)
    os.killpg(loud.pid, signal.SIGKILL)
    loud.wait()


def federation(folder: Path) -> None:
    names = names_of(1)
    # The service keeps the network: what it would try is to be seen as well.
    hospitals = Hospitals(folder / "federation", model="logistic", site_words=["--keep-network"])
    hospitals.join(names, names)
    with hospitals:
        (row,) = hospitals.run(TERMS)
    assert row["answered"] == 1, row


def on_ray(folder: Path) -> None:
    words = [*TINY, "engine=ray", f"out={folder / 'run'}"]
    subprocess.run([sys.executable, "-m", "fedkd", "simulate", *words], check=True)
    assert (folder / "run" / "summary.json").exists()


LOUD_RAY = """
import contextlib, socket, ray
ray.init(address="local", num_cpus=1, include_dashboard=False)

@ray.remote
def call():
    with contextlib.suppress(OSError):
        socket.create_connection(("192.0.2.8", 443), 2.0)

ray.get(call.remote())
ray.shutdown()
"""


def loud_ray() -> None:
    subprocess.run([sys.executable, "-c", LOUD_RAY], check=True, cwd=Path.home())


def main() -> None:
    folder = Path(sys.argv[1])
    for name in [name for name in os.environ if name.startswith(QUIETING)]:
        del os.environ[name]  # our own programs have to say all of it by themselves
    os.environ["HOME"] = str(folder)
    loopback_is_everywhere()
    with Heard() as heard:
        match sys.argv[2:]:
            case ["probe"]:
                probe(heard)
            case ["ray"]:
                on_ray(folder)
            case ["ray-probe"]:
                loud_ray()
            case _:
                federation(folder)
    print(json.dumps(sorted(heard.calls)))


if __name__ == "__main__":
    main()
