"""Lays out the Flower app by itself, and says what its bundle hashes to: the ticket of a run.

The same version of fedkd gives the same bytes from a checkout and from a wheel. What a hospital
runs is what it installed; a bundle is only compared.
"""

import hashlib
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Final

from fedkd import __version__

_PYPROJECT: Final = """\
[project]
name = "fedkd"
version = "{version}"
description = "Federated and privacy-preserving knowledge distillation"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedkd"
fab-include = ["server/*.py", "clients/*.py"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "clients.app:app"

[tool.flwr.app.config]
out = ""
overrides = ""
evaluation = ""
"""
_PARTS: Final = ("server", "clients")


def app_folder(into: Path) -> Path:
    """Writes the app into the folder `into`, which `flwr run` takes; returns it."""
    source = _source()
    into.mkdir(parents=True, exist_ok=True)
    (into / "pyproject.toml").write_text(_PYPROJECT.format(version=__version__))
    for part in _PARTS:
        (into / part).mkdir(exist_ok=True)
        for file in sorted((source / part).glob("*.py")):
            (into / part / file.name).write_bytes(file.read_bytes())
    return into


@cache
def bundle_digest() -> str:
    """SHA-256 of the app's bundle (FAB) as Flower builds it, 64 hexadecimal digits."""
    from flwr.cli.build import build_fab_from_disk

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # flwr 1.41 with a newer pathspec
        built = build_fab_from_disk(app_folder(Path(folder) / "fedkd"))
    return hashlib.sha256(built).hexdigest()


def _source() -> Path:
    """The folder of server/ and clients/: in a wheel `fedkd/app`, else the checkout."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "app", package.parent):
        if all((folder / part / "app.py").is_file() for part in _PARTS):
            return folder
    raise FileNotFoundError(
        "found no server/ and clients/ beside fedkd, expected a checkout or an installed wheel; "
        "install fedkd again"
    )
