"""Makes and runs the coordinator's side of a federation, and says what it did."""

import json
import sys
from pathlib import Path
from typing import Any

import typer

from fedkd import __version__
from fedkd.deploy import coordinator, running, superlink
from fedkd.deploy.authority import holding
from fedkd.deploy.bundles import digits_of
from fedkd.deploy.invitations import Enrolment
from fedkd.deploy.lines import expect_format, teller, utc
from fedkd.deploy.locked import SERVER, in_words
from fedkd.deploy.metrics import expect_port
from fedkd.deploy.run_standing import EvaluationStanding, RunStanding
from fedkd.deploy.server_folder import ServerFolder, make_server
from fedkd.deploy.standing import Standing, standing
from fedkd.deploy.superlink import CannotTell
from fedkd.federation.durable import write_bytes
from fedkd.knowledge import BadInput
from fedkd.wire import PROTOCOL

DONE, REFUSED, CANNOT_TELL = 0, 1, 3


def init(
    folder: Path,
    *,
    name: str,
    address: str,
    schema: Path,
    listen: str | None,
    superlink_port: int,
    country: str,
    contact: str,
    as_json: bool,
) -> int:
    """Makes a coordinator's folder, and says what comes next."""
    made = make_server(
        folder,
        name=name,
        reached_at=address,
        schema=schema,
        listen=listen,
        superlink_port=superlink_port,
        country=country,
        contact=contact,
    )
    settings, federation = made.settings(), made.federation()[0]
    until = holding(made.keys / "server.crt").until
    if as_json:
        _print(
            {
                "folder": str(made.folder),
                "federation": settings.name,
                "address": settings.address,
                "listen": settings.listen,
                "superlink_port": settings.superlink_port,
                "federation_yaml": federation.digest,
                "vkey": made.vkey().text(),
                "fingerprint": coordinator.key_fingerprint(made),
                "certificate_until": f"{until:%Y-%m-%dT%H:%M:%SZ}",
            }
        )
        return DONE
    shape = "x".join(map(str, federation.space.shape))
    print(f"{made.folder}: the federation {settings.name}")
    space = federation.space
    print(f"  inputs       {space.kind} of {shape}, {len(space.classes)} classes")
    print(f"  address      {settings.address}, the proxy listens on {settings.listen}")
    print(f"  SuperLink    127.0.0.1:{settings.superlink_port}, on loopback alone")
    print(f"  certificate  until {until:%Y-%m-%d}")
    print(f"  key          {coordinator.key_fingerprint(made)}")
    print("Keep a copy of keys/ where nobody else can read it. Next:")
    print(f"  fedkd server start {folder}")
    print(f"  fedkd server invite NAME --dir {folder}")
    return DONE


def start(
    folder: Path, *, detach: bool, log_format: str = "text", metrics: int | None = None
) -> int:
    """Runs the coordinator's side, in front or behind."""
    tell = teller(expect_format(log_format), "server", dated=False)
    if metrics is not None:
        expect_port(metrics)
    server = ServerFolder.opened(folder)
    try:
        if detach:
            more = [] if metrics is None else ["--metrics", str(metrics)]
            pid = running.start_detached(server, ["--log-format", log_format, *more])
            print(f"{server.settings().name} runs, process {pid}; fedkd server stop {folder}")
            return DONE
        return running.start(server, tell, metrics=metrics)
    except CannotTell as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED


def stop(folder: Path) -> int:
    """Ends what runs in this folder."""
    print("ended" if running.stop(ServerFolder.opened(folder)) else "nothing ran")
    return DONE


def invite(folder: Path, site: str, *, days: int, out: Path | None, as_json: bool) -> int:
    """Makes an invitation, and says how to hand it over."""
    server = ServerFolder.opened(folder)
    if out is not None and out.exists():
        raise BadInput(f"{out}, which is there already", "a new file")
    invitation, path = coordinator.invite(server, site, days=days)
    if out is not None:
        try:
            write_bytes(out, invitation.to_bytes())
        except OSError as error:
            raise BadInput(f"{out}, which cannot be made ({error.strerror})", "a file") from None
    if as_json:
        _print(
            {
                "site": site,
                "file": str(out or path),
                "fingerprint": invitation.fingerprint(),
                "expires": invitation.expires,
            }
        )
        return DONE
    print(f"{out or path}: an invitation for {site}, for one use, until {invitation.expires}")
    print(f"fingerprint {invitation.fingerprint()}")
    print(
        f"Send the file to {site}, without the fingerprint. When they have joined (fedkd site join"
    )
    print("INVITATION) they call you: you read it to them, and they compare.")
    return DONE


def admit(folder: Path, file: Path, *, fingerprint: str | None, yes: bool, as_json: bool) -> int:
    """Admits a hospital once a person has compared the fingerprint."""
    server = ServerFolder.opened(folder)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(
            f"no enrolment in {file} ({error.strerror})", "what the hospital sent"
        ) from None
    try:
        admitted = coordinator.admit(
            server, content, lambda enrolment: _confirmed(enrolment, fingerprint, yes)
        )
    except CannotTell as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT_TELL
    if admitted is None:
        print("not admitted", file=sys.stderr)
        return REFUSED
    if as_json:
        _print(
            {
                "site": admitted.site,
                "state": "admitted",
                "node_id": admitted.node_id,
                "fingerprint": admitted.fingerprint,
            }
        )
        return DONE
    when = "its SuperNode may connect" if admitted.node_id else "from the next start on"
    print(f"{admitted.site} is admitted: {when}")
    return DONE


def revoke(folder: Path, site: str, *, reason: str, as_json: bool) -> int:
    """Takes a site out of the federation."""
    server = ServerFolder.opened(folder)
    try:
        told = coordinator.revoke(server, site, reason)
    except CannotTell as error:
        print(
            f"error: {site} is off the roster, but the SuperLink may still know it: {error}; "
            f"type it again, or fedkd server stop {folder}, fedkd server start {folder}",
            file=sys.stderr,
        )
        return CANNOT_TELL
    if as_json:
        _print({"site": site, "state": "revoked", "superlink_told": told})
        return DONE
    how = "its next call is refused" if told else "it is not registered at the next start"
    print(f"{site} is revoked: {how}. What its records have taught stays where it is.")
    return DONE


def rotate(folder: Path, *, key: bool, as_json: bool) -> int:
    """Makes a new certificate, or a new federation key."""
    server = ServerFolder.opened(folder)
    if key:
        path = coordinator.rotate_key(server)
        if as_json:
            _print({"succession": str(path), "fingerprint": coordinator.key_fingerprint(server)})
            return DONE
        print(f"a new federation key, fingerprint {coordinator.key_fingerprint(server)}")
        print(f"Send {path} to every site, which compares the fingerprint:")
        print("  fedkd site trust HOSPITAL SUCCESSION")
        print("Invitations that are open hold no longer: invite again.")
        return DONE
    coordinator.rotate_certificate(server)
    until = holding(server.keys / "server.crt").until
    taken = running.tell_to_reload(server)
    before = None
    if running.pid_of(server, running.SUPERLINK) is not None:
        before = superlink.served(server.settings())
    if as_json:
        _print(
            {
                "certificate_until": f"{until:%Y-%m-%dT%H:%M:%SZ}",
                "proxy_told": taken,
                "superlink_until": None if before is None else utc(before.not_valid_after_utc),
            }
        )
        return DONE
    print(f"a new certificate until {until:%Y-%m-%d}; sites need nothing new")
    if taken:
        print("The proxy has taken it.")
    if before is not None:
        print(
            f"The SuperLink takes it at its next start, and has the one of before until "
            f"{before.not_valid_after_utc:%Y-%m-%d}: before that day, between runs,"
        )
        print(f"  fedkd server stop {folder}")
        print(f"  fedkd server start {folder} --detach")
    return DONE


def status(folder: Path, *, as_json: bool) -> int:
    """Shows how it stands."""
    found = standing(ServerFolder.opened(folder))
    if as_json:
        _print(found.to_json())
    else:
        _table(found, folder)
    return DONE


def _table(found: Standing, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    up = "up" if found.is_up else "DOWN" if found.processes[running.SERVER] else "not started"
    console.print(f"{found.name} at {found.address}: {up}", highlight=False, markup=False)
    console.print(f"key {found.fingerprint}", highlight=False)
    console.print(
        f"fedkd {__version__}, messages {PROTOCOL}, bundle {digits_of(found.bundle)}",
        highlight=False,
    )
    table = Table("site", "state", "connection", "since", "software")
    for member in found.members:
        since = member.revoked_at or member.admitted_at or member.invited_at
        seen = found.connection(member) or "-"
        table.add_row(member.site, member.state, seen, since[:19], found.software(member) or "-")
    console.print(table if found.members else "nobody was invited yet: fedkd server invite NAME")
    for each in found.certificates:
        console.print(f"{each.name} holds for {int(each.days)} days", highlight=False)
    console.print(in_words(found.keys, SERVER), highlight=False, markup=False)
    console.print(f"policy: {found.policy.in_words()}", highlight=False, markup=False)
    for run in found.runs or ():
        words = (str(run.get(key, "")) for key in ("run-id", "status", "elapsed"))
        console.print("run " + " ".join(words), highlight=False, markup=False)
    for each_run in found.progress:
        console.print(_progress(each_run, folder), highlight=False, markup=False)
        for each_evaluation in each_run.evaluations:
            console.print(_evaluated(each_evaluation), highlight=False, markup=False)
    for warning in found.warnings:
        console.print(f"WARNING: {warning}", highlight=False, markup=False)


def _progress(run: RunStanding, folder: Path) -> str:
    kind = "rehearsal" if run.rehearsal else "run"
    said = f"{kind} {run.run} in runs/{run.folder}: {run.shown}"
    if run.round is not None:
        closing = run.rounds is not None and run.round > run.rounds
        said += ", closing" if closing else f", round {run.round} of {run.rounds}"
    if run.checkpoint is not None:
        cosigned = run.checkpoint["cosigned"]
        by = "nobody cosigned it yet"
        if cosigned is not None:
            by = f"{cosigned['size']} of them cosigned by {', '.join(cosigned['by'])}"
        said += f"; log of {run.checkpoint['size']} entries, {by}"
    if run.epsilon is not None:
        said += f"; {run.mechanism}, at most epsilon {run.epsilon:g} for each site"
    elif run.mechanism is not None:
        unbounded = (
            "NOT PRIVATE" if run.mechanism == "none" else "as much as each site's paper allows"
        )
        said += f"; {run.mechanism}, {unbounded}"
    if run.cut_off:
        said += f"; go on with: fedkd run --resume {folder / 'runs' / run.folder}"
    return said


def _evaluated(evaluation: EvaluationStanding) -> str:
    said = f"  evaluation {evaluation.name} of its student: {evaluation.shown}"
    if evaluation.epsilon is not None:
        said += f", epsilon {evaluation.epsilon:g} each"
    rulings = ", ".join(f"{site} {ruling}" for site, ruling in sorted(evaluation.rulings.items()))
    said += f"; {rulings or 'nobody was heard yet'}"
    return f"{said}; go on with: the same fedkd evaluate" if evaluation.cut_off else said


def _confirmed(enrolment: Enrolment, fingerprint: str | None, yes: bool) -> bool:
    ours = enrolment.fingerprint()
    if fingerprint is not None:
        if "".join(fingerprint.split()).lower() != ours.replace(" ", ""):
            raise BadInput(
                f"the fingerprint {fingerprint}",
                f"{ours}, that of this file",
                "it is not the file that the hospital made: admit nobody with it",
            )
        return True
    if yes:
        return True
    if not sys.stdin.isatty():
        raise BadInput(
            "nobody to ask",
            "--fingerprint DIGITS, as the hospital read them over the telephone",
        )
    print(f"An enrolment of {enrolment.site} for {enrolment.federation}.")
    print(f"fingerprint {ours}")
    return typer.confirm("Has somebody at the hospital, whom you called, read the same to you?")


def _print(told: dict[str, Any]) -> None:
    print(json.dumps(told, indent=2))
