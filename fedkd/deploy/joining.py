"""Takes an invitation in at a hospital: makes its keys there, and the paper that goes back."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedkd import __version__
from fedkd.audit import Peer, make_keys
from fedkd.audit.keys import log_key, witness_keys
from fedkd.audit.locking import expect_opened, read_secret, write_secret
from fedkd.audit.officer import fingerprint, verifier_of
from fedkd.deploy.hospital import Hospital, private_folder, write_private
from fedkd.deploy.invitations import MOST_BYTES, Enrolment, Invitation
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput


@dataclass(frozen=True, slots=True)
class Joined:
    """Both papers, and where the one lies that goes back to the coordinator."""

    invitation: Invitation
    enrolment: Enrolment
    path: Path


def join(paper: Path, folder: Path) -> Joined:
    """Makes the hospital `folder` from the invitation in the file `paper`; no key ever leaves.

    A second time, with the same invitation, it gives the same enrolment. A new invitation to the
    same site and federation (after a revocation, say) makes a new node key; log and site stay.
    `BadInput` for an invitation that was changed or has expired, for one to another site than the
    folder is of, and for another version of fedkd.
    """
    invitation = _read(paper)
    invitation.expect_current()
    _expect_software(invitation)
    hospital = Hospital(folder.expanduser().resolve())
    before = _before(hospital, invitation)
    expect_opened(hospital.folder)  # before anything changes: keys are made and used below
    # letterbox/ and run/ as well: units and containers name them before anything was started.
    inside = (hospital.keys, hospital.proposals, hospital.run, hospital.letterbox)
    for each in (hospital.folder, *inside):
        private_folder(each)
    if before is not None and before.token != invitation.token:
        hospital.node_key.unlink(missing_ok=True)
    write_private(hospital.authority, invitation.ca.encode())
    write_private(hospital.federation_yaml, invitation.federation_yaml.encode())
    write_private(hospital.federation_sig, invitation.federation_sig.encode())
    for site, rehearsal in ((hospital.site, False), (hospital.rehearsal, True)):
        private_folder(site)
        make_keys(site, invitation.site, rehearsal=rehearsal)
    enrolment = Enrolment(
        federation=invitation.federation,
        site=invitation.site,
        node_key=node_key_of(hospital),
        peer=_peer(hospital.site),
        rehearsal_peer=_peer(hospital.rehearsal),
        token=invitation.token,
        software=__version__,
    ).signed(log_key(hospital.site))
    write_private(hospital.invitation, invitation.to_bytes())  # last: without it nobody joined
    hospital.left.unlink(missing_ok=True)
    out = hospital.folder / f"{invitation.site}.enrolment"
    write_private(out, enrolment.to_bytes())
    return Joined(invitation, enrolment, out)


def _read(paper: Path) -> Invitation:
    try:
        if paper.stat().st_size > MOST_BYTES:
            raise BadInput(f"{paper} of {paper.stat().st_size} bytes", f"at most {MOST_BYTES}")
        content = paper.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{paper}, which cannot be read ({error.strerror})",
            "the invitation that the coordinator sent",
        ) from None
    return Invitation.parse(content, paper.name)


def _expect_software(invitation: Invitation) -> None:
    ours, theirs = __version__.split(".")[:2], invitation.software.split(".")[:2]
    if ours != theirs:
        raise BadInput(
            f"fedkd {__version__} here and {invitation.software} at the coordinator",
            "the same first two numbers",
            f"install fedkd=={invitation.software} here, or ask the coordinator to update",
        )


def _before(hospital: Hospital, invitation: Invitation) -> Invitation | None:
    """The invitation that the folder was made from before."""
    if not hospital.invitation.exists():
        return None
    before = Invitation.parse(hospital.invitation.read_bytes(), str(hospital.invitation))
    known = hospital.invited()
    if any(known[key] != getattr(invitation, key) for key in ("federation", "site")):
        raise BadInput(
            f"{hospital.folder}, of {before.site} in {before.federation}",
            f"an empty folder for {invitation.site} in {invitation.federation}",
            "give --dir another folder: one hospital, one federation, one folder",
        )
    if known["federation_vkey"] != invitation.federation_vkey:
        theirs = fingerprint(verifier_of(invitation.federation_vkey))
        raise BadInput(
            f"an invitation by a key of {before.federation} that is not known here, {theirs}",
            f"one by {fingerprint(verifier_of(known['federation_vkey']))}, which is",
            f"call the coordinator: if they rotated their key, fedkd site trust {hospital.folder} "
            "SUCCESSION comes first; if they did not, somebody else made this invitation",
        )
    return before


def node_key_of(hospital: Hospital) -> str:
    """The public half, OpenSSH; the private half is made where it is not there."""
    if not hospital.node_key.exists():
        fresh = ec.generate_private_key(ec.SECP384R1())
        write_secret(
            hospital.node_key,
            fresh.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            ),
        )
    key = serialization.load_ssh_private_key(read_secret(hospital.node_key), None)
    public = (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )
    write_private(hospital.keys / "node.pub", public.encode() + b"\n")
    return public


def _peer(site: Path) -> Peer:
    witnesses = tuple(key.verifier() for key in witness_keys(site))
    return Peer(log_key(site).verifier(), witnesses)


def leave(hospital: Hospital, when: str) -> None:
    """Marks the hospital as one that left: it starts no more. Nothing is erased."""
    write_private(hospital.left, f"{when}\n".encode())


def pause(hospital: Hospital, when: str, waits: Callable[[], None] = lambda: None) -> None:
    """Nothing is charged or let out once this returns, also after a restart, until `resume`.

    A turn that is taken meanwhile is waited for, which `waits` is told of. A reply that was let out
    before may still be on its way.
    """
    write_private(hospital.paused, f"{when}\n".encode())
    for folder in (hospital.site, hospital.rehearsal):
        SiteFolder(folder).wait_for_turn(waits)


def resume(hospital: Hospital) -> bool:
    """Answers again; False where the hospital was not paused. Durable when this returns."""
    if not hospital.paused.exists():
        return False
    hospital.paused.unlink()
    folder = os.open(hospital.folder, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
