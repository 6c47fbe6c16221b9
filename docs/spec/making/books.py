"""Cases of what logs say of each other and of themselves: two books, one ledger."""

from collections.abc import Iterable

from making.logs import COST, POPULATION, QUESTION
from making.parties import RUN, Case, refused, taken


def books() -> Iterable[Case]:
    """Double entry, and what parties keep of each other's heads."""
    pair = {"server": "server", "site-01": "site-01"}
    none = {"matched": 0, "closed": 0, "erased": 0, "absent": [], "heads": 1}
    for name, change, told in (
        ("both sides alike", {}, {"matched": 1, "heads": 2}),
        ("left out, and why", {"server": "server, left out with a reason"}, {}),
        ("a side that is closed", {"site-01": "site-01, release closed"}, {"closed": 1}),
        ("the other side closed", {"server": "server, admitted closed"}, {"closed": 1}),
        ("a side that is erased", {"server": "server, admitted erased"}, {"erased": 1}),
    ):
        yield taken(name, {**pair, **change}, {**none, **told})
    alone = {**none, "absent": ["site-01"], "heads": 0}
    yield taken("a site whose log is not here", {"server": "server"}, alone)
    changed: dict[str, tuple[str, str]] = {
        "site-01, nothing released": ("site-01", "one-side-missing"),
        "site-01, released in another round": ("site-01", "one-side-missing"),
        "server, left out without a reason": ("server", "one-side-missing"),
        "site-01, another answer released": ("site-01", "sides-differ"),
        "server, another answer admitted": ("server", "sides-differ"),
        "server, another answer combined": ("server", "not-admitted"),
        "server, head from before the answer": ("server", "after-its-head"),
        "server, head of another history": ("server", "other-history"),
        "site-01, asked at another history": ("site-01", "other-history"),
        "site-01, asked at a size that never was": ("site-01", "shorter-than-kept"),
    }
    for name, (party, reason) in changed.items():
        # One thing is wrong at a time: a changed log is no longer the one whose head was kept.
        beside = {"server": "server, no heads kept"} if party == "site-01" else {}
        yield refused(name, {**pair, **beside, party: name}, reason)


def ledger() -> Iterable[Case]:
    """Appending by key, and a budget replayed from its entries."""
    population = {"population": POPULATION, "cost": COST, "question": QUESTION}
    other = {**population, "population": "another", "cost": {"event": "another"}}
    train, answer, more = (f"{RUN}/train/charge", f"{QUESTION}/charge", "another question/charge")
    once = [[train, "budget.charged", population], [answer, "budget.charged", population]]
    swapped = [answer, "budget.charged", dict(reversed(population.items()))]
    charged = [*once, swapped, [more, "budget.charged", other], once[0]]
    yield taken(
        "what is done again finds its entry",
        {"appends": charged, "population": POPULATION},
        {"indices": [0, 1, 1, 2, 0], "charged": [COST, COST]},
    )
    for name, again in {
        "another body under one key": [train, "budget.charged", other],
        "another type under one key": [train, "release.refused", population],
    }.items():
        yield refused(name, {"appends": [*once, again], "population": POPULATION}, "contradiction")
