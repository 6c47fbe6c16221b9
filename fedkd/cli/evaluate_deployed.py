"""Proposes to evaluate a deployed run's student to hospitals, and follows what comes of it."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fedkd
from fedkd.cli.deployed import DeployedRun, admitted, peer_of
from fedkd.cli.following import expect_up, follow, why_not
from fedkd.cli.lines import say
from fedkd.cli.proposing import DAYS
from fedkd.cli.questioned import NAME, shape_of
from fedkd.cli.telling import tell, told
from fedkd.deploy.evaluation_proposals import EvaluationProposal
from fedkd.deploy.lines import utc
from fedkd.deploy.locked import opened_server
from fedkd.deploy.roster import Member
from fedkd.deploy.run_standing import EVALUATIONS
from fedkd.deploy.server_folder import ServerFolder
from fedkd.federation.durable import read_json, write_bytes
from fedkd.federation.evaluating import Grouping
from fedkd.federation.rounds import NoQuorum
from fedkd.knowledge import BadInput
from fedkd.wire import Evaluation

_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class ProposedEvaluation:
    """An evaluation of a deployed run's student, in a folder of its own within the run's."""

    run: DeployedRun
    name: str

    @classmethod
    def named(cls, run: DeployedRun, name: str) -> "ProposedEvaluation":
        """The one of this name; `BadInput` where it is no name."""
        if not _NAME.fullmatch(name):
            raise BadInput(f"the evaluation {name!r}", "one that fedkd evaluate proposed")
        return cls(run, name)

    @property
    def coordinator(self) -> Path:
        """The folder of the coordinator that proposed it."""
        return self.run.coordinator

    @property
    def folder(self) -> Path:
        """Where its paper is, and how far it is."""
        return self.run.folder / EVALUATIONS / self.name

    @property
    def server(self) -> Path:
        """The folder of the server's log, and of its keys."""
        return self.run.folder / "server"

    def proposal(self) -> EvaluationProposal:
        """What was proposed, its signature checked again."""
        body, signature = self.paper()
        return EvaluationProposal.read(body, signature, ServerFolder(self.coordinator).vkey())

    def paper(self) -> tuple[bytes, str]:
        """The proposal's exact bytes, and the federation's signature."""
        path = self.folder / "proposal.json"
        try:
            return path.read_bytes(), path.with_suffix(".sig").read_text(encoding="utf-8")
        except OSError:
            raise BadInput(
                f"no proposal in {self.folder}", "an evaluation that fedkd evaluate proposed"
            ) from None

    def tell(self, state: str, **more: Any) -> None:
        """Keeps how far it is, for whoever follows it from another process."""
        tell(self.folder, self.run.id, state, **more)

    def told(self) -> dict[str, Any]:
        """How far it is: `state`, `rulings` by site, and `why` it failed."""
        return told(self.folder)

    def software(self) -> dict[str, str | None]:
        """The fedkd of each site when it was heard of last: in its run, or when it joined."""
        return self.run.software()


def ask_deployed(
    run: DeployedRun, question: Evaluation, grouping: Grouping, sites: str | None, wait_s: float
) -> dict[str, Any]:
    """Proposes, has it conducted at the SuperLink, and returns what is kept of it.

    `NoQuorum` where nobody takes part; asked again, it is the same paper, and a yes still holds.
    """
    expect_up(ServerFolder.opened(run.coordinator))
    opened_server(run.coordinator)
    made = propose_evaluation(run, question, grouping, sites)
    digest = made.proposal().digest
    say(f"fedkd: proposed an evaluation of run {run.id}, {digest}")
    if run.rehearses:
        say("REHEARSAL: of a rehearsed run; no record is read, nothing is charged")
    say(f"each hospital needs the file {run.folder / 'student.safetensors'}, sent by hand")
    made.tell("proposed", why=None, wait_s=wait_s)
    follow(made, {"out": str(run.folder), "evaluation": made.name})
    if made.told().get("state") != "finished":
        raise NoQuorum(why_not(made))
    return kept(run, question)


def kept(run: DeployedRun, question: Evaluation) -> dict[str, Any]:
    """What the run's folder holds of an evaluation."""
    found: Sequence[dict[str, Any]] = read_json(run.folder / NAME)["evaluations"]
    return next(one for one in found if one.get("question") == question.key)


def propose_evaluation(
    run: DeployedRun, question: Evaluation, grouping: Grouping, sites: str | None
) -> ProposedEvaluation:
    """The signed paper in the run's folder: that of before where nothing in it changed.

    `BadInput`, before anything is written, where server.yaml's policy does not allow it.
    """
    server = ServerFolder.opened(run.coordinator)
    members = _asked(run, {member.site: member for member in admitted(run.coordinator)}, sites)
    proposal = proposal_of(run, question, grouping, members)
    server.settings().policy.expect_watched(proposal)
    made = ProposedEvaluation(run, question.key.removeprefix("sha256:")[:16])
    with suppress(BadInput):  # none yet, or one that a key signed which was followed by another
        before = made.proposal()
        same = replace(proposal, expires=before.expires).digest == before.digest
        if same and datetime.now(UTC) < before.expiry():
            return made
    made.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(made.folder / "proposal.sig", proposal.signed(server.key()).encode())
    write_bytes(made.folder / "proposal.json", proposal.to_bytes())
    return made


def proposal_of(
    run: DeployedRun, question: Evaluation, grouping: Grouping, members: Sequence[Member]
) -> EvaluationProposal:
    """What is asked of `members`; who was in the run cosigns, and so does who is asked now."""
    from fedkd.federation.flower.bundle import bundle_digest

    first = run.proposal()
    now = {member.site: peer_of(member, run.rehearses).to_json() for member in members}
    for site in now.keys() & first.parties.keys():
        if now[site] != first.parties[site]:
            raise BadInput(
                f"other keys of {site} than when the run was proposed",
                "the same hospital, with the log that it had",
                "leave it out with --sites, or evaluate a run that it takes part in",
            )
    classes = run.form().space.classes
    groups, answers, width = shape_of(question, grouping, classes)
    return EvaluationProposal(
        federation=first.federation,
        run=run.id,
        rehearsal=run.rehearses,
        software=f"fedkd {fedkd.__version__}",
        bundle=bundle_digest(),
        asked={
            "round": question.round,
            "model": question.model,
            "architecture": str(run.config["student"]["model"]),
            "thresholds": list(question.thresholds),
            "group": question.group,
            "epsilon": question.epsilon,
            "of": sorted(now),
        },
        parties={**first.parties, **now},
        audit=dict(first.audit),
        would_leave={
            "messages": 1,
            "cells": groups * answers * width,
            "groups": groups,
            "answers": answers,
            "classes": width,
        },
        expires=utc(datetime.now(UTC) + timedelta(days=DAYS)),
    )


def _asked(run: DeployedRun, here: Mapping[str, Member], sites: str | None) -> list[Member]:
    names = sorted(here if sites is None else {name.strip() for name in sites.split(",")})
    for name in names:
        if name not in here:
            raise BadInput(
                f"the site {name!r}",
                f"one that is admitted now: {', '.join(sorted(here)) or 'none is'}",
                f"fedkd server status {run.coordinator} lists them",
            )
    if not names:
        raise BadInput(f"no admitted site in {run.coordinator}", "one at least")
    return [here[name] for name in names]
