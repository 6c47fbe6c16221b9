"""Takes in, at a hospital, that the federation signs with another key from now on."""

from collections.abc import Callable

from fedkd.audit.officer import expect_signed, fingerprint, verifier_of
from fedkd.deploy.hospital import Hospital, private_folder, write_private
from fedkd.deploy.invitations import FEDERATION, Succession
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput


def succeed(
    hospital: Hospital, content: bytes, confirmed: Callable[[Succession], bool], by: str = ""
) -> Succession | None:
    """Trusts the new key in a succession; None where `confirmed`, who is shown it, says no.

    `BadInput` unless the key that is known here signed it, and the new key signed the description
    that lies here. Proposals of the old key are none from then on. A site that has a log remembers
    it there, and `by` whom, before anything is trusted.
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
    _remember(hospital, paper, by)
    private_folder(hospital.successions)
    # A crash between the two leaves a signature of the new key beside the old one, which nothing
    # accepts; the paper is taken in again.
    write_private(hospital.federation_sig, paper.federation_sig.encode())
    write_private(hospital.successions / f"{paper.made.replace(':', '')}.json", content)
    return paper


def _remember(hospital: Hospital, paper: Succession, by: str) -> None:
    site = SiteFolder(hospital.site)
    if not (site.folder / "site.json").exists():
        return  # there is no log yet
    digits = fingerprint(verifier_of(paper.new_vkey)).replace(" ", "")
    key = f"federation-key/{digits}"
    with site.turn(), site.log(site.settings().name) as log:
        if log.entry(key) is None:
            log.append(
                key,
                "log.key.rotated",
                {
                    "whose": "federation",
                    "federation": paper.federation,
                    "old_vkey": paper.old_vkey,
                    "new_vkey": paper.new_vkey,
                    "made": paper.made,
                    "by": by,
                },
            )
