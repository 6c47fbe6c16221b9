"""What every test starts from: nothing calls home, one thread, no progress on the terminal."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FEDKD_QUIET"] = "1"

import fedkd.federation.flower  # noqa: F401  # before flwr is imported anywhere
from tests.not_tried import pytest_unconfigure  # noqa: F401  # a hook: what was not tried is said


def pytest_collection_modifyitems(items):
    """Whole runs first, engines first of all: a long file that begins last runs by itself."""
    long = ("/stories/test_engines", "/stories/test_deployed_federation", "/test_faults_in_a_fed")

    def place(item):
        path = item.path.as_posix()
        return (not any(each in path for each in long), "/stories/" not in path)

    items.sort(key=place)
