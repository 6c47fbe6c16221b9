"""One run: its folder made and dealt, its parts built from the configuration, its figures kept."""

import platform
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd import __version__
from fedkd.cli.configuration import compose, with_user_code
from fedkd.cli.leftovers import leave_nothing
from fedkd.cli.lines import say
from fedkd.cli.parties import check_cosigning, enrol_sites, keys_of, partitioned, sources
from fedkd.cli.places import anchored, parts_of
from fedkd.data import Dataset, Records
from fedkd.federation.building import Workshop, instantiate
from fedkd.federation.dealing import Cut, cut, deal
from fedkd.federation.durable import read_json, write_bytes, write_json
from fedkd.federation.papers import NotSigned, expect_cosigners, expect_paper
from fedkd.federation.paying import opening
from fedkd.federation.site import Accepts, SiteFolder, SiteSettings, facts_of
from fedkd.federation.speaking import check_speaker
from fedkd.knowledge import BadInput, QuerySet
from fedkd.knowledge.lessons import minimum_subtracted, plain

if TYPE_CHECKING:
    from fedkd.audit import Federation, Log
    from fedkd.federation.flower.asking import GridAsk
    from fedkd.federation.rounds import Rules, Terms, Watch

SOURCE_EXTRAS = ("records", "validation", "test_size", "reference_model")
LOSS_EXTRAS = ("weight", "temperature")


def without(spec: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """`spec` without the keys that are not its target's."""
    return {key: value for key, value in spec.items() if key not in keys}


@cache
def _dataset(spec: str) -> Dataset:
    import json

    dataset: Dataset = instantiate(json.loads(spec))
    return dataset


def dataset_of(spec: Mapping[str, Any]) -> Dataset:
    """The data set that a data yaml names; read once a process."""
    import json

    return _dataset(json.dumps(without(spec, SOURCE_EXTRAS), sort_keys=True))


def prepare(folder: Path, config: dict[str, Any], config_dir: Path | None = None) -> "Run":
    """Makes a run of an empty folder: the configuration is written down, the sites are founded."""
    from omegaconf import OmegaConf

    began(folder)
    with_user_code(config_dir)
    config = anchored(config)
    run = Run(folder, config, secrets.token_hex(8), parts_of(config, config_dir), config_dir)
    run.check()
    for note in run.dataset().notes:
        say(f"data: {note}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"{folder}, which cannot be made ({error.strerror})", "out=<a folder>"
        ) from None
    write_bytes(folder / "config.yaml", OmegaConf.to_yaml(config).encode())
    run.keep(founded=False)
    try:
        run.found()
    except BadInput:
        leave_nothing(run.folder)
        raise
    return run


def open_run(out: str, overrides: str = "") -> "Run":
    """The run in the folder `out`; a new one, from `overrides`, if the folder holds none."""
    if not out:
        raise BadInput("no out", "the folder of the run", 'add out="..." to the run config')
    folder = Path(out)
    began(folder)
    if not (folder / "run.json").exists():
        import shlex

        config = compose(shlex.split(overrides))
        return prepare(folder.resolve(), config)
    from omegaconf import OmegaConf

    kept = read_json(folder / "run.json")
    read: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    user = Path(kept["config_dir"]) if kept["config_dir"] else None
    with_user_code(user)
    if "coordinator" in kept:
        from fedkd.cli.deployed import DeployedRun

        return DeployedRun.opened(folder.resolve(), read, kept, user)
    run = Run(folder.resolve(), read, kept["run"], kept["parts"], user)
    if not kept["founded"]:
        run.found()  # cut off while its sites were being founded: what is there is found again
    return run


@dataclass(slots=True)
class Run:
    """A run's folder with its configuration; everything else is built from these when needed."""

    folder: Path
    config: dict[str, Any]
    id: str
    parts: dict[str, dict[str, Any]]
    config_dir: Path | None
    build: Workshop = field(default_factory=Workshop)
    wall_before: float = 0.0

    @property
    def rehearsal(self) -> bool:
        """Whether the server's log says that this is a rehearsal: every simulation is one."""
        return True

    def federation(self) -> "Federation":
        """Everybody's keys, and the terms of cosigning."""
        return keys_of(self)

    def observer(self) -> "Watch":
        """Who looks on, round by round."""
        from fedkd.federation.observer import Observer

        return Observer(list(self.sites.values()), self.id, self.build)

    def followed(self) -> AbstractContextManager[None]:
        """Stands around the conducting of the run, for whoever follows it from elsewhere."""
        return nullcontext()

    def earlier_heads(self) -> Mapping[str, Any]:
        """By site, the longest head of its log that an earlier run left: here each run is new."""
        return {}

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The sites whose folders are not here."""
        return ()

    def absent(self) -> Mapping[str, str]:
        """Why a site that was asked takes no part, by its name."""
        return {}

    def members(self) -> Mapping[int, str] | None:
        """Which node may speak for which site; None where a node's word is taken."""
        return None

    def agreed(self, asking: "GridAsk", log: "Log") -> list[str]:
        """The sites that take part, once they have been asked whether they will."""
        return sorted(self.sites)

    def registered(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """What the server's log says of data before the first round: key, event and body."""
        for body in sources(self):
            yield f"{self.id}/dataset/{body['id']}", "dataset.registered", body
        yield f"{self.id}/partitioned", "data.partitioned", partitioned(self)

    @property
    def sites_dir(self) -> Path:
        """Where the sites' folders are."""
        named = self.config["sites"]["dir"]
        return Path(named) if named else self.folder / "sites"

    def check(self) -> None:
        """Makes every part once, before anything is written: `BadInput` for what does not fit."""
        if self.sites_dir.exists() and not self.sites_dir.is_dir():
            raise BadInput(f"sites.dir={self.sites_dir}, a file", "a folder")
        check_cosigning(self.config["audit"], self.cut().sites)
        self.rules()
        mechanism = self.build(without(self.config["mechanism"], ("epsilon",)))
        if mechanism.cost_at is not None:  # says what does not fit, such as too many shards
            for rows in self.cut().sites.values():
                records, classes = self.cut().private.take(rows), self.dataset().space.classes
                mechanism.cost_at(facts_of(records, len(classes)), 1.0)
        for name in self.parts:
            if "/" not in name:
                model = self.model(name)
                if name in self.config["clients"]["models"]:
                    check_speaker(model, mechanism)
        if self.student().weights() is None:
            raise BadInput(
                f"student.model={self.config['student']['model']}, which has no weights",
                "a student with weights, since it is kept and handed on as such",
                "for example student.model=mlp",
            )

    def elapsed(self) -> float:
        """Seconds since this process first touched the run."""
        return time.perf_counter() - began(self.folder)

    def found(self) -> None:
        """Founds the sites: each gets a folder with its records."""
        deal(
            self.cut(),
            self.sites_dir,
            seed=self.config["seed"],
            share=self.config["data"].get("validation") or 0.0,
            settings=self.site_settings,
            opening=self._opening,
            patients=self.dataset().patients,
        )
        enrol_sites(self)
        self.keep(founded=True)

    def expect_papers(self) -> None:
        """`BadInput` unless each lasting site has its officer's paper; it says how to get one."""
        for folder in self.sites.values():
            site = SiteFolder(folder)
            settings = site.settings()
            with site.log(settings.name) as log:
                try:
                    paper = expect_paper(site, settings, log, self.build(settings.mechanism))
                    expect_cosigners(settings, paper, self.config["audit"]["cosigners"])
                except NotSigned as error:
                    then = f"then go on with: fedkd simulate --resume {self.folder}"
                    remedy = f"{error.remedy}; {then}" if error.remedy else then
                    raise BadInput(error.found, error.expected, remedy) from None

    def _opening(self, settings: SiteSettings, train: Records) -> Mapping[str, Any] | None:
        if not settings.rehearsal:
            return None
        classes = len(settings.space.classes)
        return opening(settings, self.build(settings.mechanism), facts_of(train, classes))

    def keep(self, *, founded: bool) -> None:
        """Writes `run.json`: what the configuration does not say, and if all sites are there."""
        kept = {
            "founded": founded,
            "run": self.id,
            "parts": self.parts,
            "config_dir": str(self.config_dir) if self.config_dir else None,
            "sites_dir": str(self.sites_dir),
            "sites": sorted(self.cut().sites),
            "versions": versions(),
        }
        write_json(self.folder / "run.json", kept)

    @property
    def sites(self) -> dict[str, Path]:
        """The sites of the run, by name."""
        names = read_json(self.folder / "run.json")["sites"]
        return {name: self.sites_dir / name for name in names}

    def dataset(self) -> Dataset:
        """The data set that was dealt out."""
        return dataset_of(self.config["data"])

    def cut(self) -> Cut:
        """How the data set is cut; the same for the same configuration, and made once a process."""
        data, query = self.config["data"], self.config["query"]
        return _cut_of(
            self.dataset(),
            self.build(self.config["partition"]),
            seed=self.config["seed"],
            count=self.config["clients"]["count"],
            queries=query["size"] if query["kind"] == "public" else 0,
            test_size=data.get("test_size"),
            records=data.get("records"),
        )

    def site_settings(self, number: int, site: str) -> SiteSettings:
        """What the `number`-th site is told at its founding."""
        config, dataset = self.config, self.dataset()
        models = config["clients"]["models"]
        model = models[number % len(models)]
        choices = config["choices"]
        generators = {}
        if config["query"]["kind"] == "synthetic":
            generators[choices["generator"]] = config["generator"]
        rehearsal, lasting = config["sites"].get("rehearsal", True), config["sites"]["dir"]
        named = site if lasting else f"{self.id}:{site}"
        return SiteSettings(
            name=site,
            seed=config["seed"] if rehearsal else None,
            population=f"rehearsal:{named}" if rehearsal else site,
            rehearsal=rehearsal,
            model_name=model,
            model=self.parts[model],
            space=dataset.space,
            schema=None if dataset.schema is None else dataset.schema.to_json(),
            card=dataset.card,
            training=without(config["training"], ("local_epochs", "lesson_epochs", "batch")),
            mechanism=without(config["mechanism"], ("epsilon",)),
            gate=config["gate"],
            generators=generators,
            accepts=Accepts(
                losses={choices["loss"]: without(config["loss"], LOSS_EXTRAS)},
                codecs={choices["codec"]: config["codec"]},
                models={name: self.parts[name] for name in [config["student"]["model"]]},
            ),
            epsilon=config["budget"]["epsilon"],
            delta=config["budget"]["delta"],
            plan_epsilon=config["mechanism"].get("epsilon"),
            mldsa=config["audit"]["mldsa"],
        )

    def terms(self) -> "Terms":
        """What is asked of the sites."""
        from fedkd.federation.rounds import Terms
        from fedkd.wire import Plan

        config = self.config
        training, loss = config["training"], config["loss"]
        return Terms(
            run=self.id,
            seed=config["seed"],
            rounds=config["rounds"],
            classes=len(self.dataset().space.classes),
            queries=config["query"]["size"],
            quorum=config["quorum"],
            fraction=config["clients"]["fraction"],
            named_queries=config["query"]["kind"] == "synthetic",
            plan=Plan(
                local_epochs=training["local_epochs"],
                lesson_epochs=training["lesson_epochs"],
                batch=training["batch"],
                loss=config["choices"]["loss"],
                loss_weight=float(loss["weight"]),
                temperature=float(loss["temperature"]),
            ),
        )

    def rules(self) -> "Rules":
        """The parts of the server."""
        from fedkd.distill import LearningPlan, teach
        from fedkd.federation.randomness import SERVER, stream
        from fedkd.federation.rounds import Rules

        config, student = self.config, self.config["student"]
        loss = without(config["loss"], LOSS_EXTRAS)
        plan = LearningPlan(
            epochs=student["epochs"],
            batch=student["batch"],
            learning_rate=student["learning_rate"],
            weight_decay=student["weight_decay"],
            loss=self.build({**loss, "temperature": config["loss"]["temperature"]}),
        )
        return Rules(
            generator=self._generator(),
            filter=self.build(config["filter"]),
            aggregate=self.build(config["aggregate"]),
            lesson={"plain": plain, "minimum_subtracted": minimum_subtracted}[
                config["lesson"]["kind"]
            ],
            teach=lambda model, lessons, number: teach(
                model, lessons, plan, stream(config["seed"], SERVER, number, "student")
            ),
            codec=self.build(config["codec"]),
            codec_name=config["choices"]["codec"],
            names={
                "aggregate": config["choices"]["aggregate"],
                "filter": config["choices"]["filter"],
                "student": student["model"],
            },
        )

    def _generator(self) -> Any:
        from fedkd.distill.generators.generator import Generator

        query, dataset = self.config["query"], self.dataset()
        if query["kind"] == "synthetic":
            factory = self.build({**self.config["generator"], "_partial_": True})
            return factory(space=dataset.space, schema=dataset.schema)
        queries = self.public_queries()
        if queries is None:
            raise BadInput("no query set", "query.size of at least 1")
        return Generator(lambda seed: {}, lambda memory, student, n: (memory, queries))

    def public_queries(self) -> QuerySet | None:
        """The set that is posed where none is generated."""
        kind = self.config["query"]["kind"]
        return self._mismatched() if kind == "mismatched" else self.cut().queries

    def other_dataset(self) -> Dataset:
        """The data set that `query=mismatched` takes its queries from."""
        query = self.config["query"]
        spec = self.parts[f"data/{query['data']}"]
        return dataset_of({**spec, "path": query["path"]} if query["path"] else spec)

    def _mismatched(self) -> QuerySet:
        from fedkd.data.splits import public_inputs
        from fedkd.federation.randomness import SERVER, stream

        size, rng = self.config["query"]["size"], stream(self.config["seed"], SERVER, 0, "queries")
        return QuerySet(*public_inputs(self.other_dataset(), size, self.dataset().space, rng))

    def student(self) -> Any:
        """The student before its first lesson."""
        return self.model(self.config["student"]["model"])

    def model(self, name: str) -> Any:
        """An untrained model of the server's, or of a baseline."""
        from fedkd.distill import as_classifier
        from fedkd.federation.randomness import SERVER, stream

        factory = self.build({**self.parts[name], "_partial_": True})
        rng = stream(self.config["seed"], SERVER, 0, "initialise")
        return as_classifier(factory, self.dataset().space, rng)

    def reference(self) -> Any:
        """What FedAvg and pooled training would use, untrained.

        The hospitals' own model where all have the same one and it has weights to send; else the
        data set's reference model, or the student's.
        """
        models = set(self.config["clients"]["models"])
        if len(models) == 1 and (common := self.model(next(iter(models)))).weights() is not None:
            return common
        config = self.config
        return self.model(config["data"].get("reference_model") or config["student"]["model"])


_BEGAN: dict[Path, float] = {}


def began(folder: Path) -> float:
    """When this process first touched the run in `folder` (time.perf_counter)."""
    return _BEGAN.setdefault(folder.resolve(), time.perf_counter())


_CUTS: dict[str, Cut] = {}


def _cut_of(dataset: Dataset, partition: Any, **arguments: Any) -> Cut:
    name = repr((id(dataset), id(partition), sorted(arguments.items())))
    if name not in _CUTS:
        _CUTS.clear()
        _CUTS[name] = cut(dataset, partition, **arguments)
    return _CUTS[name]


def versions() -> dict[str, str]:
    """What the run was made with."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("flwr", "torch", "numpy", "scikit-learn")}
    return {"fedkd": __version__, "python": platform.python_version(), **found}
