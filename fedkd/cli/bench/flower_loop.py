"""The small sites' training as a plain Flower app, on Flower's own simulation engine."""

import logging
import time
from pathlib import Path
from typing import Any


def measured(sites: int) -> tuple[float, float]:
    """(wall seconds, CPU seconds of Ray's workers) of one warm round over all sites.

    A first round warms the workers up (imports, data) and is not counted.
    """
    from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

    import fedkd.federation.flower  # noqa: F401  # no call home

    logging.getLogger("flwr").setLevel(logging.ERROR)
    client, server = ClientApp(), ServerApp()
    found: list[tuple[float, float]] = []

    @client.train()
    def train(message: Message, context: Context) -> Message:
        _train_one(int(context.node_config["partition-id"]), sites)
        content = RecordDict({"done": MetricRecord({"records": 1})})
        return Message(content, reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        nodes = list(grid.get_node_ids())
        while len(nodes) < sites:
            time.sleep(0.1)
            nodes = list(grid.get_node_ids())
        for _ in range(2):
            wall, cpu = time.perf_counter(), _workers_cpu()
            content = RecordDict({"round": ConfigRecord({"n": 1})})
            messages = [Message(content, node, "train") for node in nodes]
            replies = list(grid.send_and_receive(messages))
            failed = sum(reply.has_error() for reply in replies)
            if failed or len(replies) != sites:
                raise RuntimeError(f"found {failed} failures in {len(replies)} replies")
            found.append((time.perf_counter() - wall, _workers_cpu() - cpu))

    from fedkd.cli.configuration import app_root
    from fedkd.federation.flower.ray import run_on_ray

    run_on_ray(server, client, Path(), sites, {}, app_root())
    return found[-1]


_KEPT: dict[int, Any] = {}


def _train_one(site: int, sites: int) -> None:
    import torch

    from fedkd.cli.bench.small_sites import bare_loop, mlp_of, records_of
    from fedkd.distill import LearningPlan

    torch.set_num_threads(1)
    if sites not in _KEPT:
        _KEPT[sites] = records_of(sites)
    space, records = _KEPT[sites]
    plan = LearningPlan(epochs=5, batch=10, learning_rate=1e-3)
    bare_loop([mlp_of(space, site)], [records[site]], plan)


def _workers_cpu() -> float:
    """CPU seconds of Ray's workers and servers and of this process (Linux)."""
    import os

    ticks = os.sysconf("SC_CLK_TCK")
    total = time.process_time()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if _is_rays(command) and int(path.name) != os.getpid():
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def _is_rays(command: bytes) -> bool:
    """Whether a command line is a worker's, which Ray names `ray::...`, or a Ray server's."""
    program = command.split(b"\0")[0]
    return program.startswith(b"ray::") or program.rpartition(b"/")[2] in (b"raylet", b"gcs_server")
