"""One small federation for the whole folder; each test gets a copy of what it changes."""

import shutil
from pathlib import Path

import pytest

from fedkd.cli.run import Run
from tests.federation.small import founded


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A founded federation. Nobody may change it."""
    return founded(tmp_path_factory.mktemp("founded") / "run")


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Path:
    """A site of one's own, before its first turn."""
    return Path(shutil.copytree(run.sites["site-01"], tmp_path / "site-01"))
