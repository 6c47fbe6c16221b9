"""The site service: holds records, model, ledger, log and keys, and has no network.

    python -m fedkd.deploy.service HOSPITAL

It listens on a Unix socket and takes one turn at a time. Records, once read, and the libraries that
learn from them stay in memory between turns; a turn reads its model's weights from disk. Everything
that it ever says is a frame of a closed list.
"""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from fedkd.deploy.apart import CONNECTED, still_connected
from fedkd.deploy.hospital import Hospital, private_folder
from fedkd.deploy.lines import FORMATS, TEXT, log_to, utc
from fedkd.deploy.offline import StillConnected, drop_network, is_offline, network
from fedkd.deploy.socket import Told, listening
from fedkd.deploy.supervising import read_key
from fedkd.deploy.turns import Answers, Service
from fedkd.knowledge.bad_input import BadInput, OtherFormat

STOPPED, USED_WRONGLY = 0, 2
_LOG = logging.getLogger("fedkd.service")


def remember(hospital: Hospital, told: Told) -> None:
    """Writes into the site's log what its letterbox refused: each kind once a day, at most."""
    from fedkd.federation.site import SiteFolder
    from fedkd.wire import UNKNOWN

    site = SiteFolder(hospital.site)
    if not (site.folder / "site.json").exists():
        return  # nothing to be remembered in yet; letterbox/refusals.log has it
    rule = f"letterbox: {told}"
    with site.turn(), site.log(site.settings().name) as log:
        log.append(
            f"refused/letterbox/{told}/{utc()[:10]}",
            "release.refused",
            {"run": UNKNOWN, "round": 0, "rule": rule},
        )


def desk_of(hospital: Hospital) -> Answers:
    """Who answers at `hospital`; parts that a yaml names are made once.

    Records are read once for as long as their file is the same (`SiteFolder`). Weights are not
    kept: each turn reads them from disk.
    """
    from fedkd.deploy.consent import Desk
    from fedkd.federation.building import Workshop

    desk: Answers = Desk(hospital.folder, Workshop())
    return desk


def expect_readable(hospital: Hospital) -> None:
    """`OtherFormat`, with what to do, where another version of fedkd wrote a site's folder or log.

    An older one is made into this one's where that is known how. Whatever else is wrong with a
    folder, each turn finds, and refuses.
    """
    from fedkd.federation.site import SiteFolder

    for folder in (hospital.site, hospital.rehearsal):
        if (folder / "site.json").exists():
            try:
                site = SiteFolder(folder)
                with site.log(site.settings().name):
                    pass
            except OtherFormat:
                raise
            except Exception:
                _LOG.error("%s cannot be opened\n%s", folder.name, traceback.format_exc())


def mark_of(hospital: Hospital, front: bytes) -> str:
    """What lines about a letter that begins so begin with where it belongs to a rehearsal."""
    from fedkd.deploy.rehearsed import mark_of as found

    return found(hospital, front)


def figures_of(hospital: Hospital) -> Mapping[str, Any]:
    """Numbers of this hospital's that may be watched."""
    from fedkd.deploy.hospital_standing import figures_of as found

    return found(hospital)


def serve(
    hospital: Hospital,
    *,
    group: int | None = None,
    offline: bool = True,
    key: bytes | None = None,
) -> int:
    """Answers at `hospital` until SIGTERM or SIGINT; the exit code.

    A locked one is opened by its `key`, or as a command opens it (`fedkd.audit.locking`).
    `group` may use the socket, beside the owner. Where `offline`, the network is taken away first,
    or nothing starts (`BadInput`); where not, whoever starts it took it away: units and containers.
    """
    if offline:
        try:
            drop_network()  # first: no thread is running yet, and no record was read
        except StillConnected as error:
            raise still_connected(error) from None
    elif not is_offline():
        _LOG.warning("%s", CONNECTED)
    hospital.expect_private(group)
    expect_readable(hospital)
    _open(hospital, key)
    service = Service(
        desk_of(hospital),
        lambda told: remember(hospital, told),
        lambda: figures_of(hospital),
        lambda front: mark_of(hospital, front),
    )

    def stop(number: int, frame: FrameType | None) -> None:
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    private_folder(hospital.run)
    _LOG.info("the site service of %s, network: %s", hospital.name, network())
    with listening(hospital.socket, 0o660) as listener:
        if group is not None:
            os.chown(hospital.socket, -1, group)
        service.listen(listener)
        service.work()
    _LOG.info("stopped")
    return STOPPED


def _open(hospital: Hospital, key: bytes | None) -> None:
    from fedkd.audit.locking import locked_folder, open_by_key
    from fedkd.deploy.locked import SITE, expect_open, keys_of_hospital

    root = locked_folder(hospital.folder)
    if root is not None and key is not None:
        open_by_key(root, key)
    expect_open(hospital.folder, keys_of_hospital(hospital), SITE)


def main(arguments: Sequence[str] | None = None) -> int:
    """The service as a process; exit codes as everywhere: 0 stopped, 1 refused, 2 used wrongly."""
    parser = argparse.ArgumentParser(prog="python -m fedkd.deploy.service", description=__doc__)
    parser.add_argument("hospital", type=Path, help="the hospital's folder")
    parser.add_argument("--group", type=int, help="the letterbox's group, by number")
    parser.add_argument("--keep-network", action="store_true", help="it was taken away outside")
    parser.add_argument("--key-fd", type=int, help="a pipe with the key of a locked hospital")
    parser.add_argument("--log-format", choices=FORMATS, default=TEXT, help="of its lines")
    told = parser.parse_args(arguments)
    log_to(told.log_format, "service")
    try:
        return serve(
            Hospital(told.hospital.resolve()),
            group=told.group,
            offline=not told.keep_network,
            key=None if told.key_fd is None else read_key(told.key_fd),
        )
    except BadInput as error:
        print(error, file=sys.stderr)
        return USED_WRONGLY


if __name__ == "__main__":
    sys.exit(main())
