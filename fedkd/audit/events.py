"""The vocabulary of what is remembered: an event that is not in this list is not logged."""

from typing import Final

EVENTS: Final = frozenset(
    {
        "log.opened",
        "log.key.rotated",
        "party.enrolled",
        "party.left",
        "statement.declared",
        "config.fixed",
        "run.started",
        "run.ended",
        "dataset.registered",
        "dataset.withdrawn",
        "data.transformed",
        "data.partitioned",
        "data.assessed",
        "train.local",
        "release.outputs",
        "release.refused",
        "aggregate.computed",
        "student.updated",
        "budget.opened",
        "budget.charged",
        "queries.posed",
        "lesson.sent",
        "answers.admitted",
        "synthetic.generated",
        "evaluation.done",
        "model.released",
        "error.raised",
        "checkpoint.witnessed",
        "access.performed",
        "retention.applied",
        "report.exported",
    }
)
