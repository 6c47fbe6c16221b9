"""One small federation for the whole folder; each test gets a copy of what it changes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedkd.cli.run import Run
from tests.federation.small import founded


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The federation that the tests of this folder copy from."""
    return founded(tmp_path_factory.mktemp("founded") / "run")


def standing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path under `folder`, with its size and time."""
    found = ((path, path.stat()) for path in folder.rglob("*"))
    return {str(path.relative_to(folder)): (it.st_size, it.st_mtime_ns) for path, it in found}


@pytest.fixture
def run(shared: Run) -> Iterator[Run]:
    """A founded federation. Nobody may change it: a test that did fails itself, not the next."""
    before = standing(shared.folder)
    yield shared
    assert standing(shared.folder) == before, "the shared federation was changed: copy it first"


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Path:
    """A site of one's own, before its first turn."""
    return Path(shutil.copytree(run.sites["site-01"], tmp_path / "site-01"))
