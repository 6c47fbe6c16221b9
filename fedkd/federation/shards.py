"""A site's models of disjoint shards of its patients: each is fitted as the site fits its own."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedkd.audit.locking import read_secret, write_secret
from fedkd.data import Records
from fedkd.distill import Classifier, load_weights, save_weights
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.learning import Learner, Task
from fedkd.federation.randomness import stream
from fedkd.federation.stored import names_of
from fedkd.knowledge import Array, Digest, digest_of_arrays, digest_of_bytes
from fedkd.wire import Plan

# N records, k shards, Q queries, C classes.

UNIFORM = "uniform"
"""What a shard is that has no model: nobody fell into it, or its fit failed."""


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards' models of a run, as kept: enough to have them again.

    `digest` is keyed, so that nobody can try records until it fits. `made` has one digest for each
    shard; like everything here but `digest` it stays at home.
    """

    run: str
    digest: Digest
    made: tuple[str, ...]
    plan: Plan
    reproducible: bool
    seconds: float


class ShardModels:
    """The models of a site's shards, one set a run. They stay at home; noise lies on their sum."""

    def __init__(self, learner: Learner, note: Callable[[str], None]) -> None:
        self._learner, self._note = learner, note
        self._site, self._settings = learner.site, learner.settings
        self._folder = learner.site.folder / "shards"
        self._models: dict[str, list[Classifier | None]] = {}

    def kept(self, run: str) -> Shards | None:
        """The shards of a run, if they are there, whole."""
        path = self._folder / f"{run}.json"
        if not path.exists():
            return None
        kept = read_json(path)
        return Shards(**{**kept, "made": tuple(kept["made"]), "plan": Plan(**kept["plan"])})

    def fit(self, run: str, count: int, asked: Plan) -> Shards:
        """Fits and keeps `count` models; those that are there, if they are."""
        found = self.kept(run)
        if found is not None:
            return found
        began = time.perf_counter()
        models, made = self._fitted(run, count, asked)
        for number, model in enumerate(models):
            weights = None if model is None else model.weights()
            if weights is not None:
                path = self._weights(run, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_weights(path, weights)
        self._models[run] = models
        shards = Shards(
            run=run,
            digest=self._named(made),
            made=made,
            plan=asked,
            reproducible=self._settings.rehearsal,
            seconds=time.perf_counter() - began,
        )
        self._folder.mkdir(exist_ok=True)
        write_json(self._folder / f"{run}.json", asdict(shards))  # last: now they are whole
        return shards

    def say(self, run: str, inputs: Array) -> Array:
        """What each shard's model answers to `inputs` [Q, ...]: distributions [k, Q, C]."""
        classes = len(self._settings.space.classes)
        said = []
        for number, model in enumerate(self._there(run)):
            answer = np.full((len(inputs), classes), 1 / classes)
            if model is not None:
                try:
                    answer = model.probs(inputs)
                except (Exception, SystemExit) as error:
                    # Which shard fails depends on its records alone: the others must not notice.
                    self._note(f"shard {number} of {run} answers uniformly: {error!r}")
            said.append(answer)
        return np.stack(said)

    def _there(self, run: str) -> list[Classifier | None]:
        if run not in self._models:
            self._models[run] = self._restored(run)
        return self._models[run]

    def _restored(self, run: str) -> list[Classifier | None]:
        shards = self.kept(run)
        if shards is None:
            raise FileNotFoundError(self._folder / f"{run}.json")
        if self._learner.fresh.weights() is None:
            models, made = self._fitted(run, len(shards.made), shards.plan)
        else:
            models = [self._loaded(run, number, it) for number, it in enumerate(shards.made)]
            made = tuple(UNIFORM if it is None else _digest_of(it) for it in models)
        if self._named(made) != shards.digest:
            raise ValueError("found other shards than those that were kept, expected the same")
        return models

    def _loaded(self, run: str, number: int, made: str) -> Classifier | None:
        if made == UNIFORM:
            return None
        return self._learner.fresh.with_weights(load_weights(self._weights(run, number)))

    def _fitted(
        self, run: str, count: int, asked: Plan
    ) -> tuple[list[Classifier | None], tuple[str, ...]]:
        task = self._learner.task_local(run, asked, 0)
        shard_of = assigned(task.records, self._key(), count, self._site.patient_names())
        models: list[Classifier | None] = []
        made: list[str] = []
        for number in range(count):
            records = task.records.take(np.flatnonzero(shard_of == number))
            model = self._one(task, records, number) if len(records) else None
            models.append(model)
            made.append(UNIFORM if model is None else self._made(task, records, number, model))
        return models, tuple(made)

    def _one(self, task: Task, records: Records, number: int) -> Classifier | None:
        # From public first weights, with a stream of its own: nothing of another shard is in it.
        rng = stream(self._learner.seed, self._stream(number), 0, "local")
        try:
            return task.start.fit(records, None, task.plan, rng)
        except (Exception, SystemExit) as error:  # as in `say`
            self._note(f"shard {number} of {task.run} was not fitted: {error!r}")
            return None

    def _made(self, task: Task, records: Records, number: int, model: Classifier) -> str:
        if model.weights() is not None:
            return _digest_of(model)
        made_of = {
            "kind": "shard",
            "architecture": model.architecture,
            "plan": repr(task.plan),
            "stream": f"{self._learner.seed} {self._stream(number)}",
        }
        return digest_of_arrays(made_of, {"inputs": records.inputs, "labels": records.labels})

    def _stream(self, number: int) -> str:
        return f"{self._settings.name} shard {number}"

    def _named(self, made: tuple[str, ...]) -> Digest:
        body = "\n".join(made).encode()
        return digest_of_bytes(hmac.digest(self._key(), body, "sha256"))

    def _key(self) -> bytes:
        return shard_key(self._learner)

    def _weights(self, run: str, number: int) -> Any:
        return self._folder / run / f"{number:06d}.safetensors"


def _digest_of(model: Classifier) -> Digest:
    weights: Mapping[str, Array] | None = model.weights()
    if weights is None:
        raise ValueError(f"found {model.architecture}, which has no weights")
    return digest_of_arrays({"kind": "model"}, weights)


def shard_key(learner: Learner) -> bytes:
    """The key [32 bytes] that says who is in which shard: made once, and kept in the folder.

    In a rehearsal it comes from the seed, so that a rehearsal can be had again.
    """
    settings = learner.settings
    path = learner.site.folder / "shards.key"
    if not path.exists():
        key = secrets.token_bytes(32)
        if settings.rehearsal:
            key = stream(learner.seed, settings.name, 0, "shards").bytes(32)
        write_secret(path, key)
    return read_secret(path)


def assigned(
    records: Records, key: bytes, count: int, names: Mapping[str, str] | None = None
) -> Array:
    """The shard [N], int64 in 0 ... count - 1, of each record: by a keyed hash of its patient.

    That nobody else's records have a say in it is what makes a patient's influence end at one
    shard: no balancing, no strata, no dealing out in turn (Papernot et al., 2018, 1802.08908).
    So a patient is known by the name that the source gave (`names`, by code): a code counts those
    who came before. Where records name no patients, or nobody in a row, each is one of its own,
    known by its own bytes, so that taking one out moves no other. Codes count by themselves only
    where the source has no names for any of them.
    """
    pairs = zip(names_of(records.inputs), records.labels, strict=True)
    ids = [b"row " + inputs + str(int(label)).encode() for inputs, label in pairs]
    if records.patients is not None:
        codes = map(str, records.patients.tolist())
        if names:
            named = [names.get(code) for code in codes]
            whose = [None if name is None else f"patient {name}".encode() for name in named]
            ids = [row if one is None else one for row, one in zip(ids, whose, strict=True)]
        else:
            ids = [f"code {code}".encode() for code in codes]
    shard_of = {one: _shard_of(one, key, count) for one in set(ids)}
    return np.array([shard_of[one] for one in ids], dtype=np.int64)


def _shard_of(patient: bytes, key: bytes, count: int) -> int:
    return int.from_bytes(hmac.digest(key, patient, hashlib.sha256), "big") % count
