"""Says what a hospital lets happen at all: its own word, which nobody outside can override."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fedkd.audit import Log
from fedkd.data.typed_by_hand import listed, mapping_of, read_yaml, text, truth
from fedkd.deploy.evaluation_proposals import AnyProposal, EvaluationProposal
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.participant import Refused, generator_of
from fedkd.federation.site import Build, SiteFolder, SiteSettings
from fedkd.knowledge import (
    Array,
    BadInput,
    NotInSpace,
    QuerySet,
    Synthetic,
    WrongDigest,
    most_alike,
)
from fedkd.privacy import Mechanism
from fedkd.wire import Evaluation, Question, Reason

COUNTS: Final = "counts"
"""The one kind of figure that may be asked for: noised counts of a confusion matrix."""
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Policy:
    """The section `policy` of a hospital's site.yaml; what is left out has these values.

    A query set is allowed if its `digest` is listed, or its public `source`, or its `generator`,
    from which the site draws it again itself. `most_repeats` bounds how often one query may stand
    in one set. `hours` are local time. `figures` are those that may be reported: `counts`. Of a
    private run at least `fewest_cosigners` others must say how far this site's log goes.
    """

    rehearsals: bool = True
    digests: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    generators: tuple[str, ...] = ("dictionary",)
    most_queries_a_run: int | None = 20_000
    most_queries_a_day: int | None = 50_000
    smallest_training_set: int = 50
    most_rounds: int = 100
    most_epochs: int = 200
    most_repeats: int = 10
    fewest_cosigners: int = 1
    hours: str | None = None
    figures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hours is not None and not _HOURS.fullmatch(self.hours):
            raise BadInput(f"hours: {self.hours!r} in policy", '"08:00-18:00", or null')
        for figure in self.figures:
            if figure != COUNTS:
                raise BadInput(f"{figure!r} among figures in policy", f"{COUNTS}, or none at all")

    @staticmethod
    def from_json(told: object) -> "Policy":
        """The policy that a person typed; `BadInput` names what is wrong with it."""
        keys = ("rehearsals", "query_sets", "most_queries", "smallest_training_set", "most_rounds",
                "most_epochs", "most_repeats", "fewest_cosigners", "hours", "figures")  # fmt: skip
        given = mapping_of({} if told is None else told, "policy", keys)
        made: dict[str, Any] = {}
        if "rehearsals" in given:
            made["rehearsals"] = truth(given["rehearsals"], "rehearsals in policy")
        if "query_sets" in given:
            kinds = ("digests", "sources", "generators")
            sets = mapping_of(given["query_sets"], "query_sets in policy", kinds)
            for kind in kinds:
                made[kind] = tuple(text(one, kind) for one in listed(sets.get(kind, []), kind))
        if "most_queries" in given:
            most = mapping_of(given["most_queries"], "most_queries in policy", ("run", "day"))
            for span in ("run", "day"):
                made[f"most_queries_a_{span}"] = _count_or_none(most.get(span), f"{span} in policy")
        for name in ("smallest_training_set", "most_rounds", "most_epochs", "most_repeats"):
            if name in given:
                made[name] = _count(given[name], f"{name} in policy")
        if "fewest_cosigners" in given:
            fewest = given["fewest_cosigners"]
            made["fewest_cosigners"] = _count(fewest, "fewest_cosigners in policy", least=0)
        if given.get("hours") is not None:
            made["hours"] = text(given["hours"], "hours in policy")
        if "figures" in given:
            made["figures"] = tuple(text(one, "figures") for one in listed(given["figures"], ""))
        return Policy(**made)

    @staticmethod
    def read(path: Path) -> "Policy":
        """The policy in the site.yaml at `path`."""
        return Policy.from_json(read_yaml(path).get("policy"))

    def objection(
        self, proposal: RunProposal, settings: SiteSettings, mechanism: Mechanism, patients: int
    ) -> str | None:
        """Why a proposed run is not allowed here, whoever approves it; None where it is."""
        spends_nothing = settings.rehearsal or not mechanism.private
        asked, query = proposal.asked, proposal.query
        epochs = max(asked["local_epochs"], asked["lesson_epochs"])
        named = query.get("source") or query.get("generator")
        queries = asked["size"] * asked["rounds"]
        checks = {
            "rehearsals": self.rehearsals or not proposal.rehearsal,
            "query_sets": query.get("digest") in self.digests
            or named in (self.sources if query["kind"] == "public" else self.generators),
            "most_rounds": asked["rounds"] <= self.most_rounds,
            "most_epochs": epochs <= self.most_epochs,
            "most_queries a run": self.most_queries_a_run is None
            or queries <= self.most_queries_a_run,
            "smallest_training_set": patients >= self.smallest_training_set or settings.rehearsal,
            "mechanism": asked["mechanism"] == mechanism.name,
            # Without them an old copy of the log would spend the budget again, and nobody notice.
            "fewest_cosigners": spends_nothing
            or cosigners_needed(proposal, settings.name) >= self.fewest_cosigners,
            "loss": asked["loss"] in settings.accepts.losses,
            "codec": asked["codec"] in settings.accepts.codecs,
        }
        return next((rule for rule, allowed in checks.items() if not allowed), None)

    def objection_to_figures(
        self, proposal: EvaluationProposal, settings: SiteSettings
    ) -> str | None:
        """Why a proposed evaluation is not allowed here, whoever approves it; None where it is."""
        accepts, asked = settings.accepts, proposal.asked
        classes = len(settings.space.classes)
        checks = {
            "rehearsals": self.rehearsals or not proposal.rehearsal,
            "figures": COUNTS in self.figures,
            "not asked: another hospital is": settings.name in proposal.sites,
            "models of evaluations": asked["architecture"] in accepts.models,
            "most_epsilon of evaluations": asked["epsilon"] <= accepts.most_evaluation_epsilon,
            "most_rounds": asked["round"] <= accepts.most_rounds + 1,
            "classes": proposal.would_leave["classes"] == classes,
        }
        return next((rule for rule, allowed in checks.items() if not allowed), None)

    def expect_open(self, now: datetime) -> None:
        """Raises `Refused` outside the hours, by this machine's clock, in which it may leave."""
        if self.hours is None:
            return
        start, end = self.hours.split("-")
        time = now.astimezone().strftime("%H:%M")
        inside = start <= time < end if start <= end else time >= start or time < end
        if not inside:
            raise Refused(Reason.OUTSIDE_POLICY, f"hours: {time} is outside {self.hours}")


@dataclass(frozen=True, slots=True)
class Guard:
    """Holds each question against what was approved, a run or an evaluation, and the policy."""

    policy: Policy
    proposal: AnyProposal
    site: SiteFolder
    settings: SiteSettings
    build: Build

    def expect(self, question: Question, log: Log, now: datetime) -> None:
        """Raises `Refused` where a question asks for more than was approved, or than is allowed."""
        asked, plan = self._run().asked, question.plan
        approved = {
            "the rounds": question.round <= asked["rounds"] + (1 if question.closing else 0),
            "the number of queries": question.size <= asked["size"],
            "the epochs": (plan.local_epochs, plan.lesson_epochs)
            == (asked["local_epochs"], asked["lesson_epochs"]),
            "the batch": plan.batch == asked["batch"],
            "the loss": (plan.loss, plan.loss_weight, plan.temperature)
            == (asked["loss"], asked["loss_weight"], asked["temperature"]),
            "the codec": question.codec == asked["codec"],
        }
        for what, agreed in approved.items():
            if not agreed:
                raise Refused(Reason.OUTSIDE_POLICY, f"{what}: other than approved")
        if question.closing:
            return
        self._expect_queries(question)
        self._expect_few(question, log, now)

    def _run(self) -> RunProposal:
        if not isinstance(self.proposal, RunProposal):
            raise Refused(Reason.NOT_APPROVED, "a question of a run that nobody here approved")
        return self.proposal

    def _expect_queries(self, question: Question) -> None:
        policy, origin, query = self.policy, question.origin, self._run().query
        if isinstance(origin, Synthetic):
            same = query["kind"] == "synthetic" and (
                (origin.generator, origin.code, origin.seed)
                == (query["generator"], query["code"], query["seed"])
            )
            listed_here = origin.generator in policy.generators
        else:
            same = query["kind"] == "public" and question.about == query["digest"]
            listed_here = origin.name in policy.sources
        if not same:
            raise Refused(Reason.OUTSIDE_POLICY, "queries: others than approved")
        if question.about not in policy.digests and not listed_here:
            raise Refused(Reason.OUTSIDE_POLICY, f"query_sets: {question.about} is not listed")
        inputs = None
        if question.queries is not None:
            inputs = question.queries
        elif self.site.taught.has(question.about):
            inputs = self.site.taught.queries(question.about).inputs
        if isinstance(origin, Synthetic) and question.about not in policy.digests:
            inputs = self._drawn(question, origin).inputs
        if inputs is not None:
            self._expect_varied(inputs)

    def _drawn(self, question: Question, origin: Synthetic) -> QuerySet:
        """The set drawn here: that it was made by a generator is nothing to take on trust."""
        if origin.generator not in self.settings.generators:
            raise Refused(Reason.OUTSIDE_POLICY, f"query_sets: {origin.generator} is not here")
        spec = self.settings.generators[origin.generator]
        generator = generator_of(self.build, spec, self.settings)
        _, queries = generator.pose(generator.init(origin.seed), None, question.size)
        try:
            return queries.expect(question.about)
        except WrongDigest:
            raise Refused(
                Reason.OUTSIDE_POLICY, f"query_sets: {origin.generator} does not make this set"
            ) from None

    def _expect_varied(self, inputs: Array) -> None:
        space = self.settings.space
        try:
            space.check(inputs)
        except NotInSpace as error:
            raise Refused(Reason.OUT_OF_SPACE, str(error)) from None
        most = most_alike(inputs, space.low, space.high)
        if most > self.policy.most_repeats:
            raise Refused(
                Reason.OUTSIDE_POLICY,
                f"most_repeats: one query {most} times, at most {self.policy.most_repeats}",
            )

    def _expect_few(self, question: Question, log: Log, now: datetime) -> None:
        """Of a run, and of a day in UTC; an answer that left before is given again.

        What a person read would leave is an upper bound, too: a round that is asked again, about
        another lesson or fewer queries, is another question, and its rows count.
        """
        if log.entry(f"{question.key}/release") is not None:
            return
        policy, today = self.policy, now.strftime("%Y-%m-%d")
        a_run = a_day = question.size
        for entry in log.entries("release.outputs"):
            if entry.said is not None:
                a_run += entry.said["items"] * (entry.said["run"] == question.run)
                a_day += entry.said["items"] * entry.at.startswith(today)
        asked, rows = self.proposal.asked, self.proposal.would_leave["rows"]
        if a_run > min(rows, asked["rounds"] * asked["size"]):
            raise Refused(Reason.OUTSIDE_POLICY, f"the rows: {a_run}, other than approved")
        for span, count, most in (
            ("run", a_run, policy.most_queries_a_run),
            ("day", a_day, policy.most_queries_a_day),
        ):
            if most is not None and count > most:
                raise Refused(
                    Reason.OUTSIDE_POLICY,
                    f"most_queries: {count} in this {span}, at most {most}",
                )

    def expect_evaluation(self, evaluation: Evaluation) -> None:
        """Raises `Refused` where no figures may be reported, or nobody approved these."""
        if COUNTS not in self.policy.figures:
            raise Refused(Reason.OUTSIDE_POLICY, f"figures: {COUNTS} may not be reported")
        proposal = self.proposal
        if not isinstance(proposal, EvaluationProposal) or not proposal.asks(evaluation):
            raise Refused(Reason.NOT_APPROVED, "an evaluation that nobody here approved")


def cosigners_needed(proposal: RunProposal, site: str) -> int:
    """How many others have to have said lately how far the site's log goes; 0: it acts alone."""
    roster = proposal.federated().rosters()[site]
    return roster.threshold if roster.cosigners else 0


def _count(value: object, where: str, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise BadInput(f"{value!r} as {where}", f"a whole number of at least {least}")
    return value


def _count_or_none(value: object, where: str) -> int | None:
    return None if value is None else _count(value, where)
