"""A server that asks for more than a hospital allows: each refusal is typed, and in its log."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import yaml

from fedkd.audit import Log
from fedkd.cli.deployed import DeployedRun
from fedkd.deploy.approving import rule
from fedkd.deploy.consent import BY_POLICY, MOST_PROPOSALS, Desk, Shelf
from fedkd.deploy.decisions import decide
from fedkd.deploy.policy import Policy
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.participant import Refused
from fedkd.knowledge import Array, BadInput, Public, QuerySet, Space, Synthetic
from fedkd.wire import (
    Answer,
    Considered,
    Evaluation,
    Proposal,
    Question,
    Reason,
    Refusal,
    RollCall,
    Ruling,
    decode,
    encode,
    pack,
    unpack,
)
from fedkd.wire import Message as Said
from tests.deploy.federated import Federated, approve, taken_in

ABOUT = "sha256:" + "a" * 64


@pytest.fixture
def approved(federated: Federated) -> tuple[Federated, DeployedRun]:
    """A run without cosigning that everybody approved."""
    run = federated.proposed("audit.cosigners=0")
    taken_in(federated, run)
    approve(federated, run)
    return federated, run


def said(federated: Federated, message: Said | bytes, site: str = "east", now: float = 0) -> Said:
    letter = message if isinstance(message, bytes) else encode(message)
    clock = {"clock": lambda: now} if now else {}
    desk = Desk(federated.hospitals[site].folder, federated.build, **clock)
    return decode(desk.handle(letter), 1 << 20)


def posed(run: DeployedRun) -> QuerySet:
    generator, terms = run.rules().generator, run.terms()
    return generator.pose(generator.init(terms.seed), None, terms.queries)[1]


def question(run: DeployedRun, queries: QuerySet | None = None, /, **changes: Any) -> Question:
    """The first question of a run, with `changes`; with `queries` it brings these along."""
    own = posed(run) if queries is None else queries
    first: dict[str, Any] = {
        "run": run.id, "round": 1, "closing": False, "about": own.digest, "origin": own.origin,
        "size": len(own), "queries": None if queries is None else queries.inputs, "lesson": None,
        "plan": run.terms().plan, "codec": "float32",
    }  # fmt: skip
    return Question(**{**first, **changes})


def with_policy(federated: Federated, site: str = "east", /, **policy: Any) -> None:
    path = federated.hospitals[site].site_yaml
    told = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**told, "policy": {**told["policy"], **policy}}))


def expect_refused(
    federated: Federated, message: Said | bytes, reason: Reason, why: str = "", now: float = 0
) -> None:
    """The site refuses, nothing is released, its log says so, and why stays at home."""
    east = federated.hospitals["east"]
    with Log(east.site / "log.sqlite", "east") as log:
        before = len(list(log.entries("release.refused")))
    reply = said(federated, message, now=now)
    assert isinstance(reply, Refusal)
    assert reply.reason is reason
    with Log(east.site / "log.sqlite", "east") as log:
        refused = [entry.body["rule"] for entry in log.entries("release.refused")]
        assert len(refused) == before + 1
        assert refused[-1] == reason
        assert not list(log.entries("release.outputs"))
    assert why in (east.site / "errors.txt").read_text()


def test_what_was_approved_is_answered(approved: tuple[Federated, DeployedRun]) -> None:
    federated, run = approved
    first = said(federated, question(run))
    assert isinstance(first, Answer)
    assert encode(said(federated, question(run))) == encode(first)  # replayed: the same bytes


OUTSIDE: dict[str, tuple[Callable[[DeployedRun], Question], str]] = {
    "a round too many": (lambda run: question(run, round=3), "the rounds"),
    "more queries": (
        lambda run: question(run, posed_more(run), round=1),
        "the number of queries",
    ),
    "more epochs": (
        lambda run: question(run, plan=replace(run.terms().plan, local_epochs=3)),
        "the epochs",
    ),
    "another loss weight": (
        lambda run: question(run, plan=replace(run.terms().plan, loss_weight=2.0)),
        "the loss",
    ),
    "another seed": (
        lambda run: question(run, QuerySet(posed(run).inputs, drawn(run, seed=8))),
        "queries: found ",
    ),
    "a public set in place of a drawn one": (
        lambda run: question(run, QuerySet(posed(run).inputs, Public("x", "CC0-1.0", ABOUT))),
        "queries: found ",
    ),
    "a set that the generator never made": (
        lambda run: question(run, QuerySet(posed(run).inputs[::-1], posed(run).origin)),
        "does not make this set",
    ),
}


def posed_more(run: DeployedRun) -> QuerySet:
    generator = run.rules().generator
    return generator.pose(generator.init(run.terms().seed), None, run.terms().queries + 1)[1]


def drawn(run: DeployedRun, **changes: Any) -> Synthetic:
    origin = posed(run).origin
    assert isinstance(origin, Synthetic)
    return replace(origin, **changes)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_question_outside_what_was_approved_is_refused(
    approved: tuple[Federated, DeployedRun], name: str
) -> None:
    federated, run = approved
    ask, why = OUTSIDE[name]
    expect_refused(federated, ask(run), Reason.OUTSIDE_POLICY, why)


def test_a_round_asked_again_in_other_words_gets_no_more_rows_than_were_approved(
    approved: tuple[Federated, DeployedRun],
) -> None:
    """Two rounds of 30 rows were agreed on: not a third answer, whatever it is called."""
    federated, run = approved
    assert isinstance(said(federated, question(run)), Answer)
    assert isinstance(said(federated, question(run, fewer(run, 29))), Answer)
    asked = question(run, fewer(run, 28))
    refused = said(federated, asked)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.OUTSIDE_POLICY
    assert isinstance(said(federated, question(run)), Answer)  # what left before is given again
    errors = (federated.hospitals["east"].site / "errors.txt").read_text()
    assert "the rows: found 87, expected at most 60" in errors


def fewer(run: DeployedRun, count: int) -> QuerySet:
    generator = run.rules().generator
    return generator.pose(generator.init(run.terms().seed), None, count)[1]


POLICIES: dict[str, tuple[Mapping[str, Any], str]] = {
    "no query set at all": ({"query_sets": {}}, "query_sets"),
    "too many in the run": ({"most_queries": {"run": 59}}, "most_queries a run: found 60, exp"),
    "too many in the day": (
        {"most_queries": {"day": 29}},
        "most_queries a day: found 30, expected at most 29",
    ),
    "too few patients": ({"smallest_training_set": 500}, "smallest_training_set: found "),
    "too many rounds": ({"most_rounds": 1}, "most_rounds: found 2, expected at most 1"),
    "too many epochs": ({"most_epochs": 1}, "most_epochs: found 2, expected at most 1"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_the_policy_is_the_last_word_after_an_approval(
    approved: tuple[Federated, DeployedRun], name: str
) -> None:
    federated, run = approved
    policy, why = POLICIES[name]
    with_policy(federated, **policy)
    expect_refused(federated, question(run), Reason.OUTSIDE_POLICY, why)


def test_more_cosigners_may_be_wanted_after_an_approval(private: Federated) -> None:
    with_policy(private, fewest_cosigners=0)
    run = private.proposed("mechanism=dp_training", "audit.cosigners=0")
    taken_in(private, run)
    approve(private, run, "east")
    with_policy(private, fewest_cosigners=1)
    why = "fewest_cosigners: found 0 others, expected at least 1"
    expect_refused(private, question(run), Reason.OUTSIDE_POLICY, why)
    with Log(private.hospitals["east"].site / "log.sqlite", "east") as log:
        assert not list(log.entries("budget.charged"))


def test_a_rehearsal_that_was_begun_ends_where_the_policy_wants_none(federated: Federated) -> None:
    run = federated.proposed("audit.cosigners=0", rehearsal=True)
    taken_in(federated, run)
    with_policy(federated, rehearsals=False)
    refused = said(federated, question(run))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.OUTSIDE_POLICY


def test_nothing_is_answered_outside_the_hours(approved: tuple[Federated, DeployedRun]) -> None:
    federated, run = approved
    night = datetime(2026, 11, 30, 3, 0).astimezone()
    hours = {"hours": "08:00-18:00"}
    with_policy(federated, **hours)
    expect_refused(
        federated,
        question(run),
        Reason.OUTSIDE_POLICY,
        "hours: found 03:00, expected 08:00-18:00",
        now=night.timestamp(),
    )


def a_thousand_times(record: Array, space: Space) -> QuerySet:
    """One record, where a rounding tips over, moved a little to either side of it."""
    step = (space.high - space.low) / 1000
    record = np.clip(record, space.low + step, space.high - step)
    edge = space.low + np.round((record - space.low) / step) * step
    moved = np.random.default_rng(0).uniform(-1e-5, 1e-5, (1000, *space.shape))
    return QuerySet((edge + moved).astype(np.float32), Public("ours", "CC0-1.0", ABOUT))


def test_a_day_is_this_machines_own_as_its_hours_are(
    approved: tuple[Federated, DeployedRun], in_zone: Callable[[str], None]
) -> None:
    """Before midnight in UTC and after it is one evening in New York."""
    federated, run = approved
    with_policy(federated, most_queries={"day": 59})
    with Log(
        federated.hospitals["east"].site / "log.sqlite", "east", lambda: "2026-12-01T23:30:00Z"
    ) as log:
        log.append("before", "release.outputs", {"run": "before", "items": 30})
    after = datetime(2026, 12, 2, 0, 30, tzinfo=UTC).timestamp()
    in_zone("America/New_York")
    refused = said(federated, question(run), now=after)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.OUTSIDE_POLICY
    errors = (federated.hospitals["east"].site / "errors.txt").read_text()
    assert "most_queries a day: found 60, expected at most 59" in errors
    in_zone("UTC")
    assert isinstance(said(federated, question(run), now=after), Answer)


def sized(proposal: RunProposal, size: int) -> RunProposal:
    """The same with other query sets, and what would leave counted anew."""
    rows, leaves = size * proposal.asked["rounds"], proposal.would_leave
    return replace(
        proposal,
        asked={**proposal.asked, "size": size},
        would_leave={**leaves, "rows": rows, "bytes": 4 * rows * leaves["classes"]},
    )


def test_one_record_asked_a_thousand_times_is_refused(federated: Federated) -> None:
    """The averaging attack: under noise, a thousand answers about one record tell it."""
    with_policy(federated, query_sets={"sources": ["ours"]})
    made = federated.proposed("audit.cosigners=0")
    many = a_thousand_times(posed(made).inputs[0], made.form().space)
    proposal = replace(
        sized(made.proposal(), 1000),
        query={"kind": "public", "source": "ours", "licence": "CC0-1.0", "digest": many.digest},
    )
    agree(federated, proposal)
    attack = question(made, many, about=many.digest, origin=many.origin)
    expect_refused(
        federated, attack, Reason.OUTSIDE_POLICY, "most_repeats: found one query 1000 times"
    )


@pytest.mark.parametrize("source", ["breast-cancer", "digits, held out"])
def test_rows_under_the_name_of_a_set_that_is_here_are_looked_up(
    federated: Federated, source: str
) -> None:
    """A source is the coordinator's word, unless this installation carries the set itself."""
    with_policy(federated, query_sets={"sources": [source]})
    made = federated.proposed("audit.cosigners=0")
    theirs = QuerySet(posed(made).inputs, Public(source, "CC BY 4.0", ABOUT))
    query = {"kind": "public", "source": source, "licence": "CC BY 4.0", "digest": theirs.digest}
    agree(federated, replace(made.proposal(), query=query))
    asked = question(made, theirs)
    expect_refused(
        federated, asked, Reason.OUTSIDE_POLICY, f"30 of 30 rows that are not of {source}"
    )
    with_policy(federated, query_sets={"digests": [theirs.digest]})  # of these very rows
    assert isinstance(said(federated, asked), Answer)


def agree(federated: Federated, proposal: RunProposal) -> None:
    """It came in, and a person at east said yes."""
    propose(federated, proposal)
    rule(federated.hospitals["east"], proposal, federated.build, by="Ada", decline=None)


def propose(federated: Federated, proposal: RunProposal, site: str = "east") -> Said:
    """Signed by the federation's key, whatever is in it."""
    signature = proposal.signed(federated.server.key())
    body = np.frombuffer(proposal.to_bytes(), np.uint8)
    return said(federated, Proposal(proposal.run, body, signature), site)


def test_figures_are_not_reported_unless_the_policy_says_so(
    approved: tuple[Federated, DeployedRun],
) -> None:
    federated, run = approved
    asked = Evaluation(run.id, 4, ABOUT, (0.5,), None, 1.0)
    expect_refused(federated, asked, Reason.OUTSIDE_POLICY, "figures")


def test_weights_cannot_be_asked_for(approved: tuple[Federated, DeployedRun]) -> None:
    federated, run = approved
    header, arrays = unpack(encode(question(run)), 1 << 20)
    for kind in ("weights", "gradients", "train", "get_parameters"):
        foreign = pack({**header, "kind": kind}, arrays)
        reply = said(federated, foreign)
        assert isinstance(reply, Refusal)
        assert reply.reason is Reason.MALFORMED
    theirs = Answer("east", run.id, 1, ABOUT, ABOUT, "float32", {"probs": np.ones((1, 2), "<f4")})
    expect_refused(federated, theirs, Reason.NOT_ACCEPTED)


def test_a_run_that_nobody_approved_is_not_answered(federated: Federated) -> None:
    run = federated.proposed("audit.cosigners=0")
    assert isinstance(taken_in(federated, run)["east"], Considered)
    expect_refused(federated, RollCall(run.id), Reason.NOT_APPROVED)
    expect_refused(federated, question(run), Reason.NOT_APPROVED)


def test_a_paused_site_answers_nothing(approved: tuple[Federated, DeployedRun]) -> None:
    federated, run = approved
    federated.hospitals["east"].paused.write_text("now\n")
    expect_refused(federated, question(run), Reason.PAUSED)
    for message in (RollCall(run.id), RollCall("other")):
        reply = said(federated, message)
        assert isinstance(reply, Refusal)
        assert reply.reason is Reason.PAUSED
    federated.hospitals["east"].paused.unlink()
    assert isinstance(said(federated, question(run)), Answer)


ALLOWED = {
    "query_sets": {"query_sets": {"generators": ["procedural"]}},
    "most_rounds": {"most_rounds": 1},
    "most_epochs": {"most_epochs": 1},
    "most_queries a run": {"most_queries": {"run": 59}},
    "smallest_training_set": {"smallest_training_set": 500},
}


@pytest.mark.parametrize("broken", ALLOWED)
def test_a_proposal_outside_the_policy_is_declined_without_asking_anybody(
    federated: Federated, broken: str
) -> None:
    with_policy(federated, **ALLOWED[broken])
    reply = taken_in(federated, federated.proposed())["east"]
    assert isinstance(reply, Considered)
    assert reply.ruling is Ruling.DECLINED
    with Log(federated.hospitals["east"].site / "log.sqlite", "east") as log:
        (entry,) = log.entries("release.refused")
    assert entry.body["reason"].startswith(f"{broken}: found ")
    assert ", expected " in entry.body["reason"]
    assert entry.body["by"] == "policy in site.yaml"


def test_rehearsals_can_be_declined_by_policy(federated: Federated) -> None:
    with_policy(federated, rehearsals=False)
    reply = taken_in(federated, federated.proposed(rehearsal=True))
    assert [reply["east"].ruling, reply["west"].ruling] == [Ruling.DECLINED, Ruling.REHEARSING]


def test_another_mechanism_than_the_sites_own_is_declined(private: Federated) -> None:
    reply = taken_in(private, private.proposed())["east"]
    assert reply.ruling is Ruling.DECLINED


def foreign_keys(proposal: RunProposal) -> RunProposal:
    parties = dict(proposal.parties)
    return replace(proposal, parties={**parties, "east": parties["west"], "west": parties["east"]})


CHANGED: dict[str, Callable[[RunProposal], RunProposal]] = {
    "another site's keys as this one's": foreign_keys,
    "expired": lambda it: replace(it, expires="2020-01-01T00:00:00Z"),
    "without this site": lambda it: replace(
        it, parties={name: key for name, key in it.parties.items() if name != "east"}
    ),
}


@pytest.mark.parametrize(
    "said_to_be",
    ["fedkd" + " " * 60 + "cost        at most epsilon 0.01", "fedkd \x1b[8m", "f" * 201, " "],
    ids=["another line", "an escape", "too long", "nothing"],
)
def test_a_proposals_words_cannot_be_taken_for_another_line(
    federated: Federated, said_to_be: str
) -> None:
    """What a person reads before a yes is the paper's: its texts are short, and plain."""
    proposal = federated.proposed().proposal()
    for changes in (
        {"software": said_to_be},
        {"asked": {**proposal.asked, "aggregate": said_to_be}},
        {"query": {**proposal.query, "generator": said_to_be}},
    ):
        with pytest.raises(BadInput, match="short and plain"):
            replace(proposal, **changes)


@pytest.mark.parametrize("how", CHANGED)
def test_a_proposal_that_does_not_fit_is_declined(federated: Federated, how: str) -> None:
    reply = propose(federated, CHANGED[how](federated.proposed().proposal()))
    assert isinstance(reply, Considered)
    assert reply.ruling is Ruling.DECLINED


def test_a_proposal_that_another_key_signed_or_somebody_changed_is_refused(
    federated: Federated,
) -> None:
    run = federated.proposed()
    body, signature = run.paper()
    changed = body.replace(b'"rounds":2', b'"rounds":3')
    assert changed != body
    as_array = np.frombuffer(changed, np.uint8)
    expect_refused(federated, Proposal(run.id, as_array, signature), Reason.NOT_ACCEPTED)
    assert not list(federated.hospitals["east"].proposals.glob("*.json"))


def test_a_second_paper_under_the_name_of_a_decided_run_gets_no_yes(
    approved: tuple[Federated, DeployedRun],
) -> None:
    federated, run = approved
    more = replace(run.proposal(), asked={**run.proposal().asked, "rounds": 9})
    reply = propose(federated, more)
    assert isinstance(reply, Considered)
    assert reply.ruling is Ruling.DECLINED
    expect_refused(federated, question(run, round=5), Reason.OUTSIDE_POLICY, "the rounds")


def test_old_proposals_make_room_and_agreed_ones_stay(
    approved: tuple[Federated, DeployedRun],
) -> None:
    federated, run = approved
    shelf = Shelf(federated.hospitals["east"])
    key = federated.server.key()
    for number in range(MOST_PROPOSALS + 3):
        other = replace(run.proposal(), run=f"flood-{number}")
        shelf.keep(other, other.signed(key))
    kept = list(federated.hospitals["east"].proposals.glob("*.json"))
    assert len(kept) <= MOST_PROPOSALS
    assert shelf.read(run.proposal().digest) == run.proposal()


def test_rehearsals_that_nobody_was_asked_about_make_room(federated: Federated) -> None:
    """A coordinator that rehearses a hundred times can still propose a run."""
    run = federated.proposed(rehearsal=True)
    with Log(federated.hospitals["east"].rehearsal / "log.sqlite", "east") as log:
        for number in range(MOST_PROPOSALS):
            other = replace(run.proposal(), run=f"rehearsal-{number}")
            Shelf(federated.hospitals["east"]).keep(other, other.signed(federated.server.key()))
            decide(log, other, Ruling.REHEARSING, by=BY_POLICY)
    reply = propose(federated, federated.proposed().proposal())
    assert isinstance(reply, Considered)
    assert reply.ruling is Ruling.PENDING


@pytest.mark.parametrize(
    "typed",
    [
        {"hours": "8-18"},
        {"figures": ["accuracy"]},
        {"figures": ["exact_counts"]},
        {"most_rounds": 0},
        {"most_queries": {"week": 3}},
        {"query_sets": ["dictionary"]},
        {"rehearsal": True},
        {"most_repeats": True},
    ],
    ids=str,
)
def test_a_policy_that_is_none_is_refused(typed: Mapping[str, Any]) -> None:
    with pytest.raises(BadInput):
        Policy.from_json(typed)


def test_a_limit_that_is_not_named_keeps_its_default() -> None:
    assert Policy.from_json({"most_queries": {"run": 500}}) == Policy(most_queries_a_run=500)
    assert Policy.from_json({"most_queries": {}}) == Policy()
    assert Policy.from_json({"most_queries": {"day": None}}) == Policy(most_queries_a_day=None)


def test_hours_may_go_over_midnight() -> None:
    night = Policy(hours="22:00-06:00")
    night.expect_open(datetime(2026, 1, 1, 23, 0).astimezone(UTC))
    with pytest.raises(Refused):
        night.expect_open(datetime(2026, 1, 1, 12, 0).astimezone(UTC))
