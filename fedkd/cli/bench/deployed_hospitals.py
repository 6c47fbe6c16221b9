"""A deployed federation on this machine's loopback, of made-up hospitals, for a comparison."""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from fedkd.cli.bench.made_up import SCHEMA, SEED, table, write_csv, write_schema
from fedkd.cli.bench.plain_flower import RUN_SECONDS, rows_of, wait_for_nodes
from fedkd.cli.bench.processes import Processes
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.server_folder import make_server
from fedkd.deploy.starting import free_port
from fedkd.knowledge import BadInput

START_SECONDS, APPROVE_SECONDS = 300.0, 300.0
FEDKD = (sys.executable, "-m", "fedkd")


class Hospitals:
    """A coordinator behind its proxy, and hospitals in two halves, each started by its command.

    Entered, all of it runs; left, nothing does. Who works here signs as the officer, reads the
    fingerprints and says yes: the files are those of real people's federations. `server_words` and
    `site_words` are added to the two commands. Nothing is waited for after `until`, a time of
    `time.monotonic`: then a wait ends by its `RuntimeError` or `TimeoutError`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        server_words: Sequence[str] = (),
        site_words: Sequence[str] = (),
        until: float = math.inf,
    ) -> None:
        from fedkd.audit.officer import new_key

        folder.mkdir(parents=True, mode=0o700)
        self.folder, self.model = folder, model
        self.server_words, self.site_words, self.until = server_words, site_words, until
        self.processes = Processes(folder)
        self.hospitals: dict[str, Hospital] = {}
        self.server = make_server(
            folder / "coordinator",
            name="Bench",
            reached_at=f"localhost:{free_port()}",
            schema=write_schema(folder / "schema.yaml", pooled=False),
            superlink_port=free_port(),
        )
        self._officer = new_key(folder / "officer.key", "Ada Example")
        self._run = 0

    def __enter__(self) -> Self:
        try:
            ready = self.server.folder / "pids" / "ready"
            ready.unlink(missing_ok=True)
            server = self.processes.begin(
                "server", [*FEDKD, "server", "start", self.server.folder, *self.server_words]
            )
            until = time.monotonic() + self._at_most(START_SECONDS)
            while not ready.exists():
                if server.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the server did not start: {self.processes.said('server')}")
                time.sleep(0.2)
            for site in self.hospitals:
                self._start(site)
            wait_for_nodes(self.server, len(self.hospitals), self._at_most(START_SECONDS))
        except BaseException:
            self.processes.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.end(*self.hospitals)
        self.processes.end()

    def join(self, sites: Sequence[str], all_sites: Sequence[str]) -> None:
        """Founds `sites`; where the coordinator runs, they are started and waited for."""
        from fedkd.deploy.coordinator import admit, invite
        from fedkd.deploy.joining import join

        rows = table(all_sites)
        for site in sites:
            _, invitation = invite(self.server, site)
            joined = join(invitation, self.folder / site)
            hospital = Hospital((self.folder / site).resolve())
            write_csv(hospital.folder / "records.csv", rows[site])
            self._found(hospital)
            admit(self.server, joined.path.read_bytes(), lambda enrolment: True)
            self.hospitals[site] = hospital
        if "server" in self.processes.running:
            for site in sites:
                self._start(site)
            wait_for_nodes(self.server, len(self.hospitals), self._at_most(START_SECONDS))

    def run(self, terms: Sequence[str]) -> list[dict[str, Any]]:
        """Proposes a run, approves it everywhere, follows it; its rows, one a round."""
        self._run += 1
        out = self.server.folder / "runs" / f"run-{self._run}"
        command = [*FEDKD, "run", "--federation", self.server.folder, f"seed={SEED}", *terms]
        started = self.processes.begin(f"run-{self._run}", [*command, f"out={out}"])
        self._approve(out)
        said = f"run-{self._run}"
        left = self._at_most(RUN_SECONDS)
        return rows_of(out, started.poll, lambda: self.processes.said(said), left)

    def roots(self) -> list[int]:
        """The processes of the first site, from which all its others descend."""
        return [self.processes.running[next(iter(self.hospitals))].pid]

    def _at_most(self, seconds: float) -> float:
        return max(0.0, min(seconds, self.until - time.monotonic()))

    def _start(self, site: str) -> None:
        folder = self.hospitals[site].folder
        self.processes.begin(site, [*FEDKD, "site", "start", folder, *self.site_words])

    def _found(self, hospital: Hospital) -> None:
        from fedkd.audit.officer import BUDGET, sign_paper
        from fedkd.cli.hospital import part_of
        from fedkd.deploy.founding import found
        from fedkd.deploy.hospital import write_private
        from fedkd.deploy.site_file import SiteFile
        from fedkd.federation.budgets import UNPROTECTED, template
        from fedkd.federation.building import Workshop
        from fedkd.federation.papers import install
        from fedkd.federation.site import SiteFolder

        told = {
            "format": 1,
            "data": {"path": "records.csv"},
            "columns": {name: {"column": name} for name in SCHEMA["columns"]},
            "label": {"column": SCHEMA["label"]["column"]},
            "card": {
                "name": "made-up patients", "version": "1", "modality": "table",
                "licence": "CC0-1.0", "legal_basis": "nobody's", "origin": "fedkd bench",
            },
            "model": self.model,
            "training": {"learning_rate": 0.003, "weight_decay": 0.01, "steps": "records"},
            "mechanism": "none",
            "validation": 0.2,
            "seed": SEED,
            "policy": {"smallest_training_set": 20, "most_queries": {"run": None, "day": None}},
            "retention": {},
        }  # fmt: skip
        write_private(hospital.site_yaml, yaml.safe_dump(told, sort_keys=False).encode())
        build = Workshop()
        found(hospital, SiteFile.read(hospital.site_yaml), part_of, build)
        paper = yaml.safe_load(template(hospital.name, 500))
        paper |= {UNPROTECTED: True, "mechanisms": ["none"], "epsilon": None, "delta": None}
        body = yaml.safe_dump(paper).encode()
        site = SiteFolder(hospital.site)
        install(
            site, body, sign_paper(self._officer, BUDGET, body), build(site.settings().mechanism),
            self._officer.verifier().text(),
        )  # fmt: skip

    def _approve(self, out: Path) -> None:
        """Says yes at every hospital once the run's proposal has come in there."""
        from fedkd.deploy.approving import rule
        from fedkd.deploy.bundles import allow
        from fedkd.deploy.consent import Shelf
        from fedkd.federation.building import Workshop
        from fedkd.knowledge import digest_of_bytes

        until = time.monotonic() + self._at_most(APPROVE_SECONDS)
        waiting, build = dict(self.hospitals), Workshop()
        while waiting:
            if time.monotonic() > until:
                said = self.processes.said(f"run-{self._run}")
                raise RuntimeError(f"no proposal came in at {', '.join(waiting)}: {said}")
            paper = out / "proposal.json"
            if not paper.exists():
                time.sleep(0.1)
                continue
            digest = digest_of_bytes(paper.read_bytes())
            for site, hospital in list(waiting.items()):
                try:
                    proposal = Shelf(hospital).read(digest)
                except (BadInput, OSError):
                    continue
                rule(hospital, proposal, build, by="Ada Example", decline=None)
                allow(hospital.letterbox, proposal.bundle)
                del waiting[site]
            time.sleep(0.2)
