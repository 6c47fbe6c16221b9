"""A site's figures for Prometheus: what its service says of itself over the socket.

    python -m fedkd.deploy.site_metrics LETTERBOX PORT

It belongs to the letterbox's half, and reads nothing of the hospital but that folder: the service
has no network, and says what nobody minds being read on this machine.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedkd.deploy.authority import holding
from fedkd.deploy.metrics import Metric, one, seconds_of, serve
from fedkd.deploy.preparing import AUTHORITY, OUTBOX, REFUSALS
from fedkd.deploy.socket import Away, Frame, Kind, request
from fedkd.deploy.starting import STATUS_SECONDS, connection_of, letterbox_settings
from fedkd.knowledge.bad_input import BadInput

FIGURES_SECONDS = 20.0
_BY_FOLDER = (
    ("round", "The round that was asked about last.", "round"),
    ("epsilon_spent", "Epsilon that the patients' budget was charged, in nats.", "spent"),
    ("epsilon_left", "Epsilon that is left of the officer's budget, in nats.", "left"),
    ("charges", "Charges to the budget.", "charges"),
    ("log_entries", "Entries of the log.", "entries"),
    ("log_cosigned_entries", "Entries of the log at the newest head that peers cosigned.", "held"),
    ("log_cosigners", "Peers who cosigned that head.", "cosigners"),
)


def site_metrics(letterbox: Path) -> Iterator[Metric]:
    """What can be said at this moment."""
    service = Path(letterbox_settings(letterbox)["service"])
    standing = _told(service, Kind.STATUS, STATUS_SECONDS)
    figures = _told(service, Kind.FIGURES, FIGURES_SECONDS) if standing else {}
    yield one("fedkd_site_up", "Whether the site service answers.", bool(standing))
    connected = connection_of(letterbox)
    yield one("fedkd_site_connected", "Whether the node reached the coordinator.", connected)
    yield one("fedkd_site_paused", "Whether nothing is answered.", figures.get("paused"))
    if standing:
        yield from _service(standing)
    for name, words, key in _BY_FOLDER:
        samples = tuple(
            ({"folder": folder}, float(said[key]))
            for folder, said in figures.get("folders", {}).items()
            if said.get(key) is not None
        )
        yield Metric(f"fedkd_site_{name}", words, samples)
    kept = sum(1 for _ in (letterbox / OUTBOX).glob("*.bin"))
    yield one("fedkd_site_letters_kept", "Letters that left and are kept.", kept)
    yield one("fedkd_site_refusals_total", "Refused at the letterbox.", _refusals(letterbox),
              "counter")  # fmt: skip
    held = holding(letterbox / AUTHORITY)
    yield Metric(
        "fedkd_certificate_expiry_timestamp_seconds",
        "Until when a certificate holds.",
        (({"name": held.name}, held.until.timestamp()),),
    )


def _service(standing: Mapping[str, Any]) -> Iterator[Metric]:
    yield one("fedkd_site_turns_total", "Letters that the service took.", standing["turns"],
              "counter")  # fmt: skip
    yield one("fedkd_site_busy", "Whether a letter is being answered.",
              standing["busy_since"] is not None)  # fmt: skip
    yield one("fedkd_site_last_turn_seconds", "How long the last letter took.",
              standing["last_seconds"])  # fmt: skip
    yield one("fedkd_site_last_turn_timestamp_seconds", "When the last letter was answered.",
              seconds_of(standing["last_turn"]))  # fmt: skip
    yield one("fedkd_site_start_timestamp_seconds", "When the service started.",
              seconds_of(standing["since"]))  # fmt: skip


def _told(service: Path, kind: Kind, seconds: float) -> dict[str, Any]:
    try:
        reply = request(service, Frame(kind), seconds)
        told: dict[str, Any] = json.loads(reply.body) if reply.kind is Kind.STANDING else {}
    except (Away, ValueError):
        return {}
    return told


def _refusals(letterbox: Path) -> int | None:
    try:
        with (letterbox / REFUSALS).open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The figures as a process: 0 stopped, 2 used wrongly."""
    folder, port = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return serve(int(port), lambda: site_metrics(Path(folder)))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
