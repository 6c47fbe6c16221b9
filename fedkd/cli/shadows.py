"""Takes imagined hospitals through a run as a site went through it: the shadows of an attack."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.audit import Log
from fedkd.data import Records
from fedkd.distill import Classifier
from fedkd.federation.exchange import Exchange
from fedkd.federation.learning import Learner, Task
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import Array, BadInput, Lesson
from fedkd.privacy.attacks import Speaker

if TYPE_CHECKING:
    from fedkd.cli.run import Run


@dataclass(frozen=True)
class Step:
    """One training of a site, by its log, and what it then answered: (query set, answer).

    `dp` is the plan of a private training, None for one that is not.
    """

    name: str
    round: int
    lesson: str | None
    output: str
    dp: Mapping[str, Any] | None
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Shadows:
    """What the shadows of a site say: `speakers` now, `released` [K][answers] in the run."""

    speakers: Sequence[Speaker]
    released: Sequence[Sequence[Array]]
    inside: Array


class Imagined(SiteFolder):
    """A site that never was: records in memory, models in a folder that is soon gone."""

    def __init__(self, folder: Path, records: Records) -> None:
        super().__init__(folder)
        self.models.mkdir(parents=True)
        self._imagined = records

    def train(self) -> Records:
        """What the shadow learns from."""
        return self._imagined

    def validation(self) -> Records:
        """Nothing."""
        return self._imagined.take(self._imagined.labels[:0])


class Rerun:
    """A run that is gone through again by imagined hospitals, with the same plans and lessons."""

    def __init__(self, run: "Run", exchange: Exchange, learners: Sequence[Learner]) -> None:
        self._run, self._exchange, self._learners = run, exchange, learners

    def trained(self, step: Step) -> list[Classifier]:
        """The models of all after one training, by the site's own fit."""
        if step.dp is not None:
            return [self._privately(learner, step.dp) for learner in self._learners]
        tasks = [self._task(learner, step) for learner in self._learners]
        fitted = _fitted(tasks)
        for learner, task, model in zip(self._learners, tasks, fitted, strict=True):
            learner.keep(task, model, 0.0)
        return fitted

    def _privately(self, learner: Learner, dp: Mapping[str, Any]) -> Classifier:
        from fedkd.federation.speaking import Speakers
        from fedkd.privacy import TrainingPlan

        plan = TrainingPlan(**{name: dp[name] for name in TrainingPlan.__dataclass_fields__})
        speakers = Speakers(learner.site, learner.settings)
        speakers.draw(self._run.id, learner.records, learner.fresh)
        speakers.train(self._run.id, "a shadow's", plan, learner.fresh, learner.records)
        return speakers.newest(self._run.id, learner.fresh)

    def _task(self, learner: Learner, step: Step) -> Task:
        run, plan = self._run.id, self._run.terms().plan
        if step.lesson is None:
            return learner.task_local(run, plan, step.round)
        consensus = self._exchange.distributions(step.lesson)
        lesson = Lesson(self._exchange.queries(consensus.about), consensus)
        return learner.task_lesson(run, step.name, step.round, lesson, plan)


def steps_that_matter(steps: Sequence[Step], *, warm: bool, hears_all: bool) -> Sequence[Step]:
    """The trainings that shadows go through; a model that is fitted afresh each time needs few.

    Its last one alone decides what it says now, unless earlier answers are listened to as well.
    The first stays: it is what a site comes with.
    """
    return steps if warm or hears_all or len(steps) < 2 else (steps[0], steps[-1])


def steps_of(log: Log, run: str) -> list[Step]:
    """A site's trainings in a run, up to the one that gave its last answer."""
    kept = [it.body for it in log.entries("release.outputs") if it.said is not None]
    said, steps = [it for it in kept if it["run"] == run], []
    for entry in log.entries("train.local"):
        if not entry.key.startswith(f"{run}/"):
            continue
        if entry.said is None:
            raise BadInput(
                f"the log of {log.party} without its trainings in this run: they were erased",
                "all of them, so that shadows can go through the run as it did",
            )
        body, name = entry.said, entry.key.rsplit("/", 1)[1]
        answers = tuple(
            (it["queries"], it["digest"]) for it in said if it["model"] == body["output"]
        )
        made = (body["round"], body["lesson"], body["output"], body["dp"])
        steps.append(Step(name, *made, answers))
    while steps and not steps[-1].answers:
        steps.pop()  # what was learnt after the last answer never spoke
    return steps


def _fitted(tasks: Sequence[Task]) -> list[Classifier]:
    """The models of `tasks`, of one site and plan: in one stack, or on several cores."""
    if tasks[0].start.weights() is None:  # scikit-learn: touches no generator of the process
        with ThreadPoolExecutor(os.cpu_count()) as cores:
            return list(
                cores.map(lambda it: it.start.fit(it.records, it.lesson, it.plan, it.rng), tasks)
            )
    from fedkd.distill import fit_cohort

    return fit_cohort(
        [task.start for task in tasks],
        [task.records for task in tasks],
        [task.lesson for task in tasks],
        tasks[0].plan,
        [task.rng for task in tasks],
    )
