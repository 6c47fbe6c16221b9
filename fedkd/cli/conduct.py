"""Conducts a run over a Flower grid: the roll call, the rounds, the closing question."""

from typing import TYPE_CHECKING, Final, NamedTuple

from fedkd.audit import SERVER, Contradiction, Log
from fedkd.cli.lines import say
from fedkd.cli.progress import Watching
from fedkd.cli.run import versions, without
from fedkd.federation.durable import write_bytes
from fedkd.federation.faults import faulty
from fedkd.federation.flower.asking import GridAsk
from fedkd.federation.relay import Relay
from fedkd.federation.rounds import Conductor
from fedkd.knowledge import BadInput

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from fedkd.cli.run import Run

ROOM_BYTES: Final = 4 << 20
"""What a reply may weigh beside its numbers: the frame, and the envelope in front (1 MiB)."""


def server_log(run: "Run") -> Log:
    """The server's log, open."""
    (run.folder / "server").mkdir(exist_ok=True)
    return Log(run.folder / "server" / "log.sqlite", SERVER)


class Conducted(NamedTuple):
    """A run whose rounds are over: the conductor, and the way to the sites."""

    conductor: Conductor
    asking: GridAsk


def conduct(run: "Run", grid: "Grid", log: Log) -> Conducted:
    """Everything from the roll call to the student's file; goes on where a killed run stopped.

    Where that is after the closing question, no hospital has to be there.
    """
    if run.build(without(run.config["mechanism"], ("epsilon",))).private and run.config[
        "sites"
    ].get("rehearsal", True):
        say("a rehearsal: noise comes from the seed, can be drawn again, and hides nobody")
    watching = Watching(run.observer())
    _begin(run, log)
    conductor = Conductor(
        run.folder, run.rules(), run.terms(), run.student(), log, watching, run.elapsed
    )
    run.wall_before = conductor.state.wall_seconds

    def count(site: str, sent: int, received: int | None) -> None:
        conductor.state.traffic.sent(site, sent)
        if received is not None:
            conductor.state.traffic.received(site, received)

    numbers = conductor.rules.codec.raw_bytes(conductor.terms.queries, conductor.terms.classes)
    asking = GridAsk(
        grid,
        run.config["deadline"],
        relay_of(run, log),
        count,
        run.members,
        numbers + ROOM_BYTES,
    )
    if conductor.state.closed:  # nothing is asked any more: whoever is there cosigns the end
        sites = sorted({*run.sites, *run.elsewhere} - set(run.absent()))
        called = asking.roll_call(run.id, sites, patiently=False)
        if asking.relay is not None and not called.came:
            say("no hospital is there to cosign the last entries of the server's log")
    else:
        sites = run.agreed(asking, log)
        called = asking.roll_call(run.id, sites)
    for name in called.strangers:
        body = {"kind": "stranger", "component": "roll call", "run": run.id, "name": name}
        log.append(f"{run.id}/stranger/{name}", "error.raised", body)
    faults = run.config["faults"]
    ask = faulty(
        asking,
        kind=faults["kind"],
        fraction=faults["fraction"],
        rounds=faults["rounds"],
        seed=run.config["seed"],
    )
    conductor.conduct(ask, sites)
    log.append(f"{run.id}/ended", "run.ended", {"run": run.id, "outcome": "finished"})
    student = run.folder / "server" / str(conductor.state.student)
    write_bytes(run.folder / "student.safetensors", student.read_bytes())
    return Conducted(conductor, asking)


def relay_of(run: "Run", log: Log) -> Relay | None:
    """What rides along so that parties cosign each other; None where nobody is to."""
    federation = run.federation()
    if not federation.most_cosigners:
        return None
    return Relay(log, federation, earlier=run.earlier_heads())


def seal(run: "Run", conducted: Conducted) -> None:
    """One more roll call, which brings the cosignatures over everybody's last entries."""
    conductor, asking = conducted
    asking.settle(run.id)
    conductor.server.save(conductor.state)
    if asking.relay is not None:
        asking.relay.keep_checkpoints(conductor.server.folder)


def _begin(run: "Run", log: Log) -> None:
    opened = {"party": SERVER, "format": 1, "rehearsal": run.rehearsal}
    log.append("log.opened", "log.opened", opened)
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
    for party, peer in run.federation().parties.items():
        if party != SERVER:
            body = {"party": party, **peer.to_json()}
            log.append(f"{run.id}/enrolled/{party}", "party.enrolled", body)
    for key, event, told in run.registered():
        log.append(key, event, told)
