"""Gives a site's turn its answer: what speaks is paid for, logged, and heard."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedkd.audit import Log
from fedkd.distill import Gate, gated
from fedkd.federation.learning import Learner, Learnt
from fedkd.federation.paying import Purse
from fedkd.federation.randomness import stream
from fedkd.federation.shards import Shards
from fedkd.federation.speaking import Speaker, Speakers, check_speaker
from fedkd.federation.together import Together
from fedkd.knowledge import Array, BadInput, Lesson, QuerySet
from fedkd.privacy import Mechanism, PublicFacts
from fedkd.privacy.noise import rehearsal_noise, system_noise
from fedkd.wire import Question


class Voice:
    """What answers at a site, for one turn: the one place from which an answer's numbers come."""

    def __init__(
        self, learner: Learner, facts: PublicFacts, log: Log, note: Callable[[str], None]
    ) -> None:
        self._learner, self._settings, self._log = learner, learner.settings, log
        self._mechanism: Mechanism = learner.build(self._settings.mechanism)
        self._speakers = Speakers(learner.site, self._settings)
        self._facts = facts
        self._purse = Purse(log, self._settings, self._mechanism, facts)
        self._together = Together(learner, self._mechanism, self._purse, note)

    def check(self) -> None:
        """`BadInput` where the site's model, size or gate does not fit its mechanism."""
        if not self._mechanism.private:
            return
        check_speaker(self._learner.fresh, self._mechanism)
        if self._mechanism.cost_at is not None:
            self._mechanism.cost_at(self._facts, 1.0)  # raises for more shards than patients
        gate: Gate = self._learner.build(self._settings.gate)
        if gate.reads_records:
            raise BadInput(
                f"a gate with mechanism={self._mechanism.name}",
                "none: a gate reads records, and what it opens is not paid for",
                "leave gate out",
            )

    def prepare(self, question: Question, queries: QuerySet) -> Speaker | Shards | None:
        """Pays for the turn; what will answer is on disk afterwards.

        None where an ordinary model speaks, or nothing does: a closing question wants no answer, so
        that nothing is trained for it. `BudgetExhausted` where the ledger does not cover it.
        """
        if self._mechanism.speaker == "any":
            return None if question.closing else self._by_shards(question, queries)
        kept = self._speakers.kept(question.run) if self._mechanism.private else None
        if self._mechanism.private and question.closing and kept is None:
            self._speakers.forget_draws(question.run)  # the run is over
            return None
        paid = self._purse.pay(
            question,
            trained=kept is not None,
            draw=lambda: self._speakers.draw(
                question.run, self._learner.records, self._learner.fresh
            ),
        )
        if paid is not None:
            fresh, records = self._learner.fresh, self._learner.records
            kept = self._speakers.train(question.run, paid.charge, paid.plan, fresh, records)
        if kept is not None:
            self._speakers.forget_draws(question.run)
            charged = self._log.entry(kept.charge)
            if charged is None:
                raise KeyError(kept.charge)
            self._remember(kept, charged.body["plan"], kept.charge)
            if self._mechanism.learns:
                kept = self._taught(kept, question)
        return kept

    def _taught(self, trained: Speaker, question: Question) -> Speaker:
        """The speaker after this question's lesson, if it brings one: post-processing, and free."""
        before = self._speakers.taught(trained.run, question.round - 1) or trained
        if question.lesson is None or question.closing:
            return self._speakers.taught(trained.run, question.round) or trained
        now = self._speakers.taught(trained.run, question.round)
        if now is None or now.round < question.round:
            learner = self._learner
            lesson = Lesson(learner.site.taught.queries(question.lesson.about), question.lesson)
            plan = learner.plan_of_lesson(question.plan)
            now = self._speakers.learn(before, question.round, lesson, plan, learner.fresh)
        made = {"inputs": [], "lesson": question.lesson.digest, "parent": before.digest}
        self._log_training(f"{now.run}/train/speaker/{now.round}", now, {**made, "dp": None})
        return now

    def _by_shards(self, question: Question, queries: QuerySet) -> Shards:
        shards = self._together.answer(question, queries)
        if self._log.entry(f"{shards.run}/train/speaker") is None:
            batch = self._purse.batch(question.run)
            if batch is None:  # every answer was there before this run
                self._remember(shards, {"shards": len(shards.made)}, None)
            else:
                self._remember(shards, batch.plan.to_json(), batch.charge)
        return shards

    def answer(
        self,
        question: Question,
        queries: QuerySet,
        learnt: Learnt,
        speaker: Speaker | Shards | None,
    ) -> Array:
        """What may leave: distributions [Q, C]."""
        if isinstance(speaker, Shards):
            return self._together.read(speaker, queries)
        if speaker is None:
            speaks = self._learner.model(learnt.run, learnt.name)
        else:  # nothing that read a record or a lesson otherwise has a say in an answer
            speaks = self._speakers.model(speaker, self._learner.fresh)
        said = self._gated(speaks.probs(queries.inputs), queries, question.round)
        noise = system_noise()
        if self._settings.rehearsal:
            # By question, not by round: no two answers may ever share their noise.
            asked = f"{self._settings.name} {question.key}"
            rng = stream(self._learner.seed, asked, question.round, "release")
            noise = rehearsal_noise(rng)
        return self._mechanism.release(said, None, noise)

    def _gated(self, probs: Array, queries: QuerySet, round: int) -> Array:
        gate: Gate = self._learner.build(self._settings.gate)
        rng = stream(self._learner.seed, self._settings.name, round, "gate")
        records = self._learner.records
        if self._mechanism.private:  # `check` takes a gate's word for it; this does not
            records = records.take(np.zeros(0, dtype=np.int64))
        memory = gate.fit(self._settings.space, records, queries, rng)
        return gated(probs, gate.open(self._settings.space, memory, queries.inputs))

    def _remember(
        self, speaker: Speaker | Shards, plan: Mapping[str, Any], charge: str | None
    ) -> None:
        ledger = self._purse.ledger()
        dp = {
            **plan,
            "relation": ledger.relation,
            "filter": ledger.filter,
            "order": ledger.order,
            "delta": ledger.delta,
            "charge": charge,
            "noise": "reproducible, not private" if speaker.reproducible else "operating system",
        }
        made = {"inputs": [self._settings.dataset], "lesson": None, "parent": None}
        self._log_training(f"{speaker.run}/train/speaker", speaker, {**made, "dp": dp})

    def _log_training(self, key: str, speaker: Speaker | Shards, made: Mapping[str, Any]) -> None:
        """Idempotent: what a process that died had kept and not logged is logged now."""
        body = {
            "run": speaker.run,
            "round": getattr(speaker, "round", 0),
            "model": self._settings.model_name,
            "output": speaker.digest,
            "mechanism": self._mechanism.name,
            "seconds": speaker.seconds,
            "leave_with": None,
        }
        self._log.append(key, "train.local", {**body, **made})
