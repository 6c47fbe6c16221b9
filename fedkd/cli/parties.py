"""Who takes part in a run, and with which data sets: what its logs say before the first round."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fedkd.audit import SERVER, Federation, Peer, cosigners_of, make_keys
from fedkd.audit.keys import log_key, witness_keys
from fedkd.federation.site import SiteFolder
from fedkd.federation.witnessing import enrol
from fedkd.knowledge import BadInput, Public

if TYPE_CHECKING:
    from fedkd.cli.run import Run


def keys_of(run: "Run") -> Federation:
    """Everybody's keys, from their own folders: in a simulation one holder has them all."""
    audit = run.config["audit"]
    parties = {}
    for party, folder in {SERVER: run.folder / "server", **run.sites}.items():
        if party == SERVER:
            make_keys(folder, party, rehearsal=True, mldsa=audit["mldsa"])
        witnesses = tuple(key.verifier() for key in witness_keys(folder))
        parties[party] = Peer(log_key(folder).verifier(), witnesses)
    return Federation(parties, audit["threshold"], audit["most_age"], audit["cosigners"])


def enrol_sites(run: "Run") -> None:
    """Tells each site whom it knows: who cosigns its log, and whose logs it cosigns."""
    for site, roster in run.federation().rosters().items():
        if site != SERVER:
            with SiteFolder(run.sites[site]).log(site) as log:
                enrol(log, run.id, roster)


def check_cosigning(audit: Mapping[str, Any], sites: Iterable[str]) -> None:
    """`BadInput` for a threshold that some log can never reach."""
    fewest = min(map(len, cosigners_of(sites, audit["cosigners"]).values()))
    if audit["threshold"] is not None and audit["threshold"] > fewest:
        raise BadInput(
            f"audit.threshold={audit['threshold']}",
            f"at most {fewest}, the fewest cosigners that a log has here",
            "leave it out: fedkd then lets one of them be absent",
        )


def test_id(run: "Run") -> str:
    """What the common test is called in the logs."""
    return f"{run.dataset().card.name}, test"


def sources(run: "Run") -> Iterator[dict[str, Any]]:
    """What the server's log says of each data set that it deals with: a body for each."""
    cut, whole = run.cut(), run.dataset().card
    total = len(cut.private) + len(cut.test) + len(cut.queries or ())
    yield _registered(whole.name, "whole", whole.to_json(), total)
    yield _registered(test_id(run), "test", whole.to_json(), len(cut.test))
    asked = run.public_queries()
    if asked is None or not isinstance(asked.origin, Public) or asked.origin.name == whole.name:
        return
    mismatched = run.config["query"]["kind"] == "mismatched"
    card = run.other_dataset().card if mismatched else whole
    yield _registered(asked.origin.name, "queries", card.to_json(), len(asked))


def _registered(name: str, role: str, card: Any, records: int) -> dict[str, Any]:
    return {"id": name, "role": role, "card": card, "records": records}


def partitioned(run: "Run") -> dict[str, Any]:
    """How the data set was cut up: which part has how many rows, and that no row is in two."""
    cut, whole = run.cut(), run.dataset().card
    rows = [row for part in cut.sites.values() for row in part.tolist()]
    parts = {f"{site}/{whole.name}": len(part) for site, part in sorted(cut.sites.items())}
    parts[test_id(run)] = len(cut.test)
    if cut.queries is not None and isinstance(cut.queries.origin, Public):
        parts[cut.queries.origin.name] = len(cut.queries)
    return {
        "run": run.id,
        "input": whole.name,
        "parts": parts,
        "by": run.config["choices"]["partition"],
        "disjoint": len(rows) == len(set(rows)),
    }
