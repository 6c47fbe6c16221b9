"""A gate mixes an answer towards "I do not know", and sends nothing new."""

import numpy as np
import pytest

from fedkd.distill import Gate, gated
from fedkd.distill.gates.none import none
from fedkd.distill.laws import GATE_LAWS, LawBroken
from fedkd.knowledge import BadInput, check_distributions

PROBS = np.random.default_rng(0).dirichlet(np.ones(4), 9).astype(np.float32)


@pytest.mark.parametrize("law", GATE_LAWS)
def test_no_gate_keeps_the_laws(law: str) -> None:
    GATE_LAWS[law](none())


def test_a_law_notices_a_gate_that_opens_too_far() -> None:
    wide = none()._replace(open=lambda space, memory, inputs: np.full(len(inputs), 1.5))
    with pytest.raises(LawBroken):
        GATE_LAWS["a gate is a share in [0, 1]"](wide)


def test_no_gate_reads_no_record() -> None:
    assert isinstance(none(), Gate)
    assert none().reads_records is False


def test_an_open_gate_leaves_an_answer_to_the_last_bit() -> None:
    assert gated(PROBS, np.ones(9)).tobytes() == PROBS.tobytes()


def test_a_closed_gate_says_nothing() -> None:
    assert np.allclose(gated(PROBS, np.zeros(9)), 0.25)


def test_a_gate_in_between_mixes() -> None:
    opened = np.linspace(0, 1, 9)
    mixed = gated(PROBS, opened)
    check_distributions(mixed)
    assert mixed.dtype == np.float32
    assert np.allclose(mixed, opened[:, None] * PROBS + (1 - opened[:, None]) / 4, atol=1e-6)


@pytest.mark.parametrize("opened", [np.ones(8), np.full(9, 1.1), np.full(9, np.nan)])
def test_what_is_no_share_is_refused(opened) -> None:
    with pytest.raises(BadInput):
        gated(PROBS, opened)
