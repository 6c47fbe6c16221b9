"""The same federation as a plain Flower app: SuperNodes that start a `flwr-clientapp` a message.

Its ClientApp is that of this repository (clients/app.py), which opens the site's folder by itself:
every message's process is an interpreter of its own that imports Flower, torch and the rest.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from fedkd.cli.bench.made_up import SEED, table, write_csv, write_schema
from fedkd.cli.bench.processes import Processes
from fedkd.deploy import superlink
from fedkd.deploy.hospital import Hospital, private_folder
from fedkd.deploy.joining import node_key_of
from fedkd.deploy.server_folder import SUPERLINK, ServerFolder, make_server
from fedkd.deploy.starting import free_port

START_SECONDS, RUN_SECONDS = 120.0, 600.0
EAGER = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}


class PlainFlower:
    """A SuperLink over TLS with a registered SuperNode a site; `eager`: it polls as ours does."""

    def __init__(
        self, folder: Path, sites: Sequence[str], *, model: str, eager: bool = False
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.sites, self.model, self.eager = folder, list(sites), model, eager
        self.processes = Processes(folder)
        rows = table(sites)
        self.records = write_csv(folder / "all.csv", [row for site in sites for row in rows[site]])
        write_schema(folder / "all.csv.schema.yaml", pooled=True)
        self.server = make_server(
            folder / "federation",
            name="Plain",
            reached_at=f"localhost:{free_port()}",
            schema=write_schema(folder / "schema.yaml", pooled=False),
            superlink_port=free_port(),
        )
        self._run = 0

    def __enter__(self) -> Self:
        settings = self.server.settings()
        try:
            environment = superlink.environment(self.server)
            link = self.processes.begin(
                "superlink", superlink.command(self.server, settings), environment
            )
            superlink.wait_until_healthy(self.server, settings, link, START_SECONDS)
            self._run += 1
        except BaseException:
            self.processes.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.end(*self.sites)  # before whom they would else try to reach
        self.processes.end()

    def run(self, terms: Sequence[str]) -> list[dict[str, Any]]:
        """Conducts a whole run; its rows, one a round."""
        from fedkd.cli.configuration import compose
        from fedkd.cli.run import prepare
        from fedkd.federation.flower.bundle import app_folder

        out = self.folder / f"run-{self._run}"
        prepared = prepare(
            out,
            compose(
                [
                    "data=table", f"data.path={self.records}", "partition=site",
                    "clients.count=null", f"clients.models=[{self.model}]", f"seed={SEED}",
                    "data.test_size=20", "data.validation=0.2", *terms,
                ]
            ),
        )  # fmt: skip
        self._nodes(prepared.sites)
        app = app_folder(self.folder / f"app-{self._run}")
        command = [superlink.program("flwr"), "run", app, SUPERLINK, "--stream"]
        command += ["--run-config", f'out="{out}"']
        started = self.processes.begin("run", command, superlink.environment(self.server))
        return rows_of(out, started.poll, lambda: self.processes.said("run"))

    def roots(self) -> list[int]:
        """The processes of the first site, from which all its others descend."""
        return [self.processes.running[self.sites[0]].pid]

    def _nodes(self, folders: Mapping[str, Path]) -> None:
        environment = superlink.environment(self.server) | (EAGER if self.eager else {})
        program: list[object] = [superlink.program("flower-supernode")]
        if self.eager:
            program = [sys.executable, "-m", "fedkd.federation.flower.node"]
        port = self.server.settings().superlink_port
        for site, folder in folders.items():
            node = Hospital(self.folder / f"node-{site}-{self._run}")
            private_folder(node.keys)
            superlink.register(self.server, f"{site}-{self._run}", node_key_of(node))
            self.processes.begin(
                site,
                [
                    *program,
                    "--superlink", f"127.0.0.1:{port}",
                    "--root-certificates", self.server.authority,
                    "--auth-supernode-private-key", node.node_key,
                    "--node-config", f'site="{folder}"',
                    "--host", "127.0.0.1", "--port", free_port(),
                ],
                environment,
            )  # fmt: skip
        wait_for_nodes(self.server, len(folders))


def wait_for_nodes(server: ServerFolder, count: int, seconds: float = START_SECONDS) -> None:
    """Returns once so many nodes are connected; `TimeoutError` otherwise."""
    until = time.monotonic() + seconds
    while True:
        online = sum(node.get("status") == "online" for node in superlink.nodes(server))
        if online >= count:
            return
        if time.monotonic() > until:
            raise TimeoutError(f"found {online} nodes connected, expected {count}")
        time.sleep(1.0)


def rows_of(out: Path, ended: Any, said: Any, seconds: float = RUN_SECONDS) -> list[dict[str, Any]]:
    """The rows of the run in `out` once it is whole; `RuntimeError` where it never will be."""
    import json

    until = time.monotonic() + seconds
    ended_at: float | None = None
    while not (out / "summary.json").exists():
        now = time.monotonic()
        if ended() is not None and ended_at is None:
            ended_at = now
        if now > until or (ended_at is not None and now > ended_at + 30):
            raise RuntimeError(f"found no summary of the run in {out}: {said()}")
        time.sleep(0.2)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
