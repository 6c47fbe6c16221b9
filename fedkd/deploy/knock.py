"""What Flower starts in place of its own programs: it knocks at the letterbox, or refuses.

    python -I -S knock.py LETTERBOX PROGRAM [ARGUMENT]...

Standard library alone, and little of it: this runs once for each message.
"""

import json
import os
import sys

KNOCK = "home/knock.sock"
APPROVED = "approved"
SETTINGS = "letterbox.json"
MOST_KNOCK_BYTES = 1 << 16
TASK = "flwr-clientapp"
REFUSED = ("flwr-agentapp", "flwr-serverapp", "flwr-model", "flwr-connector", "flwr-simulation")


def main(arguments: list[str]) -> int:
    """Exit code 0 once the task is taken, 1 where it is refused, or where nobody is there."""
    folder, program, *rest = arguments
    if program == TASK:
        return _knock(folder, rest)
    if program in REFUSED:
        _refuse(folder, program)
    sys.stderr.write(f"fedkd: {program} is refused at this site\n")
    return 1


def _knock(folder: str, arguments: list[str]) -> int:
    import socket

    try:
        os.chdir(folder)  # a socket's path may be no longer than 107 bytes
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60.0)  # a task that is not taken in time is lost to its round
            connection.connect(KNOCK)
            connection.sendall(json.dumps(arguments).encode() + b"\n")
            return 0 if connection.recv(2) == b"ok" else 1
    except OSError as error:
        sys.stderr.write(f"fedkd: no letterbox is running ({error.strerror})\n")
        return 1


def _refuse(folder: str, program: str) -> None:
    import socket
    import time

    try:
        with open(os.path.join(folder, "refusals.log"), "a") as file:  # noqa: PTH118, PTH123
            file.write(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) + f" task {program}\n")
        with open(os.path.join(folder, SETTINGS)) as file:  # noqa: PTH118, PTH123
            service = json.load(file)["service"]
        os.chdir(os.path.dirname(service))  # noqa: PTH120
        body = f"task {program}".encode()
        with socket.socket(socket.AF_UNIX) as connection:  # a TELL frame of fedkd.deploy.socket
            connection.settimeout(5.0)
            connection.connect(os.path.basename(service))  # noqa: PTH119
            connection.sendall(b"fks1" + b"\x03" + len(body).to_bytes(8, "big") + body)
            connection.recv(1)
    except (OSError, ValueError, KeyError):
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
