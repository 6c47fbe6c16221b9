"""Checks a hospital before it starts: its way to the federation, its machine, and its data."""

import json
from collections.abc import Sequence
from pathlib import Path

from fedkd.audit.verify.command import plain
from fedkd.deploy.firewall import ticket as firewall_ticket
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.hospital_proxy import Proxy, proxy_for
from fedkd.deploy.invitations import Invitation, address
from fedkd.deploy.machine_check import check_machine
from fedkd.deploy.network_check import Target, check_network, without_way
from fedkd.deploy.verdicts import Verdict, in_order, passed, problem, to_json
from fedkd.deploy.versions import coordinator_of
from fedkd.federation.durable import write_bytes
from fedkd.knowledge import BadInput

DONE, REFUSED = 0, 1


def check(
    hospital: Path | None, *, network: Path | None, ticket: Path | None, as_json: bool
) -> int:
    """Prints one line a check; 0 where all passed, 1 where there is something to mend.

    What is printed stays here: it holds figures of records.
    """
    if hospital is None and network is None:
        raise BadInput(
            "neither a hospital's folder nor an invitation",
            "fedkd site check HOSPITAL, or fedkd site check --network INVITATION",
        )
    if ticket is not None and network is None:
        raise BadInput("--ticket without --network", "the invitation that says whom to reach")
    verdicts: list[Verdict] = []
    if network is not None:
        verdicts += _network(network, hospital or Path(), ticket)
    if hospital is not None:
        from fedkd.cli.hospital import part_of
        from fedkd.deploy.checking import check_hospital
        from fedkd.federation.building import Workshop

        verdicts += check_hospital(hospital, part_of, Workshop())
    return _say(verdicts, in_json=as_json, ticket=ticket)


def _network(path: Path, folder: Path, ticket: Path | None) -> list[Verdict]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path}, which cannot be read ({error.strerror})", "the invitation's file"
        ) from None
    invitation = Invitation.parse(content, path.name)
    host, port = address(invitation.address)
    target = Target(host, port, invitation.ca)
    hospital = Hospital(path.parent)
    joined = hospital.node_key.exists() and hospital.invitation.exists()
    software = coordinator_of(hospital).software if joined else invitation.software
    verdicts = [
        _current(invitation, joined),
        *check_machine(folder, software, joined=joined),
    ]
    proxy: Proxy | None = None
    try:
        proxy = proxy_for(host)
        way = check_network(target, proxy)
    except BadInput as error:
        way = without_way(error)
    if ticket is not None:
        text = firewall_ticket(target, invitation.federation, invitation.site, proxy, way)
        write_bytes(ticket, text.encode())
    return [*verdicts, *way.verdicts]


def _current(invitation: Invitation, joined: bool) -> Verdict:
    said = f"of {invitation.federation} for {invitation.site}, {invitation.fingerprint()}"
    if joined:
        return passed("invitation", f"{said}; used, this site has joined")
    try:
        invitation.expect_current()
    except BadInput as error:
        return problem("invitation", error.found, error.remedy)
    return passed("invitation", f"{said}, until {invitation.expires}")


def _say(verdicts: Sequence[Verdict], *, in_json: bool, ticket: Path | None) -> int:
    good = in_order(verdicts)
    if in_json:
        print(json.dumps(to_json(verdicts), indent=2))
        return DONE if good else REFUSED
    for verdict in verdicts:
        for line in verdict.lines():
            print(plain(line))
    wrong = sum(verdict.outcome == "problem" for verdict in verdicts)
    print("all passed" if good else f"{wrong} to mend, then check again")
    if ticket is not None:
        print(f"the text for the network's people is in {ticket}")
    return DONE if good else REFUSED
