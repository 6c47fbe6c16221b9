"""Small whole logs of a server and a hospital, which cases name; sound ones and broken ones."""

import json
from collections.abc import Iterable
from typing import Any

from fedkd.audit.verify import Algorithm, SigningKey
from making.parties import (
    ONE,
    RUN,
    SERVER,
    TWO,
    Body,
    Case,
    SmallLog,
    constant,
    digest,
    opened,
    refused,
    taken,
    time_of,
)

QUESTION, QUERIES, ANSWER = digest("a question"), digest("queries"), digest("an answer")
OTHER = digest("another answer")
POPULATION = "site-01/rehearsal"
COST = {"event": "NonPrivateDpEvent"}


def site_log(
    released: str | None = ANSWER, round: int = 1, asked_at: Body | None = None
) -> SmallLog:
    """A hospital's log: a budget, a charge, a release."""
    log = opened(ONE)
    budget = {"population": POPULATION, "epsilon": None, "delta": None, "rehearsal": True}
    log.append(f"budget/{POPULATION}", "budget.opened", budget)
    charge = {"population": POPULATION, "cost": COST, "question": QUESTION}
    log.append(f"{QUESTION}/charge", "budget.charged", charge)
    body: Body = {
        "run": RUN, "round": round, "question": QUESTION, "queries": QUERIES, "items": 4,
        "kind": "distributions", "model": digest("a model"), "mechanism": "none",
        "digest": released, "payload": digest("a message"), "recipient": "server",
        "asked_at": server_log(admits=None).head(2) if asked_at is None else asked_at,
    }  # fmt: skip
    if released is None:
        log.append("lost", "error.raised", {"run": RUN, "kind": "example"})
    else:
        log.append(f"{QUESTION}/release", "release.outputs", body)
    return log


def server_log(
    admits: str | None = ANSWER,
    *,
    combines: str | None = None,
    head: Body | None = None,
    left_out: Body | None = None,
) -> SmallLog:
    """The server's log: queries, what was admitted, what was combined."""
    log = opened(SERVER)
    origin = {"kind": "public", "name": "made up", "licence": "CC0-1.0", "digest": QUERIES}
    posed = {"digest": QUERIES, "origin": origin, "count": 4, "shape": [2]}
    log.append(f"{RUN}/1/posed", "queries.posed", {"run": RUN, "round": 1, **posed})
    if admits is None:
        return log
    answers = {} if left_out is not None else {"site-01": admits}
    heads = {} if head == {} else {"site-01": site_log().head() if head is None else head}
    admitted: dict[str, Any] = {
        "run": RUN, "round": 1, "question": QUESTION, "answers": answers,
        "left_out": {"site-02": "silent"} if left_out is None else left_out,
        "checkpoints": heads if answers else {},
        "traffic": {"up": {}, "down": {}}, "holders": {},
    }  # fmt: skip
    log.append(f"{RUN}/1/admitted", "answers.admitted", admitted)
    combined: dict[str, Any] = {
        "run": RUN, "round": 1, "inputs": dict.fromkeys(answers, combines or admits),
        "left_out": {}, "rule": "mean", "filter": "none", "output": digest("a consensus"),
        "lesson": digest("a consensus"),
    }  # fmt: skip
    log.append(f"{RUN}/1/combined", "aggregate.computed", combined)
    return log


def erased(log: SmallLog, index: int) -> SmallLog:
    """The log with one entry more, which says that the body of entry `index` was erased."""
    type_ = json.loads(log.leaves[index])["type"]
    told = {"rule": "an example", "type": type_, "before": time_of(59)}
    body = {**told, "erased": [index], "count": 1, "youngest_days": 0}
    log.append(f"retention/{len(log.leaves)}", "retention.applied", body)
    return log


ELSEWHERE = {"size": 4, "root": constant("another history").hex()}
LOGS = {
    "site-01": site_log(),
    "site-01, nothing released": site_log(None),
    "site-01, another answer released": site_log(OTHER),
    "site-01, released in another round": site_log(round=2),
    "site-01, asked at another history": site_log(asked_at=ELSEWHERE),
    "site-01, asked at a size that never was": site_log(asked_at={**ELSEWHERE, "size": 5}),
    "server": server_log(),
    "server, no heads kept": server_log(head={}),
    "server, another answer admitted": server_log(OTHER),
    "server, another answer combined": server_log(combines=OTHER),
    "server, left out with a reason": server_log(left_out={"site-01": "late"}),
    "server, left out without a reason": server_log(left_out={}),
    "server, head from before the answer": server_log(head=site_log().head(3)),
    "server, head of another history": server_log(head=ELSEWHERE),
}
CLOSED = {
    "site-01, release closed": (site_log(), {3}),
    "server, admitted closed": (server_log(), {2}),
    "server, admitted erased": (erased(server_log(), 2), {2}),
}


def all_logs() -> dict[str, Case]:
    """The logs that cases name; the broken ones too."""
    whole = {name: log.plain() for name, log in LOGS.items()}
    closed = {name: log.plain(indices) for name, (log, indices) in CLOSED.items()}
    return whole | closed | {name: plain for name, (plain, _) in broken().items()}


def broken() -> dict[str, tuple[Case, str]]:
    """Logs that do not hold, each with its reason; those with other leaves are signed anew."""
    good = LOGS["site-01"].plain()
    entries, checkpoints = good["entries"], good["checkpoints"]
    first, second = entries[0], entries[1]
    other = {**first, "body": first["body"].replace("true", "false")}
    swapped, twice, foreign = SmallLog(ONE), opened(ONE), opened(ONE)
    for index in (1, 0):
        swapped.take(LOGS["site-01"], index)
    twice.append("log.opened", "error.raised", {})
    foreign.take(LOGS["server"], 1)
    renamed = SigningKey(ONE.origin, Algorithm.ED25519, TWO.log.seed).verifier().text()
    strange = LOGS["server"].plain()["entries"][1]
    later = {"leaf": second["leaf"].replace("00:01", "00:02")}

    def with_entries(*changed: Case) -> Case:
        return {**good, "entries": list(changed)}

    return {
        "an entry cut off": (with_entries(*entries[:-1]), "other-checkpoint"),
        "the first entry and its checkpoint cut off": (
            {**with_entries(*entries[1:]), "checkpoints": checkpoints[1:]},
            "other-checkpoint",
        ),
        "a checkpoint too few": ({**good, "checkpoints": checkpoints[:-1]}, "other-checkpoint"),
        "checkpoints in another order": (
            {**good, "checkpoints": [checkpoints[1], checkpoints[0], *checkpoints[2:]]},
            "other-checkpoint",
        ),
        "a body changed": (with_entries(other, *entries[1:]), "bad-commitment"),
        "half erased": (with_entries({**first, "body": None}, *entries[1:]), "half-erased"),
        "a foreign entry in its place": (
            with_entries(first, strange, *entries[2:]),
            "other-entries",
        ),
        "an entry changed": (with_entries(first, later, *entries[2:]), "other-entries"),
        "another log's key": ({**good, "vkey": TWO.log.verifier().text()}, "other-log"),
        "another key of its name": ({**good, "vkey": renamed}, "unsigned"),
        "entries in another order": (swapped.plain(), "wrong-place"),
        "a key twice": (twice.plain(), "wrong-place"),
        "an entry of another party": (foreign.plain(), "wrong-place"),
    }


def logs() -> Iterable[Case]:
    """Whole logs: entries, the tree over them, a signed checkpoint for each."""
    for name, log in LOGS.items():
        yield taken(name, {"log": name}, _shape(log, 0))
    for name, (log, indices) in CLOSED.items():
        yield taken(name, {"log": name}, _shape(log, len(indices)))
    for name, (_, reason) in broken().items():
        yield refused(name, {"log": name}, reason)


def _shape(log: SmallLog, closed: int) -> Case:
    types = [json.loads(leaf)["type"] for leaf in log.leaves]
    head = {"origin": log.party.origin, "size": len(log.leaves)}
    return {**head, "root_hex": log.tree.root().hex(), "types": types, "closed": closed}
