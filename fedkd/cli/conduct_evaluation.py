"""Conducts a proposed evaluation over a Flower grid: the proposal, the question, the figures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedkd.audit import SERVER, Log
from fedkd.cli.conduct import server_log
from fedkd.cli.deployed import TAKING_PART, DeployedRun, expect_cosigned, heads_of, nodes_of
from fedkd.cli.evaluate_deployed import ProposedEvaluation
from fedkd.cli.lines import say
from fedkd.cli.questioned import NAME, ask_for_counts, handed_over, keep
from fedkd.cli.telling import alone
from fedkd.deploy.evaluation_proposals import EvaluationProposal
from fedkd.federation.asking import NOT_ADMITTED
from fedkd.federation.evaluating import Grouping
from fedkd.federation.flower.asking import GridAsk
from fedkd.federation.relay import Relay
from fedkd.federation.rounds import NoQuorum
from fedkd.knowledge import BadInput

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from fedkd.cli.run import Run


def conduct_evaluation(run: "Run", name: str, grid: "Grid") -> None:
    """Asks the hospitals that say yes, and keeps what came of it in the run's folder."""
    if not isinstance(run, DeployedRun):
        raise BadInput(f"a simulation in {run.folder}", "a run of a deployed federation")
    made = ProposedEvaluation.named(run, name)
    with alone(run.folder, made.tell), server_log(run) as log:
        proposal = made.proposal()
        asking = _grid(run, proposal, grid, log)
        rulings = _rulings(made, proposal, asking)
        taking = sorted(site for site, ruling in rulings.items() if ruling in TAKING_PART)
        inside = _took_part(log)
        _present(run, proposal, asking, taking, inside, rulings)
        for site in taking:
            if site not in run.proposal().parties:
                body = {"party": site, **proposal.federated().parties[site].to_json()}
                log.append(f"{run.id}/enrolled/{site}", "party.enrolled", body)
        absent = {site: it for site, it in rulings.items() if site not in taking}
        outsiders = sorted(set(proposal.sites) - inside)
        question = proposal.question()
        grouping = Grouping(run.form().schema, question.group)
        told = ask_for_counts(
            run, log, asking, question, grouping, taking, outsiders=outsiders, absent=absent
        )
        audit = handed_over(run)
        deployed = {"deployed": True, "rehearsal": run.rehearses, "proposal": proposal.digest}
        keep(run.folder / NAME, {**told, **deployed, "audit": audit})


def _grid(run: DeployedRun, proposal: EvaluationProposal, grid: "Grid", log: Log) -> GridAsk:
    """The way to everybody whose keys the paper names."""
    federation = proposal.federated()
    relay = None
    if federation.most_cosigners:
        relay = Relay(log, federation, earlier=heads_of(run.coordinator, federation))

    def members() -> dict[int, str]:
        return nodes_of(run.coordinator, proposal.parties, run.rehearses)

    return GridAsk(grid, run.config["deadline"], relay, members=members)


def _rulings(
    made: ProposedEvaluation, proposal: EvaluationProposal, asking: GridAsk
) -> dict[str, str]:
    """What each hospital that is asked said; asked again until all did, or the time is over."""
    before: dict[str, str] = {}

    def told(rulings: Mapping[str, str]) -> None:
        for site, ruling in rulings.items():
            if before.get(site) != ruling:
                say(f"{site}: {ruling}")
        before.update(rulings)
        made.tell("proposed", rulings=dict(rulings))

    body, signature = made.paper()
    rulings = asking.propose(
        made.run.id,
        body,
        signature,
        wait_s=float(made.told().get("wait_s", 0.0)),
        every_s=made.run.every_s,
        told=told,
        sites=proposal.sites,
    )
    rulings |= {site: NOT_ADMITTED for site in proposal.sites if site not in rulings}
    made.tell("running", rulings=rulings)
    return rulings


def _took_part(log: Log) -> set[str]:
    """The sites whose answers were admitted in any round."""
    return {
        site
        for entry in log.entries("answers.admitted")
        if entry.said is not None
        for site in entry.said["answers"]
    }


def _present(
    run: DeployedRun,
    proposal: EvaluationProposal,
    asking: GridAsk,
    taking: list[str],
    inside: set[str],
    rulings: Mapping[str, str],
) -> None:
    """Calls the roll of those who take part, and of those of the run that are there and cosign."""
    said = "; ".join(f"{site}: {ruling}" for site, ruling in sorted(rulings.items()))
    if not taking:
        raise NoQuorum(f"found no hospital that takes part, expected one; {said}")
    nodes = nodes_of(run.coordinator, proposal.parties, run.rehearses)
    there = {nodes[node] for node in asking.grid.get_node_ids() if node in nodes}
    beside = (there & inside) - set(taking)
    known = {SERVER, *taking}
    # Who said no to the evaluation knows of nobody who was not in the run.
    here = {site: known | beside if site in inside else known for site in taking}
    expect_cosigned(proposal.federated(), here, said)
    asking.roll_call(run.id, sorted({*taking, *beside}))
