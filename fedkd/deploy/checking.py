"""Checks a hospital on its own data before anything runs: what would be learnt, paid and sent.

What it says counts records and names figures of them. It is handed to whoever asked at the
hospital, and written to no log and no place from which anything leaves.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedkd.data import Dataset, TableSchema
from fedkd.data.mapped import PATIENT
from fedkd.data.tables import WrongColumns
from fedkd.deploy.column_check import check_table
from fedkd.deploy.founding import (
    Part,
    dataset_of,
    federation_of,
    frame_of,
    settings_of,
    split_of,
    to_learn_from,
)
from fedkd.deploy.hospital import Hospital, hospital_at
from fedkd.deploy.locked import SITE, in_words, keys_of_hospital, standing_of_keys
from fedkd.deploy.policy import COUNTS, EXACT, Policy
from fedkd.deploy.retention import check_retention
from fedkd.deploy.site_file import SiteFile
from fedkd.deploy.verdicts import Verdict, not_tried, passed, problem
from fedkd.federation.papers import NotSigned, expect_paper
from fedkd.federation.paying import ledger_of, opening
from fedkd.federation.site import SEED, Build, SiteFolder, SiteSettings, facts_of
from fedkd.federation.trying import sizes_of_messages, try_step
from fedkd.knowledge import BadInput
from fedkd.privacy import Ledger, Mechanism, PublicFacts, TrainingPlan
from fedkd.privacy.planning import epsilon_of_cost

EXAMPLE_QUERIES = 1000
EXAMPLE_EPSILON = 1.0
"""What `fedkd privacy budget new` proposes."""
COST = ("model", "step", "cost", "leaves")


@dataclass(frozen=True, slots=True)
class _Planned:
    """The verdict on the price, and the plan that a step can be tried with: None for an open one.

    `of_site` says that the plan is about the training records of the founded site, `bounded` that
    the budget bounds what answers tell, or would once it is signed.
    """

    verdict: Verdict
    plan: TrainingPlan | None
    of_site: bool = False
    bounded: bool = True


def check_hospital(folder: Path, part: Part, build: Build) -> Iterator[Verdict]:
    """Verdicts on a hospital's folder: its file, data, model, price, and what would leave.

    `part` gives the checked spec of an installed part, `build` makes it. `BadInput` where the
    folder is none of a hospital that joined.
    """
    hospital = hospital_at(folder)
    yield _private(hospital)
    yield _sealed(hospital)
    try:
        federation = federation_of(hospital)
    except BadInput as error:
        yield _wrong("federation", error)
        return
    columns = len(federation.schema.columns) if federation.schema else None
    form = f"{columns} columns" if columns else f"{federation.space.kind} {federation.space.shape}"
    classes = ", ".join(federation.space.classes)
    yield passed("federation", f"{federation.name}: {form}; {classes}; signed by its key")
    try:
        site_file = SiteFile.read(hospital.site_yaml)
    except BadInput as error:
        yield _wrong("site.yaml", error)
        return
    yield passed("site.yaml", f"{site_file.model.name}, mechanism {site_file.mechanism.name}")
    now = datetime.now(UTC)
    yield passed("hours", _hours(site_file.policy, now.astimezone()))
    yield check_retention(hospital, site_file, now)
    known = False
    if federation.schema is not None:
        for verdict in _table(hospital, site_file, federation.schema):
            known = known or verdict.outcome == "problem"
            yield verdict
    try:
        dataset = dataset_of(hospital, site_file)
    except (BadInput, OSError) as error:
        if not known:
            yield _wrong("records", error)
        for check in COST:
            yield not_tried(check, "the records cannot be read yet")
        return
    yield from _records(hospital, site_file, dataset, federation.schema is not None)
    yield from _would_do(hospital, site_file, dataset, part, build)


def _hours(policy: Policy, now: datetime) -> str:
    """When something may leave, and by which clock: containers know no zone but UTC by themselves.

    `now` is local time.
    """
    when = "at any hour" if policy.hours is None else policy.hours
    return f"{when}; here it is {now:%H:%M}, {now:%Z} (UTC{now:%z}), as for most_queries a day"


def _private(hospital: Hospital) -> Verdict:
    # With a letterbox of its own user, its group may enter the folder, run/ and letterbox/.
    entered = hospital.folder.stat().st_mode & stat.S_IRWXG
    group = hospital.run.stat().st_gid if entered and hospital.run.exists() else None
    try:
        hospital.expect_private(group)
    except BadInput as error:
        return _wrong("folder", error)
    return passed("folder", f"{hospital.folder}: nobody else may read what is private")


def _sealed(hospital: Hospital) -> Verdict:
    told = standing_of_keys(hospital.folder, keys_of_hospital(hospital))
    command = f"{SITE} {hospital.folder}"
    said = in_words(told, command)
    if told["plain"]:
        return problem("keys", said, command)
    return passed("keys", said)


def _table(hospital: Hospital, site_file: SiteFile, schema: TableSchema) -> Iterator[Verdict]:
    try:
        frame = frame_of(hospital, site_file)
    except WrongColumns as error:
        frame = error.rest
        for each in error.each:
            yield _wrong("columns", each)
    except (BadInput, OSError) as error:
        yield _wrong("table", error)
        return
    yield passed("table", f"{site_file.data.path.name}: {len(frame)} rows")
    yield from check_table(frame, _as_mapped(schema, site_file))


def _as_mapped(schema: TableSchema, site_file: SiteFile) -> TableSchema:
    """The schema as the mapped table has it: no site, the hospital's own patients and spellings."""
    spelt = {key: value for key, value in site_file.data.spelt().items() if key != "header"}
    patient = None if site_file.data.patient is None else PATIENT
    mapped = replace(schema, site=None, patient=patient, header=None, **spelt)
    if site_file.label is not None and site_file.label.codes:
        names = tuple((name,) for name in schema.classes)
        mapped = replace(mapped, label=replace(schema.label, values=names, above=None))
    return mapped


def _records(
    hospital: Hospital, site_file: SiteFile, dataset: Dataset, is_table: bool
) -> Iterator[Verdict]:
    """What a model would see; notes of a table's columns were said by its own check."""
    facts = facts_of(dataset.records, len(dataset.space.classes))
    learnt = _to_learn_from(hospital, site_file, dataset)
    least = site_file.policy.smallest_training_set
    who = "patients" if facts.named else "records, each counted as a patient"
    said = f"{len(dataset.records)} encoded, {facts.patients} {who}; {learnt} to learn from"
    if learnt < least:
        yield problem(
            "records",
            f"{said}, where the policy wants {least}",
            "more patients, a smaller validation, or another smallest_training_set in site.yaml: "
            "few patients are easily told apart in what a model says",
        )
    else:
        yield passed("records", said)
    if not is_table:
        labels = dataset.records.labels.tolist()
        counts = [labels.count(code) for code in range(len(dataset.space.classes))]
        names = zip(dataset.space.classes, counts, strict=True)
        yield passed("label", ", ".join(f"{name} {count}" for name, count in names))
        for note in dataset.notes:
            yield passed("rows", note)


def _to_learn_from(hospital: Hospital, site_file: SiteFile, dataset: Dataset) -> int:
    """How many patients a model would learn from.

    Nothing is drawn and kept here: before the founding the cut is another one, and where patients
    have several rows each it may be of a patient more or less.
    """
    path = hospital.site / SEED
    seed = site_file.seed if site_file.seed is not None else 0
    if site_file.seed is None and path.exists():
        seed = int(path.read_text())
    return to_learn_from(hospital, split_of(hospital, site_file, dataset, seed)[0])


def _would_do(
    hospital: Hospital, site_file: SiteFile, dataset: Dataset, part: Part, build: Build
) -> Iterator[Verdict]:
    """Model, price, one step, and what would leave."""
    try:
        settings = settings_of(hospital, site_file, part)
        mechanism: Mechanism = build(settings.mechanism)
        planned = _price(hospital, settings, mechanism, dataset)
    except BadInput as error:
        yield _wrong("site.yaml", error)
        return
    try:
        site = SiteFolder(hospital.site)
        records = site.everyone() if planned.of_site else dataset.records
        tried = try_step(settings, build, records, planned.plan)
    except (BadInput, ArithmeticError) as error:
        yield _wrong("step", error)
    else:
        kind = "private step" if tried.private else "step"
        steps = planned.plan.steps if planned.plan is not None and tried.private else None
        whole = f"; {steps} of them about {steps * tried.seconds:.0f} s" if steps else ""
        yield passed(
            "step",
            f"one {kind} of {tried.model} on {tried.rows} rows: {tried.seconds:.2f} s{whole}",
        )
    yield planned.verdict
    yield from _leaves(settings, site_file.policy, build)
    yield passed("leaves", _figures(site_file.policy, bounded=planned.bounded))


def _price(
    hospital: Hospital, settings: SiteSettings, mechanism: Mechanism, dataset: Dataset
) -> _Planned:
    """What a run would cost under the officer's paper, or else under one of epsilon 1."""
    facts = facts_of(dataset.records, len(settings.space.classes))
    site = SiteFolder(hospital.site)
    if not (site.folder / "site.json").exists():
        how = (
            f"fedkd site init {hospital.folder} founds the site; then its officer signs: "
            "fedkd privacy budget new --help"
        )
        return _unsigned(settings, mechanism, facts, "no signed budget", how)
    facts = site.facts(len(settings.space.classes))
    with site.log(settings.name) as log:
        try:
            paper = expect_paper(site, settings, log, mechanism)
        except NotSigned as error:
            how = error.remedy or str(error)
            return replace(_unsigned(settings, mechanism, facts, error.found, how), of_site=True)
        ledger = ledger_of(log, settings.population)
    if mechanism.plan is None or ledger.epsilon is None:
        signed = "by the officer's word" if paper is not None else ""
        said = f"NOT PRIVATE {signed}: answers leave as the model gives them, nothing is bounded"
        return _Planned(passed("cost", said), None, of_site=True, bounded=False)
    try:
        said, plan = _in_words(settings, mechanism, facts, ledger)
    except BadInput as error:
        return _Planned(_wrong("cost", error), None, of_site=True)
    return _Planned(passed("cost", said), plan, of_site=True)


def _unsigned(
    settings: SiteSettings, mechanism: Mechanism, facts: PublicFacts, found: str, how: str
) -> _Planned:
    """No paper: what a usual one would pay, so that its officer can see it before signing."""
    if mechanism.plan is None:
        verdict = problem("cost", f"{found}; mechanism none is NOT PRIVATE", how)
        return _Planned(verdict, None, bounded=False)
    opened = opening(settings, mechanism, facts, (EXAMPLE_EPSILON, None))
    said, plan = _in_words(settings, mechanism, facts, Ledger.opened(opened))
    return _Planned(
        problem("cost", f"{found}. With epsilon {EXAMPLE_EPSILON:g}: {said}", how), plan
    )


def _in_words(
    settings: SiteSettings, mechanism: Mechanism, facts: PublicFacts, ledger: Ledger
) -> tuple[str, TrainingPlan | None]:
    """The plan that a ledger pays, in words, for who is in it; `BadInput` where it pays none."""
    assert mechanism.plan is not None  # noqa: S101 - asked by the callers
    assert mechanism.cost_at is not None  # noqa: S101 - what is planned has a cost
    assert ledger.delta is not None  # noqa: S101 - a bounded ledger has one
    if ledger.left() <= 0:
        raise BadInput(
            f"a budget with nothing left ({ledger.spent():.4g} spent)",
            "one that covers a run",
            "its officer may raise it by a new paper: fedkd privacy budget new --help",
        )
    plan: Any = mechanism.plan(facts, ledger, settings.plan_epsilon)
    cost = mechanism.cost_at(facts, plan.noise_multiplier)
    alone = epsilon_of_cost(ledger.filter, ledger.order, cost, ledger.delta)
    what = (
        f"{plan.steps} steps"
        if isinstance(plan, TrainingPlan)
        else f"{plan.batches} batches of answers by {plan.shards} models"
    )
    said = (
        f"a run costs epsilon {alone:.3g} at delta {ledger.delta:.2g} for each of "
        f"{facts.patients} {ledger.unit}s ({what}, noise {plan.noise_multiplier:.3g}); spent "
        f"{ledger.spent():.3g} of {ledger.epsilon:g}"
    )
    return said, plan if isinstance(plan, TrainingPlan) else None


def _leaves(settings: SiteSettings, policy: Policy, build: Build) -> Iterator[Verdict]:
    classes = len(settings.space.classes)
    sizes = sizes_of_messages(settings, build, EXAMPLE_QUERIES)
    codec = next(iter(settings.accepts.codecs))
    yield passed(
        "leaves",
        f"an answer to {EXAMPLE_QUERIES} queries: probabilities, {codec} [{EXAMPLE_QUERIES}, "
        f"{classes}], {sizes['answer']:,} bytes; at most {_most(policy.most_queries_a_run)} "
        f"queries a run, {_most(policy.most_queries_a_day)} a day",
    )
    yield passed(
        "leaves",
        f"beside it: that it is there ({sizes['present']} bytes), what people said to a proposal "
        f"({sizes['considered']}), that a lesson was taken ({sizes['closed']}), refusals of a "
        f"closed list ({sizes['refusal']}), heads of logs with signatures; no record, weight, "
        "text of an error or path",
    )


def _figures(policy: Policy, *, bounded: bool) -> str:
    """Which figures may be asked for, and how they would leave under the budget there is."""
    if COUNTS not in policy.figures:
        return "no figure of this hospital's own records may be asked for (policy: figures)"
    if bounded:
        return f"figures that may be asked for, noised and charged: {COUNTS}"
    if EXACT in policy.figures:
        return "NOT PRIVATE: counts that are asked for leave as they are, without noise, and free"
    return (
        f"no figure may be asked for: nothing bounds what it tells, and {COUNTS} would leave "
        f"without noise (policy: figures: [{COUNTS}, {EXACT}] would let them)"
    )


def _most(number: int | None) -> str:
    return "any number of" if number is None else str(number)


def _wrong(check: str, error: Exception) -> Verdict:
    if isinstance(error, BadInput):
        fix = error.remedy or f"expected {error.expected}"
        return problem(check, f"found {error.found}, expected {error.expected}", fix)
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return problem(check, said, "is the file there, and may this user read it?")
