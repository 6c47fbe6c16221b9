"""Papers as 0.1.0 spelt them: each is read, and is spelt the same again, to the last byte.

Those in `tests/vectors/0.1.0` were written once, by a federation that is no more. A field that is
called otherwise, left out or added is another format of its paper, with a number of its own:
hospitals that are not updated yet, and logs that name these digests, know this one.
"""

import json
from pathlib import Path

import pytest

from fedkd.audit.officer import verifier_of
from fedkd.deploy.evaluation_proposals import EvaluationProposal, read_any
from fedkd.deploy.invitations import Enrolment, Invitation, Succession
from fedkd.deploy.proposals import RunProposal
from fedkd.knowledge import BadInput, OtherFormat, digest_of_bytes

GOLDEN = Path(__file__).parents[1] / "vectors" / "0.1.0"


def paper(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def invitation() -> Invitation:
    return Invitation.parse(paper("invitation.json"))


def test_an_invitation_is_read_and_spelt_as_it_was() -> None:
    assert invitation().to_bytes() == paper("invitation.json")


def test_an_enrolment_is_read_and_spelt_as_it_was() -> None:
    content = paper("enrolment.json")
    found = Enrolment.parse(content)
    assert found.to_bytes() == content
    assert found.token == invitation().token


def test_a_succession_is_read_and_spelt_as_it_was() -> None:
    content = paper("succession.json")
    vkey, federation = invitation().federation_vkey, invitation().federation
    assert Succession.parse(content, vkey, federation).to_bytes() == content


@pytest.mark.parametrize(
    ("name", "kind"), [("proposal", RunProposal), ("evaluation", EvaluationProposal)]
)
def test_a_proposal_is_read_and_spelt_as_it_was(
    name: str, kind: type[RunProposal] | type[EvaluationProposal]
) -> None:
    body, signature = paper(f"{name}.json"), paper(f"{name}.sig").decode()
    found = read_any(body, signature, verifier_of(invitation().federation_vkey))
    assert type(found) is kind
    assert found.to_bytes() == body
    assert found.digest == digest_of_bytes(body)


@pytest.mark.parametrize("name", ["proposal", "evaluation"])
@pytest.mark.parametrize("spoil", ["asked", "would_leave", "audit", "parties", "format"])
def test_a_proposal_with_another_field_is_of_no_format_that_is_known(name: str, spoil: str) -> None:
    plain = json.loads(paper(f"{name}.json"))
    if spoil == "format":
        plain["format"] += 1
    else:
        plain[f"{spoil}_2"] = plain.pop(spoil)
    body = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    kind = {"proposal": RunProposal, "evaluation": EvaluationProposal}[name]
    with pytest.raises(OtherFormat if spoil == "format" else BadInput):
        kind.parse(body)
