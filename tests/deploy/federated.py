"""A whole federation without a network: a coordinator's folder, and hospitals' beside it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID

from fedkd.cli.configuration import part
from fedkd.cli.deployed import DeployedRun
from fedkd.cli.evaluate_deployed import ProposedEvaluation, kept
from fedkd.cli.proposing import propose
from fedkd.cli.run import dataset_of, open_run
from fedkd.cli.simulate import simulate_one
from fedkd.deploy.consent import Desk, Shelf
from fedkd.deploy.coordinator import invite
from fedkd.deploy.founding import found
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.invitations import Enrolment
from fedkd.deploy.joining import join
from fedkd.deploy.roster import read_roster, write_roster
from fedkd.deploy.server_folder import ServerFolder, make_server
from fedkd.deploy.site_file import SiteFile
from fedkd.federation.building import Workshop
from fedkd.federation.flower.inprocess import InProcessGrid
from fedkd.federation.flower.letters import content_of, letter_of
from fedkd.wire import Message as Said
from fedkd.wire import Proposal, Ruling, decode, encode
from server.app import app as server_app
from tests.federation.officers import NOT_PRIVATE, installed, officer, paper

SITES = ("east", "north", "west")
SEED = 7
SCHEMA: dict[str, Any] = {
    "columns": {
        "age": {"kind": "numeric", "low": 20, "high": 90, "unit": "years"},
        "pressure": {"kind": "numeric", "low": 80, "high": 220, "unit": "mmHg"},
        "pulse": {"kind": "numeric", "low": 40, "high": 200, "unit": "1/min"},
        "sex": {"kind": "categorical", "categories": ["f", "m"]},
    },
    "label": {"column": "ill", "classes": {"no": ["0"], "yes": ["1"]}},
}
RUN = [
    "rounds=2", f"seed={SEED}", "query.size=30", "training.local_epochs=2",
    "training.lesson_epochs=1", "student.model=logistic", "student.epochs=2",
]  # fmt: skip
SIMULATED = [
    "data=table", "partition=site", "clients.count=null", "clients.models=[logistic]",
    "data.test_size=60", "data.validation=0.2",
]  # fmt: skip


def table(rows: int = 300) -> list[dict[str, Any]]:
    """Made-up patients of three hospitals, no two alike."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(rows):
        age, pressure = rng.uniform(25, 85), rng.uniform(90, 200)
        ill = int(age / 85 + pressure / 200 + rng.normal(0, 0.2) > 1.35)
        made.append(
            {
                "age": round(float(age), 2),
                "pressure": round(float(pressure), 2),
                "pulse": round(float(rng.uniform(50, 180)), 2),
                "sex": "fm"[int(rng.integers(2))],
                "ill": ill,
                "clinic": SITES[number % len(SITES)],
            }
        )
    return made


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    names = list(rows[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def simulated(folder: Path, *overrides: str) -> Path:
    """A finished simulation of the table, partitioned by clinic."""
    folder.mkdir(parents=True)
    file = write_csv(folder / "all.csv", table())
    schema = {**SCHEMA, "site": "clinic"}
    (folder / "all.csv.schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))
    run, _ = simulate_one([*SIMULATED, f"data.path={file}", *RUN, *overrides, f"out={folder}/run"])
    return run.folder


def dealt(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows that a simulation dealt to each hospital, as the file has them, in their order."""
    opened = open_run(str(run))
    whole = dataset_of(opened.config["data"]).records.inputs
    place = {row.tobytes(): number for number, row in enumerate(whole)}
    assert len(place) == len(whole)
    rows, cut = table(), opened.cut()
    return {
        site: [rows[place[cut.private.inputs[at].tobytes()]] for at in places]
        for site, places in cut.sites.items()
    }


@dataclass
class Federated:
    """A coordinator and hospitals; `nodes` are the ids under which the roster knows the sites."""

    server: ServerFolder
    hospitals: dict[str, Hospital]
    nodes: dict[str, int]
    build: Workshop = field(default_factory=Workshop)

    @classmethod
    def made(
        cls,
        folder: Path,
        rows: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        mechanism: Any = "none",
        policy: Mapping[str, Any] | None = None,
        ports: tuple[int, int] = (8443, 18_000),
        host: str = "127.0.0.1",
        own_name: Callable[[str], str] = str,
        patient: str | None = None,
        officer_name: str = "Ada Example",
        more: Mapping[str, Any] | None = None,
        form: Mapping[str, Any] = SCHEMA,
        deal: Callable[[Path, Any], object] | None = None,
        **paper_keys: Any,
    ) -> "Federated":
        """`ports` are those of proxy and SuperLink, for whoever starts them; hospitals reach the
        proxy, which is on loopback, as `host`.

        `own_name` is what hospitals call a column in their own files, `patient` that of patients;
        `more` stands in each site.yaml, too. `form` is of the records, `deal` writes a hospital's
        `rows` into its folder.
        """
        folder.mkdir(parents=True)
        schema = folder / "schema.yaml"
        schema.write_text(yaml.safe_dump(dict(form), sort_keys=False))
        server = make_server(
            folder / "coordinator",
            name="Hearts",
            reached_at=f"{host}:{ports[0]}",
            listen=f"127.0.0.1:{ports[0]}",
            schema=schema,
            superlink_port=ports[1],
        )
        hospitals, nodes, build = {}, {}, Workshop()
        key = officer(folder, officer_name)
        for number, (site, theirs) in enumerate(sorted(rows.items()), start=1):
            _, path = invite(server, site)
            joined = join(path, folder / site)
            enrolment = Enrolment.parse(joined.path.read_bytes())
            roster = read_roster(server.folder / "roster.json")
            nodes[site] = 1000 + number
            write_roster(
                server.folder / "roster.json", roster.with_enrolled(enrolment, nodes[site])
            )
            hospital = Hospital(folder / site)
            if deal is None:
                named = [{own_name(name): value for name, value in row.items()} for row in theirs]
                write_csv(hospital.folder / "records.csv", named)
            else:
                deal(hospital.folder, theirs)
            site_yaml(hospital, mechanism, policy or {}, own_name, patient, more or {})
            found(hospital, SiteFile.read(hospital.site_yaml), part_of, build)
            keys = paper_keys or (NOT_PRIVATE if mechanism == "none" else {})
            installed(hospital.site, key, paper(site, **keys))
            hospitals[site] = hospital
        return cls(server, hospitals, nodes, build)

    def copied(self, folder: Path) -> "Federated":
        """The same in another folder, to be changed."""
        shutil.copytree(self.server.folder.parent, folder)
        hospitals = {site: Hospital(folder / site) for site in self.hospitals}
        return Federated(ServerFolder(folder / "coordinator"), hospitals, self.nodes, self.build)

    def grid(self) -> "FederatedGrid":
        return FederatedGrid(self)

    def proposed(
        self, *overrides: str, rehearsal: bool = False, wait_s: float = 0.0
    ) -> DeployedRun:
        return propose(self.server.folder, [*RUN, *overrides], rehearsal=rehearsal, wait_s=wait_s)

    def conducted(self, run: DeployedRun, grid: "FederatedGrid | None" = None) -> Path:
        """The run through the ServerApp itself, from the proposal to the summary."""
        grid = grid or self.grid()
        self._told(grid, {"out": str(run.folder), "overrides": ""})
        return run.folder

    def evaluated(
        self, made: ProposedEvaluation, grid: "FederatedGrid | None" = None
    ) -> dict[str, Any]:
        """A proposed evaluation through the ServerApp itself; what is kept of it."""
        told = {"out": str(made.run.folder), "overrides": "", "evaluation": made.name}
        self._told(grid or self.grid(), told)
        return kept(made.run, made.proposal().question())

    def _told(self, grid: "FederatedGrid", told: dict[str, str]) -> None:
        server_app(grid, Context(grid.run.run_id, SUPERLINK_NODE_ID, {}, RecordDict(), told))


class FederatedGrid(InProcessGrid):
    """The in-process grid, its nodes under the roster's ids, each letter going to a hospital."""

    def __init__(self, federated: Federated) -> None:
        self.desks = {
            site: Desk(hospital.folder, federated.build)
            for site, hospital in federated.hospitals.items()
        }
        app = ClientApp()

        @app.query("answer")
        def answer(message: Message, context: Context) -> Message:
            letter = letter_of(message, 1 << 30)
            body = self.desks[str(context.node_config["site"])].handle(letter)
            return Message(content_of(body), reply_to=message)

        super().__init__(app, [{"site": site} for site in federated.nodes])
        drawn = list(self._contexts)
        for node, site in zip(drawn, federated.nodes, strict=True):
            context = self._contexts.pop(node)
            context.node_id = federated.nodes[site]
            self._contexts[federated.nodes[site]] = context


def site_yaml(
    hospital: Hospital,
    mechanism: Any,
    policy: Mapping[str, Any],
    own_name: Callable[[str], str] = str,
    patient: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """A hospital's own file: its columns are called as the federation's, or by `own_name`."""
    named = None if patient is None else own_name(patient)
    told = {
        "format": 1,
        "data": {"path": "records.csv", "patient": named},
        "columns": {name: {"column": own_name(name)} for name in SCHEMA["columns"]},
        "label": {"column": own_name("ill")},
        "card": {
            "name": "made-up patients", "version": "1", "modality": "table",
            "licence": "CC0-1.0", "legal_basis": "nobody's", "origin": "a test",
        },
        "model": "logistic",
        "training": {"learning_rate": 0.003, "weight_decay": 0.01, "steps": "records"},
        "mechanism": mechanism,
        "validation": 0.2,
        "policy": {"smallest_training_set": 20, **policy},
        "rehearsal": {"records": 60}, "retention": {}, **more,
    }  # fmt: skip
    if mechanism == "none":
        told["seed"] = SEED
    hospital.site_yaml.write_text(yaml.safe_dump(told, sort_keys=False))
    hospital.site_yaml.chmod(0o600)


def part_of(group: str, name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    return {**part(group, name), **keys}


def students(run: Path) -> bytes:
    """The student's weights, as they are on disk."""
    return (run / "student.safetensors").read_bytes()


def taken_in(federated: Federated, made: DeployedRun | ProposedEvaluation) -> dict[str, Said]:
    """Hands the proposal in everywhere, as the server does first; what each site says."""
    body, signature = made.paper()
    letter = encode(Proposal(made.proposal().run, np.frombuffer(body, np.uint8), signature))
    return {
        site: decode(Desk(hospital.folder, federated.build).handle(letter), 1 << 16)
        for site, hospital in federated.hospitals.items()
    }


def approve(federated: Federated, run: DeployedRun | ProposedEvaluation, *sites: str) -> None:
    """People at the hospitals say yes; the proposal has come in there before.

    Of an evaluation they bring the model, too, which was sent to them by hand.
    """
    from fedkd.deploy.approving import place, rule

    for site in sites or federated.hospitals:
        hospital = federated.hospitals[site]
        proposal = Shelf(hospital).read(run.proposal().digest)
        if isinstance(run, ProposedEvaluation):
            place(hospital, proposal, run.run.folder / "student.safetensors")
        decision = rule(hospital, proposal, federated.build, by="Ada Example", decline=None)
        assert decision.ruling in (Ruling.APPROVED, Ruling.REHEARSING)
