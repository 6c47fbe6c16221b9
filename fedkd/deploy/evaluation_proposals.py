"""Spells the paper that proposes to evaluate a finished student at hospitals, by noised counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import gt, lt
from typing import Any, Final, TypeAlias

from fedkd.audit import Roster
from fedkd.audit.verify import Malformed, VerifierKey, parsed
from fedkd.deploy.proposals import MOST_BYTES, Proposed, RunProposal, typed
from fedkd.knowledge import BadInput, Digest
from fedkd.wire import Evaluation
from fedkd.wire import Malformed as Unwritable

KIND: Final = "evaluation"
_ASKED: Final[Mapping[str, Any]] = {
    "round": int,
    "model": str,
    "architecture": str,
    "thresholds": list,
    "group": (str, type(None)),
    "epsilon": float,
    "of": list,
}
_LEAVES: Final[Mapping[str, Any]] = {
    "messages": int,
    "cells": int,
    "groups": int,
    "answers": int,
    "classes": int,
}


@dataclass(frozen=True, slots=True)
class EvaluationProposal(Proposed):
    """One proposed evaluation: `asked` is the question, word for word, and of whom it is asked.

    Its `model` is a digest, `architecture` the name of that model's kind; `of` are the hospitals
    that are asked, of all `parties` that cosign. `would_leave` are messages, and counts in
    [groups, answers, classes], which `cells` says the number of.
    """

    KIND = KIND
    ASKED = _ASKED
    LEAVES = _LEAVES

    def __post_init__(self) -> None:
        Proposed.__post_init__(self)  # not super(): slots make another class of this one
        for name in self.asked["of"]:
            typed(name, str, "of", "the proposal")
        strangers = sorted(set(self.asked["of"]) - self.parties.keys())
        if strangers or not self.asked["of"]:
            raise BadInput(
                f"an evaluation of {', '.join(strangers) or 'nobody'}", "some of its parties"
            )
        left = self.would_leave
        if left["cells"] != left["groups"] * left["answers"] * left["classes"]:
            raise BadInput(f"{left['cells']} counts in the proposal", "groups x answers x classes")
        self.question()

    @property
    def about(self) -> str:
        """What a decision at a hospital is about: this paper, whatever was said of the run."""
        return f"{self.run}/evaluation/{self.digest}"

    @property
    def sites(self) -> tuple[str, ...]:
        """The hospitals that are asked, sorted."""
        return tuple(sorted(set(self.asked["of"])))

    def asks(self, evaluation: Evaluation) -> bool:
        """Whether this is the evaluation that was proposed, in its round."""
        ours = self.question()
        return (ours.key, ours.round) == (evaluation.key, evaluation.round)

    def watches_less(self, site: str, of_run: Roster) -> str | None:
        """What would be weaker of the watch over a site's log than in the run; None if nothing.

        Whom an evaluation names becomes whom the site knows in the run: others may come in.
        """
        gone = sorted(of_run.peers.keys() - self.parties.keys())
        if gone:
            return f"parties: found nobody named {gone[0]}, expected all of the run"
        ours = self.federated().rosters()[site]
        for name, found, before, is_weaker in (
            ("cosigners", len(ours.cosigners), len(of_run.cosigners), lt),
            ("threshold", ours.threshold, of_run.threshold, lt),
            ("most_age", ours.most_age_s, of_run.most_age_s, gt),
        ):
            if is_weaker(found, before):
                return f"audit: found {name} {found}, expected {before}, as in the run"
        return None

    def question(self) -> Evaluation:
        """What would be asked, as it would travel; `BadInput` where it could not."""
        asked = self.asked
        try:
            return Evaluation(
                run=self.run,
                round=asked["round"],
                model=Digest(asked["model"]),
                thresholds=tuple(asked["thresholds"]),
                group=asked["group"],
                epsilon=asked["epsilon"],
            )
        except (Unwritable, TypeError) as error:
            raise BadInput(f"an evaluation that is none ({error})", "one of its form") from None


AnyProposal: TypeAlias = RunProposal | EvaluationProposal


def read_any(body: bytes, signature: str, key: VerifierKey) -> AnyProposal:
    """The run or the evaluation that a paper proposes, signed by the federation's `key`."""
    if len(body) > MOST_BYTES:
        raise BadInput(f"a proposal of {len(body)} bytes", f"at most {MOST_BYTES}")
    try:
        plain = parsed(body, "a proposal")
    except Malformed as error:
        raise BadInput(f"a proposal that is none ({error})", "canonical JSON") from None
    is_evaluation = isinstance(plain, dict) and plain.get("kind") == KIND
    kind = EvaluationProposal if is_evaluation else RunProposal
    return kind.read(body, signature, key)
