"""Says what accuracy to expect at an epsilon: from curves that were measured and are kept here."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import median
from typing import Any

from fedkd.knowledge import BadInput

VERSION = 2
"""Of the file's form; each curve in it also says the commit and the command that made it."""
LIKE = 2.0
"""Fewer or more patients a site, or steps, than measured, by more than this factor: not alike."""


@dataclass(frozen=True, slots=True)
class Point:
    """The student's figure at an epsilon (None: without privacy), over the seeds."""

    epsilon: float | None
    mean: float
    sd: float | None

    def __str__(self) -> str:
        at = "without privacy" if self.epsilon is None else f"at epsilon {self.epsilon:g}"
        return f"{self.mean:.3f}" + (f" ± {self.sd:.3f}" if self.sd is not None else "") + f" {at}"


@dataclass(frozen=True, slots=True)
class Curve:
    """One federation's utility against epsilon.

    `patients` are those of each site: a tenth of them was kept for validation. Each private model
    took `steps`, each on a `sampling_rate` of the patients.
    """

    name: str
    title: str
    measure: str
    classes: int
    models: tuple[str, ...]
    patients: tuple[int, ...]
    seeds: tuple[int, ...]
    steps: int
    sampling_rate: float
    points: tuple[Point, ...]
    commit: str
    command: str

    @property
    def typical(self) -> float:
        """The median number of patients at a site."""
        return float(median(self.patients))

    def around(self, epsilon: float) -> tuple[Point, ...]:
        """The measured points next to `epsilon`: that one, or one on each side, as there are.

        Nothing is made up between them or beyond; above the last, without privacy is the other.
        """
        for point in self.points:
            if point.epsilon is not None and math.isclose(point.epsilon, epsilon, rel_tol=1e-6):
                return (point,)
        known = sorted(self.points, key=lambda it: math.inf if it.epsilon is None else it.epsilon)
        below = [it for it in known if it.epsilon is not None and it.epsilon < epsilon]
        above = [it for it in known if it.epsilon is None or it.epsilon > epsilon]
        return (*below[-1:], *above[:1])

    def unlike(
        self, patients: int, classes: int | None, steps: int, sampling_rate: float
    ) -> str | None:
        """Why such a site, or such a training, is not like what was measured, or None."""
        if classes is not None and classes != self.classes:
            return f"it was measured with {self.classes} classes, not {classes}"
        if not self.typical / LIKE <= patients <= self.typical * LIKE:
            return f"it was measured with about {self.typical:.0f} patients a site, not {patients}"
        alike = self.steps / LIKE <= steps <= self.steps * LIKE
        if not alike or not math.isclose(sampling_rate, self.sampling_rate):
            return (
                f"it was measured in {_training(self.steps, self.sampling_rate)} (--steps "
                f"{self.steps} --rate {self.sampling_rate:g}), not in "
                f"{_training(steps, sampling_rate)}"
            )
        return None

    def expectation(
        self, epsilon: float, patients: int, classes: int | None, steps: int, sampling_rate: float
    ) -> dict[str, Any]:
        """Plain values: what was measured around `epsilon`, or why nothing is known."""
        told: dict[str, Any] = {
            "like": self.name, "measured_on": self.title, "measure": self.measure,
            "models": list(self.models), "patients": list(self.patients),
            "seeds": list(self.seeds), "steps": self.steps, "sampling_rate": self.sampling_rate,
            "commit": self.commit, "command": self.command,
        }  # fmt: skip
        why = self.unlike(patients, classes, steps, sampling_rate)
        around = () if why else self.around(epsilon)
        if not why and (not around or around[0].epsilon is None or around[0].epsilon > epsilon):
            why, around = f"nothing was measured at so small an epsilon as {epsilon:.4g}", ()
        told["unknown"] = why
        told["points"] = [{"epsilon": it.epsilon, "mean": it.mean, "sd": it.sd} for it in around]
        return told


@cache
def curves() -> Mapping[str, Curve]:
    """Every kept curve, by name."""
    kept = json.loads(files("fedkd.privacy").joinpath("curves.json").read_text(encoding="utf-8"))
    if kept["version"] != VERSION:
        raise ValueError(f"found curves of version {kept['version']}, expected {VERSION}")
    return {name: _curve(name, kept, body) for name, body in kept["curves"].items()}


def curve_of(name: str) -> Curve:
    """The curve of this name; `BadInput` where none is kept."""
    if name not in curves():
        raise BadInput(
            f"--like {name}, of which no curve is kept",
            "one of " + ", ".join(curves()),
            "leave it out where your data are like none of them: what to expect is then unknown",
        )
    return curves()[name]


def in_words(expectation: Mapping[str, Any]) -> Sequence[str]:
    """Lines for a person: measured elsewhere, and no promise."""
    title, measure = expectation["measured_on"], expectation["measure"]
    if expectation["unknown"]:
        return [f"unknown: of {title}, {expectation['unknown']}"]
    points = " and ".join(str(Point(**point)) for point in expectation["points"])
    seeds = len(expectation["seeds"])
    return [
        f"a student with {measure} {points}: measured on {title} "
        f"({', '.join(expectation['models'])}; {seeds} seeds), not a promise for other data",
        f"made by {expectation['command']}, commit {expectation['commit']}",
    ]


def _curve(name: str, kept: Mapping[str, Any], body: Mapping[str, Any]) -> Curve:
    points = tuple(Point(**point) for point in body["points"])
    return Curve(
        name=name, title=body["title"], measure=body["measure"], classes=body["classes"],
        models=tuple(body["models"]), patients=tuple(body["patients"]),
        seeds=tuple(body["seeds"]), steps=body["steps"], sampling_rate=body["sampling_rate"],
        points=points, commit=kept["commit"], command=kept["command"],
    )  # fmt: skip


def _training(steps: int, sampling_rate: float) -> str:
    whom = "all patients" if sampling_rate == 1 else f"{sampling_rate:g} of the patients"
    return f"{steps} steps on {whom}"
