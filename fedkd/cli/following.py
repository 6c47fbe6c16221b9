"""Starts what was proposed on the coordinator's SuperLink, and follows it to its end."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedkd import __version__
from fedkd.cli.deployed import DeployedRun
from fedkd.cli.lines import say
from fedkd.cli.proposing import propose
from fedkd.cli.run import open_run, without
from fedkd.cli.telling import Told
from fedkd.deploy.locked import lent, opened_server
from fedkd.deploy.remedies import with_remedy
from fedkd.deploy.running import SERVER, pid_of
from fedkd.deploy.server_folder import SUPERLINK, ServerFolder
from fedkd.deploy.superlink import environment, is_healthy, program
from fedkd.federation.flower.bundle import app_folder, bundle_digest
from fedkd.knowledge import BadInput

DONE, REFUSED = 0, 1
POLL_SECONDS = 0.5
UP_SECONDS = 20.0
"""For an answer of the SuperLink; where none runs, that is known at once."""
SECONDS_TO_END = 20.0
"""Between the end of Flower's own command and the last word of the run."""


def run(
    overrides: Sequence[str],
    *,
    coordinator: Path,
    resume: Path | None,
    wait_s: float,
    config_dir: Path | None,
    as_json: bool,
) -> int:
    """Proposes a run, or goes on with one, and prints what came of it; returns the exit code."""
    words, rehearsal = _without_rehearsal(overrides)
    if resume is None:
        server = ServerFolder.opened(coordinator)
        expect_up(server)
        opened_server(server.folder)
        made = propose(
            coordinator, words, rehearsal=rehearsal, wait_s=wait_s, config_dir=config_dir
        )
        say(f"fedkd: proposed run {made.id}, {made.proposal().digest}")
        if not made.rehearsal and asks_for_everything(made):
            say(
                "without mechanism.epsilon it asks for ALL that each hospital's budget has left: "
                "nothing would be left for a later run, or for figures"
            )
    else:
        made = _resumed(resume, overrides, config_dir, wait_s)
        expect_up(ServerFolder.opened(made.coordinator))
    if made.rehearsal:
        say("REHEARSAL: no record is read, nothing is charged")
    summary = made.folder / "summary.json"
    if not summary.exists():
        follow(made, {"out": str(made.folder)})
    if not summary.exists():
        return _failed(made, as_json=as_json)
    return _shown(made, as_json=as_json)


def asks_for_everything(made: DeployedRun) -> bool:
    """Whether nothing but each hospital's own budget bounds what the run may cost there."""
    mechanism = made.config["mechanism"]
    private: bool = made.build(without(mechanism, ("epsilon",))).private
    return private and mechanism.get("epsilon") is None


def _without_rehearsal(overrides: Sequence[str]) -> tuple[list[str], bool]:
    words, rehearsal = [], False
    for word in overrides:
        key, _, value = word.partition("=")
        if key != "rehearsal":
            words.append(word)
        elif value.lower() in ("true", "false"):
            rehearsal = value.lower() == "true"
        else:
            raise BadInput(word, "rehearsal=true or rehearsal=false")
    return words, rehearsal


def _resumed(
    folder: Path, overrides: Sequence[str], config_dir: Path | None, wait_s: float
) -> DeployedRun:
    if overrides or config_dir is not None:
        raise BadInput(
            f"{' '.join(overrides) or '--config-dir'} with --resume",
            "neither: a run goes on with the configuration that was approved",
        )
    if not (folder / "run.json").exists():
        raise BadInput(f"no run in {folder}", "the folder of a run that fedkd run made")
    made = open_run(str(folder))
    if not isinstance(made, DeployedRun):
        raise BadInput(
            f"a simulation in {folder}",
            "a run of a deployed federation",
            f"fedkd simulate --resume {folder}",
        )
    proposal, ended = made.proposal(), (folder / "summary.json").exists()
    if not ended and proposal.bundle != bundle_digest():
        raise BadInput(
            f"a run in {folder} that was proposed with {proposal.software}",
            f"one of the fedkd that is installed, {__version__}: hospitals let no other bundle in",
            "install that version again, or propose a new run",
        )
    if not ended:
        made.expect_allowed()
    made.wait_s = wait_s
    made.sign_again()
    made.keep(founded=True)
    say(f"fedkd: going on with {folder}")
    return made


def expect_up(server: ServerFolder) -> None:
    """`BadInput` unless the coordinator's SuperLink answers."""
    if not is_healthy(server, server.settings(), UP_SECONDS):
        start = f"fedkd server start {server.folder}"
        why = f"fedkd server status {server.folder} says why; fedkd server stop {server.folder}, "
        raise BadInput(
            f"no SuperLink that answers on port {server.settings().superlink_port}",
            "the coordinator's, running",
            start if pid_of(server, SERVER) is None else why + start,
        )


def follow(made: Told, words: Mapping[str, str]) -> None:
    """Hands it to the SuperLink, with words for its ServerApp; says what happens meanwhile."""
    server = ServerFolder.opened(made.coordinator)
    keys = sorted((made.server / "keys").glob("*.key"))
    with lent(server.folder, keys), tempfile.TemporaryDirectory() as there:
        app = app_folder(Path(there) / "fedkd")
        config = " ".join(f"{name}={json.dumps(word)}" for name, word in words.items())
        command = [program("flwr"), "run", str(app), SUPERLINK, "--stream", "--run-config", config]
        made.tell("handed over", why=None)
        with (made.folder / "flower.log").open("ab") as log:
            started = subprocess.Popen(  # noqa: S603 - our own words, no shell
                command,
                env=environment(server),
                cwd=server.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                _say_until(made, started)
            except KeyboardInterrupt:
                say(f"it goes on at the SuperLink; its state is in {made.folder}/status.json")
                raise
            finally:
                if started.poll() is None:
                    started.terminate()
                    started.wait()


def _say_until(made: Told, started: "subprocess.Popen[bytes]") -> None:
    said: dict[str, Any] = {}
    ended_at: float | None = None
    while True:
        now = made.told()
        for line in _news(said, now, made.software()):
            say(line)
        said = now
        if now.get("state") in ("finished", "failed"):
            return
        if started.poll() is not None and ended_at is None:
            ended_at = time.monotonic()
        if ended_at is not None and time.monotonic() > ended_at + SECONDS_TO_END:
            return
        time.sleep(POLL_SECONDS)


def _news(
    before: dict[str, Any], now: dict[str, Any], software: Mapping[str, str | None]
) -> list[str]:
    lines = []
    for site, ruling in sorted(now.get("rulings", {}).items()):
        if before.get("rulings", {}).get(site) != ruling:
            lines.append(f"{site}: {with_remedy(ruling, software.get(site))}")
    number, rounds = now.get("round"), now.get("rounds")
    if number is not None and number != before.get("round"):
        closing = number > rounds
        lines.append("closing" if closing else f"round {number} of {rounds}")
    return lines


def why_not(made: Told) -> str:
    """Why it did not come to its end."""
    told = made.told()
    state = told.get("state")
    return str(
        told.get("why")
        or {
            "failed": "no reason was told",
            "handed over": f"Flower did not start it; see {made.folder / 'flower.log'}",
        }.get(str(state), f"it is still {state}, or its process was killed")
    )


def _failed(made: DeployedRun, *, as_json: bool) -> int:
    told, why = made.told(), why_not(made)
    if as_json:
        print(json.dumps({"out": str(made.folder), **told, "why": why}, indent=2))
        return REFUSED
    folder = _short(made.folder)
    print(f"the run did not end: {why}", file=sys.stderr)  # no progress, so said to the quiet, too
    print(f"left in {folder}; go on with: fedkd run --resume {folder}", file=sys.stderr)
    return REFUSED


def _shown(made: DeployedRun, *, as_json: bool) -> int:
    from fedkd.report import read_summary, show

    summary = read_summary(made.folder / "summary.json")
    if as_json:
        print(json.dumps({"out": str(made.folder), **summary}, indent=2))
        return DONE
    if made.rehearsal:
        print("REHEARSAL: rows drawn from declared ranges; no record was read, nothing was charged")
    show(summary)
    print(f"\nleft in {_short(made.folder)}: summary.json, figures/, exchange/, audit/")
    print(f"next:   fedkd report build {_short(made.folder)}")
    return DONE


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
