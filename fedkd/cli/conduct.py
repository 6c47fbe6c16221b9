"""Conducts a run over a Flower grid: the roll call, the rounds, the closing question."""

from typing import TYPE_CHECKING

from fedkd.audit import Contradiction, Log
from fedkd.cli.progress import Watching
from fedkd.cli.run import versions
from fedkd.federation.durable import write_bytes
from fedkd.federation.faults import faulty
from fedkd.federation.flower.asking import GridAsk
from fedkd.federation.observer import Observer
from fedkd.federation.rounds import Conductor
from fedkd.knowledge import BadInput

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from fedkd.cli.run import Run


def conduct(run: "Run", grid: "Grid") -> None:
    """Everything from the roll call to the student's file; goes on where a killed run stopped."""
    sites = run.sites
    watching = Watching(Observer(list(sites.values()), run.id, run.build))
    (run.folder / "server").mkdir(exist_ok=True)
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        _begin(run, log)
        conductor = Conductor(
            run.folder, run.rules(), run.terms(), run.student(), log, watching, run.elapsed
        )
        run.wall_before = conductor.state.wall_seconds
        asking = GridAsk(grid, run.config["deadline"])
        called = asking.roll_call(run.id, sorted(sites))
        for name in called.strangers:
            body = {"kind": "stranger", "component": "roll call", "run": run.id, "name": name}
            log.append(f"{run.id}/stranger/{name}", "error.raised", body)
        if conductor.state.round == 0:
            for site, (sent, received) in called.came.items():
                conductor.state.traffic.sent(site, sent)
                conductor.state.traffic.received(site, received)
        faults = run.config["faults"]
        ask = faulty(
            asking,
            kind=faults["kind"],
            fraction=faults["fraction"],
            rounds=faults["rounds"],
            seed=run.config["seed"],
        )
        conductor.conduct(ask, sorted(sites))
        log.append(f"{run.id}/ended", "run.ended", {"run": run.id, "outcome": "finished"})
    student = run.folder / "server" / str(conductor.state.student)
    write_bytes(run.folder / "student.safetensors", student.read_bytes())


def _begin(run: "Run", log: Log) -> None:
    log.append("log.opened", "log.opened", {"party": "server", "format": 1})
    fixed = {"run": run.id, "config": run.config, "versions": versions()}
    try:
        log.append(f"{run.id}/config", "config.fixed", fixed)
    except Contradiction:
        raise BadInput(
            f"a run in {run.folder} that began with another configuration or other versions",
            "the ones it began with",
            "its log says which (config.fixed); install those, or start a new run",
        ) from None
    log.append(f"{run.id}/started", "run.started", {"run": run.id})
    for site in run.sites:
        log.append(f"{run.id}/enrolled/{site}", "party.enrolled", {"party": site})
