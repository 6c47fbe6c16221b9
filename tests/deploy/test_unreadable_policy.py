"""A site.yaml that somebody changed and that cannot be read: it allows nothing, and says so."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedkd.audit import Log
from fedkd.cli.deployed import DeployedRun
from fedkd.deploy.hospital_standing import standing_of
from fedkd.wire import Answer, Considered, Reason, Refusal, RollCall, Ruling
from fedkd.wire import Message as Said
from tests.deploy.federated import Federated, approve, taken_in
from tests.deploy.test_policy import propose, question, said


def until(text: str, line: str) -> str:
    """What is left of a file that was cut off before a line."""
    return text[: text.index(f"\n{line}") + 1]


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "a key of the policy": (
        lambda text: text.replace("smallest_training_set:", "smalest_training_set:"),
        "did you mean 'smallest_training_set'?",
    ),
    "the policy's own name": (
        lambda text: text.replace("policy:", "polciy:"),
        "did you mean 'policy'?",
    ),
    "no YAML": (lambda text: text + "policy: [\n", "which is not YAML"),
    "cut off before its policy": (lambda text: until(text, "policy:"), "no section policy"),
    "cut off in its policy": (
        lambda text: until(text, "  smallest_training_set:"),
        "no section policy",
    ),
    "cut off after its policy": (lambda text: until(text, "rehearsal:"), "no retention at its end"),
    "every line of the policy a comment": (
        lambda text: re.sub(r"(?m)^  (?=smallest)", "  # ", text),
        "no section policy",
    ),
    "another format": (lambda text: text.replace("format: 1", "format: 2"), "of format 2"),
    "a number in another base": (
        lambda text: text.replace("smallest_training_set: 20", "smallest_training_set: 020"),
        "the number 020 in line ",
    ),
    "a value": (
        lambda text: text.replace("smallest_training_set: 20", "smallest_training_set: few"),
        "'few' as smallest_training_set in policy",
    ),
}


@pytest.fixture(params=[*BROKEN, "no file"])
def broken(request: pytest.FixtureRequest) -> tuple[str, str]:
    """How a file is broken, and what is said of that."""
    return request.param, BROKEN.get(request.param, (str, "No such file"))[1]


def break_it(path: Path, how: str) -> None:
    if how == "no file":
        path.unlink()
        return
    before = path.read_text()
    path.write_text(BROKEN[how][0](before))
    assert path.read_text() != before


def expect_not_configured(reply: Said, run: str, federated: Federated, why: str) -> None:
    """A typed refusal in the site's own name, in its log; why stays at home."""
    east = federated.hospitals["east"]
    assert isinstance(reply, Refusal)
    assert (reply.site, reply.run, reply.reason) == ("east", run, Reason.NOT_CONFIGURED)
    with Log(east.site / "log.sqlite", "east") as log:
        newest = log.last("release.refused")
        assert newest is not None
        assert newest.body == {"run": run, "round": reply.round, "rule": "not_configured"}
        assert not list(log.entries("release.outputs"))
    assert why in (east.site / "errors.txt").read_text()
    assert any(why in warning for warning in standing_of(east)["warnings"])


def test_nothing_is_answered_until_it_is_mended(
    federated: Federated, broken: tuple[str, str]
) -> None:
    run, path = federated.proposed("audit.cosigners=0"), federated.hospitals["east"].site_yaml
    taken_in(federated, run)
    approve(federated, run, "east")
    right = path.read_text()
    break_it(path, broken[0])
    for message in (RollCall(run.id), question(run)):
        expect_not_configured(said(federated, message), run.id, federated, broken[1])
    path.write_text(right)
    assert isinstance(said(federated, question(run)), Answer)
    assert not standing_of(federated.hospitals["east"])["warnings"]


def test_a_proposal_is_not_ruled_on_until_it_is_mended(
    federated: Federated, broken: tuple[str, str]
) -> None:
    run: DeployedRun = federated.proposed()
    path = federated.hospitals["east"].site_yaml
    right = path.read_text()
    break_it(path, broken[0])
    expect_not_configured(propose(federated, run.proposal()), run.id, federated, broken[1])
    path.write_text(right)
    ruled = propose(federated, run.proposal())
    assert isinstance(ruled, Considered)
    assert ruled.ruling is Ruling.PENDING
