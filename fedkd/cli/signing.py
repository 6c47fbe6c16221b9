"""Makes a person's keys, shows their public half, and signs papers with them."""

import json
from pathlib import Path

from fedkd.audit.officer import (
    BUDGET,
    PRINTED,
    fingerprint,
    new_key,
    person_of,
    read_key,
    sign_paper,
    verifier_of,
)
from fedkd.audit.passphrase import read_passphrase
from fedkd.audit.verify import VerifierKey
from fedkd.federation.budgets import UNPROTECTED, Budget
from fedkd.federation.durable import write_bytes
from fedkd.knowledge import BadInput
from fedkd.privacy.risk import in_words

DONE = 0


def new(path: Path, *, name: str, as_json: bool, passphrase_file: Path | None = None) -> int:
    """Makes a key pair in `path`, for its person alone, and prints the public half."""
    passphrase = read_passphrase(passphrase_file)
    key = new_key(path, name, passphrase).verifier()
    if as_json:
        told = {"file": str(path), "has_passphrase": passphrase is not None, **_told(key)}
        print(json.dumps(told, indent=2))
        return DONE
    print(f"{path} is the private key of {person_of(key)}: keep it, and show it to nobody")
    print(
        "only its passphrase opens it: keep that elsewhere"
        if passphrase is not None
        else "whoever reads the file signs as its person: --passphrase-file FILE locks one"
    )
    _print(key)
    return DONE


def show(path: Path, *, as_json: bool, passphrase_file: Path | None = None) -> int:
    """Prints the public half of the key in `path`, which may hold either half."""
    try:
        private = path.read_bytes().startswith(b"PRIVATE")
    except OSError as error:
        raise BadInput(f"{path}, which cannot be read ({error.strerror})", "a key's file") from None
    key = read_key(path, passphrase_file).verifier() if private else verifier_of(str(path))
    if as_json:
        print(json.dumps(_told(key), indent=2))
        return DONE
    _print(key)
    return DONE


def sign(path: Path, *, key: Path, as_json: bool, passphrase_file: Path | None = None) -> int:
    """Signs the paper in `path` after reading it, and says in words what was signed."""
    signer = read_key(key, passphrase_file)
    paper = paper_in(path)
    budget = Budget.read(paper, path.name)
    beside = path.with_name(path.name + ".sig")
    try:
        write_bytes(beside, sign_paper(signer, BUDGET, paper))
    except OSError as error:
        raise BadInput(f"{beside}, which cannot be written ({error.strerror})", "a file") from None
    told = {
        "paper": str(path),
        "signature": str(beside),
        "kind": BUDGET,
        "digest": budget.digest,
        **_told(signer.verifier()),
    }
    if as_json:
        print(json.dumps(told, indent=2))
        return DONE
    print(f"signed by {told['person']}, as a {BUDGET}: {path} ({budget.digest})")
    for line in words_of(budget):
        print(line)
    print(f"the signature is in {beside}; it holds for these bytes alone")
    return DONE


def paper_in(path: Path) -> bytes:
    """The bytes of a paper; `BadInput` where there is none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}, which cannot be read ({error.strerror})", "a paper") from None


def words_of(budget: Budget, filter: str = "rdp") -> list[str]:
    """A budget in lines that its officer can hold against what was meant.

    `filter` is that of the site's ledger. A paper does not know it, and so its risk is the larger
    one, that of any (epsilon, delta): under `gdp`, for full batches, it is less.
    """
    lines = [f"population: {budget.population}, {budget.patients} patients at most"]
    if budget.epsilon is None or budget.delta is None:
        lines.append(
            f"NOT PRIVATE ({UNPROTECTED}): answers may leave that nothing bounds"
            if budget.unprotected
            else "nothing may leave"
        )
    else:
        lines += [
            f"epsilon {budget.epsilon:g} at delta {budget.delta:.3g}, by "
            f"{', '.join(budget.mechanisms) or 'nothing: no answer may leave'}",
            in_words(budget.epsilon, budget.delta, filter, budget.unit),
        ]
    lines.append(f"reason: {budget.reason}")
    if budget.replaces is not None:
        lines.append(f"in place of {budget.replaces}")
    return lines


def _told(key: VerifierKey) -> dict[str, str]:
    return {"person": person_of(key), "vkey": key.text(), "fingerprint": fingerprint(key)}


def _print(key: VerifierKey) -> None:
    print(f"{PRINTED} {key.text()}")
    print(f"fingerprint:  {fingerprint(key)}")
    print("read the fingerprint to each other by telephone before the key is pinned at a site")
