"""A coordinator's figures for Prometheus: what `fedkd server status` says.

    python -m fedkd.deploy.server_metrics FEDERATION PORT

Who is connected is asked of Flower's own command, which takes a second: the answer is kept for a
while.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fedkd.deploy.metrics import Metric, one, serve
from fedkd.deploy.server_folder import ServerFolder
from fedkd.deploy.standing import Standing, standing
from fedkd.knowledge.bad_input import BadInput

KEPT_SECONDS = 30.0


def server_metrics(found: Standing) -> Iterator[Metric]:
    """What can be said of a coordinator that stands so."""
    yield one("fedkd_server_up", "Whether hospitals can reach the SuperLink.", found.is_up)
    yield Metric(
        "fedkd_server_process_up",
        "Whether a process runs.",
        tuple(({"process": name}, float(pid is not None)) for name, pid in found.processes.items()),
    )
    states = Counter(member.state for member in found.members)
    yield Metric(
        "fedkd_server_sites",
        "Sites of the roster.",
        tuple(({"state": state}, float(count)) for state, count in sorted(states.items())),
    )
    connections = {member.site: found.connection(member) for member in found.members}
    yield Metric(
        "fedkd_server_site_connected",
        "Whether an admitted site is connected.",
        tuple(
            ({"site": site}, float(said == "online"))
            for site, said in connections.items()
            if said is not None
        ),
    )
    yield Metric(
        "fedkd_certificate_expiry_timestamp_seconds",
        "Until when a certificate holds.",
        tuple(({"name": each.name}, each.until.timestamp()) for each in found.certificates),
    )
    yield one("fedkd_server_warnings", "Warnings of fedkd server status.", len(found.warnings))
    if found.progress:
        yield from _newest_run(found)
    yield from _evaluations(found)


def _newest_run(found: Standing) -> Iterator[Metric]:
    run = found.progress[-1]
    yield Metric("fedkd_server_run_state", "The newest run: 1 at the state it is in.",
                 (({"state": run.shown}, 1.0),))  # fmt: skip
    yield one("fedkd_server_run_round", "The newest run's round.", run.round)
    yield one("fedkd_server_run_rounds", "How many rounds it has.", run.rounds)
    yield one("fedkd_server_run_epsilon",
              "What was proposed that each site may spend on it at most.", run.epsilon)  # fmt: skip
    head = run.checkpoint or {}
    cosigned = head.get("cosigned") or {}
    yield one("fedkd_server_log_entries", "Entries of its log.", head.get("size"))
    yield one("fedkd_server_log_cosigned_entries", "Entries at the newest cosigned head.",
              cosigned.get("size"))  # fmt: skip
    yield one("fedkd_server_log_cosigners", "Peers who cosigned that head.",
              len(cosigned["by"]) if cosigned else None)  # fmt: skip


def _evaluations(found: Standing) -> Iterator[Metric]:
    """By state, those of the runs that are told of; nothing where there is none."""
    every = [one for run in found.progress for one in run.evaluations]
    states = Counter(one.shown for one in every)
    if states:
        yield Metric(
            "fedkd_server_evaluations",
            "Evaluations of the students of the newest runs.",
            tuple(({"state": state}, float(count)) for state, count in sorted(states.items())),
        )


def kept(
    ask: Callable[[], Standing], now: Callable[[], float] = time.monotonic
) -> Callable[[], Standing]:
    """`ask`, asked again only once its answer is older than `KEPT_SECONDS`."""
    last: list[tuple[float, Standing]] = []

    def asked() -> Standing:
        if not last or now() - last[0][0] > KEPT_SECONDS:
            last[:] = [(now(), ask())]
        return last[0][1]

    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    """The figures as a process: 0 stopped, 2 used wrongly."""
    folder, port = list(sys.argv[1:] if arguments is None else arguments)
    try:
        server = ServerFolder.opened(Path(folder))
        asked = kept(lambda: standing(server))
        return serve(int(port), lambda: server_metrics(asked()))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
