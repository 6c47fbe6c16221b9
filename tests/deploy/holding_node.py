"""Flower's node of a hospital, which announces an answer and does not send it for a while.

python -I tests/deploy/holding_node.py FOLDER [ARGUMENTS OF THE NODE]...

While a file `hold` is in FOLDER no byte of a reply leaves, and a file `holds` says that one waits.
"""

import sys
import time
from pathlib import Path
from typing import Any

from flwr.supernode.fleet_http_client import FleetHttpClient

from fedkd.federation.flower.node import main

FOLDER = Path(sys.argv.pop(1))
whole = FleetHttpClient.PushObject


def held(self: FleetHttpClient, request: Any) -> Any:
    while (FOLDER / "hold").exists():
        (FOLDER / "holds").touch()
        time.sleep(0.05)
    return whole(self, request)


FleetHttpClient.PushObject = held  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
