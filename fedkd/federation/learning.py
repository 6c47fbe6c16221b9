"""How a site's model learns over a run: from its records first, then with each lesson."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedkd.data import Records
from fedkd.distill import Classifier, LearningPlan, as_classifier, load_weights, save_weights
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.randomness import Purpose, stream
from fedkd.federation.site import Build, SiteFolder, SiteSettings
from fedkd.knowledge import Array, Lesson, digest_of_arrays, digest_of_bytes
from fedkd.wire import Plan

CAME = "came"
"""The model that a site came with: trained on its own records alone."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """How one model came about, as kept beside it: enough to have the model again.

    `parent` is the digest of the model that training went on from, None where it began afresh.
    `hits` say for each validation record whether the model is right; they never leave.
    """

    run: str
    name: str
    round: int
    previous: str | None
    parent: str | None
    lesson: str | None
    plan: Plan
    digest: str
    seconds: float
    hits: tuple[int, ...]
    leave_with: str
    failed: bool = False
    """Its training failed: it is what it began from, and the site leaves with `came`."""

    @property
    def validation_accuracy(self) -> float | None:
        """Share of the site's own validation records that the model gets right."""
        return float(np.mean(self.hits)) if self.hits and not self.failed else None


@dataclass(frozen=True, slots=True)
class Task:
    """One model to be trained: what it starts from, on what, and with which stream."""

    run: str
    name: str
    round: int
    purpose: Purpose
    previous: str | None
    start: Classifier
    records: Records
    lesson: Lesson | None
    asked: Plan
    plan: LearningPlan
    rng: np.random.Generator


ONE_SIDED_5_PERCENT = 1.645
"""Standard errors: by chance alone a difference lies this far below zero once in 20 times."""


def is_worse(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether `after` is worse than `before` beyond chance (paired, one-sided, at 5 %).

    Both on the same validation records: with few of them chance moves the accuracy, and a hospital
    that went back to its old model for every such move would learn nothing.
    """
    if len(before) < 2:
        return False
    difference = np.subtract(after, before, dtype=float)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return bool(difference.mean() + ONE_SIDED_5_PERCENT * error < 0)


class Learner:
    """A site's models on disk: trained once, whole or not there, found again after a crash."""

    def __init__(
        self, site: SiteFolder, settings: SiteSettings, build: Build, seed: int | None = None
    ) -> None:
        self.site = site
        self.settings = settings
        self.build = build
        self._agreed = seed
        self._fitted: dict[tuple[str, str], Classifier] = {}

    @cached_property
    def seed(self) -> int:
        """What the site's own streams begin with: the seed that was agreed on, else its own."""
        return self.site.seed(self.settings) if self._agreed is None else self._agreed

    @cached_property
    def records(self) -> Records:
        """The site's training records, read when first needed."""
        return self.site.train()

    @cached_property
    def fresh(self) -> Classifier:
        """The site's model before it has seen any record."""
        rng = stream(self.seed, self.settings.name, 0, "initialise")
        factory = self.build({**self.settings.model, "_partial_": True})
        return as_classifier(factory, self.settings.space, rng)

    def learnt(self, run: str, name: str) -> Learnt | None:
        """How the model `name` came about, if it is there."""
        path = self._path(run, name)
        if not path.exists():
            return None
        kept = read_json(path)
        plan = Plan(**kept.pop("plan"))
        return Learnt(**{**kept, "plan": plan, "hits": tuple(kept["hits"])})

    def model(self, run: str, name: str) -> Classifier:
        """The model `name`: its weights, or fitted again where it keeps none."""
        if (run, name) in self._fitted:
            return self._fitted[run, name]
        learnt = self.learnt(run, name)
        if learnt is None:
            raise FileNotFoundError(self._path(run, name))
        weights = self._path(run, name).with_suffix(".safetensors")
        if weights.exists():
            return self.fresh.with_weights(load_weights(weights))
        lesson = None if learnt.lesson is None else self.lesson(learnt.lesson)
        task = self._task(run, name, learnt.round, learnt.previous, lesson, learnt.plan)
        return task.start.fit(task.records, task.lesson, task.plan, task.rng)

    def lesson(self, digest: str) -> Lesson:
        """A lesson that was kept."""
        consensus = self.site.taught.distributions(digest)
        return Lesson(self.site.taught.queries(consensus.about), consensus)

    def task_local(self, run: str, plan: Plan, round: int) -> Task:
        """What is to be trained before the first answer: the records alone."""
        return self._task(run, CAME, round, None, None, plan)

    def task_lesson(self, run: str, name: str, round: int, lesson: Lesson, plan: Plan) -> Task:
        """What is to be trained with a lesson: records and consensus in the same step."""
        return self._task(run, name, round, self.current(run), lesson, plan)

    def _task(
        self,
        run: str,
        name: str,
        round: int,
        previous: str | None,
        lesson: Lesson | None,
        asked: Plan,
    ) -> Task:
        purpose: Purpose = "local" if lesson is None else "lesson"
        start = self.fresh
        if previous is not None and start.weights() is not None:
            start = self.model(run, previous)
        plan = self.plan_of_lesson(asked)
        if lesson is None:
            plan = replace(plan, epochs=asked.local_epochs, loss=None)
        rng = stream(self.seed, self.settings.name, round, purpose)
        return Task(
            run, name, round, purpose, previous, start, self.records, lesson, asked, plan, rng
        )

    def plan_of_lesson(self, asked: Plan) -> LearningPlan:
        """How a lesson is learnt: what was asked for, by the site's own settings."""
        return LearningPlan(
            epochs=asked.lesson_epochs,
            batch=asked.batch,
            kl_weight=asked.loss_weight,
            loss=self._loss(asked),
            **self.settings.training,
        )

    def _loss(self, asked: Plan) -> Any:
        spec = self.settings.accepts.losses[asked.loss]
        return self.build({**spec, "temperature": asked.temperature})

    def train(self, task: Task) -> Learnt:
        """Trains and keeps one model; the one that is already there, if it is."""
        found = self.learnt(task.run, task.name)
        if found is not None:
            return found
        began = time.perf_counter()
        fitted = task.start.fit(task.records, task.lesson, task.plan, task.rng)
        return self.keep(task, fitted, time.perf_counter() - began)

    def unchanged(self, task: Task) -> Learnt:
        """Keeps what `task` began from, as its outcome, where a training failed and none may know.

        Whether a training fails depends on records: all that is kept and logged looks the same.
        """
        return self.keep(task, task.start, 0.0, failed=True)

    def keep(
        self, task: Task, fitted: Classifier, seconds: float, *, failed: bool = False
    ) -> Learnt:
        """Keeps a trained model: weights first, so that the note beside them says they are whole.

        The site will leave with what it came with where the new model is worse (`is_worse`), or
        has `failed` to become one.
        """
        if not failed:
            self._fitted[task.run, task.name] = fitted
        path = self._path(task.run, task.name)
        path.parent.mkdir(exist_ok=True)
        weights = fitted.weights()
        if weights is not None:
            save_weights(path.with_suffix(".safetensors"), weights)
        validation = self.site.validation()
        hits: Array = np.zeros(len(validation), dtype=int)
        if len(validation) and not failed:
            hits = fitted.probs(validation.inputs).argmax(axis=1) == validation.labels
        came = self.learnt(task.run, CAME)
        now = tuple(int(hit) for hit in hits)
        stays = came is not None and (failed or is_worse(came.hits, now))
        learnt = Learnt(
            run=task.run,
            name=task.name,
            round=task.round,
            previous=task.previous,
            parent=self._parent(task, weights),
            lesson=None if task.lesson is None else task.lesson.consensus.digest,
            plan=task.asked,
            digest=self._digest(task, weights),
            seconds=seconds,
            hits=now,
            leave_with=CAME if stays else task.name,
            failed=failed,
        )
        kept = {name: getattr(learnt, name) for name in Learnt.__dataclass_fields__}
        plan = {name: getattr(task.asked, name) for name in Plan.__dataclass_fields__}
        write_json(path, {**kept, "plan": plan, "hits": list(now)})
        return learnt

    def _parent(self, task: Task, weights: Mapping[str, Array] | None) -> str | None:
        if task.previous is None or weights is None:  # what has no weights is fitted afresh
            return None
        learnt = self.learnt(task.run, task.previous)
        return None if learnt is None else learnt.digest

    def _digest(self, task: Task, weights: Mapping[str, Array] | None) -> str:
        if weights is not None:
            return digest_of_arrays({"kind": "model"}, weights)
        # A model without weights is named by what it was made of, all of which is kept.
        lesson = task.lesson.consensus.digest if task.lesson else None
        whose = (self.settings.name, self.seed, task.run)
        made_of = (task.start.architecture, task.round, lesson, task.asked)
        return digest_of_bytes(repr((whose, made_of)).encode())

    def current(self, run: str) -> str:
        """The newest model of a run: the one that learns on, and answers."""
        names = [path.stem for path in (self.site.models / run).glob("*.json")]
        return max(names, key=lambda name: (name != CAME, name))

    def newest(self, run: str) -> Learnt | None:
        """How the newest model of a run came about; None before the first."""
        if not any((self.site.models / run).glob("*.json")):
            return None
        return self.learnt(run, self.current(run))

    def forget(self, now: Learnt) -> None:
        """Removes the models and lessons of a run that no later turn can need."""
        gone = set()
        for path in (self.site.models / now.run).glob("*.json"):
            if path.stem not in (CAME, now.name):
                gone.add(read_json(path)["lesson"])
                path.with_suffix(".safetensors").unlink(missing_ok=True)
                path.unlink()
        # A lesson is named by its content: another run at this site may need the same one.
        needed = {read_json(path)["lesson"] for path in self.site.models.glob("*/*.json")}
        for lesson in gone - needed - {None}:
            self.site.taught.path(lesson).unlink(missing_ok=True)

    def _path(self, run: str, name: str) -> Path:
        return self.site.models / run / f"{name}.json"
