"""Pictures from code and a seed: the same for everybody, and like what their prior says."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedkd.distill.generators.generator import code_digest
from fedkd.distill.generators.priors import noise as noise_module
from fedkd.distill.generators.priors import shapes as shapes_module
from fedkd.distill.generators.procedural import procedural
from fedkd.knowledge import BadInput, Space

PRIORS = ("shapes", "leaves", "noise", "strokes")


def image(*shape, dtype="uint8", low=0, high=255):
    return Space("image", shape, dtype, low, high, ("a", "b"))


def posed(space, count, seed=0, **keys):
    generator = procedural(space=space, **keys)
    return generator.pose(generator.init(seed), None, count)[1]


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(
    "space",
    [
        image(8, 8, high=16),
        image(28, 28),
        image(64, 64),
        image(1, 28, 28),
        image(3, 32, 32),
        image(20, 28, 3),
        image(8, 8, dtype="float32", low=-1, high=1),
        image(9, 13, dtype="float32", low=0.1, high=0.7),
        image(8, 8, low=0.5, high=1.5),
    ],
    ids=lambda space: f"{space.shape} {space.dtype}",
)
def test_every_prior_draws_in_every_space(space, prior):
    space.check(posed(space, 5, priors=[prior]).inputs)


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_uses_the_range_and_repeats_nothing(prior):
    inputs = posed(image(28, 28), 200, priors=[prior]).inputs
    assert inputs.min() == 0
    assert inputs.max() > 240
    assert len(np.unique(inputs.reshape(200, -1), axis=0)) >= 198


def test_shapes_and_strokes_lie_on_black_and_are_seldom_empty():
    for prior in ("shapes", "strokes"):
        inputs = posed(image(28, 28), 400, priors=[prior]).inputs.reshape(400, -1)
        assert (inputs == 0).mean() > 0.4
        assert (inputs.max(axis=1) > 0).mean() > 0.97


def test_noise_falls_with_frequency_and_leaves_have_flat_faces():
    noise = posed(image(32, 32), 200, priors=["noise"]).inputs.astype(float)
    power = (np.abs(np.fft.fft2(noise - noise.mean(axis=(1, 2), keepdims=True))) ** 2).mean(axis=0)
    assert power[0, 1:3].mean() > 10 * power[0, 12:16].mean()
    leaves = posed(image(28, 28), 200, priors=["leaves"]).inputs
    assert 0.6 < (leaves[:, :, 1:] == leaves[:, :, :-1]).mean() < 0.95


def test_half_of_the_shapes_are_symmetric():
    inputs = posed(image(28, 28), 400, priors=["shapes"]).inputs
    share = (inputs == inputs[:, :, ::-1]).all(axis=(1, 2)).mean()
    assert 0.4 < share < 0.6


def test_colour_pictures_have_colours():
    inputs = posed(image(3, 16, 16), 40).inputs
    assert (inputs[:, 0] != inputs[:, 1]).mean() > 0.2
    last = posed(image(16, 16, 3), 40).inputs
    np.testing.assert_array_equal(last, np.moveaxis(inputs, 1, -1))


def test_priors_take_turns_in_equal_parts():
    both = posed(image(8, 8), 301, priors=["shapes", "noise"]).inputs
    np.testing.assert_array_equal(both[::2], posed(image(8, 8), 151, priors=["shapes"]).inputs)
    np.testing.assert_array_equal(both[1::2], posed(image(8, 8), 150, priors=["noise"]).inputs)


def test_a_smaller_set_is_the_beginning_of_a_larger_one():
    small, large = posed(image(8, 8), 70), posed(image(8, 8), 300)
    np.testing.assert_array_equal(small.inputs, large.inputs[:70])
    assert small.digest != large.digest


def test_the_same_set_is_posed_each_round_whatever_was_learnt():
    generator = procedural(space=image(8, 8))
    memory = generator.init(4)
    digests = set()
    for _ in range(3):
        memory, queries = generator.pose(memory, None, 20)
        digests.add(queries.digest)
        memory = generator.learn(memory, queries, None, None)
        memory = json.loads(json.dumps(memory))  # as a checkpoint keeps it
    assert len(digests) == 1
    assert queries.origin.round == 0
    assert queries.origin.parents == ()
    assert queries.origin.student is None
    assert queries.origin.generator == "procedural"


def test_a_student_does_not_change_the_set():
    generator = procedural(space=image(8, 8))
    one = generator.pose({"seed": 1}, None, 10)[1]
    two = generator.pose({"seed": 1}, object(), 10)[1]
    assert one.digest == two.digest


def test_no_digest_repeats_over_seeds_priors_and_spaces():
    digests = [posed(image(8, 8), 3, seed).digest for seed in range(30)]
    digests += [posed(image(8, 8), 3, priors=[prior]).digest for prior in PRIORS]
    digests += [posed(image(8, 8, high=16), 3).digest, posed(image(1, 8, 8), 3).digest]
    assert len(set(digests)) == len(digests)


SECOND = """
import sys
from fedkd.knowledge import Space
from fedkd.distill.generators.procedural import procedural
for shape in ((8, 8), (28, 28), (16, 16, 3)):
    space = Space("image", shape, "uint8", 0, 255, ("a", "b"))
    names = ["shapes", "leaves", "noise", "strokes"]
    print(procedural(space=space, priors=names).pose({"seed": 7}, None, 30)[1].digest)
foreign = [name for name in sys.modules if name.startswith("fedkd.data.sources")]
print(foreign + [name for name in ("torch", "sklearn", "pandas") if name in sys.modules])
"""


def test_a_second_process_draws_the_same_bytes_and_loads_no_source_of_data():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SECOND], capture_output=True, text=True, check=True, cwd=root
    )
    *digests, foreign = done.stdout.split("\n")[:4]
    for shape, digest in zip(((8, 8), (28, 28), (16, 16, 3)), digests, strict=True):
        assert posed(image(*shape), 30, 7, priors=list(PRIORS)).digest == digest
    assert foreign == "[]"


def test_the_code_digest_names_the_source_and_not_the_order():
    one = code_digest([noise_module, shapes_module])
    assert one == code_digest([shapes_module, noise_module])
    assert one != code_digest([shapes_module])
    assert one.startswith("sha256:")


def test_a_prior_of_ones_own(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    mine = posed(image(8, 8), 6, priors=["own_prior.stripes"])
    assert not mine.inputs[..., 1::2].any()
    assert mine.origin.code != posed(image(8, 8), 6, priors=["noise"]).origin.code
    for name, message in (
        ("own_prior.too_bright", "outside"),
        ("own_prior.misshapen", "shape"),
        ("own_prior.NO_FUNCTION", "a int"),
        ("own_prior.nothing", "cannot be imported"),
        ("nowhere.at_all", "cannot be imported"),
    ):
        with pytest.raises(BadInput, match=message):
            posed(image(8, 8), 6, priors=[name])


@pytest.mark.parametrize(
    ("space", "keys", "remedy"),
    [
        (None, {}, "dictionary"),
        (Space("table", (4,), "float32", 0, 1, ("a", "b")), {}, "generator=dictionary"),
        (Space("text", (4,), "float32", 0, 1, ("a", "b")), {}, "query=public"),
        (image(8), {}, "expected"),
        (image(8, 8, 4), {}, "expected"),
        (image(1, 1, 8, 8), {}, "expected"),
        (image(8, 8), {"priors": []}, "one or more"),
        (image(8, 8), {"priors": ["noise", "noise"]}, "twice"),
        (image(8, 8), {"priors": ["leafs"]}, "did you mean leaves"),
        (image(8, 8), {"priors": ["parts"]}, "leaves, noise, shapes, strokes"),
    ],
)
def test_what_it_cannot_draw_is_said_with_a_remedy(space, keys, remedy):
    with pytest.raises(BadInput, match=remedy):
        procedural(space=space, **keys)


def test_a_thousand_pictures_take_well_under_a_second():
    start = time.process_time()
    posed(image(28, 28), 1000, priors=list(PRIORS))
    assert time.process_time() - start < 1
