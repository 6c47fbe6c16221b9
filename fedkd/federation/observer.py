"""Looks on while a simulation runs: figures on validation records, by round. NOT RELEASABLE."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedkd.distill import Classifier
from fedkd.federation.asking import Reply
from fedkd.federation.examination import pooled_validation
from fedkd.federation.learning import Learner
from fedkd.federation.site import Build, SiteFolder
from fedkd.knowledge.measures import accuracy


class Outsider:
    """A `Watch` as a coordinator has it: no site's folder is there to be looked into."""

    def round_begins(self, round: int, rounds: int, asked: Sequence[str]) -> None:
        """Nothing to see yet."""

    def reply(self, reply: Reply) -> None:
        """Nothing to see in a body."""

    def round_ends(self, row: dict[str, Any], student: Classifier) -> dict[str, Any]:
        """No figures: records and labels are at the hospitals."""
        return {**row, "student_accuracy": None, "hospitals_accuracy": None}


class Observer:
    """A simulation's `Watch`: it may read the sites' folders, as nobody can in a deployment."""

    def __init__(self, sites: Sequence[Path], run: str, build: Build) -> None:
        self._run = run
        self._validation = pooled_validation(sites)
        folders = [SiteFolder(folder) for folder in sites]
        self._learners = [Learner(folder, folder.settings(), build) for folder in folders]

    def round_begins(self, round: int, rounds: int, asked: Sequence[str]) -> None:
        """Nothing to see yet."""

    def reply(self, reply: Reply) -> None:
        """Nothing to see in a body."""

    def round_ends(self, row: dict[str, Any], student: Classifier) -> dict[str, Any]:
        """Adds the student on all validation slices, and each hospital on its own."""
        student_accuracy = None
        if self._validation is not None:
            probs = student.probs(self._validation.inputs)
            student_accuracy = accuracy(probs, self._validation.labels)
        own = [
            learnt.validation_accuracy
            for learner in self._learners
            if (learnt := learner.newest(self._run)) is not None
        ]
        measured = [figure for figure in own if figure is not None]
        return {
            **row,
            "student_accuracy": student_accuracy,
            "hospitals_accuracy": float(np.mean(measured)) if measured else None,
        }
