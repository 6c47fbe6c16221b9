"""What a coordinator's server.yaml lets it propose: held against before any hospital is asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedkd.cli import main
from fedkd.cli.run import open_run
from fedkd.cli.server import status
from fedkd.deploy.coordinator import revoke
from fedkd.deploy.coordinator_policy import CoordinatorPolicy
from fedkd.deploy.server_folder import ServerFolder, Settings
from fedkd.knowledge import BadInput
from tests.deploy.federated import Federated
from tests.deploy.federations import coordinator
from tests.deploy.figured import proposed as evaluation_proposed

CONF = Path(__file__).parents[2] / "conf" / "mechanism"
PRIVATE = "mechanism=dp_training"


def held_to(server: ServerFolder, **policy: Any) -> None:
    """A person writes this policy into server.yaml."""
    path = server.folder / "server.yaml"
    told = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**told, "policy": policy}))


def command(server: ServerFolder, *words: str) -> int:
    return main(["run", "--federation", str(server.folder), *words])


def test_what_init_writes_binds_nothing_and_names_every_mechanism(tmp_path: Path) -> None:
    policy = coordinator(tmp_path).settings().policy
    assert policy.mechanisms is not None
    assert sorted(policy.mechanisms) == sorted(it.stem for it in CONF.glob("*.yaml"))
    assert policy == CoordinatorPolicy(mechanisms=policy.mechanisms)


@pytest.mark.parametrize("there", [{}, {"policy": None}, {"policy": {}}])
def test_a_file_of_before_has_the_defaults(there: Mapping[str, Any]) -> None:
    right = {"name": "heart", "address": "a.b:1", "listen": "0.0.0.0:1", "superlink_port": 2}
    assert Settings.from_json({**right, **there}, "server.yaml").policy == CoordinatorPolicy()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"fewest_site": 2}, "did you mean 'fewest_sites'"),
        ({"smallest_training_set": 50}, "the key 'smallest_training_set' in policy of server.yaml"),
        ({"fewest_sites": 0}, "0 as fewest_sites"),
        ({"fewest_sites": True}, "True as fewest_sites"),
        ({"fewest_cosigners": -1}, "-1 as fewest_cosigners"),
        ({"most_rounds": "9"}, "'9' as most_rounds"),
        ({"mechanisms": "dp_training"}, "a list"),
        ({"mechanisms": [None]}, "a text"),
        ({"mechanisms": []}, "no mechanisms"),
        ([], "a mapping"),
    ],
)
def test_a_policy_that_is_none_is_refused(typed: object, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        CoordinatorPolicy.from_json(typed)


BEYOND = [
    ({"fewest_sites": 4}, [PRIVATE], "found 3 admitted hospitals to ask, expected at least 4"),
    ({"mechanisms": ["pate"]}, [PRIVATE], "found mechanism=dp_training, expected one of pate"),
    ({"mechanisms": ["dp_training", "pate"]}, [], "found mechanism=none, expected one of dp_"),
    ({"most_rounds": 1}, [PRIVATE], "found rounds=2, expected at most 1"),
    ({"fewest_cosigners": 3}, [PRIVATE], "found 2 others who watch a hospital's log, expected at "),
    ({"fewest_cosigners": 1}, ["audit.cosigners=0"], "found 0 others who watch"),
]


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize(("policy", "words", "says"), BEYOND)
def test_what_the_policy_does_not_allow_is_not_proposed(
    federated: Federated, policy: Mapping[str, Any], words: list[str], says: str, rehearsal: bool
) -> None:
    """Nor rehearsed: a rehearsal is of the terms of a run."""
    held_to(federated.server, **policy)
    (key,) = policy
    with pytest.raises(BadInput, match=f"{says}.*: {key} in the policy of server.yaml; .*there"):
        federated.proposed(*words, rehearsal=rehearsal)
    assert not list((federated.server.folder / "runs").iterdir())  # no keys either


def test_what_the_policy_just_allows_is_proposed(federated: Federated) -> None:
    allowed = {"fewest_sites": 3, "mechanisms": ["none"], "fewest_cosigners": 2, "most_rounds": 2}
    held_to(federated.server, **allowed)
    assert federated.proposed().proposal().sites == tuple(federated.hospitals)


def test_a_run_is_held_to_the_policy_of_now_when_it_goes_on(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    run = federated.proposed()
    before = (run.folder / "run.json").read_bytes()
    resume = ("--resume", str(run.folder))
    held_to(federated.server, mechanisms=["dp_training"])
    assert command(federated.server, *resume) == 2
    assert "found mechanism=none, expected one of dp_training" in capsys.readouterr().err
    held_to(federated.server, fewest_sites=3)
    assert command(federated.server, *resume) == 2
    assert "no SuperLink that answers" in capsys.readouterr().err  # so far it is allowed
    revoke(federated.server, "west")
    (run.folder / "run.json").write_bytes(before)
    assert command(federated.server, *resume) == 2
    assert "found 2 admitted hospitals to ask, expected at least 3" in capsys.readouterr().err
    assert (run.folder / "run.json").read_bytes() == before


def test_a_run_that_asks_nothing_any_more_is_held_to_nothing(federated: Federated) -> None:
    run = federated.proposed(rehearsal=True)
    federated.conducted(run)
    held_to(federated.server, most_rounds=1)
    again = open_run(str(run.folder))
    again.expect_allowed()
    with pytest.raises(BadInput, match="most_rounds"):
        federated.proposed()


def test_an_evaluation_is_not_proposed_where_nobody_watches(federated: Federated) -> None:
    run = federated.proposed("audit.cosigners=0", rehearsal=True)
    federated.conducted(run)
    held_to(federated.server, fewest_cosigners=1)
    with pytest.raises(BadInput, match="found 0 others who watch"):
        evaluation_proposed(run)
    assert not list(run.folder.glob("evaluations/*"))
    held_to(federated.server, fewest_sites=4, most_rounds=1, mechanisms=["pate"])
    evaluation_proposed(run)  # it is of one hospital's own patients, and no run


def test_status_says_it_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = coordinator(tmp_path)
    held_to(server, mechanisms=["dp_training", "pate"], fewest_sites=2)
    status(server.folder, as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "policy: fewest_sites 2, mechanisms dp_training pate, fewest_cosigners 0, most_rounds 100"
    ) in said
