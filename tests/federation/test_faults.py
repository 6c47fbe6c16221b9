"""Faults on request: each changes how a run ends, with a quorum; without one the run stops."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit import Log
from fedkd.cli.run import Run, open_run
from fedkd.federation.asking import CRASHED, SILENT, Reply
from fedkd.federation.checkpoint import ServerFolder
from fedkd.federation.faults import faulty
from fedkd.federation.rounds import NoQuorum, share_of
from fedkd.wire import Answer, Question, decode, encode
from tests.federation.small import Wiretap, conducted, founded, unwatched

KINDS = ("dropout", "late", "crash", "nonsense")
REASONS = {
    "dropout": SILENT,
    "late": SILENT,
    "crash": CRASHED,
    "nonsense": "an answer holds numbers that are no distributions",
}
ANSWER = encode(
    Answer(
        "a", "r", 1, "sha256:" + "0" * 64, "sha256:" + "0" * 64, "float32",
        {"probs": np.full((2, 2), 0.5, np.float32)},
    )
)  # fmt: skip
SITES = [f"site-{n:02d}" for n in range(10)]


class Sites:
    """Sites that answer what they are asked, and remember that they were."""

    def __init__(self) -> None:
        self.worked: list[tuple[int, str]] = []

    def __call__(
        self, bodies: Mapping[str, bytes], on_reply: Callable[[Reply], None], *, round: int
    ) -> list[Reply]:
        replies = []
        for site in sorted(bodies):
            self.worked.append((round, site))
            replies.append(Reply(site, ANSWER))
            on_reply(replies[-1])
        return replies


def hit_by(
    kind: Any, fraction: float, rounds: list[int] | None, seed: int, number: int
) -> tuple[set[str], list[Reply], Sites]:
    sites = Sites()
    ask = faulty(sites, kind=kind, fraction=fraction, rounds=rounds, seed=seed)
    heard: list[Reply] = []
    replies = ask(dict.fromkeys(SITES, b"q"), heard.append, round=number)
    assert [reply.site for reply in replies] == SITES
    assert sorted(heard, key=lambda reply: reply.site) == replies  # the watch hears the same
    return {reply.site for reply in replies if reply.body != ANSWER}, replies, sites


@pytest.mark.parametrize("kind", KINDS)
def test_the_stated_share_of_sites_is_hit_in_the_stated_rounds(kind: str) -> None:
    for fraction, count in ((0.0, 0), (0.1, 1), (0.25, 3), (0.5, 5), (1.0, 10)):
        hit, _, _ = hit_by(kind, fraction, [2], 0, 2)
        assert len(hit) == count
        assert not hit_by(kind, fraction, [2], 0, 1)[0]
    assert len(hit_by(kind, 0.3, None, 0, 7)[0]) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_hits_the_same_sites_and_another_one_others(kind: str) -> None:
    once = [hit_by(kind, 0.3, None, 4, number)[0] for number in range(1, 6)]
    again = [hit_by(kind, 0.3, None, 4, number)[0] for number in range(1, 6)]
    other = [hit_by(kind, 0.3, None, 5, number)[0] for number in range(1, 6)]
    assert once == again
    assert once != other
    assert len({frozenset(hit) for hit in once}) > 1  # not the same ones in every round


def test_the_same_sites_are_hit_whatever_the_fault() -> None:
    assert len({frozenset(hit_by(kind, 0.3, None, 4, 1)[0]) for kind in KINDS}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_says_what_it_is(kind: str) -> None:
    hit, replies, sites = hit_by(kind, 0.3, None, 0, 1)
    worked = {site for _, site in sites.worked}
    assert worked == (set(SITES) if kind in ("late", "nonsense") else set(SITES) - hit)
    for reply in replies:
        if reply.site not in hit:
            assert reply == Reply(reply.site, ANSWER)
        elif kind == "nonsense":
            assert reply.body != ANSWER
        else:
            assert reply == Reply(reply.site, None, REASONS[kind])


def test_a_site_that_is_asked_again_in_a_round_is_hit_again_and_no_other() -> None:
    sites = Sites()
    ask = faulty(sites, kind="dropout", fraction=0.2, rounds=None, seed=0)
    first = ask(dict.fromkeys(SITES, b"q"), lambda _: None, round=1)
    hit = {reply.site for reply in first if reply.body is None}
    again = ask(dict.fromkeys(SITES[:6], b"q"), lambda _: None, round=1)
    assert {reply.site for reply in again if reply.body is None} == hit & set(SITES[:6])


def test_no_fault_is_the_asking_itself() -> None:
    sites = Sites()
    assert faulty(sites, kind="none", fraction=1.0, rounds=None, seed=0) is sites


@given(st.integers(1, 300), st.integers(1, 100))
@settings(max_examples=200, deadline=None)
def test_a_share_of_sites_is_counted_as_one_would_by_hand(count: int, percent: int) -> None:
    by_hand = -(-count * percent // 100)
    assert share_of(count, percent / 100) == max(1, by_hand)


# Whole runs.


def student(run: Run) -> bytes:
    return (run.folder / "student.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    run = founded(tmp_path_factory.mktemp("unbroken") / "run")
    assert not conducted(run).left_out
    return student(run)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_the_outcome_and_the_run_goes_on_while_a_quorum_answers(
    kind: str, unbroken: bytes, tmp_path: Path
) -> None:
    run = founded(tmp_path / "run", f"faults={kind}", "faults.fraction=0.3", "faults.rounds=[2]")
    state = conducted(run)
    ((site, notes),) = state.left_out.items()
    assert notes == [{"round": 2, "reason": REASONS[kind]}]
    assert student(run) != unbroken
    assert [row["answered"] for row in state.metrics] == [3, 2]
    assert [row["left_out"] for row in state.metrics] == [[], [site]]
    with Log(run.sites[site] / "log.sqlite", site) as log:
        answered = [entry.body["round"] for entry in log.entries("release.outputs")]
    # who is late, or whose answer is spoilt on the way, has done its work and has spent its budget
    assert answered == ([1, 2] if kind in ("late", "nonsense") else [1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_without_a_quorum_ends_the_run_and_says_who_was_missing(
    kind: str, tmp_path: Path
) -> None:
    run = founded(tmp_path / "run", f"faults={kind}", "faults.fraction=0.6", "faults.rounds=[2]")
    with pytest.raises(NoQuorum) as told:
        conducted(run)
    text = str(told.value)
    assert text.startswith("round 2: found 1 answers, expected at least 2 of 3; site-0")
    assert text.count(REASONS[kind]) == 2
    assert not (run.folder / "student.safetensors").exists()


def test_the_faults_of_every_round_reach_the_closing_question(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", "faults=dropout", "faults.fraction=0.3")
    state = conducted(run)
    rounds = sorted(note["round"] for notes in state.left_out.values() for note in notes)
    assert rounds == [1, 2, 3]


def test_a_run_that_had_no_quorum_goes_on_when_the_sites_are_back(
    unbroken: bytes, tmp_path: Path
) -> None:
    """The log fixes who was heard only where a quorum was: a resumed run asks again."""
    run = founded(tmp_path / "run")
    away = [run.sites["site-02"], run.sites["site-03"]]

    class Away(Wiretap):
        def pull_messages(self, message_ids: Any) -> Any:
            replies = super().pull_messages(message_ids)
            if len(self.up) > 6:  # from the second round on
                for path in away:
                    if path.exists():  # its disk is not mounted
                        path.rename(path.with_suffix(".away"))
            return replies

    with pytest.raises(NoQuorum, match="refused: failed"):
        unwatched(run, Away(run))
    for path in away:
        path.with_suffix(".away").rename(path)
    again = open_run(str(run.folder))
    assert not conducted(again).left_out
    assert student(again) == unbroken


def test_a_run_goes_on_with_other_sites_than_it_began_with(tmp_path: Path) -> None:
    """Killed after a lesson was logged as sent, it finds a site gone: that is another sending."""
    run = founded(tmp_path / "run", "deadline=1")

    class Cut(Exception):
        """Stands for a power cut."""

    class Dark(Wiretap):
        def push_messages(self, messages: Any) -> Any:
            messages = list(messages)
            if messages[0].metadata.group_id == "2":
                raise Cut
            return super().push_messages(messages)

    with pytest.raises(Cut):
        conducted(run, Dark(run))
    grid = Wiretap(run)
    gone = next(n for n, c in grid._contexts.items() if c.node_config["site"].endswith("site-03"))
    del grid._contexts[gone]
    conducted(run, grid)
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        sent = [
            (entry.body["round"], entry.body["recipients"]) for entry in log.entries("lesson.sent")
        ]
    enrolled = ["site-01", "site-02", "site-03"]
    assert sent == [(2, enrolled), (3, enrolled)]
    left_out = ServerFolder(run.folder / "server").load().left_out
    gone = [{"round": number, "reason": "the client is not connected"} for number in (2, 3)]
    assert left_out == {"site-03": gone}


def questions(grid: Wiretap) -> dict[int, list[str]]:
    asked: dict[int, list[str]] = {}
    for letter in grid.down:
        message = decode(letter.body, 1 << 30)
        if isinstance(message, Question):
            asked.setdefault(message.round, []).append(letter.site)
    return {round: sorted(sites) for round, sites in asked.items()}


def test_a_fraction_of_clients_is_asked_the_same_for_the_same_seed_and_all_at_the_closing(
    tmp_path: Path,
) -> None:
    overrides = (
        "clients.count=5",
        "clients.fraction=0.4",
        "rounds=4",
        "data.records=75",
    )
    runs = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        run = founded(tmp_path / name, *overrides, f"seed={seed}")
        grid = Wiretap(run)
        conducted(run, grid)
        runs.append(questions(grid))
    one, again, other = runs
    assert one == again
    assert one != other
    assert [len(one[round]) for round in (1, 2, 3, 4)] == [2, 2, 2, 2]
    assert one[5] == [f"site-{n:02d}" for n in range(1, 6)]
    assert len({tuple(one[round]) for round in (1, 2, 3, 4)}) > 1
