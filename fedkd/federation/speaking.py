"""A site's speaker: trained privately once a run, and kept before its first answer."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from fedkd import __version__
from fedkd.data import Records
from fedkd.distill import Classifier, LearningPlan, load_weights, save_weights
from fedkd.distill.private import PrivateTraining, even_start, train_privately
from fedkd.federation.drawing import draw, drawn_before, draws_of, forget
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.randomness import stream
from fedkd.federation.site import SiteFolder, SiteSettings
from fedkd.knowledge import Array, BadInput, Digest, Lesson, digest_of_arrays
from fedkd.privacy import Mechanism, TrainingPlan
from fedkd.privacy.noise import NoiseSource, keyed_noise, rehearsal_noise

MOST_ROUNDS = 10**9


@dataclass(frozen=True, slots=True)
class Speaker:
    """A private model that was kept: `charge` names the entry that paid for it."""

    run: str
    charge: str
    digest: str
    reproducible: bool
    seconds: float
    round: int = 0
    """The round whose lesson it learnt last; 0: none."""

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.run}.round-{self.round:06d}" if self.round else self.run


class Speakers:
    """The private models of a site, one a run: private steps alone touch them, or lessons."""

    def __init__(self, site: SiteFolder, settings: SiteSettings) -> None:
        self._site, self._settings = site, settings
        self._folder = site.folder / "speakers"

    def kept(self, run: str) -> Speaker | None:
        """The speaker of a run as it was trained, if it is there, whole."""
        path = self._folder / f"{run}.json"
        return Speaker(**read_json(path)) if path.exists() else None

    def taught(self, run: str, round: int) -> Speaker | None:
        """The newest speaker of a run up to `round`, whatever it has learnt since its training."""
        found = [Speaker(**read_json(path)) for path in self._folder.glob(f"{run}.round-*.json")]
        known = [speaker for speaker in found if speaker.round <= round]
        return max(known, key=lambda speaker: speaker.round, default=self.kept(run))

    def model(self, speaker: Speaker, fresh: Classifier) -> Classifier:
        """The speaker's model; its weights must be the ones that were kept."""
        weights = load_weights(self._folder / f"{speaker.name}.safetensors")
        if digest_of_arrays({"kind": "model"}, weights) != speaker.digest:
            raise ValueError("found another speaker than the one that was paid for")
        return fresh.with_weights(weights)

    def newest(self, run: str, fresh: Classifier) -> Classifier:
        """The model that answered last in a run; `ValueError` where there is none."""
        speaker = self.taught(run, MOST_ROUNDS)
        if speaker is None:
            raise ValueError(f"found no speaker of run {run}, expected the one that answered")
        return self.model(speaker, fresh)

    def learn(
        self, before: Speaker, round: int, lesson: Lesson, plan: LearningPlan, fresh: Classifier
    ) -> Speaker:
        """Teaches the speaker a lesson, and nothing else: no record has a say in what it becomes.

        Its steps are passes over the lesson's queries, so that no number of records shows either.
        """
        rng = stream(self._site.seed(self._settings), self._settings.name, round, "speaker")
        began = time.perf_counter()
        fitted = self.model(before, fresh).fit(None, lesson, plan, rng)
        weights = fitted.weights()
        assert weights is not None  # noqa: S101 - what is trained by gradients has weights
        seconds = time.perf_counter() - began
        return self._keep(replace(before, round=round, seconds=seconds), weights)

    def _keep(self, speaker: Speaker, weights: Mapping[str, Array]) -> Speaker:
        """Weights first, so that the note beside them says that they are whole."""
        self._folder.mkdir(exist_ok=True)
        save_weights(self._folder / f"{speaker.name}.safetensors", weights)
        kept = replace(speaker, digest=digest_of_arrays({"kind": "model"}, weights))
        write_json(self._folder / f"{kept.name}.json", asdict(kept))
        return kept

    def train(
        self, run: str, charge: str, plan: TrainingPlan, fresh: Classifier, records: Records
    ) -> Speaker:
        """Trains the speaker that `charge` paid for, and keeps it: weights first.

        Its chance is the one that was drawn before it was paid. So a training that was cut off, by
        whatever it was, is done again as it was: nobody ever saw anything of it, and however often
        it is begun, what leaves is what one training makes. With fresh chance each time, a failure
        that records bring about would choose among several. `BudgetExhausted` where it cannot be
        the same any more.
        """
        start = even_start(_private(fresh))
        key = drawn_before(draws_of(self._site.folder, run), run, records, _named(start))
        noise, sampling = self._streams(key)
        began = time.perf_counter()
        fitted = train_privately(start, records, _told(plan), noise, sampling.uniforms)
        seconds = time.perf_counter() - began
        return self._keep(Speaker(run, charge, "", noise.reproducible, seconds), fitted.weights())

    def draw(self, run: str, records: Records, fresh: Classifier) -> None:
        """Draws, and keeps, what a run's training on `records` will take its chance from."""
        start = even_start(_private(fresh))
        draw(draws_of(self._site.folder, run), records, _named(start))

    def forget_draws(self, run: str) -> None:
        """Once a speaker is kept, or its run is over, nobody draws its noise again.

        A training that was paid and not kept is out of the run then: it is never paid twice.
        """
        forget(draws_of(self._site.folder, run))

    def _streams(self, key: bytes) -> tuple[NoiseSource, NoiseSource]:
        """Noise and sampling: from a seed in a rehearsal, else from what was drawn."""
        settings = self._settings
        if not settings.rehearsal:
            return keyed_noise(key, "noise"), keyed_noise(key, "sampling")
        return (
            rehearsal_noise(stream(self._site.seed(settings), settings.name, 0, "noise")),
            rehearsal_noise(stream(self._site.seed(settings), settings.name, 0, "sampling")),
        )


def _named(start: Any) -> Digest:
    """What a training begins from, and what computes it: all of it is public."""
    by = {name: version(name) for name in ("numpy", "torch")}
    header = {"kind": "start", "architecture": start.architecture, "fedkd": __version__, **by}
    return digest_of_arrays(header, start.weights())


def _private(model: Classifier) -> Any:
    from fedkd.distill.models.torch_classifier import TorchClassifier

    if not isinstance(model, TorchClassifier):
        raise BadInput(
            f"{model.architecture.partition('(')[0].rpartition('.')[2]} as the model that answers "
            "under dp_training",
            "a torch model: its gradients are clipped and noised",
            "trees and other models without gradients can answer under mechanism=pate alone",
        )
    return model


def check_speaker(model: Classifier, mechanism: Mechanism) -> None:
    """`BadInput` where a model cannot answer under a mechanism: said before anything is charged.

    Where noise lies on what shards say, or on nothing, any model will do.
    """
    if mechanism.speaker != "gradients":
        return
    from fedkd.distill.private import check_suitable

    check_suitable(_private(model))


def _told(plan: TrainingPlan) -> PrivateTraining:
    return PrivateTraining(**asdict(plan))
