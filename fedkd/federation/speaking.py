"""A site's speaker: trained privately once a run, and kept before its first answer."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from fedkd.data import Records
from fedkd.distill import Classifier, load_weights, save_weights
from fedkd.distill.private import PrivateTraining, even_start, train_privately
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.randomness import stream
from fedkd.federation.site import SiteFolder, SiteSettings
from fedkd.knowledge import BadInput, digest_of_arrays
from fedkd.privacy import Mechanism, TrainingPlan
from fedkd.privacy.noise import NoiseSource, rehearsal_noise, system_noise


@dataclass(frozen=True, slots=True)
class Speaker:
    """A private model that was kept: `charge` names the entry that paid for it."""

    run: str
    charge: str
    digest: str
    reproducible: bool
    seconds: float


class Speakers:
    """The private models of a site, one a run: only private steps ever touch them."""

    def __init__(self, site: SiteFolder, settings: SiteSettings) -> None:
        self._site, self._settings = site, settings
        self._folder = site.folder / "speakers"

    def kept(self, run: str) -> Speaker | None:
        """The speaker of a run, if it is there, whole."""
        path = self._folder / f"{run}.json"
        return Speaker(**read_json(path)) if path.exists() else None

    def model(self, run: str, fresh: Classifier) -> Classifier:
        """The speaker's model; its weights must be the ones that were kept."""
        speaker = self.kept(run)
        weights = load_weights(self._folder / f"{run}.safetensors")
        if speaker is None or digest_of_arrays({"kind": "model"}, weights) != speaker.digest:
            raise ValueError("found another speaker than the one that was paid for")
        return fresh.with_weights(weights)

    def train(
        self, run: str, charge: str, plan: TrainingPlan, fresh: Classifier, records: Records
    ) -> Speaker:
        """Trains the speaker that `charge` paid for, and keeps it: weights first."""
        noise, sampling = self._streams()
        began = time.perf_counter()
        start = even_start(_private(fresh))
        fitted = train_privately(start, records, _told(plan), noise, sampling.uniforms)
        weights = fitted.weights()
        self._folder.mkdir(exist_ok=True)
        save_weights(self._folder / f"{run}.safetensors", weights)
        digest = digest_of_arrays({"kind": "model"}, weights)
        speaker = Speaker(run, charge, digest, noise.reproducible, time.perf_counter() - began)
        write_json(self._folder / f"{run}.json", asdict(speaker))
        return speaker

    def _streams(self) -> tuple[NoiseSource, NoiseSource]:
        """Noise and sampling: from a seed in a rehearsal, else from the operating system."""
        settings = self._settings
        if not settings.rehearsal:
            return system_noise(), system_noise()
        return (
            rehearsal_noise(stream(self._site.seed(settings), settings.name, 0, "noise")),
            rehearsal_noise(stream(self._site.seed(settings), settings.name, 0, "sampling")),
        )


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
