"""Makes, installs and shows the officer's budget of a site."""

import json
from pathlib import Path
from typing import Any

from fedkd.audit.officer import fingerprint, person_of, verifier_of
from fedkd.cli.signing import paper_in, words_of
from fedkd.federation.budgets import Budget, template
from fedkd.federation.building import Workshop
from fedkd.federation.durable import write_bytes
from fedkd.federation.papers import PIN, Installed, install, papers_of, remedy
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput

DONE, REFUSED = 0, 1


def new(folder: Path, *, population: str, patients: int) -> int:
    """Writes `budget.yaml` into `folder`, with comments, ready to be read, changed and signed."""
    path = folder / "budget.yaml"
    text = template(population, patients)
    if path.exists():
        raise BadInput(f"{path}, which is there already", "a folder without budget.yaml")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.encode())
    except OSError as error:
        raise BadInput(f"{path}, which cannot be made ({error.strerror})", "a folder") from None
    print(f"{path}: epsilon 1 for the whole life of {patients} patients; read it, then")
    print(f"  fedkd keys sign {path} --key KEY       (the data protection officer)")
    print(f"  fedkd privacy budget install SITE {path} --officer VKEY")
    return DONE


def install_paper(folder: Path, path: Path, *, officer: str | None, as_json: bool) -> int:
    """Installs a signed paper at the site in `folder`; the signature lies beside the paper."""
    beside = path.with_name(path.name + ".sig")
    paper = paper_in(path)
    if not beside.exists():
        raise BadInput(
            f"{path} without a signature",
            f"{beside.name} beside it",
            f"its officer signs it: fedkd keys sign {path} --key KEY",
        )
    site = SiteFolder(folder)
    mechanism = Workshop()(site.settings().mechanism)
    done = install(site, paper, paper_in(beside), mechanism, officer)
    with site.log(site.settings().name) as log:
        filter = ledger_of(log, done.budget.population).filter
    if as_json:
        print(json.dumps(_installed(done), indent=2))
        return DONE
    how = "held already" if done.was_there else _how(done)
    print(f"{folder.name}: the budget {done.budget.digest} {how}")
    for line in words_of(done.budget, filter):
        print(line)
    if done.budget.epsilon is not None:
        print(f"spent {done.spent:.4g}, left {done.left:.4g}")
    return DONE


def show(folder: Path, *, as_json: bool) -> int:
    """Prints every paper of a site, oldest first, each checked again, and whose key is pinned."""
    site = SiteFolder(folder)
    settings = site.settings()
    papers = papers_of(site) if not settings.rehearsal else ()
    if not papers:
        why = "a rehearsal, which needs no paper" if settings.rehearsal else "no signed budget"
        if as_json:
            print(json.dumps({"site": settings.name, "officer": None, "papers": []}))
            return DONE
        print(f"{settings.name}: {why}")
        if not settings.rehearsal:
            patients = site.facts(len(settings.space.classes)).patients
            print(f"to get one: {remedy(site, settings, patients)}")
        return DONE
    key = verifier_of((folder / PIN).read_text())
    with site.log(settings.name) as log:
        ledger = ledger_of(log, settings.population)
    if as_json:
        told = {
            "site": settings.name,
            "officer": {
                "person": person_of(key),
                "vkey": key.text(),
                "fingerprint": fingerprint(key),
            },
            "papers": [_paper(budget) for budget in papers],
            "spent": None if ledger.epsilon is None else ledger.spent(),
            "left": None if ledger.epsilon is None else ledger.left(),
        }
        print(json.dumps(told, indent=2))
        return DONE
    print(f"{settings.name}: papers of {person_of(key)}, fingerprint {fingerprint(key)}")
    for number, budget in enumerate(papers, start=1):
        print(f"{number}. {budget.digest}{' (holds now)' if budget is papers[-1] else ''}")
        for line in words_of(budget, ledger.filter):
            print(f"   {line}")
    if ledger.epsilon is not None:
        print(f"spent {ledger.spent():.4g}, left {ledger.left():.4g}")
    return DONE


def _how(done: Installed) -> str:
    old, new = done.before, done.budget
    if old is None:
        return "is installed, and its officer's key is pinned"
    if old.epsilon is None or new.epsilon is None or old.epsilon == new.epsilon:
        return f"takes the place of {old.digest}"
    if new.epsilon > old.epsilon:
        return f"raises epsilon from {old.epsilon:g} to {new.epsilon:g}; the log says why"
    rest = "and nothing more is covered" if done.left <= 0 else f"and {done.left:.4g} is left"
    return f"lowers epsilon from {old.epsilon:g} to {new.epsilon:g}, {rest}"


def _installed(done: Installed) -> dict[str, Any]:
    bounded = done.budget.epsilon is not None
    return {
        **_paper(done.budget),
        "was_there": done.was_there,
        "spent": done.spent if bounded else None,
        "left": done.left if bounded else None,
    }


def _paper(budget: Budget) -> dict[str, Any]:
    return {
        "population": budget.population,
        "unit": budget.unit,
        "relation": budget.relation,
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        **budget.to_json(),
    }
