"""Takes back what a refused run wrote, so that its folder is free again."""

from contextlib import suppress
from pathlib import Path


def leave_nothing(folder: Path) -> None:
    """Removes a run's configuration and its folder, unless a site was founded in it."""
    if any(folder.rglob("site.json")):
        return
    for name in ("config.yaml", "run.json"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it, which stays
        folder.rmdir()
