"""One run of a deployed federation: as a simulation's, with hospitals that are elsewhere."""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fedkd.audit import SERVER, Federation, Log, Peer
from fedkd.audit.verify import Note, Refuted
from fedkd.cli.lines import say
from fedkd.cli.run import Run, dataset_of, versions, without
from fedkd.cli.telling import alone, tell, told
from fedkd.data import Card, Dataset, no_records
from fedkd.data.mapped import in_form
from fedkd.deploy.federation_file import FederationFile
from fedkd.deploy.proposals import RunProposal
from fedkd.deploy.remedies import with_remedy
from fedkd.deploy.roster import ADMITTED, Member, read_roster
from fedkd.deploy.server_folder import ServerFolder
from fedkd.federation.asking import NOT_ADMITTED
from fedkd.federation.checkpoint import ServerFolder as Checkpoints
from fedkd.federation.dealing import Cut, cut_own
from fedkd.federation.durable import write_bytes, write_json
from fedkd.federation.observer import Outsider
from fedkd.federation.rounds import NoQuorum, share_of
from fedkd.federation.witnessing import ENROLLED
from fedkd.knowledge import BadInput
from fedkd.wire import Ruling

if TYPE_CHECKING:
    from fedkd.federation.flower.asking import GridAsk
    from fedkd.federation.rounds import Watch

ASK_AGAIN_SECONDS = 5.0
TAKING_PART = (Ruling.APPROVED, Ruling.REHEARSING)


@dataclass(slots=True)
class DeployedRun(Run):
    """A run's folder at the coordinator; no hospital's folder is in it, and none can be reached.

    `coordinator` is the folder of `fedkd server init`, `wait_s` how long people have to answer.
    `heard` is the fedkd that each site said it runs.
    """

    coordinator: Path = field(default_factory=Path)
    rehearses: bool = False
    wait_s: float = 0.0
    heard: Mapping[str, str] = field(default_factory=dict)
    every_s: ClassVar[float] = ASK_AGAIN_SECONDS

    @classmethod
    def opened(
        cls, folder: Path, config: dict[str, Any], kept: Mapping[str, Any], user: Path | None
    ) -> "DeployedRun":
        """The run that `run.json` in `folder` says."""
        return cls(
            folder,
            config,
            kept["run"],
            kept["parts"],
            user,
            coordinator=Path(kept["coordinator"]),
            rehearses=kept["rehearsal"],
            wait_s=kept["wait_s"],
        )

    @property
    def rehearsal(self) -> bool:
        """Whether no record is read: the run is marked so in every log."""
        return self.rehearses

    @property
    def sites(self) -> dict[str, Path]:
        """No site's folder is here."""
        return {}

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The sites that were proposed to."""
        return self.proposal().sites

    def proposal(self) -> RunProposal:
        """What was proposed, its signature checked again: by a key that this coordinator had."""
        body, signature = self.paper()
        now, *before = ServerFolder(self.coordinator).vkeys()
        for key in before:
            with suppress(BadInput):
                return RunProposal.read(body, signature, key)
        return RunProposal.read(body, signature, now)

    def sign_again(self) -> None:
        """Has the key of now sign what one before it signed: hospitals know that one no longer."""
        body, signature = self.paper()
        server = ServerFolder(self.coordinator)
        try:
            RunProposal.read(body, signature, server.vkey())
        except BadInput:
            signed = self.proposal().signed(server.key()).encode()
            write_bytes(self.folder / "proposal.sig", signed)

    def paper(self) -> tuple[bytes, str]:
        """The proposal's exact bytes, and the federation's signature."""
        path = self.folder / "proposal.json"
        try:
            return path.read_bytes(), path.with_suffix(".sig").read_text(encoding="utf-8")
        except OSError:
            raise BadInput(
                f"no proposal in {self.folder}", "a run that fedkd run made", "start a new one"
            ) from None

    def federation(self) -> Federation:
        """Everybody's keys as they were proposed, and the terms of cosigning."""
        return self.proposal().federated()

    def earlier_heads(self) -> Mapping[str, Note]:
        """By site, the longest head of its log that a run of this coordinator left cosigned."""
        return heads_of(self.coordinator, self.federation())

    def observer(self) -> "Watch":
        """Nobody looks into a hospital; which round it is, is told."""
        return _Telling(self)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Lets one process at a time conduct the run, and tells how it ended."""
        with alone(self.folder, self.tell):
            yield

    def members(self) -> Mapping[int, str]:
        """The nodes of the sites that were proposed to and are still admitted, by id."""
        return nodes_of(self.coordinator, self.proposal().parties, self.rehearses)

    def expect_allowed(self) -> None:
        """`BadInput` where server.yaml allows no such run, or no longer; asked before proposing.

        Of a run that goes on, the hospitals that are admitted still count, and after its closing
        question nothing is proposed.
        """
        if Checkpoints(self.server).load().closed:
            return
        proposal = self.proposal()
        there = list(_still_admitted(self.coordinator, proposal.parties, self.rehearses))
        ServerFolder(self.coordinator).settings().policy.expect(proposal, len(there))

    def form(self) -> FederationFile:
        """What the federation's records look like, as it was when the run was proposed."""
        content = (self.folder / "federation.yaml").read_bytes()
        return FederationFile.read(content)

    def dataset(self) -> Dataset:
        """The coordinator's own labelled records; without any, no row in the federation's form."""
        form, spec = self.form(), self.config["data"]
        if not spec.get("path"):
            card = Card(form.name, "", form.space.kind, "not stated", "not stated", "not stated")
            return Dataset(card, form.space, no_records(form.space), None, form.schema)
        own = dataset_of(spec)
        if form.schema is None:
            return in_form(own, form.space)
        if own.space != form.space:
            raise BadInput(
                f"data.path={spec['path']} in another form than the federation's",
                "records as federation.yaml describes them",
                "for a table take data=table, whose columns are then read by federation.yaml",
            )
        return own

    def cut(self) -> Cut:
        """The coordinator's own records: a test, and queries where they are to be public."""
        query = self.config["query"]
        queries = query["size"] if query["kind"] == "public" else 0
        return cut_own(self.dataset(), seed=self.config["seed"], queries=queries)

    def registered(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """What the server's log says of the coordinator's own data; nothing is cut up here."""
        if self.config["data"].get("path"):
            for key, event, body in Run.registered(self):
                if event == "dataset.registered":
                    yield key, event, body

    def check(self) -> None:
        """Makes every part of the server once: `BadInput` for what does not fit."""
        self.rules()
        self.build(without(self.config["mechanism"], ("epsilon",)))
        if self.student().weights() is None:
            raise BadInput(
                f"student.model={self.config['student']['model']}, which has no weights",
                "a student with weights, since it is kept and handed on as such",
            )

    def found(self) -> None:
        """There is nothing to found: hospitals found themselves."""

    def expect_papers(self) -> None:
        """A hospital's paper is its own business: it refuses without one."""

    def agreed(self, asking: "GridAsk", log: Log) -> list[str]:
        """Proposes the run until everybody has ruled or the time is over; who takes part.

        Those who do not are in the log, with what they said. `NoQuorum` where too few remain.
        """
        body, signature = self.paper()
        proposal = self.proposal()
        self.heard = asking.software
        before: dict[str, str] = {}
        runs = self.software()

        def told(rulings: Mapping[str, str]) -> None:
            for site, ruling in rulings.items():
                if before.get(site) != ruling:
                    say(f"{site}: {with_remedy(ruling, runs.get(site))}")
            before.update(rulings)
            self.tell("proposed", rulings=dict(rulings))

        rulings = asking.propose(
            self.id, body, signature, wait_s=self.wait_s, every_s=self.every_s, told=told
        )
        rulings |= {site: NOT_ADMITTED for site in proposal.sites if site not in rulings}
        taking = sorted(site for site, ruling in rulings.items() if ruling in TAKING_PART)
        for site, ruling in sorted(rulings.items()):
            self._note(log, site, None if site in taking else f"takes no part: {ruling}")
        self._expect_enough(proposal, taking, rulings)
        self.tell("running", rulings=rulings)
        return taking

    def _note(self, log: Log, site: str, why_not: str | None) -> None:
        """Has the newest word of the log on a site be true: one that left may come back later."""
        said = [
            entry
            for type in (ENROLLED, "party.left")
            for entry in log.entries(type)
            if entry.body["party"] == site
        ]
        newest = max(said, key=lambda entry: entry.index)
        before = newest.body.get("reason") if newest.type == "party.left" else None
        if why_not is not None and why_not != before:
            left = {"party": site, "run": self.id, "reason": why_not}
            log.append(f"{self.id}/left/{site}/{len(said)}", "party.left", left)
        elif why_not is None and before is not None:
            back = {"party": site, **self.federation().parties[site].to_json()}
            log.append(f"{self.id}/back/{site}/{len(said)}", ENROLLED, back)

    @property
    def server(self) -> Path:
        """The folder of the server's log, and of its keys."""
        return self.folder / "server"

    def software(self) -> dict[str, str | None]:
        """The fedkd of each site when it was heard of last: in this run, or when it joined."""
        joined = {member.site: member.software for member in admitted(self.coordinator)}
        return {**joined, **self.told().get("software", {})}

    def absent(self) -> Mapping[str, str]:
        """What each site that takes no part said."""
        rulings = self.told().get("rulings", {})
        return {site: said for site, said in rulings.items() if said not in TAKING_PART}

    def _expect_enough(
        self, proposal: RunProposal, taking: Sequence[str], rulings: Mapping[str, str]
    ) -> None:
        runs = self.software()
        said = "; ".join(
            f"{site}: {with_remedy(ruling, runs.get(site))}"
            for site, ruling in sorted(rulings.items())
        )
        everyone = len(proposal.sites)
        needed = max(share_of(everyone, self.config["quorum"]), min(2, everyone))
        if len(taking) < needed:
            raise NoQuorum(f"found {len(taking)} sites that take part, expected {needed}; {said}")
        here = {SERVER, *taking}
        expect_cosigned(proposal.federated(), dict.fromkeys(taking, here), said)

    def tell(self, state: str, **more: Any) -> None:
        """Keeps how far the run is, for whoever follows it from another process."""
        tell(self.folder, self.id, state, **more)

    def told(self) -> dict[str, Any]:
        """How far the run is: `state`, `rulings` by site, `round`, and `why` it failed."""
        return told(self.folder)

    def keep(self, *, founded: bool) -> None:
        """Writes `run.json`: what the configuration does not say."""
        kept = {
            "founded": founded,
            "run": self.id,
            "parts": self.parts,
            "config_dir": str(self.config_dir) if self.config_dir else None,
            "coordinator": str(self.coordinator),
            "rehearsal": self.rehearses,
            "wait_s": self.wait_s,
            "sites": list(self.proposal().sites),
            "versions": versions(),
        }
        write_json(self.folder / "run.json", kept)


def expect_cosigned(federation: Federation, here: Mapping[str, Set[str]], said: str) -> None:
    """`NoQuorum` where too few would cosign a site's log; `here` are by site those who could."""
    rosters = federation.rosters()
    for site, there in here.items():
        roster = rosters[site]
        cosigners = len(there & set(roster.cosigners))
        if roster.cosigners and cosigners < roster.threshold:
            raise NoQuorum(
                f"found {cosigners} cosigners of the log of {site} among those who take part, "
                f"expected {roster.threshold} (audit.threshold); {said}"
            )


def heads_of(coordinator: Path, federation: Federation) -> Mapping[str, Note]:
    """By party, the longest head of its log that a run of a coordinator left cosigned.

    Each run has a server of its own that has seen nothing yet; a site's log outlasts them.
    """
    newest: dict[str, Note] = {}
    for site, peer in federation.parties.items():
        found = coordinator.glob(f"runs/*/server/{site}.checkpoint")
        notes = [note for path in found if (note := _head_in(path, peer)) is not None]
        if notes:
            newest[site] = max(notes, key=lambda note: note.checkpoint().size)
    return newest


def nodes_of(coordinator: Path, parties: Mapping[str, Any], rehearsal: bool) -> dict[int, str]:
    """The nodes, by id, of the sites that are admitted now with the keys that a paper names."""
    return {
        member.node_id: member.site
        for member in _still_admitted(coordinator, parties, rehearsal)
        if member.node_id is not None
    }


def _still_admitted(
    coordinator: Path, parties: Mapping[str, Any], rehearsal: bool
) -> Iterator[Member]:
    for member in admitted(coordinator):
        if parties.get(member.site) == peer_of(member, rehearsal).to_json():
            yield member


def _head_in(path: Path, peer: Peer) -> Note | None:
    """The checkpoint of this party's log that a file holds; None where it holds none."""
    try:
        note = Note.parse(path.read_bytes())
        note.verify([peer.log])
        return note if note.checkpoint().origin == peer.log.name else None
    except (OSError, Refuted):
        return None


class _Telling(Outsider):
    """Tells which round it is."""

    def __init__(self, run: DeployedRun) -> None:
        self._run = run

    def round_begins(self, round: int, rounds: int, asked: Sequence[str]) -> None:
        """A round's questions are about to leave."""
        software = dict(self._run.heard)
        self._run.tell("running", round=round, rounds=rounds, asked=list(asked), software=software)


def admitted(coordinator: Path) -> list[Member]:
    """The members of a federation that may take part now, by name."""
    members = read_roster(coordinator / "roster.json").members
    return sorted((it for it in members if it.state == ADMITTED), key=lambda it: it.site)


def peer_of(member: Member, rehearsal: bool) -> Peer:
    """The public keys of a member, in a rehearsal those of its rehearsal."""
    peer = member.rehearsal_peer if rehearsal else member.peer
    if peer is None:
        raise BadInput(f"no keys of {member.site} in the roster", "those of its enrolment")
    return peer
