"""Trains a round's sites together where they share an architecture, before their turns."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from fedkd.data import Records
from fedkd.distill import Classifier, LearningPlan, Rng
from fedkd.federation.learning import Task
from fedkd.federation.participant import Participant, open_participant
from fedkd.federation.site import Build
from fedkd.wire import Malformed, Question, decode, opened

MOST_QUESTION_BYTES = 1 << 30
Alone: TypeAlias = tuple[Classifier, Records, LearningPlan, Rng]


def train_together(bodies: Mapping[Path, bytes], build: Build) -> None:
    """Trains what the questions in `bodies` (by site folder) ask for, in as few fits as possible.

    Each site then finds its model in its folder and does not train again. Only a shortcut of a
    simulation, without a mechanism: a private site's training belongs in its own turn.
    """
    questions = {folder: _question(body) for folder, body in bodies.items()}
    pending = {folder: asked for folder, asked in questions.items() if asked is not None}
    while pending:
        waiting: list[tuple[Participant, Task]] = []
        for folder, asked in list(pending.items()):
            one = _next(folder, asked, build)
            if one is None:
                del pending[folder]
            else:
                waiting.append(one)
        for group in _alike(waiting):
            if not _fit(group):
                for participant, _ in group:
                    del pending[participant.site.folder]


def _question(body: bytes) -> Question | None:
    try:
        message = decode(opened(body)[1], MOST_QUESTION_BYTES)
    except Malformed:
        return None
    return message if isinstance(message, Question) else None


def _next(folder: Path, asked: Question, build: Build) -> tuple[Participant, Task] | None:
    try:
        participant = open_participant(folder, build)
        participant.check(asked)
        task = participant.next_task(asked)
    except Exception:
        return None  # the site will say so itself, in its turn
    return None if task is None else (participant, task)


def _alike(waiting: Iterable[tuple[Participant, Task]]) -> list[list[tuple[Participant, Task]]]:
    groups: dict[object, list[tuple[Participant, Task]]] = {}
    for participant, task in waiting:
        plan = task.plan
        numbers = (plan.epochs, plan.batch, plan.learning_rate, plan.weight_decay, plan.kl_weight)
        kind = (task.start.architecture, task.purpose, numbers, plan.steps, id(plan.loss))
        groups.setdefault(kind, []).append((participant, task))
    return list(groups.values())


def _fit(group: list[tuple[Participant, Task]]) -> bool:
    """Whether the group was trained; where one fails each site trains in its own turn."""
    from fedkd.distill import fit_cohort

    tasks = [task for _, task in group]
    began = time.perf_counter()
    try:
        fitted = fit_cohort(
            [task.start for task in tasks],
            [task.records for task in tasks],
            [task.lesson for task in tasks],
            tasks[0].plan,
            [task.rng for task in tasks],
        )
    except Exception:
        return False
    share = (time.perf_counter() - began) / len(group)
    for (participant, task), model in zip(group, fitted, strict=True):
        participant.learner.keep(task, model, share)
    return True


def fit_alike(tasks: Mapping[str, Alone]) -> dict[str, Classifier]:
    """Each site's model on its records alone, sites of one architecture and plan together."""
    from fedkd.distill import fit_cohort

    plans: dict[LearningPlan, list[str]] = {}
    for site, (_, _, plan, _) in tasks.items():
        plans.setdefault(plan, []).append(site)
    fitted: dict[str, Classifier] = {}
    for plan, sites in plans.items():
        starts, records, _, rngs = zip(*(tasks[site] for site in sites), strict=True)
        fitted |= zip(sites, fit_cohort(starts, records, None, plan, rngs), strict=True)
    return fitted
