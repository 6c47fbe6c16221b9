"""Whatever is wrong with one reply is said with its reason, and never stops the others."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.app import app as client_app
from fedkd.cli.run import Run
from fedkd.federation.admission import acknowledged, admit, wants_inputs
from fedkd.federation.asking import CRASHED, GONE, SILENT, Reply
from fedkd.federation.durable import read_json
from fedkd.federation.flower.asking import GridAsk
from fedkd.federation.flower.inprocess import InProcessGrid
from fedkd.federation.flower.letters import content_of, letter_of
from fedkd.knowledge import Public, digest_of_bytes
from fedkd.wire import Answer, Closed, Plan, Question, Reason, Refusal, RollCall, decode, encode
from fedkd.wire.codecs.float32 import float32
from tests.federation.small import Wiretap, conducted, finished, founded

Q, C = 6, 4
OTHER = digest_of_bytes(b"another")
QUESTION = Question(
    run="run",
    round=3,
    closing=False,
    about=digest_of_bytes(b"the queries"),
    origin=Public("public", "CC0", OTHER),
    size=Q,
    queries=None,
    lesson=None,
    plan=Plan(1, 1, 8, "kl", 1.0, 1.0),
    codec="float32",
)


def probs(**changes: float) -> np.ndarray:
    said = np.full((Q, C), 1 / C, dtype=np.float32)
    if "first" in changes:
        said[2, 0] = changes["first"]
    if "off" in changes:
        said[2] *= 1 + changes["off"]
    return said


def answer(said: np.ndarray | None = None, **changes: Any) -> bytes:
    first: dict[str, Any] = {
        "site": "b",
        "run": "run",
        "round": 3,
        "question": QUESTION.key,
        "about": QUESTION.about,
        "codec": "float32",
        "coded": {"probs": probs() if said is None else said},
    }
    return encode(Answer(**{**first, **changes}))


NO_DISTRIBUTIONS = "an answer holds numbers that are no distributions"
WRONG_SHAPE = f"an answer is not float32 of shape [{Q}, {C}]"
OFFENDERS: dict[str, tuple[bytes | None, str]] = {
    "NaN": (answer(probs(first=np.nan)), NO_DISTRIBUTIONS),
    "infinity": (answer(probs(first=np.inf)), NO_DISTRIBUTIONS),
    "negative": (answer(probs(first=-0.25)), NO_DISTRIBUTIONS),
    "a row off by 1e-3": (answer(probs(off=1e-3)), NO_DISTRIBUTIONS),
    "a row of zeros": (answer(probs(off=-1)), NO_DISTRIBUTIONS),
    "a query too few": (answer(probs()[:-1]), WRONG_SHAPE),
    "a query too many": (answer(np.vstack([probs(), probs()[:1]])), WRONG_SHAPE),
    "no query": (answer(probs()[:0]), WRONG_SHAPE),
    "a class too few": (answer(np.full((Q, C - 1), 1 / 3, np.float32)), WRONG_SHAPE),
    "one class": (answer(np.ones((Q, 1), np.float32)), WRONG_SHAPE),
    "votes for a row": (answer(np.ones(Q, np.float32)), WRONG_SHAPE),
    "float64": (answer(probs().astype(np.float64)), WRONG_SHAPE),
    "another query set": (answer(about=OTHER), "an answer for another query set"),
    "another round": (answer(round=2), "an answer for another round"),
    "another run": (answer(run="run2"), "an answer for another run"),
    "another question": (answer(question=OTHER), "an answer for another question"),
    "another site's name": (answer(site="a"), "an answer for another site"),
    "another codec": (answer(codec="uint8"), "an answer for another codec"),
    "an array more": (
        answer(coded={"probs": probs(), "more": probs()}),
        "an answer holds other arrays than its codec's",
    ),
    "another array": (
        answer(coded={"logits": probs()}),
        "an answer holds other arrays than its codec's",
    ),
    "a question": (encode(QUESTION), "a reply that is no answer"),
    "an acknowledgement": (
        encode(Closed("b", "run", 3, QUESTION.key)),
        "a reply that is no answer",
    ),
    "not our bytes": (b"GET / HTTP/1.1", "not a message of this protocol version"),
    "nothing": (b"", "not a message of this protocol version"),
    "a cut answer": (answer()[:-5], "an array is longer than the message"),
    "an answer and more": (answer() + b"x", "bytes are left over behind the last array"),
    "a kind of its own": (
        answer().replace(b'"kind":"answer"', b'"kind":"weight"'),
        "a kind of message that is not in the list",
    ),
    "a huge array": (
        answer(np.zeros((5000, C), np.float32)),
        f"{len(answer(np.zeros((5000, C), np.float32)))} bytes, "
        f"at most {4 * Q * C + (1 << 14)} are accepted",
    ),
    "silence": (None, SILENT),
    **{
        f"refused: {reason}": (encode(Refusal("b", "run", 3, reason)), f"refused: {reason}")
        for reason in Reason
    },
}


@pytest.mark.parametrize(("body", "why"), OFFENDERS.values(), ids=OFFENDERS)
def test_an_offender_is_left_out_with_its_reason_and_the_others_stay(
    body: bytes | None, why: str
) -> None:
    replies = [
        Reply("a", answer(site="a")),
        Reply("b", body, SILENT if body is None else None),
        Reply("c", answer(probs(off=1e-5), site="c")),
    ]
    admitted = admit(replies, QUESTION, C, float32())
    assert admitted.left_out == {"b": why}
    assert set(admitted.said) == {"a", "c"}
    np.testing.assert_array_equal(admitted.said["a"].probs, probs())
    assert admitted.said["a"].about == QUESTION.about


def test_nothing_of_what_an_offender_sent_is_in_the_reason() -> None:
    canary = "canary"
    bodies = [
        answer(run=canary),
        answer(codec=canary),
        answer(site=canary),
        answer(coded={canary: probs()}),
        canary.encode(),
        encode(Refusal(canary, canary, 3, Reason.FAILED)),
        answer().replace(b'"kind":"answer"', b'"kind":"canary"'),
    ]
    for body in bodies:
        admitted = admit([Reply("b", body)], QUESTION, C, float32())
        assert set(admitted.left_out) == {"b"}
        assert canary not in admitted.left_out["b"]


def test_a_site_that_replies_twice_is_heard_the_first_time() -> None:
    other = np.tile(np.float32([1, 0, 0, 0]), (Q, 1))
    admitted = admit([Reply("b", answer()), Reply("b", answer(other))], QUESTION, C, float32())
    np.testing.assert_array_equal(admitted.said["b"].probs, probs())
    assert not admitted.left_out


def test_an_answer_after_a_failure_does_not_count() -> None:
    replies = [Reply("b", None, CRASHED), Reply("b", answer())]
    admitted = admit(replies, QUESTION, C, float32())
    assert admitted.left_out == {"b": CRASHED}
    assert not admitted.said


def test_a_failure_after_an_answer_does_not_take_it_back() -> None:
    replies = [Reply("b", answer()), Reply("b", None, CRASHED)]
    admitted = admit(replies, QUESTION, C, float32())
    assert set(admitted.said) == {"b"}
    assert not admitted.left_out


CLOSING = replace(QUESTION, closing=True)
ACKNOWLEDGEMENTS: dict[str, tuple[bytes | None, str | None]] = {
    "right": (encode(Closed("b", "run", 3, CLOSING.key)), None),
    "another site's": (encode(Closed("a", "run", 3, CLOSING.key)), "not an acknowledgement"),
    "of another question": (encode(Closed("b", "run", 3, OTHER)), "about another question"),
    "an answer": (answer(), "not an acknowledgement"),
    "a refusal": (encode(Refusal("b", "run", 3, Reason.VERSION)), "refused: version"),
    "silence": (None, "no reply"),
    "nonsense": (b"?", "not a message of this protocol version"),
}


@pytest.mark.parametrize(("body", "why"), ACKNOWLEDGEMENTS.values(), ids=ACKNOWLEDGEMENTS)
def test_a_closing_reply_is_an_acknowledgement_or_says_why_not(
    body: bytes | None, why: str | None
) -> None:
    assert acknowledged(Reply("b", body), CLOSING) == why


def test_only_a_refusal_for_unknown_queries_asks_for_the_inputs() -> None:
    for reason in Reason:
        body = encode(Refusal("b", "run", 3, reason))
        assert wants_inputs(Reply("b", body)) == (reason == Reason.UNKNOWN_QUERIES)
    for body in (None, answer(), b"?", b"x" * (1 << 15)):
        assert not wants_inputs(Reply("b", body))


# Through whole runs.

Spoil = Callable[[Answer, RecordDict], RecordDict]


def says(**changes: Any) -> Spoil:
    return lambda honest, _: content_of(encode(replace(honest, **changes)))


def raises(honest: Answer, content: RecordDict) -> RecordDict:
    raise ValueError("canary")


def coded(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    return lambda honest, _: content_of(
        encode(replace(honest, coded={"probs": change(honest.coded["probs"]).astype("<f4")}))
    )


def no_array() -> RecordDict:
    header = b"\x93NUMPY\x01\x00" + (50).to_bytes(2, "little") + b"(" * 50
    return RecordDict(
        {"fedkd": ArrayRecord({"body": Array("uint8", (3,), "numpy.ndarray", header)})}
    )


def weights() -> RecordDict:
    return RecordDict({"weights": ArrayRecord([np.zeros((3, 3), np.float32)])})


ROGUE: list[tuple[Spoil, str]] = [
    (coded(lambda said: said * np.float32("nan")), NO_DISTRIBUTIONS),
    (coded(lambda said: said * np.float32(1.001)), NO_DISTRIBUTIONS),
    (coded(lambda said: said[:-1]), "an answer is not float32 of shape [12, 10]"),
    (says(about=OTHER), "an answer for another query set"),
    (says(round=1), "an answer for another round"),
    (says(site="site-01"), "an answer for another site"),
    (lambda honest, _: content_of(b"nonsense"), "not a message of this protocol version"),
    (raises, CRASHED),
    (lambda honest, _: no_array(), "found an array that cannot be read"),
    (lambda honest, _: weights(), "found other records than the one expected"),
]


def rogue(run: Run, spoils: list[Spoil]) -> ClientApp:
    """The ClientApp, of which one node answers in round r as `spoils[r - 1]` has it."""
    app = ClientApp()

    @app.query("answer")
    def answer(message: Message, context: Context) -> Message:
        asked = decode(letter_of(message, 1 << 30), 1 << 30)
        honest = client_app(message, context)
        if isinstance(asked, RollCall) or context.node_config["site"] != str(run.sites["site-02"]):
            return honest
        said = decode(letter_of(honest, 1 << 20), 1 << 20)
        if not isinstance(said, Answer):
            return honest
        return Message(spoils[said.round - 1](said, honest.content), reply_to=message)

    return app


def test_a_run_goes_on_without_a_rogue_and_says_site_round_and_reason(tmp_path: Any) -> None:
    run = founded(tmp_path / "run", f"rounds={len(ROGUE)}")
    finished(run, Wiretap(run, rogue(run, [spoil for spoil, _ in ROGUE])))
    summary = read_json(run.folder / "summary.json")
    left_out = {row["site"]: row["left_out"] for row in summary["clients"]}
    expected = [{"round": n, "reason": why} for n, (_, why) in enumerate(ROGUE, start=1)]
    assert left_out == {"site-01": [], "site-02": expected, "site-03": []}
    assert summary["rounds"] == len(ROGUE)


def test_what_a_rogue_says_does_not_move_the_consensus(tmp_path: Any) -> None:
    """The run ends as one in which the rogue said nothing at all."""
    students = set()
    for name, spoil in (("silent", raises), ("loud", ROGUE[3][0])):
        run = founded(tmp_path / name, "seed=5")
        conducted(run, Wiretap(run, rogue(run, [spoil] * 2)))
        students.add((run.folder / "student.safetensors").read_bytes())
    assert len(students) == 1


class Stammering(Wiretap):
    """A grid on which every reply comes twice, and questions are answered in another order."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = super().pull_messages(reversed(list(message_ids)))
        return [*replies, *replies]


def test_replies_that_come_twice_and_in_another_order_change_nothing(tmp_path: Any) -> None:
    ends = []
    for kind in (Wiretap, Stammering):
        run = founded(tmp_path / kind.__name__, "clients.models=[mlp,logistic]")
        state = conducted(run, kind(run))
        ends.append(
            (
                (run.folder / "student.safetensors").read_bytes(),
                state.left_out,
                state.traffic,
            )
        )
    # a run's id has one length, so bytes agree too
    assert ends[0] == ends[1]


def test_a_site_that_could_not_answer_the_roll_call_is_not_said_to_be_away(site: Path) -> None:
    grid = InProcessGrid(client_app, [{"site": str(site)}, {}])  # a letterbox that knows no site
    there, broken = grid.get_node_ids()  # in the order of their configurations
    asking = GridAsk(grid, 5.0, members=lambda: {there: "site-01", broken: "site-02"})
    assert asking.roll_call("r", ["site-01", "site-02"]).came == ("site-01",)
    (reply,) = asking({"site-02": b"x"}, lambda _: None, round=1)
    assert reply.failure == "refused: not_configured"


@pytest.mark.parametrize(
    ("code", "in_time", "late"),
    [(3, CRASHED, SILENT), (4, CRASHED, SILENT), (5, GONE, GONE), (8, CRASHED, CRASHED)],
)
def test_what_flower_says_in_a_sites_place_is_told_in_words(
    code: int, in_time: str, late: str
) -> None:
    """A question that was not answered in time, too, which Flower may see before the server."""
    app = ClientApp()

    @app.query("answer")
    def answer(message: Message, context: Context) -> Message:
        return Message(Error(code, "words of Flower's"), reply_to=message)

    grid = InProcessGrid(app, [{"site": "site-01"}])
    for deadline_s, words in ((60.0, in_time), (0.0, late)):
        asking = GridAsk(grid, deadline_s)
        (asking.nodes["site-01"],) = grid.get_node_ids()
        (reply,) = asking({"site-01": b"x"}, lambda _: None, round=1)
        assert reply.failure == words


def test_a_name_that_two_nodes_give_belongs_to_neither(run: Run, tmp_path: Any) -> None:
    shutil.copytree(run.sites_dir, tmp_path / "sites")
    names = ("site-01", "site-02", "site-01")
    grid = InProcessGrid(client_app, [{"site": str(tmp_path / "sites" / name)} for name in names])
    asking = GridAsk(grid, 5.0)
    assert set(asking.roll_call("r", ["site-01", "site-02", "site-03"]).came) == {"site-02"}
    (reply,) = asking({"site-01": b"x"}, lambda _: None, round=1)
    assert reply.failure == "the client is not connected"
