"""Asks a person at a hospital whether the federation's new key is to be trusted."""

import json
import sys
from pathlib import Path

import typer

from fedkd.audit.officer import fingerprint as digits_of
from fedkd.audit.officer import verifier_of
from fedkd.deploy.hospital import hospital_at
from fedkd.deploy.invitations import MOST_BYTES, Succession
from fedkd.deploy.succeeding import succeed
from fedkd.knowledge import BadInput

DONE, REFUSED = 0, 1


def trust(folder: Path, file: Path, *, fingerprint: str | None, by: str = "", as_json: bool) -> int:
    """Takes a succession in, once its fingerprint was compared; the log remembers `by` whom."""
    try:
        with file.open("rb") as paper:
            content = paper.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"no succession in {file} ({error.strerror})", "the coordinator's") from None
    taken = succeed(hospital_at(folder), content, lambda paper: _confirmed(paper, fingerprint), by)
    if taken is None:
        print("not trusted: the key that was known stays", file=sys.stderr)
        return REFUSED
    shown = digits_of(verifier_of(taken.new_vkey))
    if as_json:
        print(json.dumps({"federation": taken.federation, "fingerprint": shown}, indent=2))
    else:
        print(f"{taken.federation} signs with the key {shown} from now on")
    return DONE


def _confirmed(paper: Succession, fingerprint: str | None) -> bool:
    ours = digits_of(verifier_of(paper.new_vkey))
    if fingerprint is not None:
        if "".join(fingerprint.split()) != ours.replace(" ", ""):
            raise BadInput(
                f"the fingerprint {fingerprint}",
                f"{ours}, that of the new key in this file",
                "it is not the key that the coordinator made: trust it not, and telephone",
            )
        return True
    if not sys.stdin.isatty():
        raise BadInput("nobody to ask", "--fingerprint DIGITS, as read over the telephone")
    print(f"{paper.federation} wants to sign with another key from now on.")
    print(f"fingerprint {ours}")
    return typer.confirm("Has the coordinator, whom you called, read the same to you?")
