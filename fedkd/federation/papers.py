"""Keeps an officer's signed budgets in a site's folder, and lets nothing be paid without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedkd.audit import Log
from fedkd.audit.officer import BUDGET, expect_signed, fingerprint, person_of, verifier_of
from fedkd.federation.budgets import UNPROTECTED, Budget
from fedkd.federation.durable import write_bytes
from fedkd.federation.paying import FIXED, ledger_of, opening
from fedkd.federation.site import SiteFolder, SiteSettings, facts_of
from fedkd.knowledge import BadInput, Digest, digest_of_bytes
from fedkd.privacy import Ledger, Mechanism

PIN: Final = "officer.vkey"
PAPERS: Final = "papers"
SAID: Final = ("population", "unit", "relation", "epsilon", "delta")
"""What paper and opening record both say of a ledger."""


class NotSigned(BadInput):
    """No valid paper of the site's officer covers what is asked: nothing is paid, nothing said."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A paper that holds now: `before` is the one that it replaced, `was_there` if it held before.

    `spent` and `left` are epsilons (nats) under the new ledger.
    """

    budget: Budget
    before: Budget | None
    was_there: bool
    spent: float
    left: float


def install(
    site: SiteFolder,
    paper: bytes,
    signature: bytes,
    mechanism: Mechanism,
    officer: str | None = None,
) -> Installed:
    """Takes a signed budget into a site's folder and log, durably; the newest one holds.

    The first pins the key `officer` (a verifier key, or a file of one): later papers are that
    key's. `BadInput` for a paper that is not signed by it, was changed, is about other patients,
    does not name the paper that it replaces, changes what a raise cannot change, or lies below
    what is spent. All charges stay.
    """
    settings = site.settings()
    if settings.rehearsal:
        raise BadInput(
            f"{settings.name}, a rehearsal", "a site that is none", "a rehearsal needs no paper"
        )
    key = verifier_of(_pinned_or(site, officer))
    expect_signed(key, BUDGET, paper, signature, "this budget")
    budget = Budget.read(paper)
    _expect_fits(site, settings, mechanism, budget)
    with site.turn(), site.log(settings.name) as log:
        papers = _papers(site, log)
        before = papers[-1] if papers else None
        if before is not None and before.digest == budget.digest:
            ledger = ledger_of(log, budget.population)
            return Installed(budget, before, True, ledger.spent(), ledger.left())
        body = _opened(site, settings, log, mechanism, budget, before)
        _keep(site, paper, signature, key.text())
        named = f"budget/{budget.population}"
        log.append(
            named if before is None else f"{named}/{budget.digest}",
            "budget.opened",
            {**body, **budget.to_json(), "rehearsal": False, "officer": key.text()},
        )
        ledger = ledger_of(log, budget.population)
    return Installed(budget, before, False, ledger.spent(), ledger.left())


def expect_paper(
    site: SiteFolder,
    settings: SiteSettings,
    log: Log,
    mechanism: Mechanism,
) -> Budget | None:
    """The paper that covers a turn of this site; None in a rehearsal, which needs none.

    Everything is read again and held against each other: the pinned key, each paper's bytes, its
    signature, the log, and the site's settings. `NotSigned` where anything is missing or differs:
    a site that was founded as none does not become a rehearsal, with a seed, by its settings.
    """
    if settings.rehearsal:
        _expect_founded_as_rehearsal(site, settings, log)
        return None
    try:
        papers = _verified(site, log)
    except NotSigned:
        raise
    except BadInput as error:
        raise NotSigned(error.found, error.expected, error.remedy) from None
    budget = papers[-1]
    if budget.population != settings.population:
        raise NotSigned(
            f"the population {settings.population} at {settings.name}",
            f"{budget.population}, about which its officer signed",
            "the same patients have one budget, under one name",
        )
    if mechanism.name not in budget.mechanisms:
        raise _not_allowed(mechanism, budget)
    return budget


def _expect_founded_as_rehearsal(site: SiteFolder, settings: SiteSettings, log: Log) -> None:
    founded = log.entry("log.opened")
    said = None if founded is None else founded.said
    if said is None or said.get("rehearsal") is not True or (site.folder / PIN).exists():
        raise NotSigned(
            f"settings that call {settings.name} a rehearsal",
            "a site that was founded as one: its log does not say so",
            "restore site.json: noise from a seed protects nobody, and an officer's word is needed",
        )


def expect_cosigners(settings: SiteSettings, paper: Budget | None, cosigners: int) -> None:
    """`BadInput` where nobody would notice that a site with a bounded budget is an old copy."""
    if paper is not None and paper.epsilon is not None and not cosigners:
        raise BadInput(
            f"audit.cosigners=0 with a signed budget at {settings.name}",
            "at least one: an old copy of its folder would spend the budget once more",
            "leave audit.cosigners out",
        )


def papers_of(site: SiteFolder) -> tuple[Budget, ...]:
    """Every paper that a site's log names, oldest first, each verified; empty where none is."""
    with site.log(site.settings().name) as log:
        return _verified(site, log) if _openings(log) else ()


def remedy(site: SiteFolder, settings: SiteSettings, patients: int) -> str:
    """The commands that give a site a budget."""
    return (
        f"fedkd privacy budget new DIR --population {settings.population} --patients {patients}; "
        "the officer signs it (fedkd keys sign DIR/budget.yaml --key KEY); "
        f"fedkd privacy budget install {site.folder} DIR/budget.yaml --officer VKEY"
    )


def _opened(
    site: SiteFolder,
    settings: SiteSettings,
    log: Log,
    mechanism: Mechanism,
    budget: Budget,
    before: Budget | None,
) -> dict[str, Any]:
    """The opening record that `budget` makes, after `before`."""
    if before is None:
        if budget.replaces is not None:
            raise BadInput(
                f"replaces: {budget.replaces}", "null: no paper was installed here before"
            )
        _expect_no_other(log, budget)
        _expect_other_patients(site)
        facts = facts_of(site.everyone(), len(settings.space.classes))
        body = dict(opening(settings, mechanism, facts, (budget.epsilon, budget.delta)))
        if budget.epsilon is not None and body["unit"] != budget.unit:
            raise BadInput(
                f"unit: {budget.unit}",
                f"{body['unit']}, which is what mechanism={mechanism.name} protects here",
                "without a patient column single records are all that can be told apart",
            )
        return {**body, "unit": budget.unit}
    if budget.population != before.population:
        raise BadInput(
            f"the population {budget.population}",
            f"{before.population}: the same patients have one budget, under one name",
            "a raise keeps the name, and says in reason why",
        )
    if budget.replaces != before.digest:
        raise BadInput(
            f"replaces: {budget.replaces or 'null'}",
            f"{before.digest}, the digest of the paper that holds",
            "write it into the paper, with the reason, and have it signed",
        )
    first = _openings(log)[0]
    for name, new in (
        ("unit", budget.unit),
        ("relation", budget.relation),
        ("delta", budget.delta),
    ):
        if first[name] != new:
            raise BadInput(
                f"{name}: {new}",
                f"{first[name]}, as when the budget was opened",
                "a later paper changes epsilon and what may answer, nothing that charges were "
                "counted by",
            )
    body = {name: first[name] for name in (*SAID, "filter", "order")}
    body = {**body, "epsilon": budget.epsilon}
    spent = ledger_of(log, budget.population)
    after = Ledger.opened(body).replay(spent.charged)
    if after.epsilon is not None and after.spent() > after.epsilon:
        raise BadInput(
            f"epsilon: {budget.epsilon:g} with {spent.spent():.6g} spent",
            f"at least {spent.spent():.6g}: what was let out is not taken back",
            "a paper may lower epsilon to what is spent, and then nothing more is covered; "
            "mechanisms: [] lets nothing more leave, too",
        )
    return body


def _expect_fits(
    site: SiteFolder, settings: SiteSettings, mechanism: Mechanism, budget: Budget
) -> None:
    """What the paper says of patients and mechanisms must be what the site has."""
    if budget.population != settings.population:
        raise BadInput(
            f"a budget of the population {budget.population}",
            f"one of {settings.population}, whose records {settings.name} has",
            "the same patients have one budget, under one name",
        )
    patients = facts_of(site.everyone(), len(settings.space.classes)).patients
    if budget.patients < patients:
        raise BadInput(
            f"patients: {budget.patients}",
            f"at least {patients}, as many as the site trains on",
            "delta must lie below one over the true number",
        )
    if budget.mechanisms and mechanism.name not in budget.mechanisms:
        raise _not_allowed(mechanism, budget)


def _not_allowed(mechanism: Mechanism, budget: Budget) -> NotSigned:
    allowed = ", ".join(budget.mechanisms) or "nothing: no answer may leave"
    if mechanism.private:
        return NotSigned(f"mechanism={mechanism.name}", f"what the officer allows: {allowed}")
    return NotSigned(
        f"mechanism={mechanism.name}, which bounds nothing that an answer tells",
        f"what the officer allows: {allowed}",
        f"it needs a paper with {UNPROTECTED}: true, signed by the officer",
    )


def _pinned_or(site: SiteFolder, officer: str | None) -> str:
    """The pinned key's text; where none is pinned, `officer`."""
    path = site.folder / PIN
    if not path.exists():
        if officer is None:
            raise BadInput(
                "no officer's key at this site",
                "the verifier key of the person who sets the budget",
                "give --officer VKEY with the first paper, after comparing the fingerprint",
            )
        return officer
    pinned = path.read_text().strip()
    if officer is not None and verifier_of(officer).text() != pinned:
        other, known = verifier_of(officer), verifier_of(pinned)
        raise BadInput(
            f"the key of {person_of(other)}, fingerprint {fingerprint(other)}",
            f"that of {person_of(known)}, {fingerprint(known)}, which was pinned with the first "
            "paper",
            "leave --officer out; a paper by another key is none here",
        )
    return pinned


def _keep(site: SiteFolder, paper: bytes, signature: bytes, key: str) -> None:
    folder = site.folder / PAPERS
    folder.mkdir(mode=0o700, exist_ok=True)
    path = _path(site, digest_of_bytes(paper))
    write_bytes(path, paper)
    write_bytes(path.with_suffix(".yaml.sig"), signature)
    if not (site.folder / PIN).exists():
        write_bytes(site.folder / PIN, f"{key}\n".encode())


def _path(site: SiteFolder, digest: Digest) -> Path:
    return site.folder / PAPERS / f"{digest.removeprefix('sha256:')}.yaml"


def _openings(log: Log) -> list[Mapping[str, Any]]:
    return [entry.body for entry in log.entries("budget.opened")]


def _papers(site: SiteFolder, log: Log) -> tuple[Budget, ...]:
    return _verified(site, log) if _openings(log) else ()


def _verified(site: SiteFolder, log: Log) -> tuple[Budget, ...]:
    """The papers that the log names, oldest first, every one as it was signed."""
    openings = _openings(log)
    if not openings:
        settings = site.settings()
        raise NotSigned(
            f"no signed budget at {settings.name}",
            "a paper of its data protection officer, before anything is paid",
            remedy(site, settings, facts_of(site.everyone(), 1).patients),
        )
    pin = site.folder / PIN
    if not pin.exists():
        raise NotSigned(f"no {PIN} in {site.folder}", "the officer's key, as it was pinned")
    key = verifier_of(pin.read_text().strip())
    papers: list[Budget] = []
    for body in openings:
        if body.get("officer") != key.text() or "paper" not in body:
            raise NotSigned(
                f"a budget in the log that {person_of(key)}, whose key is pinned, did not sign",
                "the officer's papers alone",
            )
        path = _path(site, body["paper"])
        try:
            paper, signature = path.read_bytes(), path.with_suffix(".yaml.sig").read_bytes()
        except OSError:
            raise NotSigned(
                f"no paper {path.name} in {path.parent}",
                "the paper that the log names, and its .sig file",
                "install it again",
            ) from None
        expect_signed(key, BUDGET, paper, signature, str(path))
        budget = Budget.read(paper, path.name)
        _expect_logged(budget, body, openings[0], papers)
        papers.append(budget)
    return tuple(papers)


def _expect_logged(
    budget: Budget,
    body: Mapping[str, Any],
    first: Mapping[str, Any],
    papers: Sequence[Budget],
) -> None:
    said = {**{name: getattr(budget, name) for name in SAID}, **budget.to_json()}
    for name, value in said.items():
        if body.get(name) != value and name != "patients":
            raise NotSigned(
                f"{name} {body.get(name)!r} in the log", f"{value!r}, as the officer signed"
            )
    for name in FIXED:
        if body.get(name) != first.get(name):
            raise NotSigned(f"another {name} after a raise", f"{first.get(name)!r}, as opened")
    before = papers[-1].digest if papers else None
    if budget.replaces != before:
        raise NotSigned(f"a paper that replaces {budget.replaces}", f"one that replaces {before}")


def _expect_no_other(log: Log, budget: Budget) -> None:
    for body in _openings(log):
        raise BadInput(
            f"a budget of {body['population']} in this site's log",
            "none: the same patients have one budget, under one name",
            f"{budget.population} cannot be opened here",
        )


def _expect_other_patients(site: SiteFolder) -> None:
    """`BadInput` where a site beside this one has a budget for the same records already.

    The same: more than half of the rows. A folder elsewhere is not seen.
    """
    ours = _rows(site)
    for path in sorted(site.folder.parent.iterdir()):
        if path == site.folder or not (path / PAPERS).is_dir():
            continue
        other = SiteFolder(path)
        theirs = _rows(other)
        if len(ours & theirs) * 2 > min(len(ours), len(theirs)):
            raise BadInput(
                f"records that {other.settings().name} beside it has, too, under the budget of "
                f"{other.settings().population}",
                "patients who have no budget yet",
                "the same patients have one budget: ask the officer for a raise of it",
            )


def _rows(site: SiteFolder) -> set[Digest]:
    records = site.everyone()
    return {
        digest_of_bytes(row.tobytes() + label.tobytes())
        for row, label in zip(records.inputs, records.labels, strict=True)
    }
