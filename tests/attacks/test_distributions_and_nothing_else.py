"""Every message of a whole run is opened: what leaves a hospital is distributions, and no more."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd import __version__
from fedkd.audit import Log
from fedkd.audit.verify import AddCheckpoint, Note, Refuted, verify_consistency
from fedkd.cli.run import Run
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import Array, digest_of_bytes
from fedkd.wire import Answer, Closed, Present, Question, RollCall, cover, decode, encode, unpack
from tests.federation.small import Letter, Wiretap, finished, founded

FIELDS = {
    Answer: {"site", "run", "round", "question", "about", "codec"},
    Closed: {"site", "run", "round", "question"},
    Present: {"site", "run", "software"},
}
"""The closed list: all that goes up beside the distributions."""


@dataclass(frozen=True)
class Overheard:
    """A run, with every message of it."""

    run: Run
    down: list[Letter]
    up: list[Letter]


@pytest.fixture(scope="module")
def overheard(tmp_path_factory: pytest.TempPathFactory) -> Overheard:
    folder = tmp_path_factory.mktemp("overheard") / "run"
    run = founded(folder, "clients.models=[mlp,logistic,random_forest]", "audit.cosigners=5")
    grid = Wiretap(run)
    finished(run, grid)
    return Overheard(run, grid.down, grid.up)


def check_upward(letter: Letter, run: Run, questions: dict[str, Question]) -> None:
    """Holds one message of a site against the closed list."""
    message = decode(letter.body, 1 << 20)
    assert type(message) in FIELDS, f"a site sent {type(message).__name__}"
    header, arrays = unpack(letter.body, 1 << 20)
    assert set(header) - {"v", "kind"} == FIELDS[type(message)]
    assert message.site == letter.site
    assert message.run == run.id
    assert not list(floats_in(header)), "numbers that are no distributions"
    if isinstance(message, Present):
        assert message.software == f"fedkd {__version__}"
        assert not arrays
        return
    assert message.question in questions
    question = questions[message.question]
    assert message.round == question.round
    if isinstance(message, Closed):
        assert not arrays
        return
    assert (message.about, message.codec) == (question.about, question.codec)
    assert set(arrays) == {"coded.probs"}, "an array beside the distributions"
    probs = arrays["coded.probs"]
    assert probs.shape == (question.size, run.terms().classes)
    assert probs.min() >= 0
    np.testing.assert_allclose(probs.sum(axis=1, dtype=np.float64), 1, atol=1e-4)


def check_cover(letter: Letter, run: Run) -> None:
    """What rides along upward: heads of the site's own log, and its signatures under peers'."""
    assert letter.envelope is not None
    federation = run.federation()
    origins = {peer.log.name: party for party, peer in federation.parties.items()}
    with SiteFolder(run.sites[letter.site]).log(letter.site) as log:
        for text in letter.envelope.asks:
            ask = AddCheckpoint.parse(text.encode())
            head = ask.note.checkpoint()
            assert origins[head.origin] == letter.site
            assert head.root == log.root(head.size), "a root that is none of the log's"
            assert len(ask.note.signatures) == 1
            log.verifier().verify(ask.note.text, ask.note.signatures[0].content)
            if ask.old_size:
                before = log.root(ask.old_size)
                verify_consistency(ask.old_size, head.size, ask.proof, before, head.root)
            else:
                assert not ask.proof
    witnesses = federation.parties[letter.site].witnesses
    for text in letter.envelope.notes:
        note = Note.parse(text.encode())
        assert origins[note.checkpoint().origin] != letter.site
        assert len(note.signatures) == len(witnesses) == 1
        assert set(note.verify(witnesses).signers) == set(witnesses)
    assert not letter.envelope.prove_from
    assert all(origin in origins for origin, _ in letter.envelope.stands)


def check_downward(letter: Letter, run: Run, consensuses: set[str]) -> None:
    """Holds one message of the server against what it may say."""
    message = decode(letter.body, 1 << 30)
    assert message.run == run.id
    if isinstance(message, RollCall):
        return
    assert isinstance(message, Question)
    queries = run.cut().queries
    assert queries is not None
    assert message.about == queries.digest
    assert message.plan == run.terms().plan
    if message.queries is not None:
        np.testing.assert_array_equal(message.queries, queries.inputs)
    if message.lesson is not None:
        assert message.lesson.digest in consensuses, "a lesson that is no consensus"


def floats_in(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    for inner in value.values() if isinstance(value, dict) else ():
        yield from floats_in(inner)
    for inner in value if isinstance(value, list) else ():
        yield from floats_in(inner)


def rows_of(run: Run) -> Array:
    """Every private record of every site, validation included."""
    folders = [SiteFolder(path) for path in run.sites.values()]
    return np.concatenate([p.inputs for s in folders for p in (s.train(), s.validation())])


def spellings_of(row: Array, run: Run) -> dict[str, bytes]:
    scaled = run.dataset().space.scaled(row[None])[0]
    return {
        "as it is kept": row.tobytes(),
        "as float32": row.astype(np.float32).tobytes(),
        "as a model sees it": scaled.astype("<f4").tobytes(),
        "as float64": row.astype("<f8").tobytes(),
    }


def check_no_record(letter: Letter, needles: list[tuple[str, bytes]]) -> None:
    for spelling, needle in needles:
        assert needle not in letter.wire, f"a private record {spelling}"


@pytest.fixture(scope="module")
def questions(overheard: Overheard) -> dict[str, Question]:
    asked = [decode(letter.body, 1 << 30) for letter in overheard.down]
    return {q.key: q for q in asked if isinstance(q, Question)}


@pytest.fixture(scope="module")
def needles(overheard: Overheard) -> list[tuple[str, bytes]]:
    rows = rows_of(overheard.run)
    return [pair for row in rows for pair in spellings_of(row, overheard.run).items()]


def test_a_whole_run_was_overheard(overheard: Overheard, questions: dict[str, Question]) -> None:
    kinds = [type(decode(letter.body, 1 << 20)) for letter in overheard.up]
    # Two calls at the start, where nobody knows anybody's head yet, and one at the end.
    assert {kind: kinds.count(kind) for kind in FIELDS} == {Present: 9, Answer: 6, Closed: 3}
    assert len(kinds) == 18
    assert len(questions) == 3


def test_what_goes_up_is_distributions_on_the_queries_asked(
    overheard: Overheard, questions: dict[str, Question]
) -> None:
    for letter in overheard.up:
        check_upward(letter, overheard.run, questions)
        check_cover(letter, overheard.run)


def test_what_goes_down_is_queries_the_consensus_and_the_plan(overheard: Overheard) -> None:
    with Log(overheard.run.folder / "server" / "log.sqlite", "server") as log:
        consensuses = {entry.body["lesson"] for entry in log.entries("aggregate.computed")}
    assert len(consensuses) == 2
    for letter in overheard.down:
        check_downward(letter, overheard.run, consensuses)


def test_flowers_own_fields_say_nothing_more(overheard: Overheard) -> None:
    # The frame beside the body is as long for every site and every answer: nothing rides in it.
    for letters in (overheard.up, overheard.down):
        covers = [0 if it.envelope is None else len(cover(it.envelope)) for it in letters]
        frames = [len(it.wire) - len(it.body) for it in letters]
        assert max(frame - rode for frame, rode in zip(frames, covers, strict=True)) < 768


def test_no_private_record_is_in_any_message(
    overheard: Overheard, needles: list[tuple[str, bytes]]
) -> None:
    queries = overheard.run.cut().queries
    assert queries is not None
    asked = {row.tobytes() for row in queries.inputs}
    assert not asked & {row.tobytes() for row in rows_of(overheard.run)}
    for letter in [*overheard.up, *overheard.down]:
        check_no_record(letter, needles)


def test_no_count_of_records_is_in_any_message(overheard: Overheard) -> None:
    for path in overheard.run.sites.values():
        folder = SiteFolder(path)
        labels = np.concatenate([folder.train().labels, folder.validation().labels])
        counts = np.bincount(labels, minlength=10)
        for kind in ("<i8", "<f4", "<f8"):
            for letter in overheard.up:
                assert counts.astype(kind).tobytes() not in letter.wire


def test_what_left_is_what_lies_in_the_outbox(overheard: Overheard) -> None:
    for site, path in overheard.run.sites.items():
        left = {letter.body for letter in overheard.up if letter.site == site}
        assert {kept.read_bytes() for kept in (path / "outbox").glob("*.bin")} == left
        rode = [(it.body, it.envelope) for it in overheard.up if it.site == site]
        for body, envelope in rode:
            assert envelope is not None
            kept = (path / "outbox").glob(f"{digest_of_bytes(body)[7:]}.*.envelope")
            assert cover(envelope) in [file.read_bytes() for file in kept]


def planted(letter: Letter, fault: str, run: Run) -> Letter:
    """An answer with something in it that may not leave."""
    answer = decode(letter.body, 1 << 20)
    assert isinstance(answer, Answer)
    records = SiteFolder(run.sites[letter.site]).train()
    changed = {
        "an array more": {"coded": {**answer.coded, "labels": records.labels}},
        "features in place of answers": {
            "coded": {"probs": records.inputs[:12, 0].reshape(12, -1).astype(np.float32)}
        },
        "another query set": {"about": "sha256:" + "0" * 64},
        "another question": {"question": "sha256:" + "0" * 64},
        "a number in the codec's name": {"codec": "float32 of 20"},
    }[fault]
    return replace(letter, body=encode(replace(answer, **changed)))


@pytest.mark.parametrize(
    "fault",
    [
        "an array more",
        "features in place of answers",
        "another query set",
        "another question",
        "a number in the codec's name",
    ],
)
def test_the_look_upward_finds_what_is_planted(
    fault: str, overheard: Overheard, questions: dict[str, Question]
) -> None:
    letter = next(it for it in overheard.up if isinstance(decode(it.body, 1 << 20), Answer))
    with pytest.raises(AssertionError):
        check_upward(planted(letter, fault, overheard.run), overheard.run, questions)


COVERS = {
    "a text in place of a head": {"asks": ("20 records",)},
    "a text in place of a cosignature": {"notes": ("20 records",)},
    "another log": {"stands": (("20 records", 1),)},
    "a size that nobody asked for": {"prove_from": (20,)},
}


@pytest.mark.parametrize("fault", [*COVERS, "another's head", "a proof that proves nothing"])
def test_the_look_into_envelopes_finds_what_is_planted(fault: str, overheard: Overheard) -> None:
    letter = next(it for it in overheard.up if it.envelope and it.envelope.asks[1:])
    envelope = letter.envelope
    assert envelope is not None
    last = AddCheckpoint.parse(envelope.asks[0].encode())
    text = replace(last, proof=(b"20 records".ljust(32), *last.proof)).to_bytes().decode()
    others = [it.envelope.asks for it in overheard.up if it.envelope and it.site != letter.site]
    changed: dict[str, Any] = COVERS.get(fault, {})
    changed = changed or {"asks": (text,) if fault.startswith("a proof") else others[0]}
    with pytest.raises((AssertionError, Refuted)):
        check_cover(replace(letter, envelope=replace(envelope, **changed)), overheard.run)


def test_the_look_for_records_finds_one_that_is_planted(
    overheard: Overheard, needles: list[tuple[str, bytes]]
) -> None:
    letter, row = overheard.up[0], rows_of(overheard.run)[7]
    for spelling in spellings_of(row, overheard.run).values():
        with pytest.raises(AssertionError):
            check_no_record(replace(letter, wire=letter.wire + spelling), needles)


def test_the_look_downward_finds_an_answer_in_place_of_the_consensus(
    overheard: Overheard,
) -> None:
    letter = next(
        it
        for it in overheard.down
        if isinstance(q := decode(it.body, 1 << 30), Question) and q.lesson is not None
    )
    with pytest.raises(AssertionError):
        check_downward(letter, overheard.run, set())


def test_a_site_keeps_its_state_in_its_own_folder_alone(overheard: Overheard) -> None:
    left: set[Path] = set(overheard.run.folder.iterdir())
    names = {path.name for path in left}
    assert not names & {"outbox", "models", "taught", "train.npz"}
    for other in left - {overheard.run.sites_dir}:
        for kept in [other] if other.is_file() else filter(Path.is_file, other.rglob("*")):
            body = kept.read_bytes()
            for row in rows_of(overheard.run)[::7]:
                assert row.tobytes() not in body, kept
