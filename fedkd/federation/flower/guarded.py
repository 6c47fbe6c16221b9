"""Lets Flower's node hand its tasks to its own executor, and to nobody else on the machine.

Flower (1.41) asks the executor that it starts beside the node for no secret. So whoever is on the
machine, as whatever user, could take a task from the node's port on loopback, read the question,
and answer in the site's name, past letterbox and site service. Here both share a secret, which the
letterbox's user alone can read. Flower's names are private, and known here alone.
"""

import os
import secrets
from pathlib import Path
from typing import Any

from fedkd.federation.durable import write_bytes

SHARED_VARIABLE = "FEDKD_EXECUTOR_SECRET"
"""Names the file that holds the secret; without it the node asks for none."""
SECRET_BYTES = 32


def guard() -> None:
    """Draws a fresh secret, and has the node's interface ask for it from now on."""
    named = os.environ.get(SHARED_VARIABLE)
    if not named:
        return
    import flwr.supernode.main as node

    secret = secrets.token_bytes(SECRET_BYTES)
    write_bytes(Path(named), secret)  # by mkstemp: 0600 from its first byte on
    made = node.create_app

    def create_app(**given: Any) -> Any:
        return made(**{**given, "superexec_auth_secret": secret})

    node.create_app = create_app
