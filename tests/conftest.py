"""What every test starts from: nothing calls home, one thread, no progress on the terminal."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FEDKD_QUIET"] = "1"

import fedkd.federation.flower  # noqa: F401  # before flwr is imported anywhere


def pytest_collection_modifyitems(items):
    """Whole runs first, engines first of all: a long file that begins last runs by itself."""

    def place(item):
        path = item.path.as_posix()
        return ("/stories/test_engines" not in path, "/stories/" not in path)

    items.sort(key=place)
