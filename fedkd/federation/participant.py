"""A hospital's running part: a question comes in, and an answer, or a refusal, goes out."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from fedkd import __version__
from fedkd.audit import Log, NotFresh, RolledBack
from fedkd.data import TableSchema
from fedkd.distill.generators.generator import Generator
from fedkd.federation.evaluating import Evaluator, NotEvaluated
from fedkd.federation.excluding import keep_out
from fedkd.federation.learning import CAME, Learner, Learnt, Task
from fedkd.federation.papers import NotSigned, expect_paper
from fedkd.federation.shards import Shards
from fedkd.federation.site import Build, SiteFolder, SiteSettings, Spec
from fedkd.federation.speaking import Speaker
from fedkd.federation.voice import Voice
from fedkd.federation.witnessing import Desk, OtherHistory
from fedkd.knowledge import (
    Array,
    BadInput,
    Digest,
    Distributions,
    Lesson,
    NotInSpace,
    QuerySet,
    Synthetic,
    WrongDigest,
    check_distributions,
)
from fedkd.privacy import BudgetExhausted, Mechanism, PublicFacts
from fedkd.wire import (
    UNKNOWN,
    Answer,
    Closed,
    Codec,
    Envelope,
    Evaluation,
    Malformed,
    Message,
    OtherVersion,
    Present,
    Question,
    Reason,
    Refusal,
    RollCall,
    cover,
    decode,
    encode,
    opened,
)

MOST_QUESTION_BYTES = 1 << 30
FRAME_BYTES = 1 << 14
"""Room for everything in an answer that is not a probability."""


class Refused(Exception):
    """The site does not answer; only the reason's name leaves."""

    def __init__(self, reason: Reason, why: str) -> None:
        self.reason = reason
        super().__init__(why)


def open_participant(folder: Path, build: Build) -> "Participant":
    """The participant whose state is in `folder`; `BadInput` where that is no site's folder."""
    return Participant(SiteFolder(folder), build)


class Participant:
    """One site's part in a federation, rebuilt from its folder for each turn.

    `answer` is all there is: canonical bytes in, canonical bytes out, never an exception's text.
    `settings` and `seed` stand in for the folder's own where a run was agreed on otherwise.
    `expect` raises `Refused` for a message that people here do not want answered, and
    `expect_still` where it may not leave any more once it was made: it comes last in a turn, before
    the log says that anything was let out.
    """

    def __init__(
        self,
        site: SiteFolder,
        build: Build,
        clock: Callable[[], float] = time.time,
        *,
        settings: SiteSettings | None = None,
        seed: int | None = None,
        expect: Callable[[Message, Log], None] = lambda message, log: None,
        expect_still: Callable[[], None] = lambda: None,
    ) -> None:
        self.site = site
        self.settings: SiteSettings = site.settings() if settings is None else settings
        self.build = build
        self.learner = Learner(site, self.settings, build, seed)
        self._clock = clock
        self._expect, self._expect_still = expect, expect_still

    def answer(self, letter: bytes) -> bytes:
        """What leaves in reply to `letter`; kept in the outbox before it does.

        A letter is a message, with or without an envelope; the reply has one if the letter had.
        """
        run, round = UNKNOWN, 0
        with self.site.turn(), self.site.log(self.settings.name) as log:
            desk, enveloped = Desk(log, int(self._clock())), False
            try:
                envelope, message = _read(letter)
                enveloped = envelope is not None
                run, round = message.run, getattr(message, "round", 0)
                self._hear(desk, envelope or Envelope(), message)
                self._expect(message, log)
                reply = self._reply(message, log, desk)
            except Refused as refused:
                reply = self._refusal(log, run, round, refused.reason)
                self._note(traceback.format_exc())
            except (Exception, SystemExit):  # a model that calls sys.exit, too
                reply = self._refusal(log, run, round, Reason.FAILED)
                self._note(traceback.format_exc())
            return self.site.keep_cover(reply, cover(desk.says())) if enveloped else reply

    def _hear(self, desk: Desk, envelope: Envelope, message: Message) -> None:
        """What peers say comes first: a site whose log is an old copy does nothing, and says so."""
        round = getattr(message, "round", 0)
        try:
            acts = isinstance(message, Question | Evaluation)
            desk.hears(envelope, message.run, round, acts=acts)
        except RolledBack as error:
            raise Refused(Reason.ROLLED_BACK, str(error)) from None
        except NotFresh as error:
            raise Refused(Reason.NOT_FRESH, str(error)) from None
        except OtherHistory as error:
            raise Refused(Reason.FORKED, str(error)) from None

    def _reply(self, message: Message, log: Log, desk: Desk) -> bytes:
        if isinstance(message, RollCall):
            return self._send(Present(self.settings.name, message.run, f"fedkd {__version__}"))
        try:
            expect_paper(self.site, self.settings, log, self._mechanism())
        except NotSigned as error:
            raise Refused(Reason.NOT_SIGNED, str(error)) from None
        keep_out(self.site, self.settings.dataset, log)
        if isinstance(message, Question):
            return self._take(message, log, desk)
        if isinstance(message, Evaluation):
            return self._evaluate(message, log, desk)
        raise Refused(Reason.NOT_ACCEPTED, "a message that no server sends")

    def _evaluate(self, evaluation: Evaluation, log: Log, desk: Desk) -> bytes:
        evaluator = Evaluator(self.site, self.settings, self.build, self._expect_still)
        try:
            return evaluator.answer(evaluation, log, desk.server_head)
        except NotEvaluated as error:
            raise Refused(error.reason, str(error)) from None

    def _take(self, question: Question, log: Log, desk: Desk) -> bytes:
        """A turn: cost, charge, log, train or release, log, answer."""
        before = log.entry(f"{question.key}/release")
        if before is not None:  # the same question gets the same answer, free, without fresh noise
            self._expect_still()
            return self.site.outgoing(before.body["payload"])
        self.check(question)
        queries = self._queries(question)
        if question.lesson is not None:
            self._lesson(question)  # before anything is charged or trained
        voice = Voice(self.learner, self.facts(), log, self._note)
        speaker = self._speak(question, queries, voice)
        learnt = self._learn(question, log)
        if question.closing:
            self._expect_still()
            return self._send(
                Closed(self.settings.name, question.run, question.round, question.key)
            )
        said = voice.answer(question, queries, learnt, speaker)
        body, released = self._written(question, said)
        self._expect_still()
        payload = self.site.keep_outgoing(body)
        log.append(
            f"{question.key}/release",
            "release.outputs",
            {
                "run": question.run,
                "round": question.round,
                "question": question.key,
                "queries": question.about,
                "items": len(queries),
                "kind": "distributions",
                "model": learnt.digest if speaker is None else speaker.digest,
                "mechanism": self._mechanism().name,
                "digest": released,
                "payload": payload,
                "recipient": "server",
                "asked_at": desk.server_head,
            },
        )
        self.learner.forget(learnt)
        return body

    def check(self, question: Question) -> None:
        """Raises `Refused` where the question asks for more than the site accepts."""
        accepts, plan = self.settings.accepts, question.plan
        checks = {
            "the loss": plan.loss in accepts.losses,
            "the codec": question.codec in accepts.codecs,
            "the number of queries": 0 < question.size <= accepts.most_queries,
            "the round": 0 < question.round <= accepts.most_rounds,
            "the epochs": max(plan.local_epochs, plan.lesson_epochs) <= accepts.most_epochs,
            "the batch": 0 < plan.batch <= accepts.most_batch,
            "the loss weight": 0 <= plan.loss_weight <= accepts.most_loss_weight,
            "the temperature": 0 < plan.temperature <= accepts.most_temperature,
        }
        for what, accepted in checks.items():
            if not accepted:
                raise Refused(Reason.NOT_ACCEPTED, f"{what} is not accepted here")

    def _queries(self, question: Question) -> QuerySet:
        """The queries asked: from the question, from an earlier one, or drawn again."""
        try:
            if question.queries is not None:
                queries = question.query_set()
            elif self.site.taught.has(question.about):
                queries = self.site.taught.queries(question.about)
            else:
                queries = self._drawn_again(question)
        except WrongDigest as error:
            raise Refused(Reason.UNKNOWN_QUERIES, str(error)) from None
        if len(queries) != question.size:  # what is charged is what is answered
            raise Refused(Reason.MALFORMED, "another number of queries than announced")
        try:
            self.settings.space.check(queries.inputs)
        except NotInSpace as error:
            raise Refused(Reason.OUT_OF_SPACE, str(error)) from None
        self.site.taught.keep_queries(queries)
        return queries

    def _drawn_again(self, question: Question) -> QuerySet:
        origin = question.origin
        if not isinstance(origin, Synthetic) or origin.generator not in self.settings.generators:
            raise WrongDigest("found a query set that this site can neither load nor draw")
        queries = drawn(origin.generator, origin.seed, question.size, self.settings, self.build)
        return queries.expect(question.about)

    def _speak(
        self, question: Question, queries: QuerySet, voice: Voice
    ) -> Speaker | Shards | None:
        """Pays for the turn; what the mechanism needs to answer it is on disk afterwards."""
        try:
            voice.check()  # before anything is charged
        except BadInput as error:
            raise Refused(Reason.NOT_ACCEPTED, str(error)) from None
        try:
            return voice.prepare(question, queries)
        except BudgetExhausted as error:
            raise Refused(Reason.BUDGET_EXHAUSTED, str(error)) from None

    def facts(self) -> PublicFacts:
        """What the price of a turn may depend on."""
        return self.site.facts(len(self.settings.space.classes))

    def next_task(self, question: Question) -> Task | None:
        """The next model that this question wants trained, or None where all are there."""
        if self.learner.learnt(question.run, CAME) is None:
            return self.learner.task_local(question.run, question.plan, question.round)
        name = _model_name(question)
        if question.lesson is None or self.learner.learnt(question.run, name) is not None:
            return None
        lesson = self._lesson(question)
        return self.learner.task_lesson(question.run, name, question.round, lesson, question.plan)

    def _learn(self, question: Question, log: Log) -> Learnt:
        while (task := self.next_task(question)) is not None:
            self._log_learnt(log, self._trained(task), question)
        name = _model_name(question)
        if question.lesson is None:
            name = self.learner.current(question.run)
        learnt = self.learner.learnt(question.run, name)
        if learnt is None:
            raise FileNotFoundError(name)
        self._log_learnt(log, learnt, question)
        return learnt

    def _trained(self, task: Task) -> Learnt:
        """The resident after `task`; under a mechanism its failing is nobody's business.

        Whether it fails depends on records, and it never answers there: a refusal would tell.
        """
        try:
            return self.learner.train(task)
        except (Exception, SystemExit):
            if not self._mechanism().private:
                raise
            self._note(traceback.format_exc())
            return self.learner.unchanged(task)

    def _lesson(self, question: Question) -> Lesson:
        if question.lesson is None:
            raise Refused(Reason.MALFORMED, "a lesson is missing")
        if not self.site.taught.has(question.lesson.about):
            raise Refused(Reason.UNKNOWN_QUERIES, "the lesson is about unknown queries")
        queries = self.site.taught.queries(question.lesson.about)
        if question.lesson.probs.shape != (len(queries), len(self.settings.space.classes)):
            raise Refused(Reason.MALFORMED, "the lesson has another shape than its queries")
        self.site.taught.keep_distributions(question.lesson)
        return Lesson(queries, question.lesson)

    def _log_learnt(self, log: Log, learnt: Learnt, question: Question) -> None:
        log.append(
            f"{learnt.run}/train/{learnt.name}",
            "train.local",
            {
                "run": question.run,
                "round": learnt.round,
                "inputs": [self.settings.dataset],
                "lesson": learnt.lesson,
                "parent": learnt.parent,
                "model": self.settings.model_name,
                "output": learnt.digest,
                "mechanism": "stays at home" if self._mechanism().private else "none",
                "seconds": learnt.seconds,
                "leave_with": learnt.leave_with,
                "dp": None,
            },
        )

    def _written(self, question: Question, released: Array) -> tuple[bytes, Digest]:
        """The answer that says `released` [Q, C], and the digest of what it says."""
        codec = self._codec(question)
        answer = Answer(
            site=self.settings.name,
            run=question.run,
            round=question.round,
            question=question.key,
            about=question.about,
            codec=question.codec,
            coded=codec.encode(Distributions(released, question.about).probs),
        )
        body = encode(answer)
        decoded = self._checked(body, question, codec)
        return body, Distributions(decoded, question.about).digest

    def _checked(self, body: bytes, question: Question, codec: Codec) -> Array:
        """What `body` says to whoever decodes it: distributions of the right size, or it stays."""
        classes = len(self.settings.space.classes)
        most = codec.raw_bytes(question.size, classes) + FRAME_BYTES
        message = decode(body, most)
        if not isinstance(message, Answer):
            raise TypeError("only an answer may hold numbers")
        probs = codec.decode(message.coded, question.size, classes)
        check_distributions(probs)
        return probs

    def _mechanism(self) -> Mechanism:
        mechanism: Mechanism = self.build(self.settings.mechanism)
        return mechanism

    def _codec(self, question: Question) -> Codec:
        codec: Codec = self.build(self.settings.accepts.codecs[question.codec])
        return codec

    def _send(self, message: Present | Closed | Refusal) -> bytes:
        body = encode(message)
        self.site.keep_outgoing(body)
        return body

    def _refusal(self, log: Log, run: str, round: int, reason: Reason) -> bytes:
        if reason is not Reason.ROLLED_BACK:  # whatever is written now would be a second history
            log.append(
                f"refused/{run}/{round}/{reason}",
                "release.refused",
                {"run": run, "round": round, "rule": str(reason)},
            )
        return self._send(Refusal(self.settings.name, run, round, reason))

    def _note(self, text: str) -> None:
        """What went wrong, for the people at this site: it stays in this folder."""
        with (self.site.folder / "errors.txt").open("a") as notes:
            notes.write(text + "\n")


def _read(letter: bytes) -> tuple[Envelope | None, Message]:
    try:
        envelope, body = opened(letter)
        return envelope, decode(body, MOST_QUESTION_BYTES)
    except OtherVersion as error:
        raise Refused(Reason.VERSION, str(error)) from None
    except Malformed as error:
        raise Refused(Reason.MALFORMED, str(error)) from None


def _model_name(question: Question) -> str:
    return f"round-{question.round:06d}"


def drawn(name: str, seed: int, count: int, settings: SiteSettings, build: Build) -> QuerySet:
    """A set of `count` queries as this site's own generator `name` draws it from `seed`."""
    generator = generator_of(build, settings.generators[name], settings)
    return generator.pose(generator.init(seed), None, count)[1]


def generator_of(build: Build, spec: Spec, settings: SiteSettings) -> Generator:
    """The generator that `spec` names, for the space that the federation agreed on."""
    schema = None if settings.schema is None else TableSchema.from_json(dict(settings.schema))
    factory = build({**spec, "_partial_": True})
    generator: Generator = factory(space=settings.space, schema=schema)
    return generator
