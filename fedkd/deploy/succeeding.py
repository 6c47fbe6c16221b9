"""Takes in, at a hospital, that the federation signs with another key from now on."""

from collections.abc import Callable

from fedkd.audit.officer import expect_signed, verifier_of
from fedkd.deploy.hospital import Hospital, private_folder, write_private
from fedkd.deploy.invitations import FEDERATION, Succession
from fedkd.knowledge import BadInput


def succeed(
    hospital: Hospital, content: bytes, confirmed: Callable[[Succession], bool]
) -> Succession | None:
    """Trusts the new key in a succession; None where `confirmed`, who is shown it, says no.

    `BadInput` unless the key that is known here signed it, and the new key signed the description
    that lies here. Proposals of the old key are none from then on.
    """
    known = hospital.invited()
    paper = Succession.parse(content, known["federation_vkey"], known["federation"])
    key = verifier_of(paper.new_vkey)
    described = hospital.federation_yaml.read_bytes()
    expect_signed(key, FEDERATION, described, paper.federation_sig.encode(), "federation.yaml")
    if paper.new_vkey == paper.old_vkey:
        raise BadInput("a key that follows itself", "another one")
    if not confirmed(paper):
        return None
    private_folder(hospital.successions)
    # A crash between the two leaves a signature of the new key beside the old one, which nothing
    # accepts; the paper is taken in again.
    write_private(hospital.federation_sig, paper.federation_sig.encode())
    write_private(hospital.successions / f"{paper.made.replace(':', '')}.json", content)
    return paper
