"""Conducts a federation, round by round: who does what, when."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fedkd.audit import Log
from fedkd.distill import Classifier, load_weights, save_weights
from fedkd.distill.generators.generator import Generator
from fedkd.federation.admission import Admitted, acknowledged, admit, wants_inputs
from fedkd.federation.asking import UNSENT, Ask, Reply, Traffic
from fedkd.federation.checkpoint import Checkpoint, ServerFolder
from fedkd.federation.exchange import Exchange
from fedkd.federation.randomness import SERVER, stream
from fedkd.knowledge import (
    Aggregator,
    Answers,
    BadInput,
    Consensus,
    Digest,
    Distributions,
    Filter,
    Lesson,
    Memory,
    QuerySet,
    Synthetic,
    digest_of_arrays,
    digest_of_bytes,
    origin_to_json,
)
from fedkd.knowledge.measures import agreement, effective_classes, mean_entropy
from fedkd.wire import Codec, Plan, Question, encode


class NoQuorum(RuntimeError):
    """Too few sites answered: the run stops, keeps what it has, and can be resumed."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts that one federation is made of; each is one file behind one yaml."""

    generator: Generator
    filter: Filter
    aggregate: Aggregator
    lesson: Callable[[Distributions], Distributions]
    teach: Callable[[Classifier, Sequence[Lesson], int], Classifier]
    codec: Codec
    codec_name: str
    names: Mapping[str, str]
    """What aggregate, filter and student are called in the configuration."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of the sites, and how many have to answer.

    `quorum` is the share of the sites asked, `fraction` the share of the roster that is asked.
    """

    run: str
    seed: int
    rounds: int
    classes: int
    queries: int
    plan: Plan
    quorum: float
    fraction: float = 1.0
    named_queries: bool = False


class Watch(Protocol):
    """Who looks on: a progress display, or a simulation's observer."""

    def round_begins(self, round: int, rounds: int, asked: Sequence[str]) -> None:
        """A round's questions are about to leave; `round` is above `rounds` for the closing."""

    def reply(self, reply: Reply) -> None:
        """A reply came in."""

    def round_ends(self, row: dict[str, Any], student: Classifier) -> dict[str, Any]:
        """A round is over; returns figures to be added to the row of metrics."""


def share_of(count: int, share: float) -> int:
    """`share` of `count`, rounded up to at least one; 0.07 of 100 is 7, not 8."""
    return max(1, math.ceil(round(share * count, 9)))


class Conductor:
    """The server's part in one run; everything it decides is logged before it has an effect."""

    def __init__(
        self,
        folder: Path,
        rules: Rules,
        terms: Terms,
        student: Classifier,
        log: Log,
        watch: Watch,
        elapsed: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.server = ServerFolder(folder / "server")
        self.exchange = Exchange(folder / "exchange")
        self.rules, self.terms, self.log, self.watch = rules, terms, log, watch
        self.state = self.server.load()
        self._elapsed, self._wall_before = elapsed, self.state.wall_seconds
        self.student = student
        if self.state.student is not None:
            weights = load_weights(self.server.folder / self.state.student)
            self.student = student.with_weights(weights)

    def conduct(self, ask: Ask, roster: Sequence[str]) -> Checkpoint:
        """All rounds that are still to come, and the closing question."""
        terms = self.terms
        while self.state.round < terms.rounds:
            self._round(ask, self._asked(roster, self.state.round + 1))
        if not self.state.closed:
            self._close(ask, sorted(roster))
        self.state.wall_seconds = self._wall_before + self._elapsed()
        return self.state

    def _asked(self, roster: Sequence[str], round: int) -> list[str]:
        count = share_of(len(roster), self.terms.fraction)
        sites = sorted(roster)
        if count == len(sites):
            return sites
        rng = stream(self.terms.seed, SERVER, round, "sample")
        return sorted(rng.choice(sites, size=count, replace=False).tolist())

    def _round(self, ask: Ask, asked: list[str]) -> None:
        number = self.state.round + 1
        began = time.perf_counter()
        before = (sum(self.state.traffic.up.values()), sum(self.state.traffic.down.values()))
        self.watch.round_begins(number, self.terms.rounds, asked)
        memory, queries = self._pose(number)
        question = self._question(number, queries, closing=False)
        admitted = self._answers(ask, asked, question, queries)
        answers = Answers.of(admitted.said)
        filter_memory, kept = self.rules.filter.keep(
            self._memory("filter", self.rules.filter.init), answers
        )
        aggregate_memory, consensus = self.rules.aggregate.combine(
            self._memory("aggregate", self.rules.aggregate.init), kept.answers
        )
        if consensus.by_site is not None:
            raise BadInput("a rule with a consensus for each site", "one for all: no other is sent")
        lesson = self.rules.lesson(consensus.common)
        left_out = {**admitted.left_out, **kept.left_out}
        self._log_combined(number, kept.answers.sites, admitted, consensus, lesson, left_out)
        taught_at = time.perf_counter()
        self.student = self._teach(number, Lesson(queries, consensus.common))
        state = self.state
        state.teach_seconds += time.perf_counter() - taught_at
        state.memories = {
            "filter": filter_memory,
            "aggregate": aggregate_memory,
            "generator": self.rules.generator.learn(memory, queries, consensus, self.student),
        }
        state.round, state.lesson = number, lesson.digest
        for site, reason in left_out.items():
            self._note_left_out(site, number, reason)
        row = {
            "round": number,
            "asked": len(asked),
            "answered": len(admitted.said),
            "left_out": sorted(left_out),
            "agreement": agreement(kept.answers.probs),
            "effective_classes": effective_classes(consensus.common.probs),
            "mean_entropy": mean_entropy(consensus.common.probs),
            "bytes_up": sum(state.traffic.up.values()) - before[0],
            "bytes_down": sum(state.traffic.down.values()) - before[1],
            "seconds": time.perf_counter() - began,
        }
        state.metrics.append(self.watch.round_ends(row, self.student))
        state.wall_seconds = self._wall_before + self._elapsed()
        self.server.save(state)
        self._forget_old_students()

    def _pose(self, number: int) -> tuple[Memory, QuerySet]:
        generator = self.rules.generator
        memory = self._memory("generator", lambda: generator.init(self.terms.seed))
        memory, queries = generator.pose(memory, self.student, self.terms.queries)
        self.exchange.keep_queries(queries)
        if isinstance(queries.origin, Synthetic):
            self._log_generated(number, queries, queries.origin)
        self.log.append(
            f"{self.terms.run}/{number}/posed",
            "queries.posed",
            {
                "run": self.terms.run,
                "round": number,
                "digest": queries.digest,
                "origin": origin_to_json(queries.origin),
                "count": len(queries),
                "shape": list(queries.inputs.shape[1:]),
            },
        )
        return memory, queries

    def _log_generated(self, number: int, queries: QuerySet, made: Synthetic) -> None:
        self.log.append(
            f"{self.terms.run}/{number}/generated",
            "synthetic.generated",
            {
                "run": self.terms.run,
                "round": number,
                "generator": made.generator,
                "code": made.code,
                "seed": made.seed,
                "parents": list(made.parents),
                "student": made.student,
                "count": len(queries),
                "digest": queries.digest,
                "marking": "synthetic queries: they are nobody's records",
                "dp": None,
            },
        )

    def _question(self, number: int, queries: QuerySet, *, closing: bool) -> Question:
        lesson = self.state.lesson
        return Question(
            run=self.terms.run,
            round=number,
            closing=closing,
            about=queries.digest,
            origin=queries.origin,
            size=len(queries),
            queries=None,
            lesson=self.exchange.distributions(lesson) if lesson else None,
            plan=self.terms.plan,
            codec=self.rules.codec_name,
        )

    def _answers(
        self, ask: Ask, asked: list[str], question: Question, queries: QuerySet
    ) -> Admitted:
        """The answers of a round: those that the log already names, or those that come in now."""
        key = f"{question.run}/{question.round}/admitted"
        entry = self.log.entry(key)
        if entry is not None:
            said = {
                site: self.exchange.distributions(digest)
                for site, digest in entry.body["answers"].items()
            }
            self.state.traffic = Traffic(**entry.body["traffic"])
            self.state.holders = dict(entry.body["holders"])
            return Admitted(said, entry.body["left_out"])
        self._log_lesson(question, asked)
        replies = self._ask(ask, asked, question, queries)
        admitted = admit(replies, question, self.terms.classes, self.rules.codec)
        heads = {it.site: it.head for it in replies if it.head and it.site in admitted.said}
        # Before the log fixes who was heard: a run that is resumed asks those who were silent.
        self._expect_quorum(admitted, asked, question.round)
        digests = {
            site: self.exchange.keep_distributions(said)
            for site, said in sorted(admitted.said.items())
        }
        traffic = self.state.traffic
        self.log.append(
            key,
            "answers.admitted",
            {
                "run": question.run,
                "round": question.round,
                "question": question.key,
                "answers": digests,
                "left_out": dict(admitted.left_out),
                "traffic": asdict(traffic),
                "holders": self.state.holders,
                "checkpoints": {s: {"size": n, "root": root} for s, (n, root) in heads.items()},
            },
        )
        return admitted

    def _ask(
        self, ask: Ask, sites: list[str], question: Question, queries: QuerySet
    ) -> list[Reply]:
        """Asks, and sends the inputs once to a site that asks for what was only named."""
        holders = self.state.holders.setdefault(queries.digest, [])
        named = self.terms.named_queries
        bare = encode(question)
        whole = encode(replace(question, queries=queries.inputs))
        bodies = {site: bare if named or site in holders else whole for site in sites}
        replies = {reply.site: reply for reply in self._send(ask, bodies, question.round)}
        again = {
            site: whole
            for site, reply in replies.items()
            if bodies[site] is bare and wants_inputs(reply)
        }
        if again:
            replies |= {reply.site: reply for reply in self._send(ask, again, question.round)}
        told = {*again, *(site for site in sites if bodies[site] is whole)}
        heard = {site for site in told if replies[site].body is not None}
        self.state.holders[queries.digest] = sorted({*holders, *heard})
        return [replies[site] for site in sorted(replies)]

    def _send(self, ask: Ask, bodies: Mapping[str, bytes], round: int) -> list[Reply]:
        replies = ask(bodies, self.watch.reply, round=round)
        for reply in replies:
            if reply.failure not in UNSENT:
                self.state.traffic.sent(reply.site, len(bodies[reply.site]) + reply.rode[0])
            if reply.body is not None:
                self.state.traffic.received(reply.site, len(reply.body) + reply.rode[1])
        return replies

    def _expect_quorum(self, admitted: Admitted, asked: list[str], number: int) -> None:
        # A consensus of one would be that hospital's own answers, handed to all the others.
        needed = max(share_of(len(asked), self.terms.quorum), min(2, len(asked)))
        if len(admitted.said) >= needed:
            return
        self.server.save(self.state)  # what was sent was sent, although the round is asked again
        reasons = "; ".join(f"{site}: {why}" for site, why in sorted(admitted.left_out.items()))
        found = (
            f"round {number}: found {len(admitted.said)} answers, expected at least {needed} of "
            f"{len(asked)}; {reasons}"
        )
        body = {"kind": "no quorum", "component": "rounds", "run": self.terms.run, "found": found}
        named = digest_of_bytes(found.encode())
        self.log.append(f"{self.terms.run}/{number}/quorum/{named}", "error.raised", body)
        raise NoQuorum(found)

    def _log_lesson(self, question: Question, asked: list[str]) -> None:
        if question.lesson is not None:
            self.log.append(
                f"{question.run}/{question.round}/lesson/{_named(asked)}",
                "lesson.sent",
                {
                    "run": question.run,
                    "round": question.round,
                    "queries": question.lesson.about,
                    "consensus": question.lesson.digest,
                    "recipients": asked,
                },
            )

    def _log_combined(
        self,
        number: int,
        sites: Sequence[str],
        admitted: Admitted,
        consensus: Consensus,
        lesson: Distributions,
        left_out: Mapping[str, str],
    ) -> None:
        self.exchange.keep_distributions(consensus.common)
        self.exchange.keep_distributions(lesson)
        self.log.append(
            f"{self.terms.run}/{number}/combined",
            "aggregate.computed",
            {
                "run": self.terms.run,
                "round": number,
                "inputs": {site: admitted.said[site].digest for site in sites},
                "left_out": dict(left_out),
                "rule": self.rules.names["aggregate"],
                "filter": self.rules.names["filter"],
                "output": consensus.common.digest,
                "lesson": lesson.digest,
            },
        )

    def _teach(self, number: int, lesson: Lesson) -> Classifier:
        before = self.log.entry(f"{self.terms.run}/{number - 1}/student")
        student = self.rules.teach(self.student, [lesson], number)
        weights = student.weights()
        if weights is None:
            raise TypeError("the student must be a model with weights")
        name = f"student-{number:06d}.safetensors"
        save_weights(self.server.folder / name, weights)
        self.log.append(
            f"{self.terms.run}/{number}/student",
            "student.updated",
            {
                "run": self.terms.run,
                "round": number,
                "inputs": [lesson.consensus.digest],
                "queries": lesson.consensus.about,
                "parent": None if before is None else before.body["output"],
                "model": self.rules.names["student"],
                "output": digest_of_arrays({"kind": "model"}, weights),
            },
        )
        self.state.student = name
        return student

    def _close(self, ask: Ask, sites: list[str]) -> None:
        number = self.terms.rounds + 1
        self.watch.round_begins(number, self.terms.rounds, sites)
        lesson = self.exchange.distributions(str(self.state.lesson))
        queries = self.exchange.queries(lesson.about)
        question = self._question(number, queries, closing=True)
        self._log_lesson(question, sites)
        replies = self._ask(ask, sites, question, queries)
        for reply in replies:
            problem = acknowledged(reply, question)
            if problem:
                self._note_left_out(reply.site, number, problem)
        self.state.closed = True
        self.server.save(self.state)

    def _note_left_out(self, site: str, number: int, reason: str) -> None:
        note = {"round": number, "reason": reason}
        self.state.left_out.setdefault(site, []).append(note)

    def _memory(self, rule: str, init: Callable[[], Memory]) -> Memory:
        return self.state.memories[rule] if rule in self.state.memories else init()

    def _forget_old_students(self) -> None:
        for path in self.server.folder.glob("student-*.safetensors"):
            if path.name != self.state.student:
                path.unlink()


def _named(sites: Sequence[str]) -> Digest:
    # A run that goes on may find other sites there than before: that is another sending.
    return digest_of_bytes("\n".join(sites).encode())
