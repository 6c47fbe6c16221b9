"""A federation in memory whose logs hold all that a report's papers show, and its papers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedkd.audit.verify import Envelope, canonical, ed25519_sign
from fedkd.audit.verify.notes import Algorithm
from fedkd.report.building import Built, build
from fedkd.report.verify.declared import STATEMENT
from tests.audit_verify.federation import RUN, SITES, Federation, digest, signing_key

FIELD = "a4.1a.purpose"
CARD = {
    "name": "hearts",
    "version": "2",
    "modality": "table of clinical findings",
    "licence": "CC BY 4.0",
    "legal_basis": "Consent of each patient",
    "origin": "Three wards",
    "citation": "Doe, 2020",
}


class Hospitals(Federation):
    """Hospitals with budgets, an examination, and a person who declares."""

    def __init__(
        self,
        sites: Any = SITES,
        *,
        card: Mapping[str, str] = CARD,
        epsilon: float | None = 1.0,
        said: str = "It sorts hearts.",
        who: str = "Jane Doe",
        role: str = "provider",
        rounds: int = 2,
        kind: str = "rehearsal",
        evaluated: bool = True,
    ) -> None:
        super().__init__(sites, rounds, kind)
        for name, party in self.sites.items():
            records = {"train": 191, "validation": 21}
            party.append(
                "dataset.registered",
                {
                    "id": f"{name}/hearts",
                    "role": "training",
                    "card": dict(card),
                    "records": records,
                },
            )
            opened = {
                "population": name,
                "epsilon": epsilon,
                "delta": 1e-5,
                "filter": "gdp",
                "unit": "patient",
                "relation": "replace_special",
                "patients": 191,
            }
            party.append("budget.opened", opened)
            noised = {"event": "Gaussian", "noise_multiplier": 6.0}
            cost = noised if epsilon is not None else {"event": "NonPrivate"}
            for number in range(1, rounds + 1):
                question = digest(f"question {number}")
                charge = {"population": name, "question": question, "cost": cost}
                party.append("budget.charged", charge)
        test = {"id": "hearts, test", "role": "test", "card": dict(card), "records": 200}
        self.server.append("dataset.registered", test)
        traffic = {side: dict.fromkeys(self.sites, 4321) for side in ("up", "down")}
        admitted = {"run": RUN, "round": 3, "question": digest("question 3"), "answers": {}}
        admitted |= {"left_out": {}, "checkpoints": {}, "traffic": traffic}
        self.server.append("answers.admitted", admitted)
        if evaluated:
            self.server.append("evaluation.done", self._figures(rounds))
        self._declared(said, who, role)
        self.cosign_all()

    def _figures(self, rounds: int) -> dict[str, Any]:
        student = {"accuracy": 0.9, "auroc": 0.95, "ece": 0.125, "macro_f1": 0.8}
        clients = [
            {"site": name, "model": "mlp", "accuracy": 0.75, "local_accuracy": 0.5}
            for name in self.sites
        ]
        figures = {"student": student, "clients": clients}
        model = digest(f"student {rounds}")
        return {"run": RUN, "data": "hearts, test", "model": model, "figures": figures}

    def _declared(self, said: str, who: str, role: str) -> None:
        key = signing_key("person", Algorithm.ED25519)
        vkey = key.verifier().text()
        enrolled = {"party": who, "vkey": vkey, "person": True, "role": role, "run": RUN}
        self.server.append("party.enrolled", enrolled)
        told = {"field": FIELD, "text": said, "name": who, "role": role, "date": "2026-11-24",
                "run": RUN}  # fmt: skip
        signed = Envelope.sign(canonical(told), STATEMENT, {vkey: ed25519_sign(key.seed)})
        body = {**told, "envelope": json.loads(signed.to_bytes())}
        self.server.append("statement.declared", body)


def built(federation: Federation, folder: Path) -> Built:
    """The report of a federation's logs."""
    return build(federation.write(folder))
