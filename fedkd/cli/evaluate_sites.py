"""Asks the hospitals of a simulation, whose folders are here, for counts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedkd.audit import Log
from fedkd.cli.questioned import ask_for_counts, handed_over, settle
from fedkd.federation.evaluating import Grouping, place_model
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.privacy import Ledger
from fedkd.wire import Evaluation

if TYPE_CHECKING:
    from fedkd.cli.run import Run
    from fedkd.federation.flower.asking import GridAsk

__all__ = ["ask_here", "grid_of", "settle"]


def ask_here(
    run: "Run", question: Evaluation, grouping: Grouping, sites: str | None
) -> dict[str, Any]:
    """What `sites` (comma-separated; all by default) answered, and what it cost each."""
    from fedkd.cli.conduct import server_log

    asked = _asked(run, sites)
    before = _ledgers(run, asked)
    _expect_group_somewhere(run, asked, question.group)
    _expect_something_left(run, before, question)
    for site in asked:
        kind = str(run.config["student"]["model"])
        place_model(run.sites[site], run.folder / "student.safetensors", kind)
    with server_log(run) as log:
        told = ask_for_counts(run, log, grid_of(run, log), question, grouping, asked)
    audit = handed_over(run)
    after = _ledgers(run, asked)
    for row in told["sites"]:
        row["cost"] = _cost(before[row["site"]], after[row["site"]])
    return {**told, "audit": audit}


def _asked(run: "Run", sites: str | None) -> list[str]:
    if sites is None:
        return sorted(run.sites)
    named = sorted({name.strip() for name in sites.split(",")})
    for name in named:
        if name not in run.sites:
            raise BadInput(f"the site {name!r}", f"one of {', '.join(sorted(run.sites))}")
    return named


def _ledgers(run: "Run", sites: Sequence[str]) -> dict[str, Ledger | None]:
    """Each site's ledger: a simulation may look; in a deployment the site alone knows."""
    found: dict[str, Ledger | None] = {}
    for site in sites:
        folder = SiteFolder(run.sites[site])
        settings = folder.settings()
        with folder.log(settings.name) as log:
            opened = log.last("budget.opened")
            found[site] = None if opened is None else ledger_of(log, settings.population)
    return found


def _expect_group_somewhere(run: "Run", asked: Sequence[str], group: str | None) -> None:
    """`BadInput` where counts by `group` would be refused at every site that is asked."""
    for site in asked:
        settings = SiteFolder(run.sites[site]).settings()
        # Of a site that is no rehearsal its officer's paper decides, and is read there.
        if group is None or group in settings.accepts.groups or not settings.rehearsal:
            return
    raise BadInput(
        f"--group {group} in a rehearsal",
        "a hospital whose officer allows it: no paper is signed for a rehearsal",
        "take sites.dir=DIR sites.rehearsal=false, and papers with "
        f"evaluation_groups: [{group}]; or give a set of your own, --data FILE",
    )


def _expect_something_left(
    run: "Run", ledgers: Mapping[str, Ledger | None], question: Evaluation
) -> None:
    """`BadInput` where no site's budget has anything left: unless an answer is there, and free."""
    for site, ledger in ledgers.items():
        if ledger is None or ledger.left() > 0:
            return
        with SiteFolder(run.sites[site]).log(site) as log:
            if log.entry(f"{question.key}/release") is not None:
                return
    raise BadInput(
        "no budget with anything left, at any site that is asked",
        "one that covers an evaluation",
        "what is spent never comes back: the next run leaves some, such as "
        "mechanism.epsilon=1 budget.epsilon=2",
    )


def grid_of(run: "Run", log: Log) -> "GridAsk":
    """The way to the sites, as in a round: letters, relay and roll call."""
    from clients.app import app as client_app
    from fedkd.cli.conduct import relay_of
    from fedkd.federation.flower.asking import GridAsk
    from fedkd.federation.flower.inprocess import InProcessGrid

    nodes = [{"site": str(folder)} for folder in run.sites.values()]
    grid = InProcessGrid(client_app, nodes)
    asking = GridAsk(grid, run.config["deadline"], relay_of(run, log))
    asking.roll_call(run.id, sorted(run.sites))
    return asking


def _cost(before: Ledger | None, after: Ledger | None) -> dict[str, Any] | None:
    """What an evaluation cost: epsilons as the ledger's own filter counts them; None: no budget."""
    if before is None or after is None or after.epsilon is None:
        return None
    new = after.charged[len(before.charged) :]
    return {
        "charged": [dict(cost) for cost in new],
        "spent_before": before.spent(),
        "spent": after.spent(),
        "left": after.left(),
        "budget": after.epsilon,
        "delta": after.delta,
        "unit": after.unit,
        "filter": after.filter,
    }
