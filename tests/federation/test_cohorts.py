"""Sites trained together end close to where each would have ended alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.run import Run
from fedkd.distill import load_weights
from fedkd.federation.cohorts import train_together
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.examination import SiteExaminer
from fedkd.federation.flower.letters import letter_of
from fedkd.wire import Answer, encode
from tests.federation.small import Wiretap, asked, conducted, founded, question, unwatched

MIXED = (
    "clients.count=4",
    "data.records=80",
    "clients.models=[mlp,logistic]",
    "training.batch=5",
    "training.learning_rate=0.02",
    "faults=dropout",
    "faults.fraction=0.25",
    "faults.rounds=[2]",
)
"""Steps that are large and many enough for the order of the records to be seen in the answers."""


def prepared(run: Run) -> Any:
    def prepare(round: Sequence[tuple[Mapping[str, Any], Any]]) -> None:
        bodies = {Path(config["site"]): letter_of(message, 1 << 30) for config, message in round}
        train_together(bodies, run.build)

    return prepare


def test_a_cohort_ends_close_to_sites_by_themselves(tmp_path: Path) -> None:
    together, alone = (founded(tmp_path / name, *MIXED) for name in ("together", "alone"))
    states = [
        conducted(together, Wiretap(together, prepare=prepared(together))),
        conducted(alone),
    ]
    assert states[0].left_out == states[1].left_out != {}
    inputs = alone.cut().test.inputs
    for site in alone.sites:
        said = [
            SiteExaminer(run.sites[site], run.id, run.build).resident().probs(inputs)
            for run in (together, alone)
        ]
        np.testing.assert_allclose(*said, atol=1e-3)
    weights = [load_weights(run.folder / "student.safetensors") for run in (together, alone)]
    for name, array in weights[0].items():
        np.testing.assert_allclose(array, weights[1][name], atol=1e-3)


def test_a_site_finds_its_model_there_and_logs_it_in_its_own_turn(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", "clients.models=[mlp]")
    train_together(dict.fromkeys(run.sites.values(), encode(question(run))), run.build)
    for site, path in run.sites.items():
        kept = path / "models" / run.id / "came.json"
        before = kept.read_bytes()
        with Log(path / "log.sqlite", site) as log:
            assert not list(log.entries("train.local"))
            assert not list(log.entries("budget.charged"))
        assert isinstance(asked(path, run, question(run)), Answer)
        assert kept.read_bytes() == before
        with Log(path / "log.sqlite", site) as log:
            (entry,) = log.entries("train.local")
        assert entry.body["seconds"] == read_json(kept)["seconds"]


class Failing:
    """A model of a site's own that cannot learn."""

    architecture = "failing"

    def weights(self) -> None:
        """None."""

    def fit(self, *_: Any) -> "Failing":
        raise ArithmeticError("it does not converge")

    def probs(self, inputs: Any) -> Any:
        raise ArithmeticError("it has not learnt")


def failing(space: Any, rng: Any) -> Failing:
    """Untrained, and it stays so."""
    return Failing()


def other_model(site: Path) -> None:
    target = {"_target_": f"{__name__}.failing"}
    write_json(site / "site.json", {**read_json(site / "site.json"), "model": target})


def no_records(site: Path) -> None:
    (site / "train.npz").write_text("no records")


def no_settings(site: Path) -> None:
    (site / "site.json").write_text("{}")


@pytest.mark.parametrize("damage", [other_model, no_records], ids=lambda it: it.__name__)
def test_a_site_that_fails_is_left_out_of_a_cohort_as_of_any_round(
    damage: Any, tmp_path: Path
) -> None:
    run = founded(tmp_path / "run", "clients.models=[mlp]")
    damage(run.sites["site-02"])
    state = unwatched(run, Wiretap(run, prepare=prepared(run)))
    assert {site: {note["reason"] for note in notes} for site, notes in state.left_out.items()} == {
        "site-02": {"refused: failed"}
    }


@pytest.mark.parametrize("damage", [other_model, no_records, no_settings])
def test_the_others_of_a_cohort_are_trained_beside_one_that_fails(
    damage: Any, tmp_path: Path
) -> None:
    run = founded(tmp_path / "run", "clients.models=[mlp]")
    damage(run.sites["site-02"])
    train_together(dict.fromkeys(run.sites.values(), encode(question(run))), run.build)
    there = {
        site
        for site, path in run.sites.items()
        if (path / "models" / run.id / "came.json").exists()
    }
    assert there == {"site-01", "site-03"}


def test_what_a_site_does_not_accept_is_not_trained_for_it(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", "clients.models=[mlp]")
    for path in run.sites.values():
        settings = read_json(path / "site.json")
        settings["accepts"]["most_epochs"] = 1
        write_json(path / "site.json", settings)
    train_together(dict.fromkeys(run.sites.values(), encode(question(run))), run.build)
    assert not [model for path in run.sites.values() for model in (path / "models").iterdir()]


def test_bytes_that_are_no_question_are_left_to_the_sites(tmp_path: Path) -> None:
    run = founded(tmp_path / "run")
    train_together(dict.fromkeys(run.sites.values(), b"nonsense"), run.build)
    assert not [model for path in run.sites.values() for model in (path / "models").iterdir()]
