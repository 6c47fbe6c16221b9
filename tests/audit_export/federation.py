"""A federation's logs, written by hand: two sites answer in two rounds, a third is left out."""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedkd.audit import Log
from fedkd.audit.verify.logs import CheckedLog, check_log

RUN = "r-01"
SITES = ("site-01", "site-02", "site-03")
HEARD = SITES[:2]
CARD = {
    "name": "clinic records",
    "version": "2",
    "modality": "table",
    "licence": "not licensed: stays at the hospital",
    "legal_basis": "GDPR 6(1)(e) and 9(2)(j), as the hospital states it",
    "origin": "one hospital's own records",
    "citation": "",
}
PUBLIC = {
    "name": "digits",
    "version": "1998",
    "modality": "grey images 8x8",
    "licence": "CC BY 4.0",
    "legal_basis": "No health data.",
    "origin": "UCI Machine Learning Repository 80",
    "citation": "Alpaydin and Kaynak, 1998",
}
GENERATOR = {"generator": "dictionary", "code": "sha256:" + "c0de" * 16, "seed": 7}
Body = dict[str, Any]
Change = Callable[[str, str, Body], Body | None]


def digest(*what: object) -> str:
    return "sha256:" + hashlib.sha256(repr(what).encode()).hexdigest()


def as_it_is(party: str, key: str, body: Body) -> Body | None:
    return body


def federation(
    folder: Path,
    change: Change = as_it_is,
    query: str = "public",
    types: Mapping[str, str] = MappingProxyType({}),
    sites: Sequence[str] = SITES,
    heard: int = 2,
) -> Path:
    """A run's folder with its audit folder; `change` alters or drops what a party appends.

    `types` gives what is appended under a key another type; the first `heard` of `sites` answer.
    """
    ticks = itertools.count()

    def now() -> str:
        minute, second = divmod(next(ticks), 60)
        return f"2026-11-24T12:{minute:02d}:{second:02d}Z"

    (folder / "audit").mkdir(parents=True)
    logs = {}
    for party in ("server", *sites):
        (folder / "parties" / party).mkdir(parents=True)
        logs[party] = Log(folder / "parties" / party / "log.sqlite", party, now)

    def say(party: str, key: str, type: str, /, **body: Any) -> None:
        changed = change(party, key, body)
        if changed is not None:
            logs[party].append(key, types.get(key, type), changed)

    _open(say, sites)
    for number in (1, 2):
        _round(say, number, query, sites[:heard], sites[heard:])
    say("server", "ended", "run.ended", run=RUN, outcome="finished")
    figures = {"student": {"accuracy": 0.75, "auroc": None}, "clients": [{"accuracy": 0.5}]}
    say(
        "server", "evaluation", "evaluation.done",
        run=RUN, model=student(2), data="digits, test", figures=figures,
    )  # fmt: skip
    for party, log in logs.items():
        log.export(folder / "audit" / f"{party}.sqlite")
        log.close()
    return folder


def checked(folder: Path) -> dict[str, CheckedLog]:
    return {path.stem: check_log(path) for path in sorted((folder / "audit").glob("*.sqlite"))}


def student(round: int) -> str:
    return digest("student", round)


def consensus(round: int) -> str:
    return digest("consensus", round)


def posed(round: int, query: str) -> str:
    return digest("queries") if query == "public" else digest("queries", round)


def _open(say: Callable[..., None], sites: Sequence[str]) -> None:
    for party in ("server", *sites):
        say(party, "opened", "log.opened", party=party, format=3, rehearsal=False)
    for id_, role, records in (
        ("digits", "whole", 900), ("digits, held out", "queries", 300), ("digits, test", "test", 99)
    ):  # fmt: skip
        say(
            "server", f"dataset/{id_}", "dataset.registered",
            id=id_, role=role, card=PUBLIC, digest=None, records=records,
        )  # fmt: skip
    parts = {"digits, held out": 300, "digits, test": 99}
    config = {"student": {"model": "cnn"}, "seed": 5}
    versions = {"fedkd": "0.1.0", "python": "3.11.7", "torch": "2.13.0"}
    say("server", "config", "config.fixed", run=RUN, config=config, versions=versions)
    say("server", "started", "run.started", run=RUN)
    say(
        "server", "partitioned", "data.partitioned",
        run=RUN, input="digits", parts=parts, by="held out", disjoint=True,
    )  # fmt: skip
    for site in sites:
        say(
            site, "dataset", "dataset.registered",
            id=f"{site}/records", role="training", card=CARD, commitment=f"hmac-sha256:{site}",
            records={"train": 90, "validation": 10}, rehearsal=False,
        )  # fmt: skip


def _round(
    say: Callable[..., None], round: int, query: str, heard: Sequence[str], silent: Sequence[str]
) -> None:
    queries, before = posed(round, query), round - 1
    origin: Body = {
        "kind": "public", "name": "digits, held out", "licence": "CC BY 4.0", "digest": "sha256:f",
    }  # fmt: skip
    if query == "synthetic":
        parents = [consensus(before)] if before else []
        looked = {"parents": parents, "student": student(before) if before else None}
        origin = {"kind": "synthetic", **GENERATOR, "round": round, **looked}
        say(
            "server", f"{round}/generated", "synthetic.generated",
            run=RUN, round=round, **GENERATOR, **looked,
            count=16, digest=queries, marking="not marked", dp=None,
        )  # fmt: skip
    say(
        "server", f"{round}/posed", "queries.posed",
        run=RUN, round=round, digest=queries, origin=origin, count=16, shape=[1, 8, 8],
    )  # fmt: skip
    answers = {site: _answer(say, site, round, queries) for site in heard}
    left_out = dict.fromkeys(silent, "timeout")
    for site in silent:
        _train(say, site, round)
    say(
        "server", f"{round}/admitted", "answers.admitted",
        run=RUN, round=round, question=digest("q", round), answers=answers, left_out=left_out,
        traffic={}, holders={}, checkpoints={},
    )  # fmt: skip
    say(
        "server", f"{round}/combined", "aggregate.computed",
        run=RUN, round=round, inputs=answers, left_out=left_out, rule="mean", filter="none",
        output=consensus(round), lesson=digest("lesson", round),
    )  # fmt: skip
    say(
        "server", f"{round}/student", "student.updated",
        run=RUN, round=round, inputs=[consensus(round)], queries=queries,
        parent=student(before) if before else None, model="cnn", output=student(round),
    )  # fmt: skip


def _train(say: Callable[..., None], site: str, round: int) -> None:
    say(
        site, f"{round}/train", "train.local",
        run=RUN, round=round, inputs=[f"{site}/records"], model="mlp", mechanism="none",
        lesson=digest("lesson", round - 1) if round > 1 else None,
        parent=digest(site, "model", round - 1) if round > 1 else None,
        output=digest(site, "model", round), seconds=1.5, leave_with="it", dp=None,
    )  # fmt: skip


def _answer(say: Callable[..., None], site: str, round: int, queries: str) -> str:
    _train(say, site, round)
    answer = digest(site, "answer", round)
    say(
        site, f"{round}/release", "release.outputs",
        run=RUN, round=round, question=digest("q", round), queries=queries, items=16,
        kind="distributions", model=digest(site, "model", round), mechanism="none",
        digest=answer, payload=digest(site, "payload", round), recipient="server", asked_at=None,
    )  # fmt: skip
    return answer
