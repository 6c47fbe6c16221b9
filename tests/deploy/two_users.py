"""A hospital's two users, as the units have them: what each does, with that user's rights alone."""

import ctypes
import json
import os
import platform
import struct
from collections.abc import Callable
from typing import Any, Final

FEDKD, LETTERBOX, GROUP = 10001, 10002, 10000
"""Numbers that need not stand in /etc/passwd: as in the containers."""
_MODES: Final = {
    "x86_64": {90: 1, 91: 1, 268: 2, 452: 2, 83: 1, 258: 2, 133: 1, 259: 2},
    "aarch64": {52: 1, 53: 2, 452: 2, 34: 2, 33: 2},
}
"""By machine: calls that give a mode (chmod, mkdir, mknod and their kin), and which argument."""
SETS_IDS: Final = 0o6000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def as_user(
    user: int | None, call: Callable[[], Any], *, group: int = GROUP, confined: bool = True
) -> Any:
    """What `call` gives with a user's rights, in a process of its own; what it raised is said.

    None is whoever asks. Where it is `confined`, nobody sets a file's user or group by its mode:
    RestrictSUIDSGID=yes.
    """
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if user is not None:
                become(user, group, confined=confined)
            said = {"gave": call()}
        except BaseException as error:
            said = {"raised": f"{type(error).__name__}: {error}"}
        os.write(into, json.dumps(said).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as pipe:
        told = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert "raised" not in told, told["raised"]
    return told["gave"]


def become(user: int, group: int = GROUP, *, confined: bool = True) -> None:
    """This process is that user's from now on, and in no other group."""
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    if confined:
        restrict_suid_sgid()


def restrict_suid_sgid() -> None:
    """What systemd.exec(5) does by RestrictSUIDSGID=yes: such a mode is EPERM, for good."""
    step = struct.Struct("=HBBI")  # linux/filter.h, struct sock_filter
    steps = [step.pack(0x20, 0, 0, 0)]  # which call
    for number, argument in _MODES[platform.machine()].items():
        steps += [
            step.pack(0x15, 0, 4, number),
            step.pack(0x20, 0, 0, 16 + 8 * argument),
            step.pack(0x45, 0, 1, SETS_IDS),
            step.pack(0x06, 0, 0, _ERRNO | 1),
            step.pack(0x06, 0, 0, _ALLOW),
        ]
    steps.append(step.pack(0x06, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(steps))
    program = ctypes.create_string_buffer(
        struct.pack("=HxxxxxxQ", len(steps), ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_SECCOMP, _FILTER, program, 0, 0) == 0, os.strerror(ctypes.get_errno())


def is_known() -> bool:
    """Whether the calls of this machine's processor are known here."""
    return platform.machine() in _MODES
