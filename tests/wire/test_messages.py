"""Messages: each comes back as it was, and nothing else is taken for one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import (
    Digest,
    Distributions,
    Public,
    QuerySet,
    Synthetic,
    WrongDigest,
    digest_of_bytes,
)
from fedkd.wire import (
    Answer,
    Closed,
    Considered,
    Counts,
    Evaluation,
    Malformed,
    OtherVersion,
    Plan,
    Present,
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
from tests.wire.strategies import MESSAGES

MOST = 1 << 20


def a_question(**other):
    inputs = np.arange(6, dtype=np.uint8).reshape(3, 2)
    queries = QuerySet(inputs, Synthetic("procedural", "sha256:aa", 0, 0))
    lesson = Distributions(np.full((2, 2), 0.5, dtype=np.float32), digest_of_bytes(b"before"))
    question = Question(
        run="run",
        round=1,
        closing=False,
        about=queries.digest,
        origin=queries.origin,
        size=3,
        queries=inputs,
        lesson=lesson,
        plan=Plan(1, 2, 32, "kl", 1.0, 0.5),
        codec="float32",
    )
    return replace(question, **other)


ABOUT = digest_of_bytes(b"about")
EXAMPLES = [
    RollCall("run"),
    Present("site-1", "run", "fedkd 0.1.0"),
    a_question(),
    a_question(queries=None, lesson=None, closing=True, origin=Public("n", "l", "d")),
    Answer("site-1", "run", 1, ABOUT, ABOUT, "float32", {"probs": np.full((2, 2), 0.5, "<f4")}),
    Closed("site-1", "run", 2, ABOUT),
    Evaluation("run", 4, ABOUT, (0.25, 0.5), "sex", 1.0),
    Counts(
        "site-1", "run", 4, ABOUT, ABOUT, "geometric", 4.5, 5, np.array([[[5, -1], [7, 2**40]]])
    ),
    Refusal("site-1", "run", 2, Reason.BUDGET_EXHAUSTED),
    Proposal("run", np.frombuffer(b"{}", "|u1"), "signed\n\n\u2014 hearts AAAA\n"),
    Considered("site-1", "run", ABOUT, Ruling.PENDING),
]
BODIES = [encode(message) for message in EXAMPLES]
KINDS_OF_MESSAGE = {
    "roll_call", "present", "question", "answer", "closed", "evaluation", "counts", "refusal",
    "proposal", "considered",
}  # fmt: skip
KINDS = pytest.mark.parametrize("body", BODIES, ids=[type(it).__name__ for it in EXAMPLES])


def same(one, two):
    """Equal in every field; arrays by type, shape and bytes."""
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())
    if isinstance(one, Distributions):
        return one.digest == two.digest
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    return type(one) is type(two) and one == two


def respelt(body, **changes):
    """The same arrays behind a header with other values; `...` takes a field out."""
    header, arrays = unpack(body, MOST)
    header.update(changes)
    return pack({name: value for name, value in header.items() if value is not ...}, arrays)


def taken_or_malformed(body):
    """The only two things that may happen to bytes."""
    try:
        message = decode(body, MOST)
    except Malformed:
        return
    assert encode(message) == body


@given(MESSAGES)
def test_every_message_comes_back(message):
    body = encode(message)
    found = decode(body, MOST)
    assert type(found) is type(message)
    for name in message.__dataclass_fields__:
        assert same(getattr(message, name), getattr(found, name)), name
    assert encode(found) == body


@KINDS
def test_every_shorter_or_longer_body_is_malformed(body):
    for end in range(len(body)):
        with pytest.raises(Malformed):
            decode(body[:end], MOST)
    for more in (b"\x00", b" ", b"\n", body):
        with pytest.raises(Malformed):
            decode(body + more, MOST)


@KINDS
def test_every_flipped_byte_is_malformed_or_another_message(body):
    for place in range(len(body)):
        for mask in (0x01, 0x20, 0x80):
            flipped = body[:place] + bytes([body[place] ^ mask]) + body[place + 1 :]
            taken_or_malformed(flipped)


@settings(max_examples=150)
@given(st.sampled_from(BODIES), st.data())
def test_every_mutation_is_malformed_or_another_message(body, data):
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(mutated)))
        end = min(len(mutated), start + data.draw(st.integers(0, 6)))
        mutated[start:end] = data.draw(st.binary(max_size=6))
    taken_or_malformed(bytes(mutated))


@settings(max_examples=150)
@given(st.sampled_from(BODIES), st.data())
def test_every_other_value_in_a_header_is_malformed_or_another_message(body, data):
    header, arrays = unpack(body, MOST)
    name = data.draw(st.sampled_from(sorted(header)))
    anything = st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=4,
    )
    header[name] = data.draw(anything)
    taken_or_malformed(pack(header, arrays))


@settings(max_examples=150)
@given(st.binary(max_size=200), st.booleans())
def test_noise_is_malformed(noise, framed):
    taken_or_malformed(b"fedkd/1\n" + len(noise).to_bytes(4, "little") + noise if framed else noise)


@KINDS
def test_a_missing_field_is_malformed(body):
    for name in unpack(body, MOST)[0]:
        with pytest.raises(Malformed):
            decode(respelt(body, **{name: ...}), MOST)


@KINDS
def test_a_foreign_field_or_array_is_malformed(body):
    header, arrays = unpack(body, MOST)
    for name in ("_target_", "arrays2", "coded", "queries", "weights", "loss"):
        with pytest.raises(Malformed):
            decode(respelt(body, **{name: "os.system"}), MOST)
    for name in ("weights", "gradient", "zz"):
        with pytest.raises(Malformed):
            decode(pack(header, {**arrays, name: np.zeros(1)}), MOST)


@pytest.mark.parametrize("kind", ["other", "Question", "", None, 1, [], {}, ["question"]], ids=repr)
def test_a_kind_that_is_not_in_the_list_is_malformed(kind):
    for body in BODIES:
        with pytest.raises(Malformed):
            decode(respelt(body, kind=kind), MOST)


@KINDS
def test_a_message_under_another_kind_is_malformed(body):
    own = unpack(body, MOST)[0]["kind"]
    for kind in KINDS_OF_MESSAGE - {own}:
        with pytest.raises(Malformed):
            decode(respelt(body, kind=kind), MOST)


@pytest.mark.parametrize("version", [0, 2, -1])
def test_another_version_is_told_apart(version):
    with pytest.raises(OtherVersion):
        decode(respelt(BODIES[0], v=version), MOST)


@pytest.mark.parametrize("version", [True, "1", None, [1], 1.5])
def test_a_version_that_is_no_number_is_malformed(version):
    with pytest.raises(Malformed):
        decode(respelt(BODIES[0], v=version), MOST)


PLAIN_PLAN = json.loads(rfc8785.dumps(unpack(BODIES[2], MOST)[0]["plan"]))
PLAIN_ORIGIN = unpack(BODIES[2], MOST)[0]["origin"]


@pytest.mark.parametrize(
    "changes",
    [
        {"round": True},
        {"round": -1},
        {"round": 0.5},
        {"round": "1"},
        {"size": 0},
        {"size": 2},
        {"size": 4},
        {"size": True},
        {"closing": 0},
        {"closing": 1},
        {"closing": None},
        {"run": ""},
        {"run": "a" * 257},
        {"run": "a\nb"},
        {"run": "../../elsewhere"},
        {"run": "."},
        {"run": "a\x00"},
        {"run": "\u202enur"},
        {"about": "sha256:" + "A" * 64},
        {"about": "sha256:" + "a" * 63},
        {"about": "sha256:" + "a" * 64 + "\n"},
        {"about": "md5:" + "a" * 64},
        {"about": "sha256:" + "\u0661" * 64},
        {"lesson": None},
        {"lesson": "sha256:"},
        {"lesson": 0},
        {"origin": None},
        {"origin": []},
        {"origin": {**PLAIN_ORIGIN, "parents": "ab"}},
        {"origin": {**PLAIN_ORIGIN, "seed": True}},
        {"origin": {k: v for k, v in PLAIN_ORIGIN.items() if k != "parents"}},
        {"origin": {**PLAIN_ORIGIN, "_target_": "os.system"}},
        {"plan": None},
        {"plan": []},
        {"plan": {**PLAIN_PLAN, "more": 1}},
        {"plan": {**PLAIN_PLAN, "batch": 0}},
        {"plan": {**PLAIN_PLAN, "local_epochs": -1}},
        {"plan": {**PLAIN_PLAN, "local_epochs": True}},
        {"plan": {**PLAIN_PLAN, "temperature": 0}},
        {"plan": {**PLAIN_PLAN, "temperature": -1}},
        {"plan": {**PLAIN_PLAN, "temperature": "1"}},
        {"plan": {**PLAIN_PLAN, "loss_weight": True}},
        {"plan": {**PLAIN_PLAN, "loss_weight": -0.1}},
        {"plan": {**PLAIN_PLAN, "loss_weight": 1e7}},
        {"plan": {**PLAIN_PLAN, "loss": {"_target_": "os.system"}}},
        {"envelope": {}},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_question_with_a_wrong_field_is_malformed(changes):
    with pytest.raises(Malformed):
        decode(respelt(BODIES[2], **changes), MOST)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "sha256:"},
        {"model": None},
        {"thresholds": None},
        {"thresholds": {}},
        {"thresholds": [0]},
        {"thresholds": [1]},
        {"thresholds": [True]},
        {"thresholds": ["0.5"]},
        {"thresholds": [0.5, 0.5]},
        {"thresholds": [0.5, 0.25]},
        {"thresholds": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
        {"thresholds": [-0.5]},
        {"group": ""},
        {"group": 1},
        {"group": ["sex"]},
        {"epsilon": 0},
        {"epsilon": -1},
        {"epsilon": True},
        {"epsilon": "1"},
        {"epsilon": None},
        {"epsilon": 1e7},
        {"weights": [0.5]},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_an_evaluation_with_a_wrong_field_is_malformed(changes):
    with pytest.raises(Malformed):
        decode(respelt(BODIES[6], **changes), MOST)


@pytest.mark.parametrize(
    "changes",
    [{"noise": "laplace"}, {"noise": "none"}, {"noise": None}, {"noise": ["none"]}, {"scale": 0},
     {"scale": -1}, {"scale": True}, {"floor": 0}, {"floor": 6}, {"floor": True}, {"question": ""}],
    ids=lambda changes: str(changes)[:60],
)  # fmt: skip
def test_counts_with_a_wrong_field_are_malformed(changes):
    with pytest.raises(Malformed):
        decode(respelt(BODIES[7], **changes), MOST)


def test_counts_below_their_floor_or_of_another_shape_are_malformed():
    header, arrays = unpack(BODIES[7], MOST)
    counts = arrays["counts"]
    for wrong in (counts - 1, counts * 0, counts[0], counts.astype("<f8"), counts[:0]):
        with pytest.raises(Malformed):
            decode(pack(header, {"counts": wrong}), MOST)
    for wrong in ({}, {"counts": counts, "weights": counts}, {"coded.counts": counts}):
        with pytest.raises(Malformed):
            decode(pack(header, wrong), MOST)
    exact = respelt(BODIES[7], noise="none", scale=0)
    assert decode(exact, MOST).scale == 0


def test_an_evaluation_is_named_by_what_it_asks_and_not_by_its_round():
    asked = EXAMPLES[6]
    assert replace(asked, round=5).key == asked.key == decode(BODIES[6], MOST).key
    other = digest_of_bytes(b"another model")
    others = [
        replace(asked, run="other"),
        replace(asked, model=other),
        replace(asked, thresholds=(0.5,)),
        replace(asked, group=None),
        replace(asked, epsilon=2.0),
    ]
    assert len({asked.key, *(it.key for it in others)}) == 6


@pytest.mark.parametrize("reason", ["", "other", "Smith John", None, 1, [], ["failed"], "FAILED"])
def test_a_refusal_carries_words_of_the_list_alone(reason):
    with pytest.raises(Malformed):
        decode(respelt(BODIES[-1], reason=reason), MOST)
    with pytest.raises(Malformed):
        Refusal("site-1", "run", 0, reason)


@pytest.mark.parametrize(
    "site",
    [
        "",
        ".",
        "..",
        "../../etc",
        "a/b",
        "a\\b",
        "/root",
        ".hidden",
        "-rf",
        " a",
        "a ",
        "a.",
        "a\n",
        "c:x",
        "~",
        "a\x00",
        "\u0430dam",
        "a" * 65,
        None,
        1,
    ],
    ids=repr,
)
def test_a_site_is_no_path_and_looks_like_no_other(site):
    for body in (
        body for body, message in zip(BODIES, EXAMPLES, strict=True) if hasattr(message, "site")
    ):
        with pytest.raises(Malformed):
            decode(respelt(body, site=site), MOST)
    with pytest.raises(Malformed):
        Closed(site, "run", 0, ABOUT)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..\\x", "~", "a\x00b"])
def test_names_like_paths_are_only_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = replace(EXAMPLES[4], coded={name: np.zeros(1)})
    assert list(decode(encode(answer), MOST).coded) == [name]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 0.75], ids=str)
def test_a_lesson_that_is_no_distribution_is_malformed(value):
    header, arrays = unpack(BODIES[2], MOST)
    lesson = arrays["lesson"].copy()
    lesson[0, 0] = value
    with pytest.raises(Malformed):
        decode(pack(header, {**arrays, "lesson": lesson}), MOST)
    for wrong in (lesson[0], lesson[:, :1], arrays["lesson"].astype("<u2")):
        with pytest.raises(Malformed):
            decode(pack(header, {**arrays, "lesson": wrong}), MOST)


def test_a_lesson_and_its_digest_come_together():
    header, arrays = unpack(BODIES[2], MOST)
    with pytest.raises(Malformed):
        decode(pack(header, {"queries": arrays["queries"]}), MOST)


def test_an_answer_without_numbers_is_malformed():
    header, arrays = unpack(BODIES[4], MOST)
    with pytest.raises(Malformed):
        decode(pack(header, {}), MOST)
    with pytest.raises(Malformed):
        decode(pack(header, {"coded.": np.zeros(1)}), MOST)
    with pytest.raises(Malformed):
        decode(pack(header, {"probs": arrays["coded.probs"]}), MOST)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RollCall(""),
        lambda: Closed("site-1", "run", -1, ABOUT),
        lambda: Closed("site-1", "run", 1.0, ABOUT),
        lambda: Closed("site-1", "run", 0, Digest("sha256:")),
        lambda: replace(EXAMPLES[4], coded={}),
        lambda: replace(EXAMPLES[4], codec=""),
        lambda: a_question(size=2),
        lambda: a_question(size=0, queries=None),
        lambda: a_question(lesson=Distributions(np.full((1, 2), 0.5), Digest("x"))),
        lambda: Plan(1, 1, 0, "kl", 1.0, 1.0),
        lambda: Plan(1, 1, 1, "kl", float("nan"), 1.0),
        lambda: Plan(1, 1, 1, "kl", 1.0, float("inf")),
    ],
)
def test_what_could_not_be_read_is_not_even_made(make):
    with pytest.raises(Malformed):
        make()


def test_the_key_names_run_round_queries_and_lesson_and_nothing_else():
    question = a_question()
    lesson = Distributions(np.array([[0.25, 0.75]]), ABOUT)
    others = [
        a_question(run="other"),
        a_question(round=2),
        a_question(about=ABOUT),
        a_question(lesson=lesson),
        a_question(lesson=None),
    ]
    assert len({question.key, *(other.key for other in others)}) == 6
    alike = [a_question(queries=None), decode(BODIES[2], MOST)]
    assert {other.key for other in alike} == {question.key}


def test_a_question_brings_the_queries_that_it_names_or_none():
    assert a_question().query_set().digest == a_question().about
    with pytest.raises(WrongDigest):
        a_question(about=ABOUT).query_set()
    with pytest.raises(WrongDigest):
        a_question(queries=None).query_set()


def test_golden_bytes_of_a_roll_call():
    body = b'fedkd/1\n\x30\x00\x00\x00{"arrays":[],"kind":"roll_call","run":"r","v":1}'
    assert encode(RollCall("r")) == body
    assert decode(body, MOST) == RollCall("r")
