"""What every test starts from: nothing calls home, one thread, no progress on the terminal."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FEDKD_QUIET"] = "1"

import fedkd.federation.flower  # noqa: F401  # before flwr is imported anywhere
