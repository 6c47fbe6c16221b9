"""Says what a hospital lets happen at all: its own word, which nobody outside can override."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from fedkd.audit import Log
from fedkd.data import TableSchema
from fedkd.data.bundled import strangers
from fedkd.data.typed_by_hand import listed, mapping_of, read_yaml, text, truth
from fedkd.deploy import would_leave
from fedkd.deploy.drawn_here import drawn_here
from fedkd.deploy.evaluation_proposals import AnyProposal, EvaluationProposal
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.excluding import keep_out
from fedkd.federation.participant import Refused
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import Build, SiteFolder, SiteSettings
from fedkd.knowledge import (
    Array,
    BadInput,
    NotInSpace,
    OtherFormat,
    Public,
    Synthetic,
    most_alike,
)
from fedkd.privacy import Mechanism
from fedkd.wire import Evaluation, Question, Reason

COUNTS: Final = "counts"
"""The one kind of figure that may be asked for: noised counts of a confusion matrix."""
EXACT: Final = "exact_counts"
"""Beside `COUNTS`: also where the budget bounds nothing, so that they leave without noise."""
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_CUT_OFF: Final = "was it cut off? Whoever has nothing to say writes policy: {} or retention: {}"


class NoPolicy(BadInput):
    """What a hospital lets happen cannot be read: nothing does, until somebody mended the file."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The section `policy` of a hospital's site.yaml; what is left out has these values.

    A query set is allowed if its `digest` is listed, or its public `source`, or its `generator`,
    from which the site draws it again itself. A `source` is a name that the coordinator gives: its
    rows are looked up where this installation carries that set, and nowhere else. `most_repeats`
    bounds how often one query may stand in one set. `hours` and days are local time. `figures` are
    those that may be reported: `counts`, and `exact_counts` where no budget bounds them. Where a
    budget bounds what leaves, at least `fewest_cosigners` others must have said within
    `most_unwatched_hours` how far this site's log goes, in a run and in an evaluation. Of
    `most_queries` null is no limit, and what is left out has its default.
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
    most_unwatched_hours: int = 168
    hours: str | None = None
    figures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hours is not None and not _HOURS.fullmatch(self.hours):
            raise BadInput(f"hours: {self.hours!r} in policy", '"08:00-18:00", or null')
        for figure in self.figures:
            if figure not in (COUNTS, EXACT):
                raise BadInput(f"{figure!r} among figures in policy", f"{COUNTS}, or none at all")
        if EXACT in self.figures and COUNTS not in self.figures:
            raise BadInput(f"{EXACT} alone among figures in policy", f"[{COUNTS}, {EXACT}]")

    @staticmethod
    def from_json(told: object) -> "Policy":
        """The policy that a person typed; `BadInput` names what is wrong with it."""
        counts = ("smallest_training_set", "most_rounds", "most_epochs", "most_repeats",
                  "most_unwatched_hours")  # fmt: skip
        keys = ("rehearsals", "query_sets", "most_queries", "fewest_cosigners", "hours", "figures")
        given = mapping_of({} if told is None else told, "policy", (*keys, *counts))
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
            for span, count in most.items():
                made[f"most_queries_a_{span}"] = _count_or_none(count, f"{span} in policy")
        for name in counts:
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
    def of_file(given: Mapping[str, Any]) -> "Policy":
        """The policy in what a whole site.yaml says.

        `BadInput` where there is none, and where `retention`, with which the file ends as fedkd
        writes it, is missing: a file that was cut off would allow what its lost lines forbade.
        """
        if given.get("policy") is None:
            raise BadInput("no section policy", "what this hospital lets happen", _CUT_OFF)
        if "retention" not in given:
            raise BadInput("no retention at its end", "a whole file", _CUT_OFF)
        return Policy.from_json(given["policy"])

    @staticmethod
    def read(path: Path) -> "Policy":
        """The policy in the site.yaml at `path`; `NoPolicy` where it cannot be read."""
        from fedkd.deploy.site_file import FORMAT, KEYS  # that file reads a policy, too

        try:
            # A misspelt `policy` would otherwise be a file without one, and every default allowed.
            given = mapping_of(read_yaml(path), path.name, KEYS)
            if given.get("format") != FORMAT:
                raise OtherFormat(path.name, given.get("format"), FORMAT)
            return Policy.of_file(given)
        except OSError as error:
            raise NoPolicy(f"no {path} ({error.strerror})", "the hospital's own file") from None
        except BadInput as error:
            raise NoPolicy(f"{error.found}, in {path}", error.expected, error.remedy) from None

    def objection(
        self, proposal: RunProposal, settings: SiteSettings, build: Build, patients: int
    ) -> str | None:
        """Why a proposed run is not allowed here, whoever approves it; None where it is.

        `patients` are those whom training would really use.
        """
        mechanism: Mechanism = build(settings.mechanism)
        spends_nothing = settings.rehearsal or not mechanism.private
        asked, query, accepts = proposal.asked, proposal.query, settings.accepts
        epochs = max(asked["local_epochs"], asked["lesson_epochs"])
        named = query.get("source") or query.get("generator")
        names = self.sources if query["kind"] == "public" else self.generators
        queries, most = asked["size"] * asked["rounds"], self.most_queries_a_run
        return _objection(
            self._about_rehearsals(proposal),
            _Limit("query_sets", query.get("digest") in self.digests or named in names,
                   f"{named} {query.get('digest', '')}".strip(),
                   f"one of {', '.join((*names, *self.digests)) or 'none at all'}"),
            _at_most("most_rounds", asked["rounds"], self.most_rounds),
            _at_most("most_epochs", epochs, self.most_epochs),
            _at_most("most_queries a run", queries, queries if most is None else most),
            _Limit("smallest_training_set",
                   settings.rehearsal or patients >= self.smallest_training_set,
                   f"{patients} patients to learn from", f"at least {self.smallest_training_set}"),
            _Limit("mechanism", asked["mechanism"] == mechanism.name,
                   asked["mechanism"], f"{mechanism.name}, this site's own"),
            *(() if spends_nothing else self._about_watching(proposal, settings.name)),
            _among("loss", asked["loss"], accepts.losses),
            _among("codec", asked["codec"], accepts.codecs),
            *_as_counted(proposal, would_leave.of_run(proposal, settings, build)),
        )  # fmt: skip

    def objection_to_figures(
        self, proposal: EvaluationProposal, settings: SiteSettings, *, exact: bool
    ) -> str | None:
        """Why a proposed evaluation is not allowed here, whoever approves it; None where it is.

        `exact` says that the budget bounds nothing: then counts would leave without noise.
        """
        accepts, asked = settings.accepts, proposal.asked
        try:
            counted = would_leave.of_counts(proposal, settings)
        except BadInput as error:
            return f"asked: found {error.found}, expected {error.expected}"
        spends_nothing = settings.rehearsal or exact
        return _objection(
            self._about_rehearsals(proposal),
            _among("figures", COUNTS, self.figures),
            _Limit("figures", EXACT in self.figures or not exact,
                   "counts without noise: the budget bounds nothing", f"[{COUNTS}, {EXACT}]"),
            _Limit("not asked: another hospital is", settings.name in proposal.sites,
                   ", ".join(proposal.sites), settings.name),
            _among("models of evaluations", asked["architecture"], accepts.models),
            _at_most("most_epsilon of evaluations", asked["epsilon"],
                     accepts.most_evaluation_epsilon),
            _at_most("most_rounds", asked["round"], accepts.most_rounds + 1),
            *(() if spends_nothing else self._about_watching(proposal, settings.name)),
            *_as_counted(proposal, counted),
        )  # fmt: skip

    def _about_rehearsals(self, proposal: AnyProposal) -> "_Limit":
        allowed = self.rehearsals or not proposal.rehearsal
        return _Limit("rehearsals", allowed, "a rehearsal", "none, as rehearsals: false says")

    def _about_watching(self, proposal: AnyProposal, site: str) -> "tuple[_Limit, _Limit]":
        """Without others an old copy of the log would spend the budget again, and nobody notice."""
        roster, most = proposal.federated().rosters()[site], 3600 * self.most_unwatched_hours
        cosigners = roster.needed
        return (
            _Limit("fewest_cosigners", cosigners >= self.fewest_cosigners,
                   f"{cosigners} others", f"at least {self.fewest_cosigners}"),
            _Limit("most_unwatched_hours", not cosigners or roster.most_age_s <= most,
                   f"{roster.most_age_s} seconds", f"at most {most}"),
        )  # fmt: skip

    def expect_open(self, now: datetime) -> None:
        """Raises `Refused` outside the hours, by this machine's clock, in which it may leave."""
        if self.hours is None:
            return
        start, end = self.hours.split("-")
        time = now.astimezone().strftime("%H:%M")
        inside = start <= time < end if start <= end else time >= start or time < end
        if not inside:
            raise Refused(Reason.OUTSIDE_POLICY, f"hours: found {time}, expected {self.hours}")


@dataclass(frozen=True, slots=True)
class Guard:
    """Holds each question against what was approved, a run or an evaluation, and the policy."""

    policy: Policy
    proposal: AnyProposal
    site: SiteFolder
    settings: SiteSettings
    build: Build

    def expect(self, question: Question, log: Log, now: datetime) -> None:
        """Raises `Refused` where a question asks for more than was approved, or than is allowed.

        What was approved is held against the policy of now, too: that may have changed since.
        """
        run = self._run()
        keep_out(self.site, self.settings.dataset, log)  # first: who is out is not counted
        patients = self.site.patients_to_learn_from()
        _expect_none(self.policy.objection(run, self.settings, self.build, patients))
        asked, plan = run.asked, question.plan
        approved = _objection(
            _at_most("the rounds", question.round, asked["rounds"] + question.closing),
            _at_most("the number of queries", question.size, asked["size"]),
            _approved("the epochs", (plan.local_epochs, plan.lesson_epochs),
                      (asked["local_epochs"], asked["lesson_epochs"])),
            _approved("the batch", plan.batch, asked["batch"]),
            _approved("the loss", (plan.loss, plan.loss_weight, plan.temperature),
                      (asked["loss"], asked["loss_weight"], asked["temperature"])),
            _approved("the codec", question.codec, asked["codec"]),
        )  # fmt: skip
        _expect_none(approved)
        answered = log.entry(f"{question.key}/release") is not None
        self._expect_queries(question, answered=answered)
        self._expect_lesson(question, log)
        if not question.closing:
            self._expect_few(question, log, now)

    def _run(self) -> RunProposal:
        if not isinstance(self.proposal, RunProposal):
            raise Refused(Reason.NOT_APPROVED, "a question of a run that nobody here approved")
        return self.proposal

    def _expect_queries(self, question: Question, *, answered: bool) -> None:
        """What was `answered` was drawn here then: by the version that ran here at that time."""
        policy, origin, query = self.policy, question.origin, self._run().query
        if isinstance(origin, Synthetic):
            found: tuple[object, ...] = (origin.generator, origin.code, origin.seed)
            name, names = origin.generator, policy.generators
        else:
            found, name, names = (question.about,), origin.name, policy.sources
        told = [query.get(each) for each in ("generator", "code", "seed", "digest")]
        agreed = tuple(each for each in told if each is not None)
        listed_here = (*names, *policy.digests)
        objection = _objection(
            _approved("queries", found, agreed),
            _Limit("query_sets", name in names or question.about in policy.digests,
                   f"{name} {question.about}", f"one of {', '.join(listed_here) or 'none at all'}"),
        )  # fmt: skip
        _expect_none(objection)
        inputs = None
        if question.queries is not None:
            inputs = question.queries
        elif self.site.taught.has(question.about):
            inputs = self.site.taught.queries(question.about).inputs
        if isinstance(origin, Synthetic) and question.about not in policy.digests and not answered:
            inputs = drawn_here(question, origin, self.settings, self.build).inputs
        if inputs is None:
            return
        self._expect_varied(inputs)
        if isinstance(origin, Public) and question.about not in policy.digests:
            _expect_own_rows(origin.name, inputs)

    def _expect_lesson(self, question: Question, log: Log) -> None:
        """About queries that were approved: others would be learnt that nobody here let in."""
        if question.lesson is None:
            return
        released = (entry.said for entry in log.entries("release.outputs"))
        known = {it["queries"] for it in released if it and it["run"] == question.run}
        known.add(question.about)
        _expect_none(
            _objection(_among("the lesson", question.lesson.about, sorted(known - {None})))
        )

    def _expect_varied(self, inputs: Array) -> None:
        space = self.settings.space
        try:
            space.check(inputs)
        except NotInSpace as error:
            raise Refused(Reason.OUT_OF_SPACE, str(error)) from None
        most = most_alike(inputs, *_ranges(self.settings))
        if most > self.policy.most_repeats:
            raise Refused(
                Reason.OUTSIDE_POLICY,
                f"most_repeats: found one query {most} times, expected at most "
                f"{self.policy.most_repeats}",
            )

    def _expect_few(self, question: Question, log: Log, now: datetime) -> None:
        """Of a run, and of a day by this machine's clock; what left before is given again.

        What a person read would leave is an upper bound, too: a round that is asked again, about
        another lesson or fewer queries, is another question, and its rows count.
        """
        if log.entry(f"{question.key}/release") is not None:
            return
        most, today = self.policy.most_queries_a_day, now.astimezone().date()
        a_run = a_day = question.size
        for entry in log.entries("release.outputs"):
            if entry.said is not None:
                a_run += entry.said["items"] * (entry.said["run"] == question.run)
                a_day += entry.said["items"] * (_local_day(entry.at) == today)
        asked, rows = self.proposal.asked, self.proposal.would_leave["rows"]
        objection = _objection(
            _at_most("the rows", a_run, min(rows, asked["rounds"] * asked["size"])),
            _at_most("most_queries a day", a_day, a_day if most is None else most),
        )
        _expect_none(objection)

    def expect_evaluation(self, evaluation: Evaluation, log: Log) -> None:
        """Raises `Refused` where no figures may be reported, or nobody approved these."""
        _expect_none(_objection(_among("figures", COUNTS, self.policy.figures)))
        proposal = self.proposal
        if not isinstance(proposal, EvaluationProposal) or not proposal.asks(evaluation):
            raise Refused(Reason.NOT_APPROVED, "an evaluation that nobody here approved")
        exact = counts_are_exact(log, self.settings)
        _expect_none(self.policy.objection_to_figures(proposal, self.settings, exact=exact))


class _Limit(NamedTuple):
    """One rule of a policy, and whether what is asked keeps it."""

    rule: str
    kept: bool
    found: str
    expected: str


def _at_most(rule: str, found: float, most: float) -> _Limit:
    return _Limit(rule, found <= most, f"{found}", f"at most {most}")


def _as_counted(proposal: AnyProposal, counted: Mapping[str, int]) -> list[_Limit]:
    """What a person reads would leave is what this site counts, number by number."""
    said = proposal.would_leave
    return [
        _Limit(f"{name} in would_leave", said[name] == count, f"{said[name]}", f"{count}")
        for name, count in counted.items()
    ]


def _approved(rule: str, found: object, agreed: object) -> _Limit:
    return _Limit(rule, found == agreed, f"{found}", f"{agreed}, as approved")


def _among(rule: str, found: str, allowed: Iterable[str]) -> _Limit:
    names = list(allowed)
    return _Limit(rule, found in names, found, f"one of {', '.join(names) or 'none at all'}")


def _objection(*limits: _Limit) -> str | None:
    """The first rule that is not kept, with what was found and what was expected."""
    broken = (it for it in limits if not it.kept)
    return next((f"{it.rule}: found {it.found}, expected {it.expected}" for it in broken), None)


def _expect_own_rows(source: str, inputs: Array) -> None:
    """Looked up in what this installation carries; any other name is the coordinator's word."""
    odd = strangers(source, inputs)
    if odd:
        raise Refused(
            Reason.OUTSIDE_POLICY,
            f"query_sets: found {odd} of {len(inputs)} rows that are not of {source}, expected 0",
        )


def _expect_none(objection: str | None) -> None:
    if objection is not None:
        raise Refused(Reason.OUTSIDE_POLICY, objection)


def counts_are_exact(log: Log, settings: SiteSettings) -> bool:
    """Whether the budget that is installed bounds nothing; a rehearsal counts nobody."""
    try:
        return not settings.rehearsal and ledger_of(log, settings.population).epsilon is None
    except KeyError:  # no paper yet: nothing is counted
        return False


def _ranges(settings: SiteSettings) -> tuple[Any, Any]:
    """From where to where each entry of a query goes: by column of a table, else of them all."""
    if settings.schema is None:
        return settings.space.low, settings.space.high
    return TableSchema.from_json(dict(settings.schema)).ranges


def _local_day(at: str) -> date:
    return datetime.fromisoformat(at).astimezone().date()


def _count(value: object, where: str, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise BadInput(f"{value!r} as {where}", f"a whole number of at least {least}")
    return value


def _count_or_none(value: object, where: str) -> int | None:
    return None if value is None else _count(value, where)
