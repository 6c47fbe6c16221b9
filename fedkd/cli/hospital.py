"""What an engineer at a hospital does: join a federation, found the site, start and stop it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedkd.audit.verify.command import plain
from fedkd.cli.configuration import part
from fedkd.cli.validation import check_part, nearest
from fedkd.deploy.bundles import digits_of
from fedkd.deploy.hospital import Hospital, hospital_at, write_private
from fedkd.deploy.lines import Line, utc
from fedkd.deploy.locked import SITE, in_words
from fedkd.knowledge import BadInput

DONE, REFUSED, USED_WRONGLY = 0, 1, 2


def join(paper: Path, folder: Path, *, as_json: bool) -> int:
    """Takes an invitation in, makes the keys, writes what goes back, shows both fingerprints."""
    from fedkd.deploy.joining import join as take_in

    joined = take_in(paper, folder)
    invitation, enrolment = joined.invitation, joined.enrolment
    told = {
        "site": invitation.site,
        "federation": invitation.federation,
        "address": invitation.address,
        "expires": invitation.expires,
        "invitation": invitation.fingerprint(),
        "enrolment": enrolment.fingerprint(),
        "send": str(joined.path),
    }
    if as_json:
        print(json.dumps(told, indent=2))
        return DONE
    print(plain(f"{invitation.site} in {invitation.federation}, at {invitation.address}"))
    print("Keys were made here; their private halves stay. Call the coordinator, on a number that")
    print("you knew before, and read to each other:")
    print(f"  the invitation  {invitation.fingerprint()}   (the coordinator reads, you compare)")
    print(f"  the enrolment   {enrolment.fingerprint()}   (you read, the coordinator compares)")
    print("If one of them differs, stop: somebody changed the paper on its way.")
    print(f"Then send {joined.path}, and go on with: fedkd site init {folder} --data FILE")
    return DONE


def init(folder: Path, *, data: Path | None, patient: str | None, as_json: bool) -> int:
    """Writes a commented site.yaml; where there is one already, founds the site from it."""
    from fedkd.deploy.founding import federation_of
    from fedkd.deploy.site_file import TO_FILL_IN
    from fedkd.deploy.site_template import template

    hospital = hospital_at(folder)
    if hospital.site_yaml.exists():
        if data is not None:
            raise BadInput(
                f"{hospital.site_yaml}, which is there already",
                "none: it is never written over",
                "change data: path: in it, or move it away; without --data the site is founded",
            )
        return founded(hospital, as_json=as_json)
    found = None if data is None else data.expanduser().resolve()
    text = template(hospital.name, hospital.folder, federation_of(hospital), found, patient)
    write_private(hospital.site_yaml, text.encode())
    missing = sum(TO_FILL_IN in line.partition("#")[0] for line in text.splitlines())
    if as_json:
        print(json.dumps({"site_yaml": str(hospital.site_yaml), "to_fill_in": missing}, indent=2))
        return DONE
    print(
        f"{hospital.site_yaml} is written; {missing} lines of it hold {TO_FILL_IN}: fill them in."
    )
    print(f"Then try it with: fedkd site check {hospital.folder}")
    return DONE


def founded(hospital: Hospital, *, as_json: bool) -> int:
    """Founds the site and its rehearsal from site.yaml; nothing changes where they are there."""
    from fedkd.deploy.founding import found
    from fedkd.deploy.site_file import SiteFile
    from fedkd.federation.building import Workshop

    made = found(hospital, SiteFile.read(hospital.site_yaml), part_of, Workshop())
    needed = paper_needed(hospital)
    if as_json:
        told = {"train": made.train, "validation": made.validation, "patients": made.patients,
                "notes": list(made.notes), "paper_needed": needed}  # fmt: skip
        print(json.dumps(told, indent=2))
        return DONE
    print(
        f"founded: {made.train} rows to learn from, {made.validation} by which the model is "
        f"judged, {made.patients} patients"
    )
    for note in made.notes:
        print(plain(f"  {note}"))
    if needed is not None:
        print("Nothing is answered about these records before the data protection officer signed:")
        print(f"  {needed}")
    return DONE


def paper_needed(hospital: Hospital) -> str | None:
    """How the site gets its officer's paper; None where a valid one is there."""
    from fedkd.federation.building import Workshop
    from fedkd.federation.papers import NotSigned, expect_paper
    from fedkd.federation.site import SiteFolder

    site = SiteFolder(hospital.site)
    settings = site.settings()
    with site.log(settings.name) as log:
        try:
            expect_paper(site, settings, log, Workshop()(settings.mechanism))
        except NotSigned as error:
            return error.remedy or str(error)
    return None


def start(
    folder: Path,
    *,
    only: str | None,
    user: str | None,
    group: str | None,
    detach: bool,
    keep_network: bool,
    log_format: str = "text",
    metrics: int | None = None,
) -> int:
    """Runs the hospital's processes until it is told to stop."""
    from fedkd.deploy import keeping
    from fedkd.deploy.apart import expect_cut_off, warnings_at_start
    from fedkd.deploy.authority import ending_authority
    from fedkd.deploy.lines import expect_format, teller
    from fedkd.deploy.locked import opened_hospital, readable_path, secret_of
    from fedkd.deploy.metrics import expect_port
    from fedkd.deploy.preparing import AUTHORITY, prepare_letterbox, whose
    from fedkd.deploy.starting import HALVES, LETTERBOX, SERVICE, letterbox_settings
    from fedkd.deploy.starting import detach as in_background
    from fedkd.deploy.supervising import expect_alone

    if only is not None and only not in HALVES:
        raise BadInput(f"--only {only}", f"one of {', '.join(HALVES)}")
    if metrics is not None:
        expect_port(metrics)
        if only == SERVICE:
            raise BadInput(
                "--metrics with --only service",
                "the half that has a network: --only letterbox",
                "start that one with --metrics; it asks the service over its socket",
            )
    who, tell = whose(user, group), teller(expect_format(log_format), "site")
    hospital = Hospital(folder.expanduser().resolve())
    halves = HALVES if only is None else (only,)
    opened = None
    # Started by itself, the letterbox may read nothing of the hospital but its own folder.
    if only == LETTERBOX:
        letterbox_settings(hospital.letterbox)
    else:
        hospital.invited()
        _expect_may_start(hospital)
        expect_cut_off(halves, keep_network=keep_network)
        expect_alone(keeping.where(hospital, halves))
        hospital.expect_private(who.group)
        opened = opened_hospital(hospital)
        node_key = None if opened is None else readable_path(hospital.node_key)
        prepare_letterbox(hospital, who, node_key)
        found_if_needed(hospital)
    apart = warnings_at_start(hospital, who, halves, keep_network=keep_network)
    if detach:
        folder = keeping.where(hospital, halves)
        log = folder / "start.log"
        words = [word for word in sys.argv[1:] if word != "--detach"]
        said = None if opened is None else opened.passphrase
        command = [sys.executable, "-m", "fedkd", *words]
        pid = in_background(command, log, folder, passphrase=said)
        print(f"started in the background, process {pid}; see {log}")
        for warning in apart:
            print(f"WARNING: {warning}")
        return DONE
    authority = hospital.letterbox / AUTHORITY if only == LETTERBOX else hospital.authority
    warnings = [*apart, *ending_authority(authority)]
    if only != LETTERBOX and who.group is not None:
        warnings += hospital.records_in_reach(who.group)
    for warning in warnings:
        tell(Line(f"WARNING: {warning}", level="warning"))
    secret = None if opened is None else secret_of(hospital, opened)
    words = keeping.command(
        hospital,
        who,
        halves,
        keep_network=keep_network,
        log_format=log_format,
        metrics=metrics,
        secret=secret,
    )
    return keeping.become(words, secret)


def found_if_needed(hospital: Hospital) -> None:
    """Founds the site where its site.yaml is newer than what was founded."""
    from fedkd.deploy.founding import is_founded

    if not is_founded(hospital):
        founded(hospital, as_json=False)


def _expect_may_start(hospital: Hospital) -> None:
    if hospital.left.exists():
        raise BadInput(
            f"{hospital.folder}, which left the federation on {hospital.left.read_text().strip()}",
            "a hospital that takes part",
            "ask the coordinator for a new invitation, and fedkd site join it here",
        )
    if not hospital.site_yaml.exists():
        raise BadInput(
            f"no {hospital.site_yaml}",
            "what this hospital brings, and what it accepts",
            f"fedkd site init {hospital.folder} --data FILE",
        )


def stop(folder: Path) -> int:
    """Ends what `start` started; says what lives on because it is another user's."""
    from fedkd.deploy.preparing import HOME
    from fedkd.deploy.supervising import is_supervised
    from fedkd.deploy.supervising import stop as end

    hospital = Hospital(folder.expanduser().resolve())
    halves = {hospital.letterbox / HOME: "letterbox", hospital.run: "site"}
    ended = [end(where) for where in halves]
    lives = [half for where, half in halves.items() if is_supervised(where)]
    if not lives:
        print("stopped" if any(ended) else "nothing was running")
        return DONE
    for half in lives:
        print(f"NOT STOPPED: fedkd-{half}, which runs as another user or in another container.")
        print(f"As root: systemctl stop fedkd-{half}; of a container: podman-compose down")
    return REFUSED


def pause(folder: Path) -> int:
    """Answers nothing from now on, until `resume`."""
    from fedkd.deploy.joining import pause as hold

    hospital = hospital_at(folder)
    hold(hospital, utc(), _say_that_it_waits)
    print(f"paused: {hospital.name} refuses every question, also after a restart, until")
    print(f"fedkd site resume {hospital.folder}")
    return DONE


def _say_that_it_waits() -> None:
    print("A turn is taken just now. Once its model is trained it is refused; this waits for its")
    print("end, and stays paused if you stop waiting.", flush=True)


def resume(folder: Path) -> int:
    """Answers again."""
    from fedkd.deploy.joining import resume as go_on

    hospital = hospital_at(folder)
    was = go_on(hospital)
    print(f"{hospital.name} answers again" if was else f"{hospital.name} was not paused")
    return DONE


def leave(folder: Path, *, yes: bool) -> int:
    """Ends everything and marks the hospital as one that left; says what stays, here and there.

    What lives on as another user's finds neither its settings nor its key when it is started again.
    """
    import typer

    from fedkd.deploy.joining import leave as mark
    from fedkd.deploy.preparing import withdraw_letterbox

    hospital = hospital_at(folder)
    if not yes and not typer.confirm(f"{hospital.name} leaves {hospital.invited()['federation']}?"):
        print("nothing was changed")
        return REFUSED
    mark(hospital, utc())  # first: what is being answered does not leave any more
    withdraw_letterbox(hospital)
    stopped = stop(folder)
    told = hospital.invited()
    print(plain(f"{told['site']} left {told['federation']}; nothing starts here any more."))
    print("What stays here, and is needed to account for what left:")
    print(f"  {hospital.site}: the log, the ledger, every body that ever left, models, records")
    print(f"  {hospital.folder / 'proposals'}: what was asked, and approved")
    print(
        "What stays elsewhere: answers that were given, and what was learnt from them; nobody can"
    )
    print("take that back. Tell the coordinator, who does: fedkd server revoke " + told["site"])
    print(f"What may go once its time is over: fedkd site erase {hospital.folder}")
    return stopped


def status(folder: Path, *, as_json: bool) -> int:
    """How the hospital stands."""
    from fedkd.deploy.hospital_standing import standing_of

    hospital = hospital_at(folder)
    told = standing_of(hospital)
    if as_json:
        print(json.dumps(told, indent=2, sort_keys=True))
        return DONE
    for line in _lines(told, hospital.folder):
        print(plain(line))
    return DONE


def _lines(told: Mapping[str, Any], folder: Path) -> list[str]:
    connected = {True: "connected", False: "trying to connect", None: "not connected"}
    state = "left" if told["left"] else "paused" if told["paused"] else "takes part"
    running = "running" if told["running"] else "stopped"
    lines = [
        f"{told['site']} in {told['federation']}: {state}, {running}, "
        f"{connected[told['connected']]} ({told['address']})"
    ]
    if told["proxy"]:
        lines.append(f"  proxy     {told['proxy']}")
    versions, service = told["versions"], told["service"]
    there = versions["coordinator"]
    lines.append(
        f"  fedkd     {versions['software']} here, {there['software']} at the coordinator, "
        f"messages {versions['wire']}"
    )
    lines.append(f"  bundles   {', '.join(map(digits_of, versions['bundles']))} allowed here")
    if service is not None:
        busy = f", busy since {service['busy_since']}" if service["busy_since"] else ""
        lines.append(
            f"  service   {service['turns']} turns since {service['since']}, "
            f"network: {service['network']}{busy}"
        )
    for name, process in told["processes"].items():
        if process["pid"] is None or process["restarts"]:
            said = f": {process['said']}" if process["said"] else ""
            lines.append(f"  {name:9} started again {process['restarts']} times{said}")
    if not told["founded"]:
        lines.append("  not founded yet: fedkd site init")
    lines.append(f"  keys      {in_words(told['keys'], SITE)}")
    lines += _retention_lines(told["retention"], folder)
    for kind in ("real", "rehearsal"):
        if told[kind] is not None:
            lines += [f"  {kind:9} {line}" for line in _site_lines(told[kind])]
    return [*lines, *(f"WARNING: {warning}" for warning in told["warnings"])]


def _retention_lines(retention: Mapping[str, Any] | None, folder: Path) -> list[str]:
    """What site.yaml's rules make due; nothing where it has none."""
    from fedkd.deploy.retention import COMMAND, in_words

    if not retention or not retention["days"]:
        return []
    due = retention["due"]
    said = in_words(due) + (f": {COMMAND} {folder}" if due else "")
    return [f"  retention {said}"]


def _site_lines(site: Mapping[str, Any]) -> list[str]:
    budget, last, head = site["budget"], site["last_question"], site["checkpoint"]
    if budget is None:
        lines = ["no budget: the data protection officer's paper is missing"]
    elif budget["epsilon"] is None:
        lines = ["NOT PRIVATE: nothing bounds what its answers tell"]
    else:
        lines = [
            f"epsilon {budget['spent']:.3f} spent of {budget['epsilon']:g}, "
            f"{budget['left']:.3f} left, {budget['charges']} charges"
        ]
    if last is not None:
        rule = f", {last['rule']}" if last["rule"] else ""
        lines.append(f"last {last['type']}{rule}: run {last['run']}, round {last['round']}, "
                     f"{last['at']}")  # fmt: skip
    if head is not None:
        cosigned = head["cosigned"]
        by = "nobody cosigned it yet"
        if cosigned is not None:
            by = f"{cosigned['size']} of them cosigned by {', '.join(cosigned['by'])}"
        lines.append(f"log of {head['size']} entries, {by}")
    return lines


def part_of(group: str, name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The checked spec of an installed part, with `keys` of a site.yaml in place of its own."""
    spec = part(group, name)
    for key in keys:
        if key not in spec:
            near = nearest(key, list(spec))
            raise BadInput(
                f"the key {key!r} of {group} {name} in site.yaml",
                f"one of {', '.join(each for each in spec if each != '_target_')}",
                f"did you mean {' or '.join(near)}?" if near else "",
            )
    made = {**spec, **keys}
    check_part(group, made)
    return made
