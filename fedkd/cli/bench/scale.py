"""How much memory many sites and many rounds take: state is on disk, so neither should matter."""

import os
import resource
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SMALL = [
    "data=digits", "clients.models=[mlp]", "clients.cohort=auto", "query.size=50",
    "data.validation=0", "data.test_size=100", "training.local_epochs=1",
    "training.lesson_epochs=1", "student.model=mlp", "student.epochs=1",
]  # fmt: skip


def scale(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Peak memory with many sites; memory by round over many rounds."""
    from fedkd.cli.simulate import simulate_one

    os.environ["FEDKD_QUIET"] = "1"
    sites, rounds = options["sites"], options["rounds"]
    with tempfile.TemporaryDirectory() as base, _Sampled() as sampled:
        few = ["clients.count=4", f"rounds={rounds}", "data.records=120"]
        simulate_one([*SMALL, *few, f"out={base}/long"])
    early, late = sampled.at(0.3), sampled.at(0.95)
    print(f"{rounds} rounds of 4 sites: {early:.0f} MiB at 30 % of the time, {late:.0f} at 95 %")
    with tempfile.TemporaryDirectory() as base:
        many = [f"clients.count={sites}", "rounds=1", "data.records=1200"]
        began = time.perf_counter()
        simulate_one([*SMALL, *many, f"out={base}/many"])
        wall = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{sites} sites, one round and the closing: {peak:.0f} MiB at most, {wall:.1f} s")
    return {
        "rounds": rounds,
        "mib_early": early,
        "mib_late": late,
        "sites": sites,
        "mib_peak": peak,
        "many_sites_wall_s": wall,
    }


class _Sampled:
    """Memory of this process, ten times a second."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Sampled":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(0.1):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self._seen.append(pages * page / 2**20)

    def at(self, share: float) -> float:
        """MiB at that share of the time watched."""
        return self._seen[int(share * (len(self._seen) - 1))]
