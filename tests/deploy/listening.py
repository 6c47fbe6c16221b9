"""Reads from /proc what the processes of a folder listen on: no program is needed for it."""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LISTENS, UNCONNECTED, ACCEPTS = "0A", "07", 0x10000
"""States of TCP and UDP in /proc/net, and the flag of a Unix socket that listens."""
Address = tuple[str, int]


def processes_of(folder: Path) -> list[Path]:
    """The /proc folders of all processes whose command line or environment names `folder`."""
    found, mark = [], str(folder).encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "cmdline").read_bytes() + (process / "environ").read_bytes():
                found.append(process)
    return found


def listened_on(process: Path) -> tuple[set[Address], set[str]]:
    """Addresses by which a process takes connections or datagrams, and names of Unix sockets."""
    with suppress(OSError):
        mine = set(_open_files(process))
        by_address = {
            address
            for kind, state in (("tcp", LISTENS), ("udp", UNCONNECTED))
            for table in (kind, f"{kind}6")
            for address in _by_address(process / "net" / table, state, mine)
        }
        return by_address, _by_name(process / "net" / "unix", mine)
    return set(), set()  # it ended meanwhile


def is_loopback(address: Address) -> bool:
    return ipaddress.ip_address(address[0]).is_loopback


def _open_files(process: Path) -> Iterator[str]:
    for link in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield str(link.readlink())


def _by_address(table: Path, state: str, inodes: set[str]) -> set[Address]:
    rows = [line.split() for line in _lines(table)]
    return {_address(row[1]) for row in rows if row[3] == state and f"socket:[{row[9]}]" in inodes}


def _by_name(table: Path, inodes: set[str]) -> set[str]:
    rows = [line.split() for line in _lines(table)]
    return {
        row[7] if len(row) > 7 else "unnamed"
        for row in rows
        if int(row[3], 16) & ACCEPTS and f"socket:[{row[6]}]" in inodes
    }


def _lines(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []  # no IPv6 here: no table


def _address(text: str) -> Address:
    """The kernel's words are in this machine's order, each of 32 bits."""
    host, port = text.split(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
