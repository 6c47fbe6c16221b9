"""Distils the consensus into a student: the only model that the federation makes in common."""

from collections.abc import Sequence

import numpy as np

from fedkd.distill.models.classifier import Classifier, LearningPlan, Rng
from fedkd.knowledge import BadInput, Distributions, Lesson, Public, QuerySet, digest_of_bytes


def teach(
    student: Classifier, lessons: Sequence[Lesson], plan: LearningPlan, rng: Rng
) -> Classifier:
    """`student` after `lessons`: a warm start on pairs of query and consensus, and on nothing else.

    An epoch passes over the queries of all lessons together; a query that comes in two of them
    is learnt from both. A student of scikit-learn is fitted afresh.
    """
    if not lessons:
        raise BadInput("no lesson", "at least one")
    return student.fit(None, joined(lessons), plan, rng)


def joined(lessons: Sequence[Lesson]) -> Lesson:
    """All of `lessons` as one, for learning only: its query set is never asked of anybody."""
    if len(lessons) == 1:
        return lessons[0]
    names = "\n".join(lesson.queries.digest for lesson in lessons)
    origin = Public("lessons joined", "that of each lesson", digest_of_bytes(names.encode()))
    queries = QuerySet(np.concatenate([lesson.queries.inputs for lesson in lessons]), origin)
    probs = np.concatenate([lesson.consensus.probs for lesson in lessons])
    return Lesson(queries, Distributions(probs, queries.digest))
