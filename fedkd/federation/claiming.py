"""Makes a site's claim from what its own log says: where the log is silent, there is no claim."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fedkd import __version__
from fedkd.audit import Entry, Log
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder, SiteSettings
from fedkd.privacy import Ledger
from fedkd.privacy.claim import (
    NOT_ATTACKED,
    REHEARSAL_NOISE,
    SYSTEM_NOISE,
    Claim,
    Evidence,
    NoClaim,
    Preparation,
    Use,
)
from fedkd.privacy.events import in_words

ACCOUNTANTS = {
    "gdp": "the ledger's filter gdp: squares of mu add up, exact for Gaussian noise",
    "rdp": "the ledger's filter rdp: Renyi divergences add up at one order, fixed at opening",
}
ATTACK = "privacy attack"
"""Who reads records, in the log of a site that is attacked."""
NOT_PROTECTED = (
    "what is true of all patients alike, whoever takes part",
    "who was ill at all, or treated here, where somebody knows that otherwise",
    "what the same patients' records let out elsewhere",
    "how long a turn takes",
    "this log's own counts of records, once it is handed over",
    "gaps of about 1e-7 of the clip in float arithmetic",
)
TRUST = (
    "the hospital's own machine alone; server, other hospitals and readers may pool all that they "
    "see, and ask whatever they like"
)
SEVERAL_SITES = (
    "the losses of a patient whose records are in two hospitals add up, unseen by either of them"
)
FULL = "none: every patient took part in every step"
PREPARED = (
    ("ranges and categories of the inputs, taken as public whoever stated them", "public"),
    ("first weights of the model, drawn without a look at a record", "public"),
    ("training by noised, clipped gradients, or noise on answers", "charged"),
)
TUNED = (
    ("steps, clip, learning rate and model, fixed before this budget's first charge", "public"),
    ("choosing them by looking at these records in other runs, if anybody did", "NOT charged"),
)
NOT_RELEASABLE = (
    "the figures of the hospitals' own models in a simulation, which are NOT RELEASABLE",
    "NOT charged",
)


def claim_of_site(site: SiteFolder, log: Log, population: str, audit: str | None = None) -> Claim:
    """The claim of one population at a site, or `NoClaim` with what is missing.

    `audit` says what attacks found; None: what the log says of them (`attacks_in_words`).
    """
    settings = site.settings()
    ledger = ledger_of(log, population)
    if ledger.epsilon is None or ledger.delta is None:
        raise NoClaim(
            f"an open budget of {population}",
            "one with an epsilon and a delta",
            "NOT PRIVATE: nothing bounds what its answers tell about a patient",
        )
    opened = _opened(log, population)
    newest = opened[-1].body
    uses = _uses(log, population)
    named = site.train().patients is not None
    rehearsal = bool(newest.get("rehearsal", settings.rehearsal))
    return Claim(
        epsilon=ledger.epsilon,
        delta=ledger.delta,
        spent=ledger.spent(),
        unit=ledger.unit,
        units=_said(newest, "patients", "the opening record"),
        records_per_unit=_records_per_unit(ledger.unit, named=named),
        relation=ledger.relation,
        not_protected=NOT_PROTECTED,
        trust=TRUST,
        uses=uses,
        accountant=ACCOUNTANTS[ledger.filter],
        accountant_version=f"fedkd {__version__}, dp-accounting {version('dp-accounting')}",
        filter=ledger.filter,
        order="none: gdp has no order" if ledger.order is None else ledger.order,
        runs=tuple(dict.fromkeys(use.run for use in uses)) or ("none yet",),
        period=_period(log, population, opened[0].at),
        population=population,
        refusals=_refusals(log),
        preprocessing=_prepared(settings, rehearsal=rehearsal),
        tuning=tuple(Preparation(*step) for step in TUNED),
        noise_source=noise_source(log, rehearsal=rehearsal),
        audit=attacks_in_words(log) if audit is None else audit,
        subgroup_utility="not measured",
        several_sites=SEVERAL_SITES,
        evidence=_evidence(log),
    )


def attacks_in_words(log: Log) -> str:
    """What attacks on this site found, by its own log: they refute its claim, or say nothing.

    What was erased may have been a finding: then nothing is said to be the whole of it.
    """
    said = [entry.said for entry in log.entries("access.performed")]
    erased = None in said
    beside = "; a retention rule erased records that may say otherwise" if erased else ""
    found = [it for it in said if it and it.get("who") == ATTACK and it.get("findings")]
    if not found:
        return f"not known to be attacked{beside}" if erased else NOT_ATTACKED
    sure = f"{1 - max(it['alpha'] for it in found):.0%}"
    refuting = {
        one["attack"]: one["epsilon_at_least"]
        for it in found
        for one in it["findings"]
        if one["refutes"]
    }
    if refuting:
        name, least = max(refuting.items(), key=lambda one: one[1])
        return f"REFUTED by {name}: epsilon is at least {least:.3g}, with confidence {sure}"
    kinds = dict.fromkeys(kind for it in found for kind in it["kinds"])
    return (
        f"attacked ({', '.join(kinds)}) and not refuted with confidence {sure}, which certifies "
        f"nothing{beside}"
    )


def spent_by_round(log: Log, population: str, run: str) -> list[dict[str, float]]:
    """What was spent once each round of a run had been paid for: `{"round": n, "epsilon": e}`.

    Epsilons are in nats, under the ledger's own filter, so that they do not add up. Round 0 stands
    for what was spent before the run. For display: the guarantee is the budget.
    """
    asked = _questions(log)
    ledger = Ledger.opened(ledger_of(log, population).to_json())
    spent: dict[int, float] = {}
    round = 0
    for entry in log.entries("budget.charged"):
        if entry.body["population"] != population:
            continue
        ledger = ledger.replay([entry.body["cost"]])
        of, number = asked.get(entry.body["question"], (_run_of(entry, asked), None))
        # What was paid for and then lost in a crash belongs to the round that was being asked.
        round = 0 if of != run else number or max(round, 1)
        spent[round] = ledger.spent()
    return [{"round": number, "epsilon": spent[number]} for number in sorted(spent)]


def _uses(log: Log, population: str) -> tuple[Use, ...]:
    """Every use that was paid for; the batches of one plan of answers are one."""
    asked = _questions(log)
    uses: list[Use] = []
    batches: dict[tuple[str, float], tuple[Mapping[str, Any], int]] = {}
    for entry in log.entries("budget.charged"):
        body = entry.body
        if body["population"] != population or body["cost"].get("event") == "NoOp":
            continue
        run = _run_of(entry, asked)
        if body.get("for") == "evaluation":
            uses.append(_counts(run, body))
            continue
        plan = _said(body, "plan", f"charge {entry.index}")
        if "steps" in plan:
            uses.append(_training(run, plan))
        elif "shards" in plan:
            name = (run, plan["noise_multiplier"])
            batches[name] = (plan, batches.get(name, (plan, 0))[1] + 1)
        else:
            raise NoClaim(
                f"charge {entry.index} with a plan that is not known here",
                "one of a training, or of answers",
                "use the version of fedkd that made the log",
            )
    answers = [_answers(run, plan, count) for (run, _), (plan, count) in batches.items()]
    return (*uses, *answers)


def _training(run: str, plan: Mapping[str, Any]) -> Use:
    rate = plan["sampling_rate"]
    return Use(
        run=run,
        mechanism="dp_training",
        sensitivity=f"one clip in L2: the mean gradient of one {plan['unit']}, clipped",
        noise_multiplier=plan["noise_multiplier"],
        clip=plan["clip"],
        sampling_rate=rate,
        steps=plan["steps"],
        sampling=FULL if rate == 1 else f"Poisson: each {plan['unit']} by chance in each step",
    )


def _answers(run: str, plan: Mapping[str, Any], batches: int) -> Use:
    said = "votes" if plan["vote"] else "distributions"
    return Use(
        run=run,
        mechanism="pate",
        sensitivity=(
            f"sqrt(2 Q) in L2 for Q queries: one of {plan['shards']} disjoint shards changes all "
            f"its {said}, and rounding is added"
        ),
        noise_multiplier=plan["noise_multiplier"],
        clip="none: what a shard says is bounded as it is",
        sampling_rate=1.0,
        steps=batches,
        sampling=f"none: each {plan['unit']} is in one shard, by a keyed hash",
    )


def _counts(run: str, body: Mapping[str, Any]) -> Use:
    return Use(
        run=run,
        mechanism="noised counts",
        sensitivity="1 in L1 and L2: one unit is in one count alone",
        noise_multiplier=f"as the charge says: {in_words(body['cost'])}",
        clip="none: a unit is counted once",
        sampling_rate=1.0,
        steps=1,
        sampling="none: all were counted",
    )


def _records_per_unit(unit: str, *, named: bool) -> str:
    if unit == "record":
        return "one record; for somebody with several, each of them is spent, and they add up"
    if named:
        return "any number of records of one patient, which together make one clipped contribution"
    return (
        "one record, since these name no patient; somebody with several is protected for each "
        "record alone"
    )


def _prepared(settings: SiteSettings, *, rehearsal: bool) -> tuple[Preparation, ...]:
    steps = [*PREPARED, *([NOT_RELEASABLE] if rehearsal else [])]
    if settings.schema is not None:
        steps[0] = ("ranges, categories and missing values, as the schema declares them", "public")
    return tuple(Preparation(*step) for step in steps)


def noise_source(log: Log, *, rehearsal: bool) -> str:
    """The system's, unless this is a rehearsal or the log names any noise from a seed.

    Not known where a retention rule erased what a training said.
    """
    said = [entry.said for entry in log.entries("train.local")]
    drawn = [it["dp"]["noise"] for it in said if it and it["dp"]]
    if rehearsal or any(noise != "operating system" for noise in drawn):
        return REHEARSAL_NOISE
    if None in said:
        return "not known: a retention rule erased what trainings said of it"
    return SYSTEM_NOISE


def _questions(log: Log) -> dict[str, tuple[str, int]]:
    """Each question that was answered: its run, and the round in it."""
    return {
        entry.said["question"]: (entry.said["run"], entry.said["round"])
        for entry in log.entries("release.outputs")
        if entry.said is not None and "question" in entry.said
    }


def _run_of(entry: Entry, asked: Mapping[str, tuple[str, int]]) -> str:
    """The run that a charge was for: its question's, or the one that its key begins with."""
    if entry.body["question"] in asked:
        return asked[entry.body["question"]][0]
    return entry.key.partition("/")[0]


def _opened(log: Log, population: str) -> list[Entry]:
    """The openings of a budget, the newest last: an officer's raise opens it once more."""
    opened = [entry for entry in log.entries("budget.opened") if _is_of(entry, population)]
    if not opened:
        raise NoClaim(f"no budget of {population} in the log", "budget.opened")
    return opened


def _period(log: Log, population: str, since: str) -> str:
    charges = [it.at for it in log.entries("budget.charged") if _is_of(it, population)]
    return f"{since} to {charges[-1] if charges else since}"


def _is_of(entry: Entry, population: str) -> bool:
    return bool(entry.body["population"] == population)


def _refusals(log: Log) -> int:
    """How often the ledger refused, whichever run it was."""
    return sum(
        1
        for entry in log.entries("release.refused")
        if entry.said is not None and entry.said.get("rule") == "budget_exhausted"
    )


def _evidence(log: Log) -> Evidence:
    note = log.checkpoint()
    if note is None:
        raise NoClaim("a log without a checkpoint", "a signed one")
    head = note.checkpoint()
    return Evidence(head.origin, head.size, head.root.hex())


def _said(body: Mapping[str, Any], name: str, where: str) -> Any:
    if body.get(name) is None:
        raise NoClaim(
            f"no {name} in {where}",
            "all that a claim needs",
            "no epsilon is said beside what nobody can check",
        )
    return body[name]
