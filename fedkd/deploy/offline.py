"""Takes the network away from this process, for good, where the system lets it.

    python -m fedkd.deploy.offline

says by its status whether it would.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Final

# linux/sched.h
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
OFFLINE, ONLINE = 0, 1
_IFF_UP: Final = 1  # netdevice(7)
_DEVICES: Final = Path("/proc/self/net/dev")
_TUNNELS: Final = frozenset(
    {"erspan0", "gre0", "gretap0", "ip6gre0", "ip6_vti0", "ip6tnl0", "ip_vti0", "sit0", "tunl0"}
)
"""What a kernel that has their modules puts into each new namespace, down (net/ipv4, net/ipv6)."""


class StillConnected(OSError):
    """The network could not be taken away; the text says why."""


def drop_network() -> None:
    """Moves this process into a network namespace of its own, in which nothing is up.

    Not even loopback is; Unix sockets that lie in a folder stay reachable. As another user than
    root it needs a user namespace, in which user and group stay what they were. To be called
    before any thread is started: unshare(2), user_namespaces(7). `StillConnected` where it fails.
    """
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
    user, group = os.geteuid(), os.getegid()
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (AttributeError, OSError):
        raise _still("this system has no unshare(2)") from None
    if unshare(flags):
        if is_offline():  # whoever started this process has taken it away already
            return
        raise _still(os.strerror(ctypes.get_errno()))
    if flags & CLONE_NEWUSER:
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        except OSError as error:
            raise _still(f"no user namespace: {error.strerror}") from None
    if left := _interfaces():
        raise _still(f"interfaces were left: {', '.join(left)}")


def is_offline() -> bool:
    """Whether this process sees no interface but its own loopback, and the kernel's tunnels, down.

    Any other one counts while it is down, too: while a machine boots, it is up a moment later.
    """
    return not _interfaces()


def network() -> str:
    """What a service says of its network at this moment."""
    return "none" if is_offline() else "not taken away"


def _interfaces() -> list[str]:
    """What a network is reached by, or may be."""
    try:
        lines = _DEVICES.read_text().splitlines()[2:]
    except OSError as error:
        return [f"unknown ({error.strerror})"]
    names = [line.partition(":")[0].strip() for line in lines]
    return [it for it in names if it != "lo" and (it not in _TUNNELS or _is_up(it))]


def _is_up(name: str) -> bool:
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
        request = struct.pack("16sh14x", name.encode()[:15], 0)
        try:
            told = fcntl.ioctl(asked, 0x8913, request)  # SIOCGIFFLAGS
        except OSError as error:
            return error.errno != errno.ENODEV
    return bool(struct.unpack("16sh14x", told)[1] & _IFF_UP)


def _still(why: str) -> StillConnected:
    return StillConnected(f"it could not be taken away: {why}")


def main() -> int:
    """Tries it on this very process, and nothing else."""
    try:
        drop_network()
    except StillConnected as error:
        print(error, file=sys.stderr)
        return ONLINE
    return OFFLINE


if __name__ == "__main__":
    sys.exit(main())
