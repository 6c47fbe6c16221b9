"""A bare torch loop that takes exactly the steps that a finished run took: nothing else."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedkd.cli.run import Run


def bare_loop_cpu(run: "Run") -> float:
    """CPU seconds of the run's optimizer steps: local, with lessons, alone, and the student's."""
    import torch

    from fedkd.federation.examination import SiteExaminer
    from fedkd.federation.exchange import Exchange

    torch.set_num_threads(1)
    config, rounds = run.config, run.config["rounds"]
    training, student = config["training"], config["student"]
    asked = run.cut().queries
    if asked is None:
        raise ValueError("the bare loop knows public queries only")
    space = run.dataset().space
    queries = torch.from_numpy(space.scaled(asked.inputs))
    exchange = Exchange(run.folder / "exchange")
    names = sorted(path.stem for path in exchange.folder.glob("*.npz"))
    consensus = next(
        torch.from_numpy(exchange.distributions(f"sha256:{name}").probs.copy())
        for name in names
        if f"sha256:{name}" != asked.digest
    )
    began = time.process_time()
    for folder in run.sites.values():
        examiner = SiteExaminer(folder, run.id, run.build)
        records = examiner.learner.records
        inputs = torch.from_numpy(space.scaled(records.inputs))
        labels = torch.from_numpy(records.labels.copy())
        a_pass = -(-len(records) // training["batch"])
        module = run.model(config["clients"]["models"][0]).module()
        size, rate = training["batch"], training["learning_rate"]
        _steps(module, inputs, labels, None, None, size, rate, training["local_epochs"] * a_pass)
        for _ in range(rounds):
            steps = training["lesson_epochs"] * a_pass
            _steps(module, inputs, labels, queries, consensus, size, rate, steps)
        alone = training["lesson_epochs"] * rounds * a_pass
        _steps(module, inputs, labels, None, None, size, rate, alone)
    module = run.student().module()
    for _ in range(rounds):
        steps = student["epochs"] * -(-len(queries) // student["batch"])
        rate = student["learning_rate"]
        _steps(module, None, None, queries, consensus, student["batch"], rate, steps)
    return time.process_time() - began


def _steps(
    module: Any, inputs: Any, labels: Any, queries: Any, consensus: Any, size: int, rate: float,
    count: int,
) -> None:  # fmt: skip
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    def dealt(rows: int) -> Any:
        while True:
            yield from torch.randperm(rows).split(size)

    own = dealt(len(inputs)) if inputs is not None else None
    asked = dealt(len(queries)) if queries is not None else None
    optimizer = torch.optim.Adam(module.parameters(), rate, fused=True)
    for _ in range(count):
        batch = [inputs[i := next(own)]] if own is not None else []
        batch += [queries[j := next(asked)]] if asked is not None else []
        logits = module(torch.cat(batch) if len(batch) > 1 else batch[0])
        loss = torch.zeros(())
        if own is not None:
            loss = cross_entropy(logits[: len(i)], labels[i])
        if asked is not None:
            said = log_softmax(logits[len(logits) - len(j) :], dim=1)
            loss = loss + kl_div(said, consensus[j], reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
