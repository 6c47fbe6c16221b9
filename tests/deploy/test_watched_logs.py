"""A private run whose sites' logs nobody would watch: declined, or shown to whoever says yes."""

import pytest
import yaml

from fedkd.audit import Log
from fedkd.cli.app import run as command
from fedkd.deploy.hospital import Hospital
from fedkd.knowledge import BadInput
from fedkd.wire import Considered, Ruling
from tests.deploy.federated import Federated, taken_in


def allowing(hospital: Hospital, fewest: object) -> None:
    """Types how many cosigners the hospital's policy asks for."""
    told = yaml.safe_load(hospital.site_yaml.read_text())
    told["policy"]["fewest_cosigners"] = fewest
    hospital.site_yaml.write_text(yaml.safe_dump(told))


def ruled(federated: Federated, *words: str, rehearsal: bool = False) -> tuple[str, Ruling]:
    """The run that is proposed so, and what the hospital east says."""
    run = federated.proposed(*words, rehearsal=rehearsal)
    said = taken_in(federated, run)["east"]
    assert isinstance(said, Considered)
    return run.id, said.ruling


def test_a_private_run_that_nobody_watches_is_declined_by_the_policy(private: Federated) -> None:
    run, ruling = ruled(private, "mechanism=dp_training", "audit.cosigners=0")
    assert ruling is Ruling.DECLINED
    with Log(private.hospitals["east"].site / "log.sqlite", "east") as log:
        (refused,) = log.entries("release.refused")
    assert refused.body["run"] == run
    assert refused.body["reason"] == "fewest_cosigners: found 0 others, expected at least 1"


@pytest.mark.parametrize(
    ("words", "fewest", "ruling"),
    [
        ([], 1, Ruling.PENDING),
        ([], 2, Ruling.PENDING),  # of three cosigners two suffice
        (["audit.threshold=1"], 2, Ruling.DECLINED),
        (["audit.cosigners=1"], 1, Ruling.PENDING),
        (["audit.cosigners=1"], 2, Ruling.DECLINED),
        (["audit.cosigners=0"], 0, Ruling.PENDING),
    ],
)
def test_a_hospital_says_how_many_have_to_watch(
    private: Federated, words: list[str], fewest: int, ruling: Ruling
) -> None:
    allowing(private.hospitals["east"], fewest)
    assert ruled(private, "mechanism=dp_training", *words)[1] is ruling


@pytest.mark.parametrize(
    ("seconds", "ruling"), [(604_800, Ruling.PENDING), (604_801, Ruling.DECLINED)]
)
def test_who_watches_is_silent_for_a_week_at_most(
    private: Federated, seconds: int, ruling: Ruling
) -> None:
    words = ["mechanism=dp_training", f"audit.most_age={seconds}"]
    assert ruled(private, *words)[1] is ruling
    assert ruled(private, *words, rehearsal=True)[1] is Ruling.REHEARSING


def test_a_rehearsal_needs_nobody(private: Federated) -> None:
    rehearsed = ruled(private, "mechanism=dp_training", "audit.cosigners=0", rehearsal=True)
    assert rehearsed[1] is Ruling.REHEARSING


def test_what_bounds_nothing_needs_nobody(federated: Federated) -> None:
    assert ruled(federated, "audit.cosigners=0")[1] is Ruling.PENDING


def test_a_person_sees_who_watches(private: Federated, capsys: pytest.CaptureFixture[str]) -> None:
    east = private.hospitals["east"]
    allowing(east, 0)
    for words, seen in (
        ([], "watched by north, server, west: 2 of them must have said within"),
        (["audit.cosigners=0"], "WATCHED BY NOBODY"),
    ):
        run, _ = ruled(private, "mechanism=dp_training", *words)
        capsys.readouterr()
        assert command(["site", "approve", str(east.folder), run]) == 0
        assert seen in capsys.readouterr().out


@pytest.mark.parametrize("typed", [-1, "two", None, True, 1.5])
def test_a_number_of_cosigners_is_a_whole_number(federated: Federated, typed: object) -> None:
    from fedkd.deploy.policy import Policy

    allowing(federated.hospitals["east"], typed)
    with pytest.raises(BadInput, match="fewest_cosigners in policy"):
        Policy.read(federated.hospitals["east"].site_yaml)
