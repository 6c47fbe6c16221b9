"""An honest federation, its run's folder, and the verifier's verdicts on what is done to it."""

from pathlib import Path

import pytest

from tests.audit_verify.federation import Federation


@pytest.fixture
def federation() -> Federation:
    return Federation()


@pytest.fixture
def run(federation: Federation, tmp_path: Path) -> Path:
    return federation.write(tmp_path / "run")


@pytest.fixture
def policies(federation: Federation, tmp_path: Path) -> Path:
    return federation.write_policies(tmp_path / "policies")
