"""Trains one common model by FedAvg, through Flower's own strategy, on a grid of its own."""

import logging
from collections.abc import Mapping
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedkd.distill import Classifier, LearningPlan
from fedkd.federation.flower.inprocess import InProcessGrid
from fedkd.federation.randomness import stream
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import Array


def fedavg(
    start: Classifier, sites: Mapping[str, Path], plan: LearningPlan, *, rounds: int, seed: int
) -> tuple[Classifier, ...]:
    """The model after each of `rounds` rounds of FedAvg from `start` over the records of `sites`.

    `plan` is what a site does in one round.

    McMahan, Moore, Ramage, Hampson and Arcas, 2017, Communication-efficient learning of deep
    networks from decentralized data, arXiv:1602.05629: weighted by records, every site each round.
    """
    names = sorted(sites)
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site = str(context.node_config["site"])
        round = int(message.content["config"]["server-round"])
        records = SiteFolder(sites[site]).train()
        model = start.with_weights(_weights(message.content["arrays"]))
        fitted = model.fit(records, None, plan, stream(seed, site, round, "fedavg"))
        metrics = MetricRecord({"num-examples": len(records)})
        content = {"arrays": _arrays(fitted), "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    models: list[Classifier] = []
    grid = InProcessGrid(app, [{"site": name} for name in names])

    def keep(round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if round > 0:
            models.append(start.with_weights(_weights(arrays)))
        return None

    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        strategy = FedAvg(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=1,
            min_evaluate_nodes=0,
            min_available_nodes=len(names),
        )
        strategy.start(grid, _arrays(start), num_rounds=rounds, evaluate_fn=keep)
    finally:
        logger.setLevel(level)
    return tuple(models)


def _arrays(model: Classifier) -> ArrayRecord:
    from flwr.app import Array as FlowerArray

    weights = model.weights()
    if weights is None:
        raise TypeError("FedAvg needs a model with weights")
    return ArrayRecord({name: FlowerArray(array) for name, array in weights.items()})


def _weights(arrays: ArrayRecord) -> dict[str, Array]:
    return {name: array.numpy() for name, array in arrays.items()}
