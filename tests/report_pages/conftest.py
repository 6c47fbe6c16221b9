"""The papers of an ordinary run, made once."""

import pytest

from fedkd.report.building import Built
from tests.report_pages.papers import Hospitals, built


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(Hospitals(), tmp_path_factory.mktemp("plain"))
