"""A deployed federation beside the same one as a plain Flower app: time, memory, how many sites.

All of it on this machine's loopback, with real processes. A side runs while it is measured, and at
no other time; sides take turns, so that what else the machine does meets each of them.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol

from fedkd.cli.bench.deployed_hospitals import Hospitals
from fedkd.cli.bench.made_up import names_of
from fedkd.cli.bench.plain_flower import PlainFlower
from fedkd.cli.bench.processes import Weighed, available_mib
from fedkd.knowledge import BadInput

GOAL: Final = 0.5
"""Of the plain app's seconds a round, at most."""
STEP_NODES: Final = 8
MOST_SECONDS: Final = 300.0
"""For finding out how many sites there may be."""
LEAST_MIB: Final = 2048.0
"""Memory that is left alone: with less to spare no more sites are started."""
MODELS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "trivial": ("logistic", ("training.local_epochs=1", "training.lesson_epochs=1")),
    "torch": ("mlp", ("training.local_epochs=30", "training.lesson_epochs=6")),
}
"""By what it is called here: the model, and for how long it learns."""
SIDES: Final = ("fedkd", "plain", "plain, same waits")
_TERMS: Final = ("query.size=100", "student.model=logistic", "student.epochs=2", "report=false")


class Side(Protocol):
    """A federation that runs while it is entered."""

    def run(self, terms: Sequence[str]) -> list[dict[str, Any]]:
        """A whole run; its rows, one a round."""
        ...

    def roots(self) -> list[int]:
        """The processes of one of its sites, from which all others of that site descend."""
        ...


def deploy(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The parts that were asked for, printed as they are measured."""
    results: dict[str, Any] = {}
    with _leaving_nothing():
        if "rounds" in options["parts"]:
            results["rounds"] = {
                name: _rounds(name, options["sites"], options["rounds"], options["repeats"])
                for name in options["models"]
            }
        if "memory" in options["parts"]:
            results["memory"] = _memory(options["sites"], options["rounds"])
        if "nodes" in options["parts"]:
            results["nodes"] = _nodes(options["nodes"])
    return results


@contextmanager
def _leaving_nothing() -> Iterator[None]:
    """Has SIGTERM end this program as Ctrl-C does, so that what it started ends as well."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _made(side: str, folder: Path, sites: int, model: str) -> AbstractContextManager[Side]:
    names = names_of(sites)
    if side != "fedkd":
        return PlainFlower(folder, names, model=model, eager=side != "plain")
    hospitals = Hospitals(folder, model=model)
    hospitals.join(names, names)
    return hospitals


def _terms(name: str, rounds: int) -> list[str]:
    return [f"rounds={rounds}", *_TERMS, *MODELS[name][1]]


# Seconds a round.


def _rounds(name: str, sites: int, rounds: int, repeats: int) -> dict[str, Any]:
    """Seconds of every round, side by side; the first one of a run is not among those compared.

    In it models are trained from nothing, and our service reads its records; in a run of many
    rounds that is once.
    """
    print(f"{name} model, {sites} sites, seconds a round, median (least to most)", flush=True)
    seconds: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as base:
        made = {
            side: _made(side, Path(base) / f"side-{number}", sites, MODELS[name][0])
            for number, side in enumerate(SIDES)
        }
        for repeat in range(repeats):
            for side in SIDES if repeat % 2 == 0 else reversed(SIDES):
                with made[side] as federation:
                    rows = federation.run(_terms(name, rounds))
                _expect_all(rows, sites, side)
                seconds[side].append([row["seconds"] for row in rows])
    later = {side: [one for run in runs for one in run[1:]] for side, runs in seconds.items()}
    ratios = {
        side: median(later["fedkd"]) / median(later[side]) for side in SIDES if side != "fedkd"
    }
    for side, found in later.items():
        beside = "" if side == "fedkd" else f"   fedkd / this: {ratios[side]:.2f}"
        line = f"{median(found):7.2f} ({min(found):.2f} to {max(found):.2f})"
        first = median(run[0] for run in seconds[side])
        print(f"  {side:18}{line}   first round {first:.2f}{beside}", flush=True)
    print(f"  meant: {GOAL:g} of the plain app's, or less", flush=True)
    return {
        "sites": sites,
        "model": MODELS[name][0],
        "terms": _terms(name, rounds),
        "seconds": seconds,
        "later": {side: median(found) for side, found in later.items()},
        "ratio": ratios,
        "goal": GOAL,
    }


def _expect_all(rows: Sequence[Mapping[str, Any]], sites: int, side: str) -> None:
    short = [row["round"] for row in rows if row["answered"] != sites]
    if short:
        raise BadInput(f"rounds {short} of {side} that not every site answered", f"{sites} answers")


# Memory.


def _memory(sites: int, rounds: int) -> dict[str, Any]:
    """The most that each kind of process at one site takes in a run, looked at five times a second.

    PSS divides pages that processes share (torch's, above all) among them; RSS counts them whole.
    These runs are not timed.
    """
    found: dict[str, Any] = {}
    print("memory at one site, MiB at most: PSS (RSS)", flush=True)
    for side in ("fedkd", "plain"):
        with tempfile.TemporaryDirectory() as base:
            made = _made(side, Path(base) / "side", sites, MODELS["torch"][0])
            with made as federation, Weighed(partial(_roots, federation)) as weighed:
                federation.run(_terms("torch", rounds))
        found[side] = weighed.most
        kinds = sorted(weighed.most.items(), key=lambda item: item[1]["pss_mib"], reverse=True)
        for kind, size in kinds:
            print(f"  {side:7}{kind:17}{size['pss_mib']:7.0f} ({size['rss_mib']:.0f})", flush=True)
    return found


def _roots(side: Side) -> list[int]:
    try:
        return side.roots()
    except (KeyError, StopIteration):  # not started yet
        return []


# How many sites.


def _nodes(most: int) -> dict[str, Any]:
    """Adds hospitals, some at a time, until there are `most`, or time or memory is over.

    So many are held as answered every round of a run of two rounds. `BadInput` where the first few
    do not: that is no limit, but something broken.
    """
    began = time.monotonic()
    steps: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as base:
        model, until = MODELS["trivial"][0], began + MOST_SECONDS
        try:
            with Hospitals(Path(base) / "side", model=model, until=until) as hospitals:
                ended = _added(hospitals, most, began, steps)
        except (RuntimeError, TimeoutError, BadInput) as error:
            if not steps:
                first = min(STEP_NODES, most)
                raise BadInput(
                    f"no run of the first {first} sites ({error})",
                    f"one of two rounds, within {MOST_SECONDS:g} seconds",
                ) from error
            over = time.monotonic() > until
            ended = f"{MOST_SECONDS:g} seconds were over" if over else str(error)
    held = steps[-1]["sites"]
    print(f"  {held} sites, all of which answered every round; {ended}", flush=True)
    return {"held": held, "ended": ended, "steps": steps}


def _added(hospitals: Hospitals, most: int, began: float, steps: list[dict[str, Any]]) -> str:
    """Adds to `steps` what each number of sites took; why no more of them were added."""
    names = names_of(most)
    while len(hospitals.hospitals) < most:
        there = len(hospitals.hospitals)
        hospitals.join(names[there : there + STEP_NODES], names)
        rows = hospitals.run(_terms("trivial", 2))
        _expect_all(rows, len(hospitals.hospitals), "fedkd")
        steps.append(
            {
                "sites": len(hospitals.hospitals),
                "seconds": [row["seconds"] for row in rows],
                "available_mib": available_mib(),
                "elapsed_s": time.monotonic() - began,
            }
        )
        _say_step(steps[-1])
        if len(hospitals.hospitals) >= most:
            break  # whatever time and memory are left
        per_step = steps[-1]["elapsed_s"] / len(steps)
        if steps[-1]["elapsed_s"] + per_step > MOST_SECONDS:
            return f"{MOST_SECONDS:g} seconds were over"
        if available_mib() < LEAST_MIB:
            return f"less than {LEAST_MIB:g} MiB of memory was left"
    return f"{most} sites were asked for"


def _say_step(step: Mapping[str, Any]) -> None:
    seconds = ", ".join(f"{one:.1f}" for one in step["seconds"])
    print(
        f"  {step['sites']:3} sites: rounds of {seconds} s, {step['available_mib']:.0f} MiB left, "
        f"{step['elapsed_s']:.0f} s since the start",
        flush=True,
    )
