"""What an evaluation's paper says is held against the run, the policy, and what would leave."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedkd.deploy.evaluation_proposals import EvaluationProposal
from fedkd.wire import (
    Considered,
    Proposal,
    Ruling,
)
from tests.deploy.federated import Federated
from tests.deploy.figured import World, copied, entries, proposed, said


@pytest.fixture
def unprotected(open_world: World, tmp_path: Path) -> World:
    return copied(open_world, tmp_path / "all")


@pytest.fixture
def private(private_world: World, tmp_path: Path) -> World:
    return copied(private_world, tmp_path / "all")


def test_an_evaluation_that_gives_a_peer_another_key_cannot_be_approved(unprotected: World) -> None:
    federated, run = unprotected
    true = proposed(run).proposal()
    west = true.parties["west"]
    lied = replace(true, parties={**true.parties, "north": west, "west": true.parties["north"]})
    body = np.frombuffer(lied.to_bytes(), np.uint8)
    ruled = said(federated, "east", Proposal(run.id, body, lied.signed(federated.server.key())))
    assert isinstance(ruled, Considered)
    assert ruled.ruling is Ruling.DECLINED
    refused = entries(federated.hospitals["east"].site, "east", "release.refused")
    assert refused[-1]["reason"] == "parties: other keys than those of the run"


def ruled(federated: Federated, lied: EvaluationProposal) -> tuple[Ruling, str]:
    """What east says to a paper with another signature under it, and why."""
    body = np.frombuffer(lied.to_bytes(), np.uint8)
    told = said(federated, "east", Proposal(lied.run, body, lied.signed(federated.server.key())))
    assert isinstance(told, Considered)
    refused = entries(federated.hospitals["east"].site, "east", "release.refused")
    return told.ruling, refused[-1]["reason"] if refused else ""


LEFT: dict[str, dict[str, int]] = {
    "groups": {"cells": 2, "groups": 1, "answers": 1},
    "answers": {"cells": 18, "answers": 3},
    "classes": {"cells": 6, "classes": 1},
    "messages": {"messages": 2},
}


@pytest.mark.parametrize("name", LEFT)
def test_a_paper_that_says_that_other_counts_leave_is_declined(private: World, name: str) -> None:
    """Twelve counts leave, by three groups, two answers and two classes; a person read of fewer."""
    federated, run = private
    true = proposed(run, group="sex").proposal()
    assert true.would_leave["cells"] == 12
    lied = replace(true, would_leave={**true.would_leave, **LEFT[name]})
    assert ruled(federated, lied) == (
        Ruling.DECLINED,
        f"{name} in would_leave: found {lied.would_leave[name]}, expected {true.would_leave[name]}",
    )
    assert ruled(federated, true)[0] is Ruling.PENDING


def test_an_evaluation_that_nobody_would_watch_is_declined(private: World) -> None:
    """By its paper the site would know nobody in the run who says how far its log goes."""
    federated, run = private
    true, east = proposed(run).proposal(), federated.hospitals["east"]
    typed = yaml.safe_load(east.site_yaml.read_text())
    typed["policy"] |= {"fewest_cosigners": 1, "most_unwatched_hours": 2}
    east.site_yaml.write_text(yaml.safe_dump(typed, sort_keys=False))
    assert true.audit["cosigners"] == 0
    why = "fewest_cosigners: found 0 others, expected at least 1"
    assert ruled(federated, true) == (Ruling.DECLINED, why)
    long = replace(true, audit={**true.audit, "cosigners": 5, "most_age": 7201})
    why = "most_unwatched_hours: found 7201 seconds, expected at most 7200"
    assert ruled(federated, long) == (Ruling.DECLINED, why)
    watched = replace(long, audit={**long.audit, "most_age": 7200})
    assert ruled(federated, watched)[0] is Ruling.PENDING


WEAKER: dict[str, tuple[dict[str, int], str]] = {
    "cosigners": ({"cosigners": 1, "threshold": 1}, "found cosigners 1, expected 2"),
    "nobody": ({"cosigners": 0}, "found cosigners 0, expected 2"),
    "threshold": ({"threshold": -1}, "found threshold -1, expected 1"),
    "age": ({"most_age": 86_401}, "found most_age 86401, expected 86400"),
}


@pytest.mark.parametrize("how", WEAKER)
def test_an_evaluation_weakens_no_watch_of_its_run(unprotected: World, how: str) -> None:
    """Whom its paper names is whom the site knows in the run from then on."""
    federated, run = unprotected
    true = proposed(run, sites="east,north").proposal()
    audit, why = WEAKER[how]
    weak = replace(true, audit={**true.audit, **audit})
    assert ruled(federated, weak) == (Ruling.DECLINED, f"audit: {why}, as in the run")
    gone = {name: keys for name, keys in true.parties.items() if name != "north"}
    alone = replace(true, parties=gone, asked={**true.asked, "of": ["east"]})
    why = "parties: found nobody named north, expected all of the run"
    assert ruled(federated, alone) == (Ruling.DECLINED, why)
    assert ruled(federated, true)[0] is Ruling.PENDING
