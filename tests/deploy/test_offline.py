"""What counts as having no network: an own namespace, and nothing that may be up in a moment."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.offline import OFFLINE, ONLINE, drop_network, network
from fedkd.deploy.starting import service_of
from fedkd.deploy.turns import Service
from tests.deploy.services import until
from tests.deploy.test_socket import Desk, at_work
from tests.deploy.two_users import FEDKD, as_user

PR_SET_DUMPABLE = 4  # linux/prctl.h
ROOT = os.geteuid() == 0


def quietly(*words: str, **more: Any) -> bool:
    return subprocess.run(words, capture_output=True, check=False, **more).returncode == 0


def can_make_interfaces() -> bool:
    made = ("unshare", "--net", "ip", "link", "add", "eth0", "type", "bridge")
    return ROOT and all(map(shutil.which, ("unshare", "ip", "setpriv"))) and quietly(*made)


needs_interfaces = pytest.mark.skipif(
    not can_make_interfaces(), reason="only root makes an interface: with ip, and bridges"
)
needs_user_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None
    or not quietly("unshare", "--map-root-user", "--net", "true", user=FEDKD if ROOT else None),
    reason="this system gives ordinary users no namespaces of their own",
)


def ordinary(call: Callable[[], Any]) -> Any:
    """What `call` gives to an ordinary user, in a process that may be written to as one's own."""

    def called() -> Any:
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # execve(2) does; setuid(2) takes it
        return call()

    return as_user(FEDKD if ROOT else None, called, confined=False)


def seen() -> list[str]:
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


@needs_user_namespaces
def test_an_ordinary_user_takes_the_network_away_and_stays_who_that_is() -> None:
    def dropped() -> list[Any]:
        before = (os.geteuid(), os.getegid())
        assert before[0] != 0
        drop_network()
        return [network(), "eth0" in seen(), before == (os.geteuid(), os.getegid())]

    assert ordinary(dropped) == ["none", False, True]
    assert ordinary(network) == network(), "else nothing was taken away"


@needs_interfaces
@pytest.mark.parametrize(
    ("name", "state", "status"),
    [
        ("eth0", "down", ONLINE),  # a machine that boots: it is up a moment later
        ("eth0", "up", ONLINE),
        ("tunl0", "down", OFFLINE),
        ("tunl0", "up", ONLINE),
    ],
)
def test_where_nothing_can_be_taken_away_an_interface_that_is_down_is_one(
    name: str, state: str, status: int
) -> None:
    script = (
        'ip link add "$0" type bridge && ip link set "$0" "$1" && exec setpriv '
        '--bounding-set=-sys_admin --inh-caps=-sys_admin "$2" -m fedkd.deploy.offline'
    )
    words = ["unshare", "--net", "sh", "-c", script, name, state, sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("could not be taken away" in done.stderr) == (status == ONLINE), done.stderr


@needs_interfaces
def test_a_service_says_at_once_that_its_network_came_back(tmp_path: Path) -> None:
    def said() -> list[str]:
        drop_network()
        with at_work(hospital.socket, Service(Desk(), lambda told: None)):
            before = until(lambda: service_of(hospital))
            subprocess.run(["ip", "link", "add", "eth0", "type", "bridge"], check=True)
            after = until(lambda: service_of(hospital))
        return [before["network"], after["network"]]

    hospital = Hospital(tmp_path)
    hospital.run.mkdir()
    assert as_user(None, said) == ["none", "not taken away"]
