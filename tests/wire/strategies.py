"""Messages as Hypothesis draws them: any that may travel, with any values that they may have."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

from fedkd.knowledge import (
    Distributions,
    Public,
    Synthetic,
    digest_of_bytes,
)
from fedkd.wire import (
    Answer,
    Closed,
    Considered,
    Counts,
    Evaluation,
    Plan,
    Present,
    Proposal,
    Question,
    Reason,
    Refusal,
    RollCall,
    Ruling,
)
from fedkd.wire.frames import DTYPES

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.isprintable)
SITE = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,20}[A-Za-z0-9_-])?", fullmatch=True)
RUN = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
COUNT = st.integers(0, 2**53 - 1)
DIGEST = st.binary(max_size=4).map(digest_of_bytes)
NUMBER = st.floats(0, 1e6) | st.integers(0, 1000).map(float)
ORIGIN = st.builds(Public, TEXT, TEXT, TEXT) | st.builds(
    Synthetic, TEXT, TEXT, COUNT, COUNT, st.lists(TEXT, max_size=2).map(tuple), st.none() | TEXT
)
PLAN = st.builds(
    Plan,
    COUNT,
    COUNT,
    st.integers(1, 10_000),
    TEXT,
    NUMBER,
    NUMBER.filter(lambda number: number > 0),
)


@st.composite
def lessons(draw):
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    probs = rng.dirichlet(np.ones(draw(st.integers(2, 4))), size=draw(st.integers(0, 3)))
    return Distributions(probs.astype(draw(st.sampled_from(["<f4", "<f8"]))), draw(DIGEST))


@st.composite
def questions(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=3))
    inputs = hnp.arrays(st.sampled_from(DTYPES), shape)
    return Question(
        run=draw(RUN),
        round=draw(COUNT),
        closing=draw(st.booleans()),
        about=draw(DIGEST),
        origin=draw(ORIGIN),
        size=shape[0],
        queries=draw(st.none() | inputs),
        lesson=draw(st.none() | lessons()),
        plan=draw(PLAN),
        codec=draw(TEXT),
    )


POSITIVE = NUMBER.filter(lambda number: number > 0)
THRESHOLDS = st.sets(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=5).map(
    lambda found: tuple(sorted(found))
)
FLOOR = st.integers(1, 9)
CELLS = hnp.arrays(
    "<i8",
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=3),
    elements=st.just(-1) | st.integers(9, 2**40),
)
CODED = st.dictionaries(
    st.text(min_size=1, max_size=6),
    hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(max_dims=2, min_side=0, max_side=3)),
    min_size=1,
    max_size=3,
)
PAPER = st.binary(min_size=1, max_size=9).map(lambda paper: np.frombuffer(paper, "|u1"))
SIGNATURE = st.lists(TEXT, min_size=1, max_size=3).map("\n".join)
MESSAGES = st.one_of(
    st.builds(RollCall, RUN),
    st.builds(Present, SITE, RUN, TEXT),
    questions(),
    st.builds(Answer, SITE, RUN, COUNT, DIGEST, DIGEST, TEXT, CODED),
    st.builds(Closed, SITE, RUN, COUNT, DIGEST),
    st.builds(Evaluation, RUN, COUNT, DIGEST, THRESHOLDS, st.none() | TEXT, POSITIVE),
    st.builds(
        Counts, SITE, RUN, COUNT, DIGEST, DIGEST, st.just("geometric"), POSITIVE, FLOOR, CELLS
    ),
    st.builds(Refusal, SITE, RUN, COUNT, st.sampled_from(Reason)),
    st.builds(Proposal, RUN, PAPER, SIGNATURE),
    st.builds(Considered, SITE, RUN, DIGEST, st.sampled_from(Ruling)),
)
