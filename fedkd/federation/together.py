"""Answers by all of a site's shards together: paid for, noised, and kept, once a query."""

from collections.abc import Callable

from fedkd.federation.learning import Learner
from fedkd.federation.paying import Purse
from fedkd.federation.randomness import stream
from fedkd.federation.shards import ShardModels, Shards
from fedkd.federation.stored import StoredAnswers
from fedkd.knowledge import Array, QuerySet, digest_of_arrays
from fedkd.privacy import Mechanism
from fedkd.privacy.noise import NoiseSource, rehearsal_noise, system_noise
from fedkd.wire import Question


class Together:
    """A site's speaker where the mechanism noises answers: the sum of what its shards say."""

    def __init__(
        self, learner: Learner, mechanism: Mechanism, purse: Purse, note: Callable[[str], None]
    ) -> None:
        self._learner, self._mechanism, self._purse = learner, mechanism, purse
        self._models = ShardModels(learner, note)

    def answer(self, question: Question, queries: QuerySet) -> Shards:
        """Sees to it that each of `queries` has its one answer; `BudgetExhausted` where it cannot.

        The order is what keeps a crash from costing privacy: the charge is on disk before noise
        is drawn, and the noised answer is on disk before any of it can leave. Whatever is lost in
        between was paid and is paid again.
        """
        shards = self._models.fit(question.run, self._count(), question.plan)
        stored = self._stored(shards)
        new = queries.inputs[stored.unanswered(queries.inputs)]
        batch = self._purse.pay_batch(question, len(new))
        if batch is not None:
            said = self._models.say(question.run, new)
            noise = self._noise(shards, new, batch.charge)
            stored.keep(new, self._mechanism.release(said, batch.plan, noise))
        return shards

    def read(self, shards: Shards, queries: QuerySet) -> Array:
        """The answers [Q, C] that are kept: no model is asked again."""
        return self._stored(shards).read(queries.inputs)

    def _count(self) -> int:
        count = self._mechanism.shards
        if count is None:
            raise TypeError(f"found {self._mechanism.name}, which has no shards")
        return count

    def _stored(self, shards: Shards) -> StoredAnswers:
        settings = self._learner.settings
        folder = self._learner.site.folder / "stored"
        return StoredAnswers(folder, settings.population, shards.digest, self._mechanism.way)

    def _noise(self, shards: Shards, new: Array, charge: str) -> NoiseSource:
        """From the operating system; in a rehearsal from a stream that no other batch has."""
        settings = self._learner.settings
        if not settings.rehearsal:
            return system_noise()
        about = digest_of_arrays({"kind": "batch"}, {"inputs": new})
        number = charge.rsplit("/", 1)[-1]
        name = f"{settings.name} {shards.digest} {about} {number}"
        return rehearsal_noise(stream(self._learner.seed, name, 0, "noise"))
