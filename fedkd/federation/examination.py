"""Examines a finished simulation: the only place where the labels of the test are looked at."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedkd.audit import Log
from fedkd.data import Records
from fedkd.distill.models.classifier import Classifier, LearningPlan
from fedkd.federation.learning import CAME, Learner
from fedkd.federation.paying import ledger_of
from fedkd.federation.randomness import stream
from fedkd.federation.site import Build, SiteFolder
from fedkd.knowledge import Array
from fedkd.knowledge.measures import (
    accuracy,
    auroc,
    balanced_accuracy,
    expected_calibration_error,
    macro_f1,
)

# N test records, C classes.


class OpenedTwice(RuntimeError):
    """The test was looked at already: whatever is chosen now would be chosen on it."""


class Examination:
    """The common test, behind one door that opens once a run and is logged."""

    def __init__(self, test: Callable[[], Records], log: Log, run: str, name: str) -> None:
        self._test = test
        self._log = log
        self._run = run
        self._name = name
        self._opened = False

    def open(self) -> Records:
        """The test records; `OpenedTwice` at the second call."""
        if self._opened:
            raise OpenedTwice(f"found the examination of {self._run} open, expected it closed")
        self._opened = True
        opened = {"run": self._run, "who": "examination", "what": self._name}
        self._log.append(f"{self._run}/opened", "access.performed", opened)
        return self._test()

    def said(self) -> dict[str, Any] | None:
        """What the test said when it was opened, if it was: then nobody opens it again."""
        entry = self._log.entry(f"{self._run}/evaluation")
        return None if entry is None else dict(entry.body["figures"])

    def done(
        self,
        figures: Mapping[str, Any],
        model: str | None,
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        """Logs what the test said of the student whose weights have the digest `model`.

        `measured` are its counts (`measured.by_place`), from which shares are computed.
        """
        body = {"run": self._run, "model": model, "data": self._name, "figures": dict(figures)}
        body |= measured or {}
        self._log.append(f"{self._run}/evaluation", "evaluation.done", body)


def figures_of(probs: Array, labels: Array) -> dict[str, float | None]:
    """What a reviewer expects of `probs` [N, C] against `labels` [N]."""
    return {
        "accuracy": accuracy(probs, labels),
        "balanced_accuracy": balanced_accuracy(probs, labels),
        "macro_f1": macro_f1(probs, labels),
        "auroc": auroc(probs, labels),
        "ece": expected_calibration_error(probs, labels),
    }


def own_mix_weights(own: Array, test: Array, classes: int) -> Array | None:
    """Weights [N] that give the test a site's own class mix; None where it lacks a class of it."""
    mix = np.bincount(own, minlength=classes) / len(own)
    there = np.bincount(test, minlength=classes) / len(test)
    if np.any((mix > 0) & (there == 0)):
        return None
    weights: Array = (mix / np.where(there > 0, there, 1))[test]
    return weights


class SiteExaminer:
    """Reads one simulated site's folder after the run: its own model alone, and as it is now.

    NOT RELEASABLE: in a deployment nobody but the hospital can know these figures.
    """

    def __init__(self, folder: Path, run: str, build: Build) -> None:
        self.site = SiteFolder(folder)
        self.settings = self.site.settings()
        self.learner = Learner(self.site, self.settings, build)
        self.run = run

    def took_part(self) -> bool:
        """Whether the site has a model of this run: one that came of its training."""
        came = self.learner.learnt(self.run, CAME)
        return came is not None and not came.failed

    def count(self) -> int:
        """Number of the site's records, validation included."""
        return len(self.learner.records) + len(self.site.validation())

    def resident(self) -> Classifier:
        """The model that the site leaves with."""
        learnt = self.learner.newest(self.run)
        if learnt is None:
            raise FileNotFoundError(self.site.models)
        return self.learner.model(self.run, learnt.leave_with)

    def alone_task(self, rounds: int) -> tuple[Classifier, Records, LearningPlan, Any]:
        """What makes the site's own model alone for as long: as many steps as it took in the run.

        It goes on from the model that the site came with, on its records alone, for the steps that
        the lessons of `rounds` rounds have.
        """
        came = self.learner.learnt(self.run, CAME)
        if came is None:
            raise FileNotFoundError(self.site.models)
        now = self.learner.newest(self.run)
        queries = 0
        if now is not None and now.lesson is not None:
            queries = len(self.learner.lesson(now.lesson).queries)
        plan = LearningPlan(
            epochs=came.plan.lesson_epochs, batch=came.plan.batch, **self.settings.training
        )
        records = self.learner.records
        mixed = plan.step_count(len(records), queries) * rounds
        epochs = math.ceil(mixed / max(1, math.ceil(len(records) / plan.batch)))
        start = self.learner.model(self.run, CAME)
        if start.weights() is None:
            start, epochs = self.learner.fresh, came.plan.local_epochs
        rng = stream(self.learner.seed, self.settings.name, 0, "alone")
        return start, records, replace(plan, epochs=epochs), rng

    def seconds(self) -> float:
        """Seconds that the site's models took to train, so far as they are still there."""
        with self.site.log(self.settings.name) as log:
            bodies = [e.said for e in log.entries("train.local") if e.said is not None]
            return float(sum(it["seconds"] for it in bodies if it["run"] == self.run))

    def spent(self) -> dict[str, float | None]:
        """The epsilon that the site's patients have spent, under its own ledger, and the delta.

        None for an open budget, in which nothing that is spent means anything.
        """
        with self.site.log(self.settings.name) as log:
            ledger = ledger_of(log, self.settings.population)
        if ledger.epsilon is None:
            return {"epsilon": None, "delta": None}
        return {"epsilon": ledger.spent(), "delta": ledger.delta}

    def row(self, test: Records, local: Array, now: Array) -> dict[str, Any]:
        """The site's figures, for its own model alone (`local` [N, C]) and as it is (`now`)."""
        own = np.concatenate([self.learner.records.labels, self.site.validation().labels])
        weights = own_mix_weights(own, test.labels, now.shape[1])
        here = None if test.sites is None else test.sites == self.settings.name
        row: dict[str, Any] = {
            "site": self.settings.name,
            "records": len(own),
            "model": self.settings.model_name,
        }
        for prefix, probs in (("local_", local), ("", now)):
            row[f"{prefix}accuracy"] = accuracy(probs, test.labels)
            row[f"{prefix}balanced_accuracy"] = balanced_accuracy(probs, test.labels)
            row[f"{prefix}auroc"] = auroc(probs, test.labels)
            mix = None if weights is None else accuracy(probs, test.labels, weights)
            row[f"{prefix}own_mix"] = mix
            row[f"{prefix}own_auroc"] = (
                auroc(probs[here], test.labels[here]) if here is not None and here.any() else None
            )
        return row


def pooled_validation(sites: Sequence[Path]) -> Records | None:
    """The validation slices of all simulated sites together; None where none has any."""
    slices = [SiteFolder(folder).validation() for folder in sites]
    full = [part for part in slices if len(part)]
    if not full:
        return None
    return Records(
        np.concatenate([part.inputs for part in full]),
        np.concatenate([part.labels for part in full]),
    )
