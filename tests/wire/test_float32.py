"""The default codec; what every codec keeps is in tests/laws."""

import numpy as np
import pytest

from fedkd.wire import Malformed
from fedkd.wire.codecs.float32 import float32


def test_float32_is_exact_and_refuses_what_is_no_distribution():
    codec = float32()
    probs = np.random.default_rng(0).dirichlet(np.ones(3), size=5).astype(np.float32)
    arrays = codec.encode(probs)
    np.testing.assert_array_equal(codec.decode(arrays, 5, 3), probs)
    assert arrays["probs"].nbytes == codec.raw_bytes(5, 3) == 60
    for wrong in (np.full_like(probs, np.nan), 2 * probs, probs.astype(np.float64), probs[:4]):
        with pytest.raises(Malformed):
            codec.decode({"probs": wrong}, 5, 3)
