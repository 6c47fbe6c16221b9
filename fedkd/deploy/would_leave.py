"""Counts at a hospital what a proposal would let leave: what a paper says of that is a claim."""

from fedkd.data import TableSchema
from fedkd.deploy.evaluation_proposals import EvaluationProposal
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.evaluating import Grouping, check_thresholds
from fedkd.federation.site import Build, SiteSettings
from fedkd.wire import Codec


def of_run(proposal: RunProposal, settings: SiteSettings, build: Build) -> dict[str, int]:
    """What the answers to a run add up to; without `bytes` where its codec is not here."""
    asked, classes = proposal.asked, len(settings.space.classes)
    rounds, size = asked["rounds"], asked["size"]
    counted = {"messages": rounds, "rows": rounds * size, "classes": classes}
    if asked["codec"] in settings.accepts.codecs:
        codec: Codec = build(settings.accepts.codecs[asked["codec"]])
        counted["bytes"] = rounds * codec.raw_bytes(size, classes)
    return counted


def of_counts(proposal: EvaluationProposal, settings: SiteSettings) -> dict[str, int]:
    """The counts that answer an evaluation; `BadInput` for a group or thresholds of no use here."""
    asked, classes = proposal.asked, len(settings.space.classes)
    thresholds = tuple(asked["thresholds"])
    check_thresholds(thresholds, classes)
    schema = settings.schema
    declared = None if schema is None else TableSchema.from_json(dict(schema))
    groups = len(Grouping(declared, asked["group"]).names)
    answers = len(thresholds) + 1 if thresholds else classes
    return {
        "messages": 1,
        "groups": groups,
        "answers": answers,
        "classes": classes,
        "cells": groups * answers * classes,
    }
