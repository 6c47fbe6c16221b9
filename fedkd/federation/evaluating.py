"""A site's part in an evaluation: counts of its own held-out patients, paid for, then noised.

The model comes to the site outside the federation's messages: a person, or in a simulation the
program, places its weights in the site's folder as `evaluates/<digest>.safetensors`, with the name
of its kind beside it. A question says a digest, and nothing else of a model ever travels.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fedkd.audit import Log
from fedkd.data import CategoricalColumn, Records, TableSchema
from fedkd.distill import Classifier, as_classifier, load_weights
from fedkd.federation.durable import read_json, write_bytes, write_json
from fedkd.federation.papers import NotSigned, expect_paper
from fedkd.federation.paying import ledger_of
from fedkd.federation.randomness import stream
from fedkd.federation.site import Build, SiteFolder, SiteSettings
from fedkd.knowledge import Array, BadInput, Digest, digest_of_arrays
from fedkd.privacy import BudgetExhausted, Mechanism
from fedkd.privacy.counts import CountNoise, cells, noise_for, noised, once_each
from fedkd.privacy.noise import NoiseSource, rehearsal_noise, system_noise
from fedkd.wire import WITHHELD, Counts, Evaluation, Reason, decode, encode

NEITHER = "none of these"
"""Whose category is missing, or in no declared one."""
MOST_BYTES = 1 << 21


class NotEvaluated(Exception):
    """The site does not count; `reason` depends on public facts, and is all that leaves."""

    def __init__(self, reason: Reason, why: str) -> None:
        self.reason = reason
        super().__init__(why)


def digest_of_model(path: Path) -> Digest:
    """What the weights in a safetensors file are called in logs and questions."""
    return digest_of_arrays({"kind": "model"}, load_weights(path))


def place_model(folder: Path, weights: Path, kind: str) -> Digest:
    """Puts a model where the site in `folder` may evaluate it; the note beside it comes last."""
    digest = digest_of_model(weights)
    path = _path(folder, digest)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_bytes(path, weights.read_bytes())
    write_json(path.with_suffix(".json"), {"model": kind})
    return digest


def has_model(folder: Path, digest: Digest) -> bool:
    """Whether a model of this digest was placed for the site in `folder`."""
    path = _path(folder, digest)
    return path.exists() and path.with_suffix(".json").exists()


def _path(folder: Path, digest: str) -> Path:
    return folder / "evaluates" / f"{digest.removeprefix('sha256:')}.safetensors"


class Grouping:
    """How records fall into groups by a categorical column: by what a model sees of them."""

    def __init__(self, schema: TableSchema | None, column: str | None) -> None:
        self.names: tuple[str, ...] = ("all",)
        self._features: slice | None = None
        if column is None:
            return
        if schema is None:
            raise BadInput(f"group {column!r}", "none: the data are no table with a schema")
        declared = schema.column(column)
        if not isinstance(declared, CategoricalColumn):
            raise BadInput(f"group {column!r}, a numeric column", "a categorical one")
        start = schema.features.index(declared.features[0])
        self._features = slice(start, start + len(declared.features))
        self.names = (*declared.categories, NEITHER)

    def codes(self, inputs: Array) -> Array:
        """The group of each row [N], int64: an index into `names`."""
        if self._features is None:
            return np.zeros(len(inputs), dtype=np.int64)
        one_hot = inputs[:, self._features]
        absent = len(self.names) - 1
        return np.asarray(np.where(one_hot.max(axis=1) > 0, one_hot.argmax(axis=1), absent))


def check_thresholds(thresholds: tuple[float, ...], classes: int) -> None:
    """`BadInput` unless thresholds fit the classes: some for two of them, else none."""
    if classes == 2 and not thresholds:
        raise BadInput("no threshold for two classes", "at least one", "such as --threshold 0.5")
    if classes != 2 and thresholds:
        raise BadInput(
            f"thresholds {list(thresholds)} for {classes} classes",
            "none: with more than two the class that is said is compared with the true one",
            "leave --threshold out",
        )


class Evaluator:
    """Answers evaluations at one site; each is paid for once, and answered the same for ever.

    `expect_still` raises where counts may not leave any more once they were made.
    """

    def __init__(
        self,
        site: SiteFolder,
        settings: SiteSettings,
        build: Build,
        expect_still: Callable[[], None] = lambda: None,
    ) -> None:
        self._site, self._settings, self._build = site, settings, build
        self._expect_still = expect_still

    def answer(
        self, question: Evaluation, log: Log, server_head: Mapping[str, Any] | None
    ) -> bytes:
        """The body that leaves: charged, then counted, noised, kept and logged, in this order.

        The same question gets the stored answer, free. Raises `NotEvaluated`.
        """
        said = log.entry(f"{question.key}/release")
        if said is not None:
            self._expect_still()
            return self._site.outgoing(said.body["payload"])
        self._expect_paper(question, log)
        grouping = self._check(question)
        model = self._model(question.model)
        noise, by_record = self._pay(question, log)
        source = self._source(question)
        counts = noised(self._counted(model, question, grouping, by_record), noise, source)
        floor = self._settings.accepts.floor
        # The noised number alone decides what is withheld: that is post-processing, and free.
        shown = np.where(counts < floor, WITHHELD, counts).astype("<i8")
        body = encode(
            Counts(
                site=self._settings.name,
                run=question.run,
                round=question.round,
                question=question.key,
                model=question.model,
                noise=noise.law,
                scale=noise.scale,
                floor=floor,
                counts=shown,
            )
        )
        decode(body, MOST_BYTES)  # as whoever gets it will, or it stays
        self._expect_still()
        payload = self._site.keep_outgoing(body)
        log.append(
            f"{question.key}/release",
            "release.outputs",
            {
                "run": question.run,
                "round": question.round,
                "question": question.key,
                "queries": None,
                "items": int(shown.size),
                "kind": "confusion counts",
                "model": question.model,
                "data": self._settings.dataset,
                "thresholds": list(question.thresholds),
                "group": question.group,
                "floor": floor,
                "mechanism": noise.law,
                "noise": "reproducible, not private" if source.reproducible else "operating system",
                "digest": payload,
                "payload": payload,
                "recipient": "server",
                "asked_at": server_head,
            },
        )
        return body

    def _expect_paper(self, question: Evaluation, log: Log) -> None:
        """The officer's word on what may be counted; in a rehearsal the settings' own."""
        mechanism: Mechanism = self._build(self._settings.mechanism)
        try:
            paper = expect_paper(self._site, self._settings, log, mechanism)
        except NotSigned as error:
            raise NotEvaluated(Reason.NOT_SIGNED, str(error)) from None
        groups = self._settings.accepts.groups if paper is None else paper.evaluation_groups
        if question.group is not None and question.group not in groups:
            why = f"nobody allowed counts by {question.group} here"
            raise NotEvaluated(Reason.NOT_ACCEPTED, why)

    def _check(self, question: Evaluation) -> Grouping:
        accepts, classes = self._settings.accepts, len(self._settings.space.classes)
        checks = {
            "the round": 0 < question.round <= accepts.most_rounds + 1,
            "the epsilon": question.epsilon <= accepts.most_evaluation_epsilon,
        }
        for what, accepted in checks.items():
            if not accepted:
                raise NotEvaluated(Reason.NOT_ACCEPTED, f"{what} is not accepted here")
        schema = self._settings.schema
        try:
            check_thresholds(question.thresholds, classes)
            return Grouping(
                None if schema is None else TableSchema.from_json(dict(schema)), question.group
            )
        except BadInput as error:
            raise NotEvaluated(Reason.NOT_ACCEPTED, str(error)) from None

    def _model(self, digest: Digest) -> Classifier:
        """The model of this digest that was placed here; `NotEvaluated` where there is none."""
        path = _path(self._site.folder, digest)
        note = path.with_suffix(".json")
        if not has_model(self._site.folder, digest):
            raise NotEvaluated(Reason.UNKNOWN_MODEL, f"nobody placed {digest} in {path.parent}")
        kind = read_json(note)["model"]
        spec = self._settings.accepts.models.get(kind)
        if spec is None:
            raise NotEvaluated(Reason.UNKNOWN_MODEL, f"a {kind} is not accepted here")
        try:
            weights = load_weights(path)
            if digest_of_arrays({"kind": "model"}, weights) != digest:
                raise NotEvaluated(Reason.UNKNOWN_MODEL, f"{path} holds another model")
            rng = stream(self._site.seed(self._settings), self._settings.name, 0, "initialise")
            factory = self._build({**spec, "_partial_": True})
            return as_classifier(factory, self._settings.space, rng).with_weights(weights)
        except ValueError as error:  # no safetensors file, or other arrays than this kind has
            raise NotEvaluated(Reason.UNKNOWN_MODEL, f"{path} is no {kind}: {error}") from None

    def _pay(self, question: Evaluation, log: Log) -> tuple[CountNoise, bool]:
        """The noise that is paid for, and whether the budget protects single records alone."""
        key = f"{question.key}/charge"
        ledger = ledger_of(log, self._settings.population)
        charged = log.entry(key)
        if charged is not None:  # a crash came between charge and release: nothing had left
            return CountNoise.paid(
                charged.body["noise"], charged.body["cost"]
            ), ledger.unit == "record"
        try:
            noise = noise_for(ledger, question.epsilon)
        except BudgetExhausted as error:
            raise NotEvaluated(Reason.BUDGET_EXHAUSTED, str(error)) from None
        log.append(
            key,
            "budget.charged",
            {
                "population": self._settings.population,
                "cost": dict(noise.cost),
                "question": question.key,
                "noise": noise.to_json(),
                "sensitivity": 1,
                "for": "evaluation",
            },
        )
        return noise, ledger.unit == "record"

    def _counted(
        self, model: Classifier, question: Evaluation, grouping: Grouping, by_record: bool
    ) -> Array:
        records, classes = self._site.validation(), len(self._settings.space.classes)
        return counted(model, records, question.thresholds, grouping, classes, by_record=by_record)

    def _source(self, question: Evaluation) -> NoiseSource:
        settings = self._settings
        if not settings.rehearsal or settings.seed is None:
            return system_noise()
        # By question: no two answers may ever share their noise.
        asked = f"{settings.name} {question.key}"
        return rehearsal_noise(stream(settings.seed, asked, 0, "noise"))


def counted(
    model: Classifier,
    records: Records,
    thresholds: tuple[float, ...],
    grouping: Grouping,
    classes: int,
    *,
    by_record: bool = False,
) -> Array:
    """Patients in each cell, int64 [G, B, C]: of each one the first row (`once_each`)."""
    rows = once_each(records.patients, len(records), by_record=by_record)
    chosen = records.take(rows)
    codes = grouping.codes(chosen.inputs)
    probs = one_by_one(model, chosen.inputs, classes)
    return cells(probs, chosen.labels, thresholds, codes, len(grouping.names))


def one_by_one(model: Classifier, inputs: Array, classes: int) -> Array:
    """What a model says of each row alone, [N, C]; NaN where it says nothing of one.

    In a batch a row may move the last bits of another's answer, and one that a model chokes on
    would stop them all: then a patient could change more than a count, or a refusal.
    """
    probs = np.full((len(inputs), classes), np.nan)
    for place in range(len(inputs)):
        # Whatever a model raises about a record stays here: the row is counted all the same.
        with suppress(Exception, SystemExit):
            probs[place] = model.probs(inputs[place : place + 1])[0]
    return probs
