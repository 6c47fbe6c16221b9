"""A site's turn: what it answers, what it refuses, and what is on disk before anything leaves."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log, UnknownFormat
from fedkd.audit.log import Entry
from fedkd.cli.run import Run
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.exchange import Exchange
from fedkd.federation.participant import open_participant
from fedkd.federation.rounds import NoQuorum
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput, Distributions, Public, QuerySet
from fedkd.privacy import Mechanism
from fedkd.privacy.mechanisms.none import none
from fedkd.wire import (
    Answer,
    Closed,
    Codec,
    Message,
    Present,
    Question,
    Reason,
    Refusal,
    RollCall,
    decode,
    encode,
)
from fedkd.wire.codecs.float32 import float32
from tests.federation.small import asked, conducted, files, founded, question


def events(site: Path, *types: str) -> list[Entry]:
    with Log(site / "log.sqlite", "site-01") as log:
        return [entry for entry in log.entries() if not types or entry.type in types]


def counts(site: Path) -> dict[str, int]:
    kinds = [entry.type for entry in events(site)]
    return {kind: kinds.count(kind) for kind in set(kinds)}


def lesson(run: Run, probs: np.ndarray | None = None) -> Distributions:
    queries = run.cut().queries
    assert queries is not None
    said = np.full((len(queries), 10), 0.1, dtype=np.float32) if probs is None else probs
    return Distributions(said, queries.digest)


# What is asked twice.


def test_the_same_question_gets_the_same_bytes_without_training_or_a_second_charge(
    run: Run, site: Path
) -> None:
    body = encode(question(run))
    first = open_participant(site, run.build).answer(body)
    before = counts(site)
    (site / "train.npz").unlink()  # nothing could be trained now
    assert open_participant(site, run.build).answer(body) == first
    assert counts(site) == before
    assert before["budget.charged"] == 2  # the training, and the answer
    assert before["release.outputs"] == before["train.local"] == 1


def test_a_new_round_over_the_same_queries_is_a_new_question(run: Run, site: Path) -> None:
    first = asked(site, run, question(run))
    second = asked(site, run, question(run, round=2, queries=None))
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert first.question != second.question
    assert counts(site)["release.outputs"] == 2
    assert counts(site)["budget.charged"] == 3  # trained once, answered twice


def test_a_closing_question_that_comes_twice_is_acknowledged_twice_and_learnt_once(
    run: Run, site: Path
) -> None:
    asked(site, run, question(run))
    closing = question(run, round=2, closing=True, queries=None, lesson=lesson(run))
    once = asked(site, run, closing)
    before = counts(site)
    assert isinstance(once, Closed)
    assert asked(site, run, closing) == once
    assert counts(site) == before
    assert before["release.outputs"] == 1
    assert before["budget.charged"] == 2


def test_a_stored_answer_that_was_changed_on_disk_does_not_leave(run: Run, site: Path) -> None:
    said = open_participant(site, run.build).answer(encode(question(run)))
    (kept,) = [path for path in (site / "outbox").iterdir() if path.read_bytes() == said]
    kept.write_bytes(said.replace(b"site-01", b"site-99"))
    assert asked(site, run, question(run)) == Refusal("site-01", run.id, 1, Reason.FAILED)


def test_a_question_answered_at_home_is_answered_the_same_by_a_participant_rebuilt(
    run: Run, site: Path, tmp_path: Path
) -> None:
    """Nothing that matters is in memory: two rounds by one object, and by two."""
    import shutil

    twin = Path(shutil.copytree(site, tmp_path / "twin"))
    bodies = [
        encode(question(run)),
        encode(question(run, round=2, queries=None, lesson=lesson(run))),
    ]
    one = open_participant(site, run.build)
    assert [one.answer(b) for b in bodies] == [
        open_participant(twin, run.build).answer(b) for b in bodies
    ]


# What is refused.


def refused(reason: Reason, site: Path, run: Run, message: Message | bytes, round: int = 1) -> None:
    """Holds that `message` is refused for `reason`, and that nothing came of it."""
    said = asked(site, run, message)
    assert isinstance(said, Refusal)
    assert (said.reason, said.site) == (reason, "site-01")
    found = counts(site)
    assert not {"release.outputs", "train.local", "budget.charged"} & set(found)
    assert not list((site / "models").iterdir())
    (entry,) = events(site, "release.refused")
    assert entry.body["rule"] == reason
    left = [decode(path.read_bytes(), 1 << 20) for path in (site / "outbox").iterdir()]
    assert left == [said]


def longer(run: Run, count: int) -> dict[str, Any]:
    space = run.dataset().space
    inputs = np.zeros((count, *space.shape), dtype=space.dtype)
    return of(QuerySet(inputs, Public("zeros", "CC0", "sha256:" + "0" * 64)))


def of(queries: QuerySet) -> dict[str, Any]:
    return {
        "queries": queries.inputs,
        "origin": queries.origin,
        "size": len(queries),
        "about": queries.digest,
    }


def plan(run: Run, **changes: Any) -> dict[str, Any]:
    return {"plan": replace(run.terms().plan, **changes)}


def inputs(array: np.ndarray) -> dict[str, Any]:
    return of(QuerySet(array, Public("odd", "CC0", "sha256:" + "0" * 64)))


NOT_ACCEPTED = {
    "too many local epochs": lambda run: plan(run, local_epochs=10_001),
    "too many lesson epochs": lambda run: plan(run, lesson_epochs=10_001),
    "an unknown loss": lambda run: plan(run, loss="hinge"),
    "a loss by its path": lambda run: plan(run, loss="fedkd.distill.losses.kl.kl"),
    "an unknown codec": lambda run: {"codec": "uint8"},
    "round 0": lambda run: {"round": 0},
    "too late a round": lambda run: {"round": 10_001},
}


@pytest.mark.parametrize("change", NOT_ACCEPTED.values(), ids=NOT_ACCEPTED)
def test_what_a_site_does_not_accept_is_refused_before_anything(
    change: Any, run: Run, site: Path
) -> None:
    before = {path.name for path in site.parent.iterdir()}
    refused(Reason.NOT_ACCEPTED, site, run, question(run, **change(run)))
    assert {path.name for path in site.parent.iterdir()} == before
    assert not list((site / "taught").iterdir())


@pytest.mark.parametrize(
    "name", ["../../../../evil", "/srv/evil/evil/x", "................", "a/b/c/d/e/f/g/h/"]
)
def test_a_run_that_is_a_path_is_refused_and_nothing_is_written(
    name: str, run: Run, site: Path
) -> None:
    before = files(site.parent.parent)
    assert len(name) == len(run.id)
    said = asked(site, run, encode(question(run)).replace(run.id.encode(), name.encode()))
    assert said == Refusal("site-01", "unknown", 0, Reason.MALFORMED)
    after = files(site.parent.parent)
    made = {Path(path).parts[-2:-1] or path for path in after.keys() - before.keys()}
    assert made == {("outbox",), ("site-01",)}  # the refusal, and the note for the site's people


def test_more_queries_than_a_site_accepts_are_refused(run: Run, site: Path) -> None:
    settings = read_json(site / "site.json")
    settings["accepts"]["most_queries"] = 11
    write_json(site / "site.json", settings)
    refused(Reason.NOT_ACCEPTED, site, run, question(run))
    settings["accepts"]["most_queries"] = 12
    write_json(site / "site.json", settings)
    assert isinstance(asked(site, run, question(run)), Answer)


OUT_OF_SPACE = {
    "another type": lambda run: inputs(np.zeros((3, 8, 8), np.float32)),
    "another shape": lambda run: inputs(np.zeros((3, 8, 9), np.uint8)),
    "colours": lambda run: inputs(np.zeros((3, 8, 8, 3), np.uint8)),
    "out of range": lambda run: inputs(np.full((3, *run.dataset().space.shape), 255, np.uint8)),
}


@pytest.mark.parametrize("change", OUT_OF_SPACE.values(), ids=OUT_OF_SPACE)
def test_queries_out_of_the_agreed_space_are_refused(change: Any, run: Run, site: Path) -> None:
    refused(Reason.OUT_OF_SPACE, site, run, question(run, **change(run)))
    assert not list((site / "taught").iterdir())


def test_queries_that_are_not_what_their_digest_names_are_refused(run: Run, site: Path) -> None:
    queries = run.cut().queries
    assert queries is not None
    other = np.ascontiguousarray(queries.inputs[::-1])
    refused(Reason.UNKNOWN_QUERIES, site, run, question(run, queries=other))


def test_queries_that_were_only_named_are_asked_for_and_then_answered(run: Run, site: Path) -> None:
    refused(Reason.UNKNOWN_QUERIES, site, run, question(run, queries=None))
    assert isinstance(asked(site, run, question(run)), Answer)
    assert isinstance(asked(site, run, question(run, round=2, queries=None)), Answer)


def test_another_number_of_queries_than_announced_is_refused(run: Run, site: Path) -> None:
    queries = run.cut().queries
    assert queries is not None
    Exchange(site / "taught").keep_queries(queries)
    refused(Reason.MALFORMED, site, run, question(run, queries=None, size=3))


def test_a_synthetic_set_of_a_generator_not_approved_here_is_not_drawn(
    run: Run, site: Path
) -> None:
    from fedkd.knowledge import Synthetic

    origin = Synthetic("procedural", "sha256:" + "0" * 64, 0, 0)
    refused(Reason.UNKNOWN_QUERIES, site, run, question(run, queries=None, origin=origin))


def test_a_lesson_about_unknown_queries_is_refused_before_training(run: Run, site: Path) -> None:
    unknown = Distributions(np.full((12, 10), 0.1, np.float32), lesson(run).digest)
    refused(Reason.UNKNOWN_QUERIES, site, run, question(run, lesson=unknown))


@pytest.mark.parametrize("shape", [(11, 10), (12, 9), (13, 10)])
def test_a_lesson_of_the_wrong_shape_is_refused_before_training(
    shape: tuple[int, int], run: Run, site: Path
) -> None:
    said = np.full(shape, 1 / shape[1], np.float32)
    refused(Reason.MALFORMED, site, run, question(run, lesson=lesson(run, said)))


def test_another_version_of_the_protocol_is_refused_as_such(run: Run, site: Path) -> None:
    refused(Reason.VERSION, site, run, encode(question(run)).replace(b'"v":1}', b'"v":2}'))


def test_bytes_that_are_no_message_are_refused(run: Run, site: Path) -> None:
    refused(Reason.MALFORMED, site, run, encode(question(run))[:-1])


@pytest.mark.parametrize(
    "message",
    [
        Present("site-02", "r", "fedkd"),
        Refusal("site-02", "r", 1, Reason.FAILED),
        Closed("site-02", "r", 1, "sha256:" + "0" * 64),
        Answer(
            "site-02", "r", 1, "sha256:" + "0" * 64, "sha256:" + "0" * 64, "float32",
            {"probs": np.full((1, 2), 0.5, np.float32)},
        ),
    ],
    ids=lambda it: type(it).__name__,
)  # fmt: skip
def test_a_message_that_only_a_site_sends_is_refused(
    message: Message, run: Run, site: Path
) -> None:
    refused(Reason.NOT_ACCEPTED, site, run, message)


def test_a_roll_call_is_answered_with_a_name_and_a_version(run: Run, site: Path) -> None:
    said = asked(site, run, RollCall("r"))
    assert isinstance(said, Present)
    assert (said.site, said.run) == ("site-01", "r")
    assert not set(counts(site)) & {"train.local", "budget.charged", "release.outputs"}


# The budget.


BOUNDED = ["mechanism=dp_training", "budget.epsilon=2"]


def without_mechanism(site: Path) -> Path:
    """The site, its budget as it was opened, and a mechanism that bounds nothing."""
    none = {"_target_": "fedkd.privacy.mechanisms.none.none"}
    write_json(site / "site.json", {**read_json(site / "site.json"), "mechanism": none})
    return site


def test_a_bounded_budget_covers_no_answer_without_a_mechanism(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", *BOUNDED)
    site = without_mechanism(run.sites["site-01"])
    refused(Reason.BUDGET_EXHAUSTED, site, run, question(run))


def test_a_run_in_which_every_budget_is_exhausted_ends_without_a_quorum(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", *BOUNDED)
    for path in run.sites.values():
        without_mechanism(path)
    with pytest.raises(NoQuorum) as told:
        conducted(run)
    assert "found 0 answers, expected at least 2 of 3" in str(told.value)
    assert str(told.value).count("refused: budget_exhausted") == 3
    for path in run.sites.values():
        assert not list((path / "models").iterdir())


def test_a_charge_names_its_population_and_only_that_one_pays(run: Run, site: Path) -> None:
    asked(site, run, question(run))
    population = read_json(site / "site.json")["population"]
    charges = events(site, "budget.charged")
    assert {entry.body["population"] for entry in charges} == {population}


# Other formats.


def test_a_log_of_a_newer_format_is_left_alone(run: Run, site: Path) -> None:
    import sqlite3

    database = sqlite3.connect(site / "log.sqlite")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(UnknownFormat):
        open_participant(site, run.build).answer(encode(question(run)))
    assert not list((site / "outbox").iterdir())


def test_a_folder_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        open_participant(tmp_path / "not mounted", run.build)
    assert not list(tmp_path.iterdir())


def test_a_site_folder_of_another_format_is_not_opened(run: Run, site: Path) -> None:
    write_json(site / "site.json", {**read_json(site / "site.json"), "format": 2})
    with pytest.raises(BadInput, match="format 2"):
        open_participant(site, run.build)


# The order of a turn.


def test_a_turn_charges_then_trains_then_keeps_then_releases(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    append, rename = Log.append, Path.replace

    def appended(self: Log, key: str, type: str, body: Mapping[str, Any]) -> Entry:
        entry = append(self, key, type, body)
        seen.append(type)
        return entry

    def renamed(self: Path, target: Any) -> Path:
        seen.append(f"{Path(target).parent.name}/")
        return rename(self, target)

    monkeypatch.setattr(Log, "append", appended)
    monkeypatch.setattr(Path, "replace", renamed)
    said = open_participant(site, run.build).answer(encode(question(run)))
    steps = [step for step in seen if step != f"{site.name}/"]
    assert steps == [
        "taught/",  # the queries
        "budget.charged",
        "budget.charged",
        f"{run.id}/",  # the model's weights
        f"{run.id}/",  # and the note that says they are whole
        "train.local",
        "train.local",  # the same entry: it is there
        "outbox/",
        "release.outputs",
    ]
    assert isinstance(decode(said, 1 << 20), Answer)


def test_the_log_tells_the_order_of_the_turn(run: Run, site: Path) -> None:
    asked(site, run, question(run))
    told = [entry.type for entry in events(site)][4:]
    assert told == ["budget.charged", "budget.charged", "train.local", "release.outputs"]


def test_what_leaves_is_in_the_outbox_and_the_log_names_it(run: Run, site: Path) -> None:
    body = open_participant(site, run.build).answer(encode(question(run)))
    (entry,) = events(site, "release.outputs")
    assert SiteFolder(site).outgoing(entry.body["payload"]) == body
    said = decode(body, 1 << 20)
    assert isinstance(said, Answer)
    assert entry.body["digest"] == Distributions(said.coded["probs"], said.about).digest
    assert entry.body["items"] == 12
    assert entry.body["question"] == said.question


def test_a_turn_whose_disk_is_full_says_nothing(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with contextlib.suppress(OSError):  # not even the refusal can be kept: the letterbox says it
        open_participant(site, run.build).answer(encode(question(run)))
    monkeypatch.undo()
    assert "release.outputs" not in counts(site)
    assert not list((site / "outbox").iterdir())


# What leaves is checked.


def half() -> Mechanism:
    """A mechanism with a mistake: its rows sum to one half."""
    return none()._replace(name="half", release=lambda said, plan, noise: said / 2)


def one_row_less() -> Mechanism:
    """A mechanism with a mistake: it loses a row."""
    return none()._replace(name="less", release=lambda said, plan, noise: said[:-1])


def halving() -> Codec:
    """A codec with a mistake: what it writes is no distribution."""
    inner = float32()
    return inner._replace(
        encode=lambda probs: {"probs": probs.astype(np.float32) / 2},
        decode=lambda arrays, queries, classes: arrays["probs"],
    )


def chatty() -> Codec:
    """A codec with a mistake: it sends more than it says it weighs."""
    inner = float32()
    return inner._replace(
        encode=lambda probs: {**inner.encode(probs), "more": np.zeros(1 << 14, np.uint8)},
        decode=lambda arrays, queries, classes: arrays["probs"],
    )


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("mechanism", "half"),
        ("mechanism", "one_row_less"),
        ("codec", "halving"),
        ("codec", "chatty"),
    ],
)
def test_what_is_no_distribution_does_not_leave(key: str, part: str, run: Run, site: Path) -> None:
    settings = read_json(site / "site.json")
    spec = {"_target_": f"{__name__}.{part}"}
    if key == "codec":
        settings["accepts"]["codecs"]["float32"] = spec
    else:
        settings["mechanism"] = spec
    write_json(site / "site.json", settings)
    said = asked(site, run, question(run))
    assert said == Refusal("site-01", run.id, 1, Reason.FAILED)
    assert "release.outputs" not in counts(site)
    left = [decode(path.read_bytes(), 1 << 20) for path in (site / "outbox").iterdir()]
    assert left == [said]


# The server and a site that has not got the queries.


class Counting:
    """How many bodies went to whom, round by round."""

    def __init__(self, grid: Any) -> None:
        self.grid = grid

    def questions(self) -> list[tuple[str, int, bool]]:
        said = [(it.site, decode(it.body, 1 << 30)) for it in self.grid.down]
        return [
            (site, q.round, q.queries is not None) for site, q in said if isinstance(q, Question)
        ]


def test_the_inputs_are_sent_once_to_each_site_and_then_named(tmp_path: Path) -> None:
    from tests.federation.small import Wiretap

    run = founded(tmp_path / "run")
    grid = Wiretap(run)
    conducted(run, grid)
    for site in run.sites:
        sent = [(round, whole) for who, round, whole in Counting(grid).questions() if who == site]
        assert sent == [(1, True), (2, False), (3, False)]


def test_a_site_that_lost_the_queries_is_sent_them_again(tmp_path: Path) -> None:
    from flwr.app import Context
    from flwr.app import Message as Letter
    from flwr.clientapp import ClientApp

    from clients.app import app as client_app
    from fedkd.federation.flower.letters import letter_of
    from tests.federation.small import Wiretap

    run = founded(tmp_path / "run")
    app = ClientApp()
    lost = []

    @app.query("answer")
    def answer(message: Letter, context: Context) -> Letter:
        asks = decode(letter_of(message, 1 << 30), 1 << 30)
        if isinstance(asks, Question) and asks.round == 2 and not lost:
            lost.append(context.node_config["site"])
            assert asks.lesson is not None
            for path in (Path(lost[0]) / "taught").iterdir():
                path.unlink()
        return client_app(message, context)

    grid = Wiretap(run, app)
    state = conducted(run, grid)
    site = Path(lost[0]).name
    sent = [(round, whole) for who, round, whole in Counting(grid).questions() if who == site]
    assert sent == [(1, True), (2, False), (2, True), (3, False)]
    assert not state.left_out
    assert files(run.folder / "exchange")
