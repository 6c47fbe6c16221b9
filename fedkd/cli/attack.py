"""Attacks a finished simulation as its server could, and holds what was found against the claim."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fedkd.cli.lines import say
from fedkd.cli.shadows import Imagined, Rerun, Shadows, steps_of, steps_that_matter
from fedkd.data import Records
from fedkd.distill import Classifier
from fedkd.federation.claiming import ATTACK, attacks_in_words
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.examination import SiteExaminer
from fedkd.federation.exchange import Exchange
from fedkd.federation.learning import Learner
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import Array, BadInput, Distributions, Lesson
from fedkd.privacy import Mechanism, attacks
from fedkd.privacy.attacks import Attacked, Claim, Pairing, Release, Report, Score, Speaker
from fedkd.privacy.noise import rehearsal_noise

if TYPE_CHECKING:
    from fedkd.cli.run import Run

KINDS = ("loss", "lira", "poisoned", "distillation", "averaging")
ALPHA = 0.01
"""All bounds of one report hold together, save with this probability."""
FRESH_ANSWERS = (10, 100)
"""How many fresh answers the averaging attacker has; the ledger gives one, again and again."""
ACCESS = "access.performed"
FOUND = "/found"
NAME = "attack.json"
VERSION = 1
DELTA = 1e-5
"""Of the bound where nothing is claimed."""


def attack(
    path: Path,
    *,
    kind: str | None,
    shadows: int,
    seed: int,
    as_json: bool,
    sites: Sequence[str] = (),
) -> int:
    """Prints what the attacks of `kind` (None: all) find at `sites` (none named: all).

    Exit code 1 where a bound exceeds a site's claim, which is refuted; 0 says nothing of a claim.
    What was found is kept in the run's `attack.json`, in the attacked sites' own logs, which are
    handed over again, and in the claims of `summary.json`.
    `BadInput` where the folder holds no finished run.
    """
    from fedkd.cli.examine import hand_over
    from fedkd.cli.run import open_run
    from fedkd.report import load

    if kind is not None and kind not in KINDS:
        raise BadInput(f"the attack {kind!r}", " | ".join(KINDS), "leave it out for all of them")
    attacks.check_shadows(shadows)
    summary = load(path).summary
    clients = {row["site"]: row for row in summary["clients"]}
    if unknown := sorted(set(sites) - set(clients)):
        raise BadInput(f"no hospital {unknown[0]!r} in {path}", ", ".join(sorted(clients)))
    asked, kinds = sorted(set(sites) or clients), KINDS if kind is None else (kind,)
    run = open_run(str(path))
    # Averaging has one bound: what fresh answers would tell is a what-if.
    report = Report(str(path), shadows, seed, ALPHA, len(asked) * len(kinds))
    for site in asked:
        say(f"attacking {site}: {', '.join(kinds)}")
        target = Target(run, site, shadows, seed, hears_all="distillation" in kinds)
        target.check()
        about = {"kinds": list(kinds), "shadows": shadows, "seed": seed}
        number = _note(run, site, about)
        claim = target.claim(clients[site]["epsilon"], clients[site]["delta"])
        found = _attacked(target, claim, kinds, report.alpha_each)
        _note_found(run, site, number, {**about, "alpha": report.alpha}, found)
        report.sites.append(found)
    _keep(run.folder / NAME, {"kinds": list(kinds), **report.to_json()})
    _tell_in_claims(run, summary, asked)
    hand_over(run)  # a report that is built next has to tell it
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else "\n".join(report.lines()))
    return int(report.refuted)


def _note(run: "Run", site: str, what: Mapping[str, Any]) -> int:
    """Says in the site's own log that its records and models are about to be read, and for what.

    Returns which attack of this run it is. A copy that was handed over is never written to.
    """
    folder = SiteFolder(run.sites[site])
    with folder.turn(), folder.log(site) as log:
        keys = [it.key for it in log.entries(ACCESS) if it.key.startswith(f"{run.id}/attack/")]
        number = 1 + sum(not key.endswith(FOUND) for key in keys)
        body = {"run": run.id, "who": ATTACK, "what": "records, models", **what}
        log.append(f"{run.id}/attack/{number}", ACCESS, body)
    return number


def _note_found(
    run: "Run", site: str, number: int, what: Mapping[str, Any], found: Attacked
) -> None:
    """Says in the site's own log what an attack found: its claim has to tell it."""
    keys = ("attack", "pairs", "auc", "tpr", "epsilon_at_least", "refutes")
    body = {
        "run": run.id,
        "who": ATTACK,
        "what": "what was found; not releasable",
        **what,
        "findings": [{key: one[key] for key in keys} for one in found.to_json()["findings"]],
    }
    folder = SiteFolder(run.sites[site])
    with folder.turn(), folder.log(site) as log:
        log.append(f"{run.id}/attack/{number}{FOUND}", ACCESS, body)


def _keep(path: Path, told: dict[str, Any]) -> None:
    """Adds a report to the run's file, in place of an earlier one of the same attacks."""

    def about(one: Mapping[str, Any]) -> tuple[Any, ...]:
        return one["kinds"], one["shadows"], one["seed"], [site["site"] for site in one["sites"]]

    kept = read_json(path)["reports"] if path.exists() else []
    others = [one for one in kept if about(one) != about(told)]
    write_json(path, {"version": VERSION, "reports": [*others, told]})


def _tell_in_claims(run: "Run", summary: dict[str, Any], sites: Sequence[str]) -> None:
    """Writes into the claims of `summary.json` what attacks found; all else stays as it was."""
    from fedkd.privacy.claim import Claim as WholeClaim
    from fedkd.report import write_summary
    from fedkd.report.claims import statement

    claims = (summary.get("privacy") or {}).get("claims", {})
    attacked = [site for site in sites if site in claims]
    for site in attacked:
        with SiteFolder(run.sites[site]).log(site) as log:
            claims[site]["audit"] = attacks_in_words(log)
    if attacked:
        whole = {site: WholeClaim.from_json(body) for site, body in sorted(claims.items())}
        summary["privacy"]["statement"] = statement(whole)
        write_summary(run.folder / "summary.json", summary)


def _attacked(target: "Target", claim: Claim, kinds: Sequence[str], alpha: float) -> Attacked:
    """What each of `kinds` finds at one site."""
    found = Attacked(target.site, claim)
    if not target.steps:
        found.notes.append("its log names no answer in this run: there is nothing to attack")
        return found
    found.label_mix = target.label_mix()
    if not target.pairing.pairs:
        found.notes.append("no validation or test record has the label of one of its own")
        return found
    for kind in kinds:
        if kind == "averaging":
            _average(target, found, alpha)
            continue
        scores = {
            "loss": target.by_loss,
            "lira": target.by_lira,
            "poisoned": target.by_poisoned_queries,
            "distillation": target.by_distillation,
        }[kind]()
        if scores is None:
            found.notes.append(f"no {kind}: the server kept none of its answers")
        else:
            found.findings.append(attacks.finding(kind, scores, claim, alpha))
    return found


def _average(target: "Target", found: Attacked, alpha: float) -> None:
    if not target.is_noisy():
        found.notes.append("averaging: answers have no noise of their own, so nothing averages out")
        return
    for answers in (1, *FRESH_ANSWERS):
        name = "averaging, 1 answer" if answers == 1 else f"averaging, {answers} fresh"
        scores = target.by_averaging(answers)
        what_if = answers > 1  # the ledger gives the stored answer again
        found.findings.append(attacks.finding(name, scores, found.claim, alpha, what_if=what_if))


class Target:
    """One simulated site under attack: what it learnt from, what it let out, and its shadows.

    `hears_all` False: nobody will ask what the shadows said on the way, but only what they say now.
    """

    def __init__(
        self, run: "Run", site: str, count: int, seed: int, *, hears_all: bool = True
    ) -> None:
        self.run, self.site, self.count, self.seed = run, site, count, seed
        self.hears_all = hears_all
        self.examiner = SiteExaminer(run.sites[site], run.id, run.build)
        self.settings, self.learner = self.examiner.settings, self.examiner.learner
        self.exchange = Exchange(run.folder / "exchange")
        with self.examiner.site.log(site) as log:
            opened = log.entry(f"budget/{self.settings.population}")
            self.budget: Mapping[str, Any] = {} if opened is None else opened.body
            self.steps = steps_of(log, run.id)

    def claim(self, epsilon: float | None, delta: float | None) -> Claim:
        """What the run says of the site, in the terms of its ledger."""
        gaussian = epsilon is not None and self.budget.get("filter") == "gdp"
        return Claim(epsilon, DELTA if delta is None else delta, gaussian)

    def check(self) -> None:
        """`BadInput` where shards answer together: a shadow would be as many models as they."""
        mechanism: Mechanism = self.run.build(self.settings.mechanism)
        if mechanism.speaker == "any":
            raise BadInput(
                f"a run of mechanism={mechanism.name}",
                "one whose model answers by itself",
                f"what shards say together is attacked by fedkd laws mechanism/{mechanism.name}",
            )
        if mechanism.learns:
            raise BadInput(
                f"{self.run.folder}, whose speakers learn from lessons",
                "one whose speakers were trained, and no more",
                "what they learn later holds nothing that was not let out: attack a run with "
                "mechanism.learns_from_lessons=false",
            )

    @cached_property
    def release(self) -> Release:
        """What the site's mechanism lets out of what its model says."""
        mechanism: Mechanism = self.run.build(self.settings.mechanism)
        return lambda said, rng: mechanism.release(said, None, rehearsal_noise(rng))

    def _heard(self, probs: Speaker, *who: str | int) -> Speaker:
        rng = attacks.chance(self.seed, self.site, "release", *who)
        return lambda inputs: self.release(probs(inputs), rng)

    @cached_property
    def bare(self) -> Speaker:
        """What the model says that gave the last answer, before the mechanism."""
        last = self.steps[-1]
        if last.dp is not None:
            from fedkd.federation.speaking import Speakers

            speakers = Speakers(self.examiner.site, self.settings)
            return speakers.newest(self.run.id, self.learner.fresh).probs
        learnt = self.learner.learnt(self.run.id, last.name)
        if learnt is None or learnt.digest != last.output:
            raise BadInput(
                f"{self.examiner.site.folder} without the model that gave its last answer",
                "a run's folder as it was left",
                "run the simulation again",
            )
        return self.learner.model(self.run.id, last.name).probs

    @cached_property
    def others(self) -> Records:
        """Records like the site's own that it did not learn from: validation, and test.

        Where the test says which hospital its records are from, this one's alone are alike.
        """
        validation, test = self.examiner.site.validation(), self.run.cut().test
        if test.sites is not None and set(test.sites.tolist()) & set(self.run.sites):
            test = test.take(test.sites == self.site)
        return _joined(validation, test)

    @cached_property
    def pairing(self) -> Pairing:
        """Who is compared with whom."""
        mine, others = self.learner.records, self.others
        return attacks.paired(
            mine.labels,
            mine.patients,
            others.labels,
            others.patients,
            attacks.chance(self.seed, self.site, "pairs"),
            most_rows=1 if self.budget.get("unit") == "record" else None,
        )

    @cached_property
    def pool(self) -> Records:
        """The site's own records and then the others'."""
        return _joined(self.learner.records, self.others)

    @cached_property
    def attacked(self) -> Records:
        """The records under attack."""
        return self.pool.take(self.pairing.rows)

    def _score(self, of: Callable[[Array, Array], Array]) -> Score:
        inputs, labels = self.attacked.inputs, self.attacked.labels
        return lambda speaker: self.pairing.by_unit(of(speaker(inputs), labels))

    def by_loss(self) -> Array:
        """Scores [2k]: how well the site's answers fit each record's label."""
        return self._score(attacks.negative_loss)(self._heard(self.bare, "loss"))

    def by_lira(self) -> Array:
        """Scores [2k] of LiRA on answers about the records themselves."""
        heard, shadows = self._heard(self.bare, "lira"), self.shadows
        score = self._score(attacks.scaled)
        return attacks.lira(heard, shadows.speakers, shadows.inside, score)

    def by_poisoned_queries(self) -> Array:
        """Scores [2k] of LiRA on answers to queries that lie near each record."""
        rng = attacks.chance(self.seed, self.site, "poisoned")
        public = self.exchange.queries(self.steps[-1].answers[-1][0]).inputs
        near = attacks.score_near(self.attacked.inputs, self.attacked.labels, public, rng)
        heard, shadows = self._heard(self.bare, "poisoned"), self.shadows

        def score(speaker: Speaker) -> Array:
            return self.pairing.by_unit(near(speaker))

        return attacks.lira(heard, shadows.speakers, shadows.inside, score)

    def by_distillation(self) -> Array | None:
        """Scores [2k] of LiRA on a copy that learnt the released answers, and nothing else."""
        if not self.said:
            return None
        released = [self.exchange.distributions(answer).probs for _, answer in self.said]
        heard, *shadows = self._copies([released, *self.shadows.released])
        return attacks.lira(heard, shadows, self.shadows.inside, self._score(attacks.scaled))

    def is_noisy(self) -> bool:
        """Whether the same words leave differently when said again."""
        said = self.bare(self.attacked.inputs[:8])
        rng = attacks.chance(self.seed, self.site, "noisy")
        return bool((self.release(said, rng) != self.release(said, rng)).any())

    def by_averaging(self, answers: int) -> Array:
        """Scores [2k] of the loss attack on the mean of so many fresh answers."""
        rng = attacks.chance(self.seed, self.site, "averaging", answers)

        def heard(inputs: Array) -> Array:
            return attacks.averaged(self.release, self.bare(inputs), answers, rng)

        return self._score(attacks.negative_loss)(heard)

    def label_mix(self) -> dict[str, float] | None:
        """How far the label mix of the site's newest answers is from that of its records."""
        if not self.said:
            return None
        probs = self.exchange.distributions(self.said[-1][1]).probs
        classes = probs.shape[1]
        true = attacks.mix_of_labels(self.learner.records.labels, classes)
        off = attacks.total_variation(attacks.mix_of_answers(probs), true)
        return {"off": off, "off_uniform": float(abs(true - 1 / classes).sum() / 2)}

    @cached_property
    def said(self) -> list[tuple[str, str]]:
        """What the site answered in the run and the server kept, oldest first."""
        every = [answer for step in self.steps for answer in step.answers]
        return [it for it in every if self.exchange.has(it[0]) and self.exchange.has(it[1])]

    def _copies(self, released: Sequence[Sequence[Array]]) -> list[Speaker]:
        """What an attacker makes of each one's answers to the run's queries: students."""
        from fedkd.cli.run import LOSS_EXTRAS, without
        from fedkd.distill import LearningPlan, fit_cohort
        from fedkd.distill.student import joined

        student, loss = self.run.config["student"], self.run.config["loss"]
        plan = LearningPlan(
            epochs=student["epochs"],
            batch=student["batch"],
            learning_rate=student["learning_rate"],
            weight_decay=student["weight_decay"],
            loss=self.run.build({**without(loss, LOSS_EXTRAS), "temperature": loss["temperature"]}),
        )
        lessons = [joined(self._lessons(said)) for said in released]
        rngs = [attacks.chance(self.seed, self.site, "copy", it) for it in range(len(lessons))]
        starts = [self.run.student()] * len(lessons)
        copies = fit_cohort(starts, [None] * len(lessons), lessons, plan, rngs)
        return [copy.probs for copy in copies]

    def _lessons(self, said: Sequence[Array]) -> list[Lesson]:
        """What was answered, by query set: one that was asked in several rounds is learnt once."""
        by_set: dict[str, list[Array]] = {}
        for (asked, _), probs in zip(self.said, said, strict=True):
            by_set.setdefault(asked, []).append(probs)
        lessons = []
        for asked, answers in by_set.items():
            queries = self.exchange.queries(asked)
            consensus = Distributions(attacks.mean_answer(answers), queries.digest)
            lessons.append(Lesson(queries, consensus))
        return lessons

    @cached_property
    def shadows(self) -> Shadows:
        """Models like the site's, each trained as it was on one of each pair and all other rows.

        They go through the run again: the same plan and lessons, a start and noise of their own.
        """
        rng = attacks.chance(self.seed, self.site, "shadows")
        member_in = attacks.shadow_masks(self.pairing.pairs, self.count, rng)
        seeds = rng.integers(2**62, size=self.count).tolist()
        released: list[list[Array]] = [[] for _ in seeds]
        models: list[Classifier] = []
        with tempfile.TemporaryDirectory() as folder:
            learners = []
            for place, (own, choice) in enumerate(zip(seeds, member_in, strict=True)):
                records = self.pool.take(self.pairing.learnt_from(choice))
                site = Imagined(Path(folder) / str(place), records)
                settings = replace(self.settings, seed=own, rehearsal=True)
                learners.append(Learner(site, settings, self.run.build))
            rerun = Rerun(self.run, self.exchange, learners)
            warm = self.learner.fresh.weights() is not None
            for step in steps_that_matter(self.steps, warm=warm, hears_all=self.hears_all):
                models = rerun.trained(step)
                for place, model in enumerate(models):
                    heard = self._heard(model.probs, "run", step.round, place)
                    for asked, answer in step.answers:
                        if (asked, answer) in self.said:
                            released[place].append(heard(self.exchange.queries(asked).inputs))
        speakers = [self._heard(model.probs, "asked", place) for place, model in enumerate(models)]
        return Shadows(speakers, released, self.pairing.inside(member_in))


def _joined(first: Records, second: Records) -> Records:
    """The records of both, without the sites' names."""
    patients = None
    if first.patients is not None and second.patients is not None:
        patients = attacks.together(first.patients, second.patients)
    return Records(
        attacks.together(first.inputs, second.inputs),
        attacks.together(first.labels, second.labels),
        patients,
    )
