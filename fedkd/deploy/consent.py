"""Stands between what comes in and a hospital's records: nothing is answered that is not agreed.

What is agreed stands in the site's own log, as an entry for each decision about a run; the paper
that it is about lies in the hospital's `proposals/`. Everything else is refused, with a reason from
the closed list, and the refusal is logged.
"""

import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Final

from fedkd.audit import Log, Roster
from fedkd.audit.officer import verifier_of
from fedkd.deploy.bundles import pinned
from fedkd.deploy.decisions import Decision, decide, decided
from fedkd.deploy.drawn_here import OtherCode, expect_same_code
from fedkd.deploy.evaluation_proposals import AnyProposal, EvaluationProposal, read_any
from fedkd.deploy.flooding import Daily
from fedkd.deploy.hospital import Hospital, append_private, private_folder, write_private
from fedkd.deploy.policy import Guard, NoPolicy, Policy, counts_are_exact
from fedkd.deploy.proposals import RunProposal
from fedkd.federation.evaluating import has_model
from fedkd.federation.participant import MOST_QUESTION_BYTES, Participant, Refused
from fedkd.federation.site import Build, SiteFolder, SiteSettings
from fedkd.federation.witnessing import roster_in, roster_of_run
from fedkd.knowledge import BadInput, Digest, OtherFormat
from fedkd.privacy import Mechanism
from fedkd.wire import (
    UNKNOWN,
    Considered,
    Evaluation,
    Malformed,
    Message,
    Proposal,
    Question,
    Reason,
    Refusal,
    RollCall,
    Ruling,
    decode,
    encode,
    opened,
)

MOST_PROPOSALS: Final = 100
MOST_UNASKED: Final = 300
"""Letters within a day, about runs that nobody here agreed to, of which something is kept."""
_LOG = logging.getLogger("fedkd.service")
BY_POLICY: Final = "policy in site.yaml"
"""Who decides where a person's word is not asked for."""


class Shelf:
    """The proposals that came in at a hospital, each with its signature, named by its digest."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital

    def path(self, digest: Digest) -> Path:
        """Where the paper of this digest lies; its signature lies beside it."""
        return self._hospital.proposals / f"{digest.removeprefix('sha256:')}.json"

    def read(self, digest: Digest) -> AnyProposal:
        """The proposal of this digest, its signature checked again; `BadInput` where it is none."""
        path = self.path(digest)
        try:
            body = path.read_bytes()
            signature = path.with_suffix(".sig").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise BadInput(
                f"no proposal {digest} in {path.parent}", "one that came in here"
            ) from None
        proposal = self.checked(body, signature)
        if proposal.digest != digest:
            raise BadInput(f"another proposal in {path}", f"{digest}, as it came in")
        return proposal

    def checked(self, body: bytes, signature: str) -> AnyProposal:
        """The proposal in `body`: by this federation, for this hospital, with its own keys."""
        told = self._hospital.invited()
        key = verifier_of(str(told["federation_vkey"]))
        proposal = read_any(body, signature, key)
        if proposal.federation != told["federation"]:
            raise BadInput(f"a proposal of {proposal.federation}", f"one of {told['federation']}")
        return proposal

    def keep(self, proposal: AnyProposal, signature: str) -> None:
        """Keeps a paper that was checked; the oldest one goes where there are too many.

        One that is here and came signed anew, by the federation's next key, is known by that.
        """
        path = self.path(proposal.digest)
        beside = path.with_suffix(".sig")
        if path.exists():
            if not beside.exists() or beside.read_bytes() != signature.encode():
                write_private(beside, signature.encode())
            return
        private_folder(path.parent)
        here = self._oldest_first()
        if len(here) >= MOST_PROPOSALS:
            old = next((each for each in here if not self._is_agreed(each)), None)
            if old is None:
                raise BadInput(
                    f"{len(here)} proposals that were agreed on",
                    f"at most {MOST_PROPOSALS}",
                    f"take those of finished runs out of {path.parent}",
                )
            old.unlink(missing_ok=True)
            old.with_suffix(".sig").unlink(missing_ok=True)
        write_private(beside, signature.encode())
        write_private(path, proposal.to_bytes())

    def all(self) -> list[AnyProposal]:
        """Every proposal here, oldest first; a file that is none is passed over."""
        found = []
        for path in self._oldest_first():
            try:
                found.append(self.read(Digest(f"sha256:{path.stem}")))
            except BadInput:
                continue
        return found

    def _oldest_first(self) -> list[Path]:
        return sorted(self._hospital.proposals.glob("*.json"), key=lambda it: it.stat().st_mtime)

    def _is_agreed(self, path: Path) -> bool:
        try:
            proposal = self.read(Digest(f"sha256:{path.stem}"))
        except BadInput:
            return False
        site = folder_of(self._hospital, proposal)
        if not _is_founded(site):
            return False
        with site.log(site.settings().name) as log:
            decision = decided(log, proposal.about)
        if decision is None or decision.by == BY_POLICY:  # nobody was asked
            return False
        return decision.ruling is not Ruling.DECLINED


def folder_of(hospital: Hospital, proposal: AnyProposal) -> SiteFolder:
    """The site that a proposal is about: the rehearsal's rows, or the records."""
    return SiteFolder(hospital.rehearsal if proposal.rehearsal else hospital.site)


def objection_to(
    hospital: Hospital, proposal: AnyProposal, build: Build, now: datetime
) -> str | None:
    """Why this hospital cannot take part in what is proposed, whoever says yes; None if it can."""
    site = folder_of(hospital, proposal)
    if not _is_founded(site):
        return "not founded: fedkd site init"
    settings = site.settings()
    with site.log(settings.name) as log:
        own = {"vkey": log.verifier().text()}
        own_keys = [key.verifier().text() for key in log.witness_keys]
        known, of_run = roster_in(log, proposal.run), roster_of_run(log, proposal.run)
        exact = counts_are_exact(log, settings)
    named = proposal.parties.get(settings.name)
    if named is None or named["vkey"] != own["vkey"] or named["witnesses"] != own_keys:
        return "parties: the proposal does not name this site's keys"
    if isinstance(proposal, EvaluationProposal):
        changed = _other_than_the_run(proposal, settings.name, known, of_run)
        if changed is not None:
            return changed
    if now >= proposal.expiry():
        return f"expired at {proposal.expires}"
    policy = Policy.read(hospital.site_yaml)
    if isinstance(proposal, EvaluationProposal):
        return policy.objection_to_figures(proposal, settings, exact=exact)
    return policy.objection(proposal, settings, build, site.patients_to_learn_from())


def _other_than_the_run(
    proposal: EvaluationProposal, site: str, known: Roster | None, of_run: Roster | None
) -> str | None:
    """What an evaluation would change of whom a site knows in the run; None if it only adds."""
    peers = {} if known is None else {name: peer.to_json() for name, peer in known.peers.items()}
    if any(proposal.parties.get(name, peer) != peer for name, peer in peers.items()):
        return "parties: other keys than those of the run"
    return None if of_run is None else proposal.watches_less(site, of_run)


def lacks_model(hospital: Hospital, proposal: AnyProposal) -> bool:
    """Whether a proposal is about a model that nobody placed here yet."""
    if not isinstance(proposal, EvaluationProposal):
        return False
    return not has_model(folder_of(hospital, proposal).folder, proposal.question().model)


def agreed_settings(
    settings: SiteSettings, proposal: RunProposal, mechanism: Mechanism
) -> tuple[SiteSettings, int | None]:
    """A site's settings for an approved run, and the seed of its streams where that is agreed.

    A plan may spend the less of what site and proposal say. Without a mechanism nothing is hidden
    by chance: then training follows the proposal's seed, so that it can be done again.
    """
    plans = [it for it in (settings.plan_epsilon, proposal.asked["epsilon"]) if it is not None]
    agreed = replace(settings, plan_epsilon=min(plans, default=None))
    if settings.rehearsal or mechanism.private:
        return agreed, None
    return agreed, proposal.asked["seed"]


class Desk:
    """Where every letter to a hospital ends up: an answer, a ruling, or a refusal goes back."""

    def __init__(
        self,
        hospital: Path,
        build: Build,
        clock: Callable[[], float] = time,
        most: int = MOST_UNASKED,
    ) -> None:
        self.hospital = Hospital(hospital)
        self._shelf = Shelf(self.hospital)
        self._build, self._clock = build, clock
        self._unasked = Daily(most, clock)

    def handle(self, letter: bytes) -> bytes:
        """What leaves in reply to `letter`; never raises, never an exception's text."""
        try:
            return self._handled(letter)
        except (Exception, SystemExit):
            self._note(traceback.format_exc())
            return encode(Refusal(UNKNOWN, UNKNOWN, 0, Reason.FAILED))

    def _handled(self, letter: bytes) -> bytes:
        message, silence = _message(letter), self.hospital.silence
        if message is None:  # what cannot be read: the participant says so, in its own words
            return self._by_nobody(letter, Reason.MALFORMED, "a letter that cannot be read")
        if silence is not None:
            return self._by_nobody(letter, Reason.PAUSED, silence)
        if isinstance(message, Proposal):
            return self._proposed(letter, message)
        agreed = self._agreed(message)
        if agreed is None:
            return self._by_nobody(letter, Reason.NOT_APPROVED, f"run {message.run}")
        return self._answer(letter, *agreed)

    def _proposed(self, letter: bytes, message: Proposal) -> bytes:
        try:
            return self._considered(message)
        except (OtherFormat, OtherCode) as error:
            return self._by_nobody(letter, Reason.VERSION, str(error))
        except NoPolicy as error:
            return self._by_nobody(letter, Reason.NOT_CONFIGURED, str(error))
        except BadInput as error:
            return self._by_nobody(letter, Reason.NOT_ACCEPTED, str(error))

    def _answer(self, letter: bytes, site: SiteFolder, proposal: AnyProposal) -> bytes:
        settings, seed = site.settings(), None
        if isinstance(proposal, RunProposal):
            settings, seed = agreed_settings(settings, proposal, self._build(settings.mechanism))

        def expect(message: Message, log: Log) -> None:
            self._expect_not_paused()
            policy = self._policy()
            guard = Guard(policy, proposal, site, settings, self._build)
            if isinstance(message, Question):
                policy.expect_open(self._now())
                guard.expect(message, log, self._now())
            elif isinstance(message, Evaluation):
                policy.expect_open(self._now())
                guard.expect_evaluation(message, log)

        participant = Participant(
            site,
            self._build,
            self._clock,
            settings=settings,
            seed=seed,
            expect=expect,
            expect_still=self._expect_still,
        )
        return participant.answer(letter)

    def _expect_still(self) -> None:
        """At the end of a turn: a training may have gone on beyond the hours, or into a pause."""
        self._expect_not_paused()
        self._policy().expect_open(self._now())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _expect_not_paused(self) -> None:
        """Looked at in the turn, too: whoever paused meanwhile is told that nothing is let out."""
        silence = self.hospital.silence
        if silence is not None:
            raise Refused(Reason.PAUSED, silence)

    def _policy(self) -> Policy:
        """What site.yaml allows now: read in the turn, so that what is wrong with it is logged."""
        try:
            return Policy.read(self.hospital.site_yaml)
        except NoPolicy as error:
            raise Refused(Reason.NOT_CONFIGURED, str(error)) from None

    def _agreed(self, message: Message) -> tuple[SiteFolder, AnyProposal] | None:
        """The site that what a message belongs to was agreed on for, and the paper; None if none.

        An evaluation is agreed on by itself; whoever agreed on one may be called for its run.
        """
        if isinstance(message, Evaluation):
            return self._evaluated(message.run, message) or self._run_agreed(message.run)
        found = self._run_agreed(message.run)
        if found is None and isinstance(message, RollCall):
            return self._evaluated(message.run)
        return found

    def _evaluated(
        self, run: str, asked: Evaluation | None = None
    ) -> tuple[SiteFolder, AnyProposal] | None:
        """The same of an evaluation in a run: of the one that is asked for, or of any."""
        for paper in self._shelf.all():
            if not isinstance(paper, EvaluationProposal) or paper.run != run:
                continue
            site = folder_of(self.hospital, paper)
            yes = Ruling.REHEARSING if paper.rehearsal else Ruling.APPROVED
            if (asked is None or paper.asks(asked)) and _is_founded(site):
                with site.log(site.settings().name) as log:
                    decision = decided(log, paper.about)
                if decision is not None and decision.ruling is yes:
                    return site, paper
        return None

    def _run_agreed(self, run: str) -> tuple[SiteFolder, AnyProposal] | None:
        """The same of a run."""
        for folder, ruling in (
            (self.hospital.site, Ruling.APPROVED),
            (self.hospital.rehearsal, Ruling.REHEARSING),
        ):
            site = SiteFolder(folder)
            if not _is_founded(site):
                continue
            with site.log(site.settings().name) as log:
                decision = decided(log, run)
            if decision is None or decision.ruling is not ruling:
                continue
            try:
                proposal = self._shelf.read(decision.proposal)
            except BadInput:  # a key signed it that the federation has no longer
                continue
            if proposal.run == run and proposal.rehearsal is (ruling is Ruling.REHEARSING):
                return site, proposal
        return None

    def _considered(self, message: Proposal) -> bytes:
        """Takes a proposal in and says how far it is with a person, or with the policy."""
        proposal = self._shelf.checked(message.body.tobytes(), message.signature)
        if proposal.run != message.run:
            raise BadInput(f"a proposal of {proposal.run}", f"one of {message.run}, as announced")
        site = folder_of(self.hospital, proposal)
        if not _is_founded(site):
            return encode(Refusal(self.hospital.name, message.run, 0, Reason.NOT_CONFIGURED))
        if not self._shelf.path(proposal.digest).exists():
            if self._is_flooded():
                return self._untold(Reason.NOT_ACCEPTED)
            if (
                isinstance(proposal, RunProposal)
                and not Policy.read(self.hospital.site_yaml).digests
            ):
                expect_same_code(proposal.query, site.settings(), self._build)
        self._shelf.keep(proposal, message.signature)
        name = site.settings().name
        with site.turn(), site.log(name) as log:
            decision = decided(log, proposal.about) or self._decided_by_policy(log, proposal)
            ruling = Ruling.PENDING if decision is None else decision.ruling
            if decision is not None and decision.proposal != proposal.digest:
                ruling = Ruling.DECLINED  # another paper under a name that was decided about
        body = encode(Considered(name, proposal.run, proposal.digest, ruling))
        site.keep_outgoing(body)
        return body

    def _decided_by_policy(self, log: Log, proposal: AnyProposal) -> Decision | None:
        """What needs no person: that something is not allowed, and that a rehearsal is.

        A model is brought by a person, in a rehearsal, too: without it, that one waits.
        """
        objection = objection_to(self.hospital, proposal, self._build, self._now())
        if objection is not None:
            return decide(log, proposal, Ruling.DECLINED, by=BY_POLICY, reason=objection)
        # A new bundle is a person's to let in, also for a rehearsal.
        known = proposal.bundle in pinned(self.hospital.invited(), self.hospital.letterbox)
        if proposal.rehearsal and known and not lacks_model(self.hospital, proposal):
            return decide(log, proposal, Ruling.REHEARSING, by=BY_POLICY)
        return None

    def _by_nobody(self, letter: bytes, reason: Reason, why: str) -> bytes:
        """The refusal of what nobody here agreed to, logged where there is a log."""
        if self._is_flooded():
            return self._untold(reason)
        sites = [SiteFolder(self.hospital.site), SiteFolder(self.hospital.rehearsal)]
        founded = next((site for site in sites if _is_founded(site)), None)
        if founded is None:
            message = _message(letter)
            run = UNKNOWN if message is None else message.run
            return encode(Refusal(self.hospital.name, run, 0, Reason.NOT_CONFIGURED))

        def expect(message: Message, log: Log) -> None:
            raise Refused(reason, why)

        return Participant(founded, self._build, self._clock, expect=expect).answer(letter)

    def _is_flooded(self) -> bool:
        """Counts one more letter that nobody here asked for; whether there are too many."""
        count, most = self._unasked.counted(), self._unasked.most
        if count == most + 1:
            self._note(
                f"more than {most} letters within a day about runs that nobody here agreed to: "
                "of the others nothing is kept until the day is over; ask the coordinator"
            )
        return count > most

    def _untold(self, reason: Reason) -> bytes:
        """A refusal that leaves no trace: the same bytes for every run, so that nothing grows."""
        return encode(Refusal(self.hospital.name, UNKNOWN, 0, reason))

    def _note(self, text: str) -> None:
        """What went wrong, for the people at this site: it stays in this folder."""
        try:
            append_private(self.hospital.folder / "errors.txt", (text + "\n").encode())
        except OSError as error:  # a full disk, above all: what is answered does not hang on it
            _LOG.error("errors.txt cannot be written (%s)\n%s", error.strerror, text)


def _message(letter: bytes) -> Message | None:
    try:
        return decode(opened(letter)[1], MOST_QUESTION_BYTES)
    except Malformed:
        return None


def _is_founded(site: SiteFolder) -> bool:
    return (site.folder / "site.json").exists()
