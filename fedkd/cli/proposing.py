"""Makes a run of a deployed federation: its configuration, and the paper that proposes it."""

import secrets
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fedkd
from fedkd.audit import SERVER, Peer, make_keys
from fedkd.audit.keys import log_key, witness_keys
from fedkd.audit.locking import locked_folder
from fedkd.cli.configuration import compose, with_user_code
from fedkd.cli.deployed import DeployedRun, admitted, peer_of
from fedkd.cli.places import anchored, new_folder, parts_of
from fedkd.cli.run import began, without
from fedkd.deploy.federation_file import FederationFile
from fedkd.deploy.lines import utc
from fedkd.deploy.proposals import RunProposal
from fedkd.deploy.roster import Member
from fedkd.deploy.server_folder import ServerFolder
from fedkd.federation.durable import write_bytes, write_json
from fedkd.knowledge import BadInput, Synthetic

DEPLOYED = "deployed"
"""The engine of such a run, in its configuration and its summary."""
DAYS = 30
"""For how long a person may say yes."""
NOT_HERE = ("sites", "budget", "engine", "baselines", "partition", "faults", "device")
"""Keys that say what a hospital decides, or what only a simulation has."""


def propose(
    coordinator: Path,
    overrides: Sequence[str],
    *,
    rehearsal: bool,
    wait_s: float,
    config_dir: Path | None = None,
) -> DeployedRun:
    """Makes a run of a deployed federation, with its signed proposal; nobody was asked yet.

    `BadInput`, and nothing is left behind, for what does not fit or server.yaml's policy forbids.
    """
    from omegaconf import OmegaConf

    server = ServerFolder.opened(coordinator)
    form, content, signature = server.federation()
    config = composed(overrides, form, config_dir, rehearsal=rehearsal)
    members = admitted(server.folder)
    if not members:
        raise BadInput(
            f"no admitted site in {coordinator}",
            "one at least",
            "fedkd server invite NAME, then fedkd server admit ENROLMENT",
        )
    folder = new_folder(config["out"], server.folder / "runs", f"run {coordinator}")
    _expect_inside(folder, server)
    began(folder)
    with_user_code(config_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(folder / "federation.yaml", content)
    write_bytes(folder / "federation.yaml.sig", signature)
    if form.schema is not None and config["data"].get("path") and "schema" in config["data"]:
        write_json(folder / "schema.yaml", form.schema.to_json())  # JSON is YAML
        config["data"]["schema"] = str(folder / "schema.yaml")
    run = DeployedRun(
        folder,
        anchored(config),
        secrets.token_hex(8),
        parts_of(config, config_dir),
        config_dir,
        coordinator=server.folder,
        rehearses=rehearsal,
        wait_s=wait_s,
    )
    try:
        run.check()
        proposal = proposal_of(run, form, members)
        server.settings().policy.expect(proposal, len(members))
    except BadInput:
        shutil.rmtree(folder)  # it was new or empty: what is in it was made here
        raise
    write_bytes(folder / "proposal.json", proposal.to_bytes())
    write_bytes(folder / "proposal.sig", proposal.signed(server.key()).encode())
    write_bytes(folder / "config.yaml", OmegaConf.to_yaml(run.config).encode())
    run.keep(founded=True)
    return run


def _expect_inside(folder: Path, server: ServerFolder) -> None:
    """A run has keys of its own: those of a locked coordinator's are sealed with the others."""
    if locked_folder(folder) != (locked := locked_folder(server.folder)):
        raise BadInput(
            f"out={folder} outside of {locked or server.folder}, which is locked",
            "a folder inside, where the run's keys are sealed",
            f"leave out away: it goes to {server.folder / 'runs'}",
        )


def composed(
    overrides: Sequence[str], form: FederationFile, config_dir: Path | None, *, rehearsal: bool
) -> dict[str, Any]:
    """The configuration of a deployed run: as a simulation's, with the federation's own form."""
    for word in overrides:
        key = word.partition("=")[0].partition(".")[0]
        if key in NOT_HERE:
            raise BadInput(
                f"{word} in a deployed run",
                "keys of the server: what a hospital does with its records, it decides itself",
                f"leave {key} out; a simulation has it: fedkd simulate",
            )
    given = {word.partition("=")[0] for word in overrides}
    data = [] if "data" in given else [f"data={'table' if form.schema else 'image_folder'}"]
    # As for lasting sites: an officer's paper says the budget, and nothing of it is said here.
    here = ["sites.dir=elsewhere", "sites.rehearsal=false", "partition=site"]
    config = compose([*data, *overrides, *here], config_dir)
    return {
        **config,
        "engine": DEPLOYED,
        "sites": {"dir": None, "rehearsal": rehearsal},
        "data": {**config["data"]},
    }


def proposal_of(run: DeployedRun, form: FederationFile, members: Sequence[Member]) -> RunProposal:
    """What is asked of every member, with everybody's keys."""
    from fedkd.federation.flower.bundle import bundle_digest

    config, audit = run.config, run.config["audit"]
    server = run.folder / "server"
    server.mkdir(exist_ok=True)
    make_keys(server, SERVER, rehearsal=run.rehearses, mldsa=audit["mldsa"])
    own = Peer(log_key(server).verifier(), tuple(key.verifier() for key in witness_keys(server)))
    parties = {member.site: peer_of(member, run.rehearses).to_json() for member in members}
    rules, terms = run.rules(), run.terms()
    mechanism = run.build(without(config["mechanism"], ("epsilon",)))
    classes = len(form.space.classes)
    plan, epsilon = terms.plan, config["mechanism"].get("epsilon")
    return RunProposal(
        federation=form.name,
        run=run.id,
        rehearsal=run.rehearses,
        software=f"fedkd {fedkd.__version__}",
        bundle=bundle_digest(),
        asked={
            "rounds": terms.rounds,
            "size": terms.queries,
            "seed": terms.seed,
            "local_epochs": plan.local_epochs,
            "lesson_epochs": plan.lesson_epochs,
            "batch": plan.batch,
            "loss": plan.loss,
            "loss_weight": plan.loss_weight,
            "temperature": plan.temperature,
            "codec": rules.codec_name,
            "mechanism": mechanism.name,
            "epsilon": None if epsilon is None else float(epsilon),  # 2 is typed as 2
            "lesson": config["lesson"]["kind"],
            "aggregate": rules.names["aggregate"],
            "filter": rules.names["filter"],
            "student": rules.names["student"],
        },
        query=_query_of(run),
        parties={SERVER: own.to_json(), **parties},
        audit={name: audit[name] for name in ("threshold", "most_age", "cosigners")},
        would_leave={
            "messages": terms.rounds,
            "rows": terms.rounds * terms.queries,
            "classes": classes,
            "bytes": terms.rounds * rules.codec.raw_bytes(terms.queries, classes),
        },
        expires=utc(datetime.now(UTC) + timedelta(days=DAYS)),
    )


def _query_of(run: DeployedRun) -> dict[str, Any]:
    """Where the queries come from, so exactly that a site can hold each set against it."""
    terms, generator = run.terms(), run.rules().generator
    _, queries = generator.pose(generator.init(terms.seed), None, terms.queries)
    origin = queries.origin
    if not isinstance(origin, Synthetic):
        told = {"source": origin.name, "licence": origin.licence, "digest": queries.digest}
        return {"kind": "public", **told}
    if origin.parents or origin.student:
        raise BadInput(
            f"generator={origin.generator}, whose queries depend on a student",
            "one that a hospital can draw again by itself, such as dictionary or procedural",
        )
    return {
        "kind": "synthetic",
        "generator": origin.generator,
        "code": origin.code,
        "seed": origin.seed,
    }
