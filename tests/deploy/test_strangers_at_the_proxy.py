"""What strangers fill of a coordinator's memory, who hold no key: the proxy alone is in front."""

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from fedkd.deploy import proxy
from fedkd.deploy.invitations import address
from fedkd.deploy.network_check import Target, check_network
from fedkd.deploy.server_folder import ServerFolder
from tests.deploy.federations import PATIENT, coordinator, ends, needs_nginx
from tests.deploy.services import until

pytestmark = [pytest.mark.deploy, needs_nginx]
MIB = 1 << 20
PART = 5 * MIB + 65_536
"""The largest that Flower pushes: a part of an array, and what says whose it is."""
PUSH = "/v1/fleet/push-object"
OTHERS = tuple(f"/v1/fleet/{name}" for name in proxy.FLEET if name != proxy.PUSHING)


class Stranger:
    """A connection of somebody at an address of loopback, who knows the authority alone."""

    def __init__(self, port: int, trust: ssl.SSLContext, host: str) -> None:
        bare = socket.create_connection(("127.0.0.1", port), PATIENT, (host, 0))
        self._line = trust.wrap_socket(bare, server_hostname="localhost")
        self._came = b""

    def begins(self, path: str, length: int, sent: int) -> None:
        """A request whose body is `length` bytes, of which so many come."""
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        try:
            self._line.sendall(head.encode() + bytes(sent))
        except OSError:
            return  # refused by its length, and hung up on

    def status(self, seconds: float = 0.0) -> int | None:
        """What it was answered by so far; None where its request is held."""
        self._line.settimeout(seconds)
        with suppress(TimeoutError, ssl.SSLWantReadError, ConnectionError):  # or hung up on
            self._came += self._line.recv(4096)
        return int(self._came.split(b" ")[1]) if b"\r\n" in self._came else None

    def close(self) -> None:
        self._line.close()


class Gate:
    """A proxy that runs, with nobody behind it."""

    def __init__(self, server: ServerFolder, running: "subprocess.Popen[bytes]") -> None:
        self.port, self.authority = address(server.settings().address)[1], server.authority
        self._trust = ssl.create_default_context(cafile=str(server.authority))
        self._running = running

    @property
    def workers(self) -> list[str]:
        pid = self._running.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def memory(self) -> int:
        """Bytes that the proxy's processes hold."""
        said = [Path(f"/proc/{it}/status").read_text() for it in (self._running.pid, *self.workers)]
        return sum(int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) << 10 for text in said)

    def crowd(self, stack: ExitStack, hosts: int, each: int) -> Iterator[Stranger]:
        """One after the other: whoever says nothing for a while is hung up on."""
        for host in range(hosts):
            for _ in range(each):
                one = Stranger(self.port, self._trust, f"127.0.0.{2 + host}")
                stack.callback(one.close)
                yield one

    def asked(
        self, stack: ExitStack, hosts: int, each: int, path: str, length: int, sent: int
    ) -> list[Stranger]:
        """A crowd, of which each has begun such a request."""
        made = []
        for one in self.crowd(stack, hosts, each):
            one.begins(path, length, sent)
            made.append(one)
        return made


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    server = coordinator(tmp_path_factory.mktemp("coordinator"))
    running = subprocess.Popen(proxy.command(server.folder), stderr=subprocess.DEVNULL)
    made = Gate(server, running)
    try:
        assert proxy.came_up(server.folder, running, PATIENT)
        until(lambda: made.workers)
        with ExitStack() as stack:  # what it has with its first connection is no stranger's doing
            next(made.crowd(stack, 1, 1))
        yield made
    finally:
        running.terminate()
        assert ends(running, PATIENT)


def statuses(strangers: Sequence[Stranger]) -> list[int | None]:
    return [one.status() for one in strangers]


def held(strangers: Sequence[Stranger], expected: int) -> int:
    """How many requests are held once so many are not."""
    until(lambda: statuses(strangers).count(None) <= expected)
    assert set(statuses(strangers)) <= {None, 503}
    return statuses(strangers).count(None)


@pytest.mark.parametrize("path", OTHERS)
def test_a_large_body_is_held_on_no_path_but_one(gate: Gate, path: str) -> None:
    before = gate.memory()
    with ExitStack() as stack:
        crowd = gate.asked(stack, 1, 8, path, 16 * MIB, 2 * MIB)
        assert [one.status(PATIENT) for one in crowd] == [413] * 8
        assert gate.memory() - before < 4 * MIB


def test_as_much_as_flower_pushes_is_let_through_and_not_much_more(gate: Gate) -> None:
    with ExitStack() as stack:
        fits, does_not = gate.crowd(stack, 1, 2)
        fits.begins(PUSH, PART, PART)
        assert fits.status(PATIENT) == 502  # nobody is behind
        does_not.begins(PUSH, 7 * MIB, 0)
        assert does_not.status(PATIENT) == 413


def test_strangers_that_push_are_few_whatever_their_addresses(gate: Gate) -> None:
    with ExitStack() as stack:
        crowd = gate.asked(stack, 3, 40, PUSH, PART, 1000)
        assert held(crowd, proxy.MOST_PUSHING) == proxy.MOST_PUSHING


def test_strangers_are_not_many_whatever_their_addresses(gate: Gate) -> None:
    with ExitStack() as stack:
        crowd = gate.asked(stack, 6, 50, OTHERS[0], 1000, 1)
        assert held(crowd, proxy.MOST_OF_ALL) == proxy.MOST_OF_ALL


def test_a_hospital_is_told_that_nobody_is_behind(gate: Gate) -> None:
    target = Target("localhost", gate.port, gate.authority.read_text())
    found = {it.check: it for it in check_network(target, None, PATIENT).verdicts}
    assert found["clock"].outcome == "passed"
    assert found["server"].outcome == "problem"
    assert "nobody behind it (502)" in found["server"].found
    assert "fedkd server status" in found["server"].fix


def test_one_address_takes_a_part_of_it(gate: Gate) -> None:
    with ExitStack() as stack:
        crowd = gate.asked(stack, 1, 80, OTHERS[0], 1000, 1)
        assert held(crowd, proxy.MOST_OF_ONE) == proxy.MOST_OF_ONE


def test_all_that_strangers_may_fill_is_well_below_what_the_guide_asks_for() -> None:
    sizes = {"k": 1 << 10, "m": MIB}
    of_any, of_part = (
        int(size[:-1]) * sizes[size[-1]] for size in (proxy.MOST_BODY, proxy.MOST_PART)
    )
    most = proxy.MOST_PUSHING * of_part + (proxy.MOST_OF_ALL - proxy.MOST_PUSHING) * of_any
    assert most < 640 * MIB
