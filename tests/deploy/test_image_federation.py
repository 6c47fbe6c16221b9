"""A deployed federation whose records are pictures: proposed, answered, taught, evaluated."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedkd.cli.deployed import DeployedRun
from fedkd.cli.evaluate_deployed import propose_evaluation
from fedkd.cli.proposing import propose
from fedkd.cli.questioned import question_of
from fedkd.federation.evaluating import Grouping, digest_of_model
from tests.deploy.federated import Federated, approve, taken_in

SIDE, CLASSES = 16, ("dark", "light", "striped")
SPACE = {
    "kind": "image", "shape": [1, SIDE, SIDE], "dtype": "uint8", "low": 0, "high": 255,
    "classes": list(CLASSES), "offset": 0.0, "divisor": 255.0,
}  # fmt: skip
TERMS = (
    "rounds=1", "seed=3", "query=synthetic", "generator=procedural", "query.size=24",
    "training.local_epochs=1", "training.lesson_epochs=1", "student.epochs=1",
)  # fmt: skip


def pictures(folder: Path, number: int) -> None:
    """Made-up pictures of one hospital, as files CLASS/FILE.png."""
    rng = np.random.default_rng(number)
    for name in CLASSES:
        into = folder / "pictures" / name
        into.mkdir(parents=True)
        for each in range(20):
            level = {"dark": 40, "light": 200, "striped": 120}[name]
            picture = rng.integers(0, 40, (SIDE, SIDE)) + level
            if name == "striped":
                picture[::2] = 0
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(into / f"{each:02}.png")


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Federated:
    more: dict[str, Any] = {
        "data": {"path": "pictures"}, "columns": {}, "label": None, "model": "cnn",
        "evaluations": {"models": ["cnn"]},
    }  # fmt: skip
    policy = {
        "figures": ["counts", "exact_counts"], "query_sets": {"generators": ["procedural"]},
    }  # fmt: skip
    return Federated.made(
        tmp_path_factory.mktemp("pictures") / "all", {"east": 1, "north": 2},  # type: ignore[dict-item]
        form={"space": SPACE}, deal=pictures, policy=policy, more=more,
    )  # fmt: skip


def agreed(federated: Federated, made: Any) -> None:
    taken_in(federated, made)
    approve(federated, made)


def test_pictures_are_rehearsed_learnt_and_evaluated(federated: Federated) -> None:
    rehearsal = propose(federated.server.folder, TERMS, rehearsal=True, wait_s=0.0)
    federated.conducted(rehearsal)
    run = propose(federated.server.folder, TERMS, rehearsal=False, wait_s=0.0)
    assert isinstance(run, DeployedRun)
    assert run.proposal().query["generator"] == "procedural"
    agreed(federated, run)
    folder = federated.conducted(run)
    model = digest_of_model(folder / "student.safetensors")
    question = question_of(run, model, (), None, 2.0)
    evaluation = propose_evaluation(run, question, Grouping(None, None), None)
    agreed(federated, evaluation)
    told = federated.evaluated(evaluation)
    for row in told["sites"]:
        assert row["answered"], row
        assert np.shape(row["counts"]) == (1, 3, 3)  # said, and true class
    assert [row["class"] for row in told["together"]["all"]["classes"]] == list(CLASSES)


def test_a_coordinator_may_pose_pictures_of_its_own(federated: Federated) -> None:
    own = federated.server.folder.parent / "own"
    pictures(own, 9)
    for hospital in federated.hospitals.values():
        text = hospital.site_yaml.read_text()
        listed = text.replace("generators:", "sources: ['pictures, held out']\n    generators:")
        hospital.site_yaml.write_text(listed)
    words = [word for word in TERMS if not word.startswith(("query=", "generator="))]
    own_words = [f"data.path={own / 'pictures'}", f"data.size={SIDE}"]
    run = propose(federated.server.folder, [*words, *own_words], rehearsal=False, wait_s=0.0)
    assert run.proposal().query["source"] == "pictures, held out"
    agreed(federated, run)
    folder = federated.conducted(run)
    assert json.loads((folder / "summary.json").read_text())["student"]["accuracy"] is not None
